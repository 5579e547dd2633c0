"""Make and read the keys that sign mail: RSA, and Ed25519 beside it.

Standards: RFC 6376 and RFC 8301 (RSA, at least 1024 bits, 2048 wanted), RFC 8463 (Ed25519), RFC 5958 (PKCS#8).
Promises: a new RSA key has 2048 bits, so that its record fits the vendor's 500 characters.
Dangers: `NewKey.pem` is the private key in clear: seal it, never log it. Making an RSA key takes some
    100 ms and frees the interpreter meanwhile: call it in a thread.
Not here: sealing (`secrets`), rows (`tenancy`), signing (`relay.signer`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

BITS = 2048
_MOST_BITS = 2048  # a longer public key does not fit the record's 500 characters
_LEAST_BITS = 1024


class BadKey(ValueError):
    """The text is not a key that may sign mail; the message says why."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key before it is stored: `algorithm` "rsa", with `public` as base64 of DER SPKI, or "ed25519", with `public` as
    base64 of its 32 octets; `pem` in clear (PKCS#8)."""

    algorithm: str
    public: str
    pem: bytes = field(repr=False)


def new_dkim_key() -> NewKey:
    """Make an RSA key of 2048 bits."""
    return _described(rsa.generate_private_key(public_exponent=65537, key_size=BITS))


def new_ed25519_key() -> NewKey:
    """Make an Ed25519 key."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return NewKey("ed25519", base64.b64encode(public).decode("ascii"), pem)


def new_key_like(algorithm: str) -> NewKey:
    """Make a key of `algorithm`: "rsa" or "ed25519"."""
    return new_ed25519_key() if algorithm == "ed25519" else new_dkim_key()


def read_dkim_key(pem: bytes) -> NewKey:
    """Read an unencrypted RSA key of 1024 to 2048 bits in PEM. Raises `BadKey`."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise BadKey("the file does not hold an unencrypted private key in PEM") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadKey("the key is not an RSA key")
    if not _LEAST_BITS <= key.key_size <= _MOST_BITS:
        raise BadKey(f"the key has {key.key_size} bits: {_LEAST_BITS} to {_MOST_BITS} are accepted")
    return _described(key)


def _described(key: rsa.RSAPrivateKey) -> NewKey:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return NewKey("rsa", base64.b64encode(public).decode("ascii"), pem)
