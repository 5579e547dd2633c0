"""Responses of DNS servers, read in the plain way and in the full one.

Property: what is answered of the plain reader is what the full one answers to the same octets; no octets raise.
"""

from __future__ import annotations

import dns.flags

from outgate.net.dns import Query, read_message

_SITE = b"\4site\7example\0"
_ENDS = 12 + len(_SITE) + 4
_TYPES = (1, 15, 16, 28)
_ONE = b"\0\1\0\1\0\0\0\0"
_SOA = b"\xc0\x11\0\6\0\1\0\0\1\x2c\0\x1b\2ns\xc0\x11\xc0\x0c" + b"\0\0\0\1" * 5
SEEDS = (
    b"\0\x81\x80" + _ONE + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1",
    b"\1\x81\xa0" + _ONE + b"\xc0\x0c\0\x0f\0\1\0\0\1\x2c\0\7\0\x0a\2mx\xc0\x0c",
    b"\2\x81\x80" + _ONE + b"\xc0\x0c\0\x10\0\1\0\0\1\x2c\0\5\1a\2bc",
    b"\3\x81\x80" + _ONE + b"\xc0\x0c\0\x1c\0\1\0\0\1\x2c\0\x10" + b"\x20\1" + bytes(13) + b"\1",
    b"\2\x81\x83\0\1\0\0\0\1\0\1" + _SOA + b"\0\0\x29\4\xd0\0\0\0\0\0\0",
    b"\0\x81\x80\0\1\0\2\0\0\0\0\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x11\xc0\x11\0\1\0\1\0\0\0\2\0\4\xc0\0\2\1",
)


def one_input(data: bytes) -> None:
    """The first octet chooses the type that is asked for; the rest is the response without its id and question."""
    rdtype = _TYPES[data[0] % 4] if data else 1
    asks = _SITE + bytes((0, rdtype, 0, 1))
    query = Query(b"\1\2\1\0\0\1\0\0\0\0\0\0" + asks, _ENDS)
    wire = b"\1\2" + data[1:11] + asks + data[11:]
    found = query.read_plain(wire, "192.0.2.53:53", trusted=True)
    if found is not None:
        message = query.read(wire)
        assert message is not None and not message.flags & dns.flags.TC
        assert found == read_message(message, "192.0.2.53:53", secure=bool(message.flags & dns.flags.AD))


if __name__ == "__main__":
    from _run import run

    run(__file__)
