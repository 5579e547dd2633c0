"""Replies on the wire."""

from __future__ import annotations

import pytest

from outgate.relay import policy
from outgate.smtp import server
from outgate.smtp.reply import Reply, reply


def test_wire_form() -> None:
    assert bytes(reply(250, "2.1.0", "Ok")) == b"250 2.1.0 Ok\r\n"
    assert bytes(reply(250, "", "name", "SIZE 1")) == b"250-name\r\n250 SIZE 1\r\n"
    assert str(reply(250, "2.0.0", "a", "b")) == "250-2.0.0 a / 250 2.0.0 b"
    assert reply(250, "", "a", "b").text == "a b"


@pytest.mark.parametrize("text", ["a\r\n250 x", "a\nb", "a\0"])
def test_nothing_can_be_put_into_a_reply(text: str) -> None:
    with pytest.raises(ValueError, match="control"):
        reply(250, "", text)


def test_codes_tell_success() -> None:
    assert reply(250, "", "x").ok and not reply(354, "", "x").ok and not reply(550, "", "x").ok


def test_the_catalogue_is_generic_and_its_codes_agree() -> None:
    catalogue = [r for module in (server, policy) for r in vars(module).values() if isinstance(r, Reply)]
    assert len(catalogue) > 30
    for entry in catalogue:
        assert not entry.enhanced or entry.enhanced[0] == str(entry.code)[0]
        assert "@" not in entry.text and "/" not in entry.text and "rule" not in entry.text.lower()


def test_the_vendors_transcript_word_for_word() -> None:
    assert bytes(server.AUTH_OK) == b"235 2.7.0 Authentication successful\r\n"
    assert bytes(server.SENDER_OK) == b"250 2.1.0 Ok\r\n"
    assert bytes(server.RECIPIENT_OK) == b"250 2.1.5 Ok\r\n"
    assert bytes(server.GO_AHEAD) == b"354 End data with <CR><LF>.<CR><LF>\r\n"
