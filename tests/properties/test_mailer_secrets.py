"""No password and no token in anything that the mailer shows, whatever a server says."""

from __future__ import annotations

import asyncio
import io
import logging
from base64 import b64encode
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outgate.mailer import SendFailed
from outgate.smtp.answers import ClientLimits, ReplyReader
from outgate.smtp.errors import RemoteProtocolError
from outgate.smtp.masks import Masks
from outgate.smtp.reply import Reply
from support.mail_service import BOTH, place

# Secrets as people have them: what is not in any text by chance.
SECRETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=9, max_size=60).filter(
    lambda text: len(set(text)) > 5
)
# Of signs that no server's own words have, so that a piece of it in an output can only be the secret.
RARE = st.text(st.sampled_from("µßæøþžŋłĸ¶§«»±€½¾²³"), min_size=9, max_size=40).filter(lambda text: len(set(text)) > 5)
USERS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
PIECE = 8


def sent_forms(user: str, secret: str) -> list[bytes]:
    octets, name = secret.encode(), user.encode()
    return [
        octets,
        b64encode(octets),
        b64encode(b"\0" + name + b"\0" + octets),
        b64encode(b"user=" + name + b"\1auth=Bearer " + octets + b"\1\1"),
    ]


def assert_hidden(user: str, secret: str, text: str) -> None:
    for form in sent_forms(user, secret):
        shown = form.decode()
        for at in range(max(1, len(shown) - PIECE + 1)):
            assert shown[at : at + PIECE] not in text, (shown[at : at + PIECE], text)


@given(USERS, RARE, st.integers(0, 3), st.integers(0, 200), st.integers(0, 200), st.text(max_size=20))
@example("u", "µßæøþžŋłĸ", 0, 0, 200, "")
def test_a_form_that_was_cut_is_not_shown(user: str, secret: str, form: int, cut: int, end: int, around: str) -> None:
    said = around + sent_forms(user, secret)[form].decode()[cut:end] + around
    assert_hidden(user, secret, Masks(user, secret).text(said))


@given(USERS, SECRETS)
def test_a_reply_as_it_is_read_is_not_shown(user: str, secret: str) -> None:
    for form in sent_forms(user, secret):
        reader = ReplyReader(ClientLimits())
        reader.feed(b"250 2.0.0 you said " + form.replace(b"\n", b" ").replace(b"\r", b" ") + b"\r\n")
        try:
            found = reader.next(True)
        except RemoteProtocolError as error:
            assert secret not in Masks(user, secret).text(str(error))
            continue
        assert found is not None
        shown = str(Masks(user, secret).reply(found))
        if "\r" not in secret and "\n" not in secret:
            assert secret not in shown
            assert "".join(sign if sign.isprintable() else "?" for sign in secret) not in shown
        assert b64encode(secret.encode()).decode() not in shown


@given(USERS, SECRETS, st.text(max_size=100))
def test_other_text_stays(user: str, secret: str, text: str) -> None:
    masks = Masks(user, secret)
    shown = masks.text(text)
    if not any(form.decode()[at : at + PIECE] in text for form in sent_forms(user, secret) for at in range(len(form))):
        assert shown == text or "(secret)" in shown
    reply = Reply(250, "2.0.0", ("Ok: queued as 4bX",))
    assert masks.reply(reply) is reply
    assert secret not in repr(masks)


@given(USERS, RARE, st.integers(0, 3), st.integers(0, 30), st.text(max_size=9))
def test_much_that_was_looked_through_before_makes_no_difference(
    user: str, secret: str, form: int, cut: int, around: str
) -> None:
    said = around + sent_forms(user, secret)[form].decode()[cut : cut + PIECE] + around
    masks = Masks(user, secret)
    shown = masks.text(said)
    masks.text("-" * 2000)
    assert masks.text(said) == shown


def test_a_login_with_a_long_token_has_no_parts_made() -> None:
    """Thousands of them took milliseconds at each login."""
    masks = Masks("user", "".join(map(chr, range(0x100, 0x900))))
    masks.reply(Reply(235, "2.7.0", ("Authentication successful",)))
    assert masks._kept is None


def test_short_secrets_are_in_any_text() -> None:
    assert Masks("user", "250").text("250 ok") == "250 ok" and Masks().text("x") == "x"
    assert Masks("user", "abcd").text("is abcd it?") == "is (secret) it?"


STAGES = st.sampled_from(["AUTH", "MAIL", "RCPT", "DATA", "dot", "none"])
ENDS = st.sampled_from([b"235 2.7.0 yes\r\n", b"535 5.7.8 %s\r\n", b"421 4.7.0 %s\r\n", b"%s\r\n", b"999 %s\r\n"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(password=RARE, at=STAGES, end=ENDS, twin=st.sampled_from(BOTH), cut=st.integers(0, 12))
def test_whatever_a_server_says(tmp_path: Path, password: str, at: str, end: bytes, twin, cut: int) -> None:
    """It repeats what it was told at each step, as it was told, or breaks the protocol with it."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("outgate.mailer")
    logger.addHandler(handler)
    before, logger.level = logger.level, logging.DEBUG

    async def conversation() -> str:
        forms = sent_forms("user", password)
        answer = (end % b" ".join(forms[2:0:-1])[cut:] if b"%s" in end else end) if at != "none" else b""
        async with place(tmp_path, echo=True, answers={at: answer}, auth="PLAIN") as there:
            there.config["debug.email"] = True
            there.secrets["EMAIL_PASSWORD"] = password
            service = there.service(twin)
            shown = repr(service) + repr(service.config)
            try:
                (result,) = await twin.send(service)
                return shown + repr(result) + str(result.reply) + repr(result.conversation)
            except SendFailed as error:
                return shown + str(error) + repr(error) + repr(error.__context__) + repr(error.__cause__)

    try:
        shown = asyncio.run(conversation())
    finally:
        logger.removeHandler(handler)
        logger.level = before
    assert "C: EHLO" in log.getvalue() or at == "greeting"
    assert_hidden("user", password, log.getvalue() + shown)
