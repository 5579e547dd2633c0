"""Which mechanism is taken, and that what a server repeats of a secret is not shown."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.login import Answers, choose
from outgate.smtp.masks import Masks

_SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=80)
_PROSE = st.text(st.sampled_from(" \n\té→"), max_size=30)  # no sign of a secret


def _forms(user: str, secret: str) -> list[str]:
    """All that went over the wire for a login, and the secret itself."""
    plain = base64.b64encode(f"\0{user}\0{secret}".encode()).decode()
    token = base64.b64encode(f"user={user}\1auth=Bearer {secret}\1\1".encode()).decode()
    return [secret, plain, token, base64.b64encode(secret.encode()).decode()]


@given(secret=_SECRETS, form=st.integers(0, 3), cut=st.tuples(st.integers(0, 60), st.integers(12, 300)), prose=_PROSE)
def test_what_is_repeated_is_hidden(secret: str, form: int, cut: tuple[int, int], prose: str) -> None:
    whole = _forms("u", secret)[form]
    piece = whole[cut[0] :][: cut[1]]
    shown = Masks("u", secret).text(f"{prose}{piece}{prose}")
    if len(piece) >= 12:
        assert not any(piece[at : at + 12] in shown for at in range(len(piece) - 11))
        assert shown.count("(secret)") >= 1
    assert shown.startswith(prose) and shown.endswith(prose)


def test_other_words_stay() -> None:
    text = "535 5.7.8 no horse, no battery: authentication failed"
    assert Masks("u", "correct horse-battery staple").text(text) == text
    assert Masks().text("any text") == "any text"


@pytest.mark.parametrize(
    ("wanted", "offer", "text"),
    [
        (("XOAUTH2",), {"AUTH": "PLAIN LOGIN"}, "the server offers no AUTH XOAUTH2; it offers AUTH PLAIN LOGIN"),
        (("XOAUTH2",), {}, "the server offers no AUTH XOAUTH2; it offers no AUTH at all"),
        (
            ("PLAIN", "LOGIN"),
            {"AUTH": "xoauth2 OAUTHBEARER"},
            "the server offers neither AUTH PLAIN nor AUTH LOGIN; it offers AUTH XOAUTH2 OAUTHBEARER",
        ),
    ],
)
def test_what_is_offered_instead_is_told(wanted: tuple[str, ...], offer: dict[str, str], text: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        choose(wanted, offer, tls=True)
    assert str(caught.value) == text


def test_the_first_that_is_wanted() -> None:
    assert choose(("PLAIN", "LOGIN"), {"AUTH": "login plain"}, tls=True) == "PLAIN"
    with pytest.raises(LocalProtocolError, match="no TLS, so the password was not sent"):
        choose(("PLAIN",), {"AUTH": "PLAIN"}, tls=False)


@given(
    mechanism=st.sampled_from(["PLAIN", "LOGIN", "XOAUTH2", "CRAM-MD5"]), user=st.text(max_size=20), secret=st.text()
)
def test_any_login_is_lines_or_refused(mechanism: str, user: str, secret: str) -> None:
    try:
        answers = Answers(mechanism, user, secret)
    except LocalProtocolError as error:
        assert str(error) == "not a login we can send"
        return
    assert answers.command.endswith(b"\r\n") and answers.command.count(b"\n") == 1 and len(answers.command) <= 512
