"""Find out which program of this host listens on a port, so that an operator need not look for it.

Standards: Linux proc(5): net/tcp, net/tcp6, PID/fd.
Promises: a guess at best: "" where the system does not tell, and never an error.
Dangers: without root only the own user's programs are seen. It reads much: call it in a thread, and on failure only.
Not here: listening (`listeners`).
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

_LISTEN = "0A"


def holder(address: str, port: int) -> str:
    """Return the program that listens on `address`:`port`, as `name, pid 12`, or ""."""
    try:
        inodes = _inodes(address, port)
        return _program(inodes) if inodes else ""
    except (OSError, ValueError):
        return ""


def _inodes(address: str, port: int) -> set[str]:
    """Return the inodes of sockets that listen there, or on all addresses."""
    found: set[str] = set()
    wanted = {_hexadecimal(each) for each in (address, "0.0.0.0", "::")}
    for file in ("tcp", "tcp6"):
        for line in Path("/proc/net", file).read_text("ascii").splitlines()[1:]:
            fields = line.split()
            local, number = fields[1].split(":")
            if fields[3] == _LISTEN and int(number, 16) == port and local in wanted:
                found.add(fields[9])
    return found


def _hexadecimal(address: str) -> str:
    """Write an address as the kernel does: each four octets as a number of this machine."""
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, address)
    return "".join(f"{number:08X}" for number in struct.unpack(f"={len(packed) // 4}I", packed))


def _program(inodes: set[str]) -> str:
    links = {f"socket:[{inode}]" for inode in inodes}
    for number in filter(str.isdigit, os.listdir("/proc")):
        files = f"/proc/{number}/fd"
        try:
            if any(_link(f"{files}/{each}") in links for each in os.listdir(files)):
                return f"{Path('/proc', number, 'comm').read_text('utf-8', 'replace').strip()}, pid {number}"
        except OSError:
            continue  # it has ended, or is another user's
    return ""


def _link(file: str) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:
        return ""  # closed since it was listed, as the listed directory itself is
