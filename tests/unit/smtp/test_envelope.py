"""What MAIL and RCPT ask for: what is kept of it, and what is no such thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp import envelope
from outgate.smtp.envelope import BadArgument, decode_utf8_address, decode_xtext, mail_from, rcpt_to


def test_delivery_options_are_kept() -> None:
    asked = mail_from(b"FROM:<a@b.example> SIZE=7 BODY=8BITMIME ret=full ENVID=QQ+20314 requiretls SMTPUTF8 AUTH=<>")
    assert (asked.size, asked.body_8bit, asked.smtputf8) == (7, True, True)
    assert (asked.ret, asked.envid, asked.requiretls) == ("FULL", "QQ+20314", True)
    told = rcpt_to(b"TO:<c@d.example> NOTIFY=delay,SUCCESS ORCPT=rfc822;c+2Bx@d.example", smtputf8=False)
    assert (told.notify, told.orcpt) == ("SUCCESS,DELAY", "rfc822;c+2Bx@d.example")


def test_the_utf8_form_of_an_original_recipient_needs_smtputf8() -> None:
    for form in (rb"utf-8;\x{FC}@d.example", "UTF-8;\u00fc@d.example".encode()):
        argument = b"TO:<c@d.example> ORCPT=" + form
        assert rcpt_to(argument, smtputf8=True).orcpt == form.decode()
        with pytest.raises(BadArgument, match="needs SMTPUTF8"):
            rcpt_to(argument, smtputf8=False)


def test_an_original_recipient_may_be_utf8_in_xtext_where_smtputf8_was_said() -> None:
    argument = b"TO:<c@d.example> ORCPT=rfc822;j+C3+B6rg@d.example"
    assert rcpt_to(argument, smtputf8=True).orcpt == "rfc822;j+C3+B6rg@d.example"
    assert decode_xtext("j+C3+B6rg@d.example", 100, utf8=True) == "jörg@d.example"
    with pytest.raises(BadArgument, match="cannot be printed"):
        rcpt_to(argument, smtputf8=False)
    for wrong, why in ((b"+C3rg", "no UTF-8"), (b"+E2+80+A8", "cannot be printed"), (b"+0D+0A", "cannot be printed")):
        with pytest.raises(BadArgument, match=why):
            rcpt_to(b"TO:<c@d.example> ORCPT=rfc822;" + wrong, smtputf8=True)


@pytest.mark.parametrize(
    ("length", "good"), [(1, True), (100, True), (101, False)], ids=["one", "the most", "one too many"]
)
def test_an_envid_has_a_longest(length: int, good: bool) -> None:
    argument = b"FROM:<a@b.example> ENVID=" + b"x" * length
    if good:
        assert mail_from(argument).envid == "x" * length
    else:
        with pytest.raises(BadArgument, match="100 octets"):
            mail_from(argument)


def test_an_original_recipient_has_a_longest() -> None:
    for kind, fill in ((b"rfc822;", b"x"), (b"utf-8;", "\u00fc".encode())):
        room = 500 - len(kind)
        longest = kind + fill * (room // len(fill))
        rcpt_to(b"TO:<c@d.example> ORCPT=" + longest, smtputf8=True)
        with pytest.raises(BadArgument, match="500 octets"):
            rcpt_to(b"TO:<c@d.example> ORCPT=" + longest + fill, smtputf8=True)


@pytest.mark.parametrize("size", [b"-1", b"1.0", b"0x1", b"\xd9\xa3", b"", b"1e3"])
def test_a_size_is_decimal(size: bytes) -> None:
    with pytest.raises(BadArgument):
        mail_from(b"FROM:<a@b.example> SIZE=" + size)


@pytest.mark.parametrize("value", [b"SUCCESS,SUCCESS", b"NEVER,DELAY", b"NEVER,NEVER", b"FAILURE,", b"LATER", b""])
def test_what_is_no_notify(value: bytes) -> None:
    with pytest.raises(BadArgument):
        rcpt_to(b"TO:<c@d.example> NOTIFY=" + value, smtputf8=False)


@pytest.mark.parametrize("given", [b"REQUIRETLS=YES", b"SMTPUTF8=YES", b"RET=ALL", b"RET", b"ENVID", b"HOLDFOR=5"])
def test_a_parameter_is_nothing_else(given: bytes) -> None:
    with pytest.raises(BadArgument):
        mail_from(b"FROM:<a@b.example> " + given)


def test_parameters_in_no_known_character_set_are_refused() -> None:
    with pytest.raises(BadArgument):
        mail_from(b"FROM:<a@b.example> ENVID=\xff")


@pytest.mark.parametrize("text", ["a+4", "a+", "+zz", "a=b", "a b", "a+4a", "\u00fc", "a+0D+0A", "+00", "+7F", "+FF"])
def test_what_is_no_xtext(text: str) -> None:
    with pytest.raises(BadArgument):
        decode_xtext(text, 100)


def test_xtext_is_decoded() -> None:
    assert decode_xtext("a+2Bb+3Dc+20d", 100) == "a+b=c d"
    assert decode_utf8_address(r"\x{F6}\x{2B}\x{1F600}@b.example") == "\u00f6+\U0001f600@b.example"


@pytest.mark.parametrize("text", [r"\x{D800}", r"\x{110000}", r"\x{0D}", r"\x{}", r"\x{1", "a+b", "a=b", "a\\b", ""])
def test_what_is_no_utf8_address(text: str) -> None:
    with pytest.raises(BadArgument):
        decode_utf8_address(text)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60))
def test_xtext_there_and_back(text: str) -> None:
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert decode_xtext(encoded, 1000) == text


WORDS = st.sampled_from(
    [
        b"SIZE=", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=FULL", b"ENVID=", b"REQUIRETLS", b"NOTIFY=", b"SUCCESS", b"NEVER", b",", b"ORCPT=",
        b"rfc822;", b"utf-8;", b"+0D", b"+4", rb"\x{D}", rb"\x{FC}", "\u00fc".encode(), b"\xff", b" ", b"\t", b"=", b"x", b"\0", b"9", b"<>",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.binary(max_size=5)), max_size=14).map(b"".join), st.booleans())
def test_any_octets_are_a_question_or_a_refusal(raw: bytes, smtputf8: bool) -> None:
    for ask in (mail_from, lambda argument: rcpt_to(argument, smtputf8=smtputf8)):
        for argument in (raw, b"FROM:<a@b.example> " + raw, b"TO:<a@b.example> " + raw):
            try:
                asked = ask(argument)
            except BadArgument as error:
                assert error.reply.code in (501, 553, 555)
                continue
            for value in (getattr(asked, name, "") for name in ("ret", "envid", "notify", "orcpt")):
                assert value.isprintable() and " " not in value
            if envid := getattr(asked, "envid", ""):
                assert envelope.decode_xtext(envid, 100).isprintable()
