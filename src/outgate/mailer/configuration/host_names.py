"""What may stand where a host is named: as `smtp.host`, as the name of a port forward, as a tunnel's address.

Standards: RFC 1035 section 2.3.4 (lengths), RFC 5891 (names beyond ASCII); underscores are taken, as in local networks.
Promises: pure; whatever is let through can be looked up and shown without more ado: no space, no control character.
Dangers: a name may be the content of a secret: it is not quoted.
Not here: names in mail (`smtp.grammar`).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

_HOST = re.compile(r"[A-Za-z0-9:._\-\u0080-\U0010ffff]{1,255}")


def expected_of(host: str, port_belongs: str) -> str:
    """Return what is expected instead of `host`, "" if it is a host name or an address; a port is `port_belongs`'s."""
    expected = "a host name or an address"
    if "/" in host:
        return f"{expected} and nothing else: no scheme, no slash"
    if _HOST.fullmatch(host) is None:
        return expected
    if not host.isascii():
        from outgate.smtp import grammar  # late: few names need it

        try:
            grammar.domain(host)
        except grammar.BadSyntax:
            return f"{expected}: this name cannot be written in ASCII"
    elif ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            return f"{expected} without a port: that is {port_belongs}'s"
    elif not all(0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        return f"{expected}: a name has 1 to 63 characters between its dots"
    return ""
