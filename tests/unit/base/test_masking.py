"""Mailboxes are masked wherever they stand, and nothing else is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgate.base.log import Log, configure
from outgate.base.masking import masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anna@dest.test", "a*n*@d*s*.t*s*"),
        ("RCPT TO:<anna.b@dest.test>: no", "RCPT TO:<a*n*.*@d*s*.t*s*>: no"),
        ("to anna@dest.test, ben@dest.test", "to a*n*@d*s*.t*s*, b*n@d*s*.t*s*"),
        ("a@b", "*@*"),
        ("anna@[192.0.2.1]", "a*n*@[1*2.*.*.*]"),
        ("jürgen@bücher.example", "j*r*e*@b*c*e*.e*a*p*e"),
        ("no address here: @ or a@ or @b", "no address here: @ or a@ or @b"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_a_mailbox_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


LOCAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789+-_'", min_size=2, max_size=60)
DOMAIN = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=2, max_size=20), min_size=1, max_size=4)
AROUND = st.text(st.characters(blacklist_characters="@"), max_size=20)


@given(AROUND, LOCAL, DOMAIN, AROUND)
@example("", "0'", ["00"], "")
def test_no_address_is_left_in_any_text(before: str, local: str, labels: list[str], after: str) -> None:
    address = f"{local}@{'.'.join(labels)}"
    told = masked(f"{before} {address} {after}")
    assert address not in told
    assert told.count("@") == 1 and len(told) == len(f"{before} {address} {after}")


@given(st.text(max_size=300))
def test_masking_changes_no_length_and_only_makes_stars(text: str) -> None:
    told = masked(text)
    assert len(told) == len(text)
    assert all(one in (other, "*") for one, other in zip(told, text, strict=True))


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger("outgate")
    before = (list(root.handlers), root.level, root.propagate)
    stream = io.StringIO()
    configure("debug", stream)
    yield stream
    root.handlers[:], root.level, root.propagate = before


def test_a_log_line_has_no_address_and_is_still_json(written: io.StringIO) -> None:
    log = Log("outgate.test")
    log.info("a", text="to <anna@dest.test>", more=["ben@dest.test"], quoted='"carl d"@dest.test')
    log.debug("b", error=repr(ValueError("anna@dest.test")))
    try:
        raise ValueError("of anna@dest.test")
    except ValueError:
        log.exception("c")
    lines = written.getvalue()
    assert "dest.test" not in lines and "anna" not in lines and "carl d" not in lines
    first = json.loads(lines.splitlines()[0])
    assert (first["text"], first["more"]) == ("to <a*n*@d*s*.t*s*>", ["b*n@d*s*.t*s*"])
    assert [json.loads(line)["event"] for line in lines.splitlines()] == ["a", "b", "c"]
