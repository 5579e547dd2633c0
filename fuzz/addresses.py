"""Commands, paths, mailboxes, parameters and domains.

Property: any bytes give a value or `BadSyntax`. A mailbox that was read holds no control character, is written as it came,
and is read as the same from within angle brackets; a domain is lower case, ASCII, within its limits, and stays what it is
when read again; a parameter is printable; a client's name has no space or control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from outgate.smtp import grammar
from outgate.smtp.grammar import BadSyntax

T = TypeVar("T")

SEEDS = (
    b"FROM:<a@b.example> SIZE=1 BODY=8BITMIME SMTPUTF8",
    b"from: a@b.example",
    b"TO:<@relay.example,@other.example:a@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b",
    b'"a \\" b"@b.example',
    b"a@[192.0.2.1]",
    b"a@[IPv6:2001:db8::1]",
    "é@例え.jp".encode(),
    b"a@XN--R8JZ45G.JP.",
    b"FROM:<>",
    b"EHLO client.example",
    b"a@b.example>\r\nRCPT TO:<c@d.example",
)


def one_input(data: bytes) -> None:
    verb, argument = grammar.command(data)
    assert verb == verb.upper() and not argument.startswith(b" ")
    for keyword in (b"FROM", b"TO"):
        _path(data, keyword)
        _path(keyword + b":" + data, keyword)
    _mailbox(data)
    _domain(data.decode("utf-8", "replace"))
    literal = _read(lambda: grammar.address_literal(data.decode("utf-8", "replace")))
    assert literal is None or (literal[0] == "[" and literal[-1] == "]" and "%" not in literal)
    name = _read(lambda: grammar.hello_name(data))
    assert name is None or (0 < len(name) <= 255 and name.isprintable() and " " not in name)
    for key, value in (_read(lambda: grammar.parameters(data)) or {}).items():
        assert key == key.upper() and key.isascii() and key.isprintable()
        assert value.isprintable() and " " not in value and "=" not in value


def _read(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except BadSyntax as error:
        assert str(error).isascii() and str(error).isprintable()
        return None


def _path(argument: bytes, keyword: bytes) -> None:
    found = _read(lambda: grammar.path(argument, keyword))
    if found is not None:
        assert found[0].text.encode() in argument
        _safe(found[0])


def _mailbox(data: bytes) -> None:
    found = _read(lambda: grammar.mailbox(data))
    if found is not None:
        assert found.text.encode() == data
        assert grammar.path(b"TO:<" + data + b">", b"TO") == (found, {})
        _safe(found)


def _safe(mailbox: grammar.Mailbox) -> None:
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in mailbox.text)
    assert len(mailbox.text.encode()) <= 254
    assert mailbox.domain.isascii() and mailbox.ascii == mailbox.text.isascii()
    if mailbox.text and not mailbox.literal:
        _domain(mailbox.domain)


def _domain(text: str) -> None:
    found = _read(lambda: grammar.domain(text))
    if found is not None:
        assert found.isascii() and found == found.lower() and 0 < len(found) <= 253
        assert grammar.domain(found) == found


if __name__ == "__main__":
    from _run import run

    run(__file__)
