"""Commands, paths, mailboxes and parameters: what is read, and what is refused."""

from __future__ import annotations

import pytest

from outgate.smtp.grammar import (
    NULL_PATH,
    BadSyntax,
    address_literal,
    command,
    domain,
    hello_name,
    mailbox,
    parameters,
    path,
)


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"ehlo  host ", "EHLO", b"host"),
        (b"QUIT", "QUIT", b""),
        (b"mail from: a@b", "MAIL", b"from: a@b"),
        (b"", "", b""),
        (b"\xff\xfe x", "\ufffd\ufffd", b"x"),
    ],
)
def test_command(line: bytes, verb: str, argument: bytes) -> None:
    assert command(line) == (verb, argument)


@pytest.mark.parametrize(
    ("argument", "text", "given"),
    [
        (b"FROM:<a@b.example>", "a@b.example", {}),
        (b"from: <a@b.example>", "a@b.example", {}),
        (b"FROM: a@b.example", "a@b.example", {}),  # the vendor's transcript
        (b"FROM:a@b.example SIZE=5", "a@b.example", {"SIZE": "5"}),
        (b"FROM:<@x,@y.example:a@b.example>", "a@b.example", {}),
        (b"FROM:<> BODY=8BITMIME smtputf8", "", {"BODY": "8BITMIME", "SMTPUTF8": ""}),
        (b'FROM:<"a b>c"@b.example>', '"a b>c"@b.example', {}),
        (b'FROM:<"a\\"@x"@b.example> AUTH=<>', '"a\\"@x"@b.example', {"AUTH": "<>"}),
    ],
)
def test_path(argument: bytes, text: str, given: dict[str, str]) -> None:
    found, parameters_ = path(argument, b"FROM")
    assert (found.text, parameters_) == (text, given)


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"FROM", b"TO:<a@b.example>", b"FROM <a@b.example>", b"FROM:", b"FROM:<a@b.example", b"FROM:a@b.example>",
        b"FROM:<a@b.example>x", b"FROM:<a@b.example> SIZE=1 SIZE=2", b"FROM:<a@b.example> =x", b"FROM:<a b@c.example>",
        b'FROM:<"a@b.example>', b"FROM:<<a@b.example>>", b"FROM:<a@b.example> S\xc3\xa9=1",
    ],
)  # fmt: skip
def test_no_path(argument: bytes) -> None:
    with pytest.raises(BadSyntax):
        path(argument, b"FROM")


def test_mailbox_parts() -> None:
    found = mailbox(b"User@B\xc3\xbccher.Example")
    assert (found.local, found.domain, found.ascii, found.literal) == ("User", "xn--bcher-kva.example", False, False)
    literal = mailbox(b"a@[IPv6:2001:DB8::1]")
    assert (literal.domain, literal.literal) == ("[IPv6:2001:db8::1]", True)
    assert mailbox(b"") is NULL_PATH


@pytest.mark.parametrize(
    "text",
    [
        b"a", b"@b.example", b"a@", b"a@b..example", b".a@b.example", b"a.@b.example", b"a..b@c.example", b"a@-b.example",
        b"a@b_c.example", b"a@[1.2.3]", b"a@[IPv6:1.2.3.4]", b"a@[::1]", b"a\0@b.example", b"a\x7f@b.example",
        b"a\xc2\x85@b.example", b'"a\nb"@c.example', b"\xff@b.example", b"a@b.example\r", b"a@" + b"b" * 64 + b".example",
    ],
)  # fmt: skip
def test_no_mailbox(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        mailbox(text)


def test_lengths_are_exact() -> None:
    assert mailbox(b"a" * 64 + b"@b.example")
    with pytest.raises(BadSyntax):
        mailbox(b"a" * 65 + b"@b.example")
    label = "b" * 63
    name = ".".join([label] * 3)  # 191 octets
    assert len(mailbox(b"a@" + f"{name}.{'c' * 60}".encode()).text) == 254
    with pytest.raises(BadSyntax, match="too long"):
        mailbox(b"a@" + f"{name}.{'c' * 61}".encode())
    assert domain(f"{name}.{'c' * 61}")
    with pytest.raises(BadSyntax):
        domain(f"{name}.{'c' * 62}")


@pytest.mark.parametrize(("text", "name"), [("Example.COM", "example.com"), ("a.example.", "a.example"), ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("bücher.example", "xn--bcher-kva.example")])  # fmt: skip
def test_domain(text: str, name: str) -> None:
    assert domain(text) == name


@pytest.mark.parametrize("text", ["", ".", "a..", "a b", "-a", "a-", "a.-b", "ex\u00adample..", "\u2488.example"])
def test_no_domain(text: str) -> None:
    with pytest.raises(BadSyntax):
        domain(text)


def test_address_literal_is_plain() -> None:
    assert address_literal("[192.0.2.1]") == "[192.0.2.1]"
    for text in ("[192.0.2.1", "192.0.2.1]", "[]", "[ipv6:]", "[192.0.2.01]"):
        with pytest.raises(BadSyntax):
            address_literal(text)


def test_parameters() -> None:
    assert parameters(b"  size=10   BODY=7bit ") == {"SIZE": "10", "BODY": "7bit"}
    assert parameters(b" ") == {}


def test_hello_name() -> None:
    assert hello_name(b"my_host") == "my_host"
    assert hello_name(b"a" * 255)
    for argument in (b"", b"a b", b"a\x7f", b"\xc3\xa9", b"a" * 256):
        with pytest.raises(BadSyntax):
            hello_name(argument)
