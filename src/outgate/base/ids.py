"""Make the identifiers that Outgate hands out.

Standards: RFC 9562 (UUID); the vendor's user name pattern `^[a-z0-9]{18}\\d{2}$`.
Promises: a queue id begins with its shard, sorts by time within it, and is unguessable in its tail;
every id and secret comes from the operating system's randomness.
Dangers: ids are public, secrets are not: `password()` results are never logged.
Not here: hashing and sealing (`store.secrets`).
"""

from __future__ import annotations

import secrets
import string
import threading
import uuid

_BASE32 = "0123456789ABCDFGHJKLMNPQRSTVWXYZ"  # ascending in ASCII, so ids sort by time
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
_LOWER = string.ascii_lowercase + string.digits
_PASSWORD = string.ascii_letters + string.digits


def _base32(number: int, width: int) -> str:
    """Write `number` in `width` signs, the lowest ones."""
    text = ""
    for _ in range((width + 1) // 2):
        text = _PAIRS[number & 1023] + text
        number >>= 10
    return text[-width:]


def queue_id(shard: str, now: float) -> str:
    """Return a new queue id: shard sign, 10 signs of milliseconds, 7 random signs; 18 in all, `[0-9A-Z]`."""
    return shard + _base32(int(now * 1000), 10) + _base32(_POOL.number(5) >> 5, 7)


def queue_ids_from(shard: str, at: float) -> str:
    """Return what sorts after each queue id made before `at` (epoch seconds), and after none made then or later."""
    return shard + _base32(min(max(int(at * 1000), 0), (1 << 50) - 1), 10)


class _Pool:
    """Random octets taken from the operating system many at a time: a call for each id costs more than the id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._octets = b""
        self._at = 0

    def number(self, octets: int) -> int:
        """Return a random number of that many octets."""
        with self._lock:
            if self._at + octets > len(self._octets):
                self._octets = secrets.token_bytes(4096)
                self._at = 0
            self._at += octets
            return int.from_bytes(self._octets[self._at - octets : self._at], "big")


_POOL = _Pool()


def new_uuid() -> str:
    """Return a random UUID with dashes, lower case."""
    return str(uuid.uuid4())


def hex_id() -> str:
    """Return 32 lower-case hexadecimal digits."""
    return secrets.token_hex(16)


def short_id() -> str:
    """Return 16 lower-case hexadecimal digits, at a fraction of what `hex_id` costs."""
    return f"{_POOL.number(8):016x}"


def smtp_username() -> str:
    """Return a user name of the vendor's shape: 18 of `[a-z0-9]` and two digits."""
    return "".join(secrets.choice(_LOWER) for _ in range(18)) + f"{secrets.randbelow(100):02d}"


def password(length: int = 32) -> str:
    """Return a random password of letters and digits (about 5.95 bits a sign)."""
    return "".join(secrets.choice(_PASSWORD) for _ in range(length))


def number_id() -> str:
    """Return a numeric id as Cloud Manager uses them: a string of 5 to 7 digits."""
    return str(10_000 + secrets.randbelow(9_000_000))
