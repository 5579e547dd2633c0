"""Cut a stream as a network might: what a peer is fed must not depend on where.

Standards: none.
Promises: the pieces together are the stream; two octets decide every cut, so a found input says how it was cut.
Not here: properties (each harness's own).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator


def cut(stream: bytes, step: int, more: int) -> list[bytes]:
    """Cut in pieces of lengths that follow from two octets; both 0 is octet by octet."""

    def edges() -> Iterator[int]:
        at, length = 0, step % 61 + 1
        while at < len(stream):
            yield at
            at += length
            length = (length * 7 + more) % 61 + 1 if more else length

    cuts = [*edges(), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(cuts)]
