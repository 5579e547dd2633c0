"""Which DNS servers a machine asks, and how settings write them.

Standards: resolv.conf(5): `nameserver` lines, three at most.
Promises: what is no address is left out of a file and refused in a setting; there is always a server to ask.
Not here: asking (`dns`), search lists and options: names that are looked up here are whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
_MOST = 3  # MAXNS
_PORT = 53
_WRITTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")

Server = tuple[str, int]


def server(text: str) -> Server:
    """Read `address`, `address:port` or `[address]:port`. Raises `ValueError`."""
    written = _WRITTEN.fullmatch(text)
    if written is None:
        return str(ip_address(text)), _PORT
    port = int(written["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{text}: a port is 1 to 65535")
    return str(ip_address(written["six"] or written["four"])), port


def servers(text: str) -> tuple[Server, ...]:
    """Return the servers of a file's text, in its order; without any, the one of this machine."""
    found: list[Server] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found.append((str(ip_address(words[1])), _PORT))
        except ValueError:
            continue
    return tuple(found[:_MOST]) or (("127.0.0.1", _PORT),)


def chosen(settings: Sequence[str], file: Path = RESOLV_CONF) -> tuple[Server, ...]:
    """Return the servers of settings, or of the machine if they name none."""
    if settings:
        return tuple(server(each) for each in settings)
    try:
        return servers(file.read_text("utf-8", "replace"))
    except OSError:
        return servers("")
