"""The fields we prepend to a message: Received, and Message-ID and Date where they are missing.

Standards: RFC 5321 section 4.4 (Received), RFC 3848 and 6531 (ESMTPSA, UTF8SMTPSA), RFC 8314 section 4.3 (`tls`
clause), RFC 5322 sections 3.3 and 3.6.
Promises: CR LF lines of at most 998 octets; nothing from outside can add a line.
Dangers: the client's address is told to every receiver, as the standard asks; its user name is not.
Not here: DKIM-Signature (`domains.dkim`).
"""

from __future__ import annotations

import time

from outgate.smtp.grammar import BadSyntax, address_literal

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(epoch: float) -> str:
    """Write a time as RFC 5322 does, in UTC: `Sat, 21 Nov 2026 07:03:00 +0000`."""
    at = time.gmtime(epoch)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
    )


def received(*, helo: str, address: str, by: str, tls: str, utf8: bool, queue_id: str, at: float) -> bytes:
    """Write the Received field of a message that came authenticated over TLS. `at` is epoch seconds.

    No `for` clause: it would tell a blind copy to the others."""
    literal = f"IPv6:{address}" if ":" in address else address
    with_ = "UTF8SMTPSA" if utf8 else "ESMTPSA"
    version, _, cipher = tls.partition(" ")
    # The clause takes names of the registry; those of TLS 1.2 come to us as OpenSSL has them.
    secured = f"tls {cipher} ({version})" if cipher.startswith("TLS_") and _NAME.issuperset(cipher) else f"({tls})"
    return (
        f"Received: from {_hello(helo)} ([{literal}])\r\n"
        f"\tby {by} (Outgate) with {with_} id {queue_id}\r\n"
        f"\t{secured};\r\n"
        f"\t{date(at)}\r\n"
    ).encode()


def _hello(helo: str) -> str:
    """Return what the client calls itself, as far as it is a name or an address literal."""
    if helo.startswith("["):
        try:
            return address_literal(helo)
        except BadSyntax:
            pass
    # A quote, bracket, comment or semicolon in it could change how the rest of the field is read.
    return "".join(sign for sign in helo if sign in _NAME).strip(".-_") or "unknown"


def message_id(queue_id: str, domain: str) -> bytes:
    """Write a Message-ID field for a message that has none."""
    return f"Message-ID: <{queue_id}@{domain}>\r\n".encode()


def date_field(epoch: float) -> bytes:
    """Write a Date field for a message that has none."""
    return f"Date: {date(epoch)}\r\n".encode()
