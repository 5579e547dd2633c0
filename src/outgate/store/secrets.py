"""Seal secrets for the database: AES-256-GCM under a data key that a master key file wraps.

Standards: NIST SP 800-38D (AES-GCM, 96-bit random nonces); RFC 8259 for the file of wrapped data keys.
Promises: a box opens only at the table, column and row it was sealed for; each box names its data key, so
    older boxes open after a rotation; both files are 0600 and a file that others may read is refused.
Dangers: whoever has both files has every secret; whoever loses them has none: back up both, apart from the
    database. A data key seals at most 2**32 boxes.
Not here: passwords and API keys, which are hashed, never sealed (`passwords`, `identity`).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE = 12
_KEY_ID = 4


class SealError(Exception):
    """A box or a key file cannot be opened: wrong place, wrong key, damaged, or readable by others."""


class SecretBox:
    """Seal and open secrets. Made by `open_box`; thread-safe."""

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: dict[bytes, bytes], current: bytes) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = current

    def seal(self, clear: bytes, *, table: str, column: str, row: str) -> bytes:
        """Return `clear` sealed for that place: version, key id (4), nonce (12), ciphertext and tag."""
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._keys[self._current].encrypt(nonce, clear, _place(table, column, row))
        return _VERSION + self._current + nonce + sealed

    def open(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """Return the clear bytes of a box sealed for that place, else raise `SealError`."""
        key_id, nonce = sealed[1 : 1 + _KEY_ID], sealed[1 + _KEY_ID : 1 + _KEY_ID + _NONCE]
        key = self._keys.get(key_id)
        if sealed[:1] != _VERSION or key is None or len(nonce) != _NONCE:
            raise SealError(f"{table}.{column} is sealed with a key that this installation does not have")
        try:
            return key.decrypt(nonce, sealed[1 + _KEY_ID + _NONCE :], _place(table, column, row))
        except InvalidTag:
            raise SealError(f"{table}.{column} was sealed for another row, or is damaged") from None


def open_box(master_key_file: Path) -> SecretBox:
    """Return the box of an installation; make its master key and first data key if there are none.

    The wrapped data keys are in `<master_key_file>.data`. Raises `SealError`, `OSError`.
    """
    master = _master(master_key_file)
    wrapped_file = _data_file(master_key_file)
    if not wrapped_file.exists():
        _write_once(wrapped_file, _with_new_key(master, {}))
    keys, current = _unwrap(master, wrapped_file)
    return SecretBox(keys, current)


def rotate(master_key_file: Path) -> SecretBox:
    """Add a data key that seals from now on, and return the new box; what is sealed already still opens."""
    open_box(master_key_file)
    master, wrapped_file = _master(master_key_file), _data_file(master_key_file)
    document: dict[str, str] = json.loads(_read_private(wrapped_file))["keys"]
    temporary = _write_temporary(wrapped_file, _with_new_key(master, document))
    os.replace(temporary, wrapped_file)
    return open_box(master_key_file)


def _data_file(master_key_file: Path) -> Path:
    return master_key_file.with_name(master_key_file.name + ".data")


def _master(file: Path) -> AESGCM:
    if not file.exists():
        _write_once(file, base64.b64encode(secrets.token_bytes(32)) + b"\n")
    try:
        key = base64.b64decode(_read_private(file).strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SealError(f"{file} does not hold a master key (32 bytes in base64)")
    return AESGCM(key)


def _with_new_key(master: AESGCM, keys: dict[str, str]) -> bytes:
    key_id, nonce = secrets.token_hex(_KEY_ID), secrets.token_bytes(_NONCE)
    wrapped = nonce + master.encrypt(nonce, secrets.token_bytes(32), _wrapping(key_id))
    return json.dumps({"current": key_id, "keys": {**keys, key_id: base64.b64encode(wrapped).decode()}}).encode()


def _unwrap(master: AESGCM, file: Path) -> tuple[dict[bytes, bytes], bytes]:
    try:
        document = json.loads(_read_private(file))
        keys: dict[bytes, bytes] = {}
        for key_id, text in document["keys"].items():
            wrapped = base64.b64decode(text, validate=True)
            keys[bytes.fromhex(key_id)] = master.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _wrapping(key_id))
        current = bytes.fromhex(document["current"])
    except InvalidTag:
        raise SealError(f"{file} was wrapped with another master key") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SealError(f"{file} is damaged") from None
    if current not in keys:
        raise SealError(f"{file} is damaged")
    return keys, current


def _wrapping(key_id: str) -> bytes:
    return b"outgate data key " + key_id.encode("ascii")


def _place(table: str, column: str, row: str) -> bytes:
    # JSON quotes each part, so no two places read the same.
    return json.dumps([table, column, row]).encode()


def _read_private(file: Path) -> bytes:
    if file.stat().st_mode & 0o077:
        raise SealError(f"{file} may be read by others: chmod 600 it")
    return file.read_bytes()


def _write_once(file: Path, content: bytes) -> None:
    """Write a new file that is whole or absent after a crash; of two processes the first one wins."""
    temporary = _write_temporary(file, content)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_temporary(file: Path, content: bytes) -> Path:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    return temporary
