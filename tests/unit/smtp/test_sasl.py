"""AUTH PLAIN and LOGIN, as clients do it and as they do not."""

from __future__ import annotations

import base64

import pytest

from outgate.smtp.sasl import BadResponse, Exchange, Login


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_plain_in_one_and_in_two_steps() -> None:
    assert Exchange("PLAIN").start(b64("\0user\0päss")) == Login("user", "päss")
    exchange = Exchange("PLAIN")
    assert exchange.start(None) == b""
    assert exchange.respond(b64("other\0user\0pass")) == Login("user", "pass", "other")


@pytest.mark.parametrize("initial", [True, False])
def test_login_has_the_prompts_clients_know(initial: bool) -> None:
    exchange = Exchange("LOGIN")
    if initial:
        assert exchange.start(b64("user")) == b"UGFzc3dvcmQ6"
    else:
        assert exchange.start(None) == b"VXNlcm5hbWU6"
        assert exchange.respond(b64("user")) == b"UGFzc3dvcmQ6"
    assert exchange.respond(b64("pass")) == Login("user", "pass")


@pytest.mark.parametrize(
    "line",
    [
        b"*",
        b"=",
        b"no base64!",
        b"YQ",
        b64("user"),
        b64("\0user"),
        b64("\0\0pass"),
        b64("a\0b\0c\0d"),
        base64.b64encode(b"\0\xff\0x"),
    ],
)
def test_what_is_no_plain_response(line: bytes) -> None:
    with pytest.raises(BadResponse):
        Exchange("PLAIN").start(line)


def test_login_gives_up_and_refuses_nul() -> None:
    for line in (b"*", b"!", b64("a\0b")):
        exchange = Exchange("LOGIN")
        exchange.start(None)
        with pytest.raises(BadResponse):
            exchange.respond(line)


def test_a_password_is_not_shown() -> None:
    assert "hidden" not in repr(Login("user", "hidden"))
