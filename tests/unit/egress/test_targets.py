"""Targets as operators list them, in one spelling."""

from __future__ import annotations

import pytest

from outgate.egress.targets import Targets, read


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("SMTP.example:465", ("smtp.example", 465)),
        ("smtp.example.:465", ("smtp.example", 465)),
        (" smtp.example. ", ("smtp.example", 0)),
        ("relay", ("relay", 0)),
        ("192.0.2.7:25", ("192.0.2.7", 25)),
        ("192.0.2.7", ("192.0.2.7", 0)),
        ("::ffff:192.0.2.7", ("192.0.2.7", 0)),
        ("[::FFFF:192.0.2.7]:25", ("192.0.2.7", 25)),
        ("[2001:DB8:0::7]:25", ("2001:db8::7", 25)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("2001:db8:0:0::7", ("2001:db8::7", 0)),
    ],
)
def test_an_entry_has_one_spelling(entry: str, meant: tuple[str, int]) -> None:
    assert read(entry) == meant
    place, port = meant
    listed = Targets([entry])
    assert listed.has(place, port or 4711)
    assert listed.has(place, 26) is (port == 0)
    assert not listed.has("b.example", 25)
    assert listed.names == (set() if place[0].isdigit() else {place})


@pytest.mark.parametrize(
    "entry",
    [
        "", ":25", "smtp.example:", "smtp.example:0", "smtp.example:65536", "smtp.example:smtp", "smtp://smtp.example",
        "smtp..example", "10.1.2", "10.1.2:25", "10.0.0.0/8", "*.example", "0.0.0.0:25", "[::]:25", "[fe80::1%lo]:25",
        "[smtp.example]:25", "2001:db8::7:70000",
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        read(entry)
