"""Argon2id: verifiers of passwords, made and compared.

Standards: RFC 9106 (argon2id), the PHC string form; passwords are compared octet for octet.
Promises: whatever is compared costs one computation at the profile's price: nobody's password, a verifier that is
none, and two verifiers that share their salt, as those before and after a rotation do.
Dangers: a computation takes 19 MiB and some 20 ms, and frees the interpreter meanwhile: few threads only. Verifiers
with different salts (rotated by an older release, or at another cost) cost one each, so a wrong password takes longer
while such a rotation overlaps. A shared salt lets a thief of both verifiers try a guess at both at once: that matters
to passwords which people chose, and these are 32 random letters and digits. For the same reason nothing is prepared
as SASLprep would: the right ones are ASCII and stay as they are, and others must not become right ones.
Not here: threads, the cache, who has which verifier (`relay.credentials`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from argon2 import Parameters, PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.low_level import hash_secret_raw


@dataclass(frozen=True, slots=True)
class _Verifier:
    """A verifier's parts; `recipe` is all but the digest, as it was written."""

    recipe: str
    cost: Parameters
    salt: bytes
    digest: bytes


def password_hasher() -> PasswordHasher:
    """Return the argon2id profile for passwords: 19 MiB, two passes, one lane."""
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def new_verifier(password: str, like: str | None = None) -> str:
    """Return a password's verifier (PHC); with the salt of `like`, a verifier that it will be compared beside.

    A `like` of another cost lends no salt."""
    profile = password_hasher()
    found = None if like is None else _read(like)
    if like is None or found is None or profile.check_needs_rehash(like):
        return profile.hash(password)
    return profile.hash(password, salt=found.salt)


def which(password: str, verifiers: Sequence[str]) -> str | None:
    """Return the first of `verifiers` that is the password's, or None; none at all costs as much as one."""
    secret = password.encode("utf-8", "surrogatepass")
    computed: dict[str, bytes] = {}
    for verifier in verifiers or (_NOBODY,):
        found = _read(verifier) or _NONE
        if found.recipe not in computed:
            computed[found.recipe] = _compute(secret, found)
        if hmac.compare_digest(computed[found.recipe], found.digest):
            return verifier
    return None


def _compute(secret: bytes, like: _Verifier) -> bytes:
    cost = like.cost
    return hash_secret_raw(
        secret, like.salt, cost.time_cost, cost.memory_cost, cost.parallelism, cost.hash_len, cost.type, cost.version
    )


def _read(verifier: str) -> _Verifier | None:
    try:
        cost = extract_parameters(verifier)
        salt, digest = (base64.b64decode(part + "=" * (-len(part) % 4)) for part in verifier.split("$")[-2:])
    except (InvalidHashError, binascii.Error, ValueError):
        return None
    if len(salt) < 8 or len(digest) < 4:  # less is not argon2's
        return None
    return _Verifier(verifier.rpartition("$")[0], cost, salt, digest)


def _nobody() -> str:
    """Return a verifier at the profile's cost that no password has."""
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest}"


_NOBODY = _nobody()
_found = _read(_NOBODY)
assert _found is not None
_NONE = _found
