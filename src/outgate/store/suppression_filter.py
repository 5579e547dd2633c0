"""Which addresses may be suppressed: eight octets each in memory, so that mail to all others asks no database.

Standards: RFC 7693 (BLAKE2b).
Promises: who was added is always found; who was not is found about once in 10^13 questions; a question costs about two
    microseconds, whatever the number of entries; about eight octets an entry.
Dangers: nothing is taken out before the next start: a hit must be confirmed by the row. Anybody may ask at any time;
    those that add must take turns.
Not here: rows (`suppressions`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

_BUCKETS = 4096
_SIGN = 1 << 63


def digest(instance_id: str, key: str) -> int:
    """Return the eight octets of an instance's address, as a signed number: what a column of SQLite holds."""
    octets = f"{instance_id}\0{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big") - _SIGN


class SuppressionFilter:
    """A set of digests in sorted buckets: adding one moves a bucket, not the whole."""

    __slots__ = ("_buckets", "entries")

    def __init__(self) -> None:
        self._buckets: list[array[int] | None] = [None] * _BUCKETS
        self.entries = 0
        """Digests that are held."""

    def __contains__(self, number: int) -> bool:
        bucket = self._buckets[(number + _SIGN) >> 52]
        if bucket is None:
            return False
        at = bisect_left(bucket, number)
        return at < len(bucket) and bucket[at] == number

    def fill(self, digests: Iterable[int]) -> int:
        """Put digests into what is empty and return how many came: quicker than `add` for very many."""
        buckets = [array("q") for _ in range(_BUCKETS)]
        came = 0
        for number in digests:
            buckets[(number + _SIGN) >> 52].append(number)
            came += 1
        self._buckets = [array("q", sorted(set(bucket))) if bucket else None for bucket in buckets]
        self.entries = sum(len(bucket) for bucket in self._buckets if bucket is not None)
        return came

    def add(self, digests: Iterable[int]) -> None:
        """Add digests; those that are there already stay once."""
        fresh: dict[int, set[int]] = {}
        for number in digests:
            fresh.setdefault((number + _SIGN) >> 52, set()).add(number)
        for at, numbers in fresh.items():
            before = self._buckets[at]
            together = array("q", sorted(numbers if before is None else numbers.union(before)))
            self.entries += len(together) - (0 if before is None else len(before))
            # Replaced whole: who asks meanwhile sees the one or the other.
            self._buckets[at] = together
