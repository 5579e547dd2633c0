"""nonProxyHosts: an entry names exactly the hosts that it is documented to name."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.egress.non_proxy_hosts import spared

LABEL = st.sampled_from(["a", "b", "example", "com", "example-2", "1", "10"])
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ENTRY = st.one_of(NAME, NAME.map("*.{}".format), NAME.map("{}.*".format))


def spelled(name: str) -> st.SearchStrategy[str]:
    """Return the name in other cases, perhaps with its last dot."""
    cases = st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda upper: "".join(sign.upper() if up else sign for sign, up in zip(name, upper, strict=True))
    )
    return st.tuples(cases, st.sampled_from(["", "."])).map("".join)


def by_labels(host: str, entry: str) -> bool:
    """Say the same label by label: a wildcard is one label or more."""
    asked, named = host.split("."), entry.split(".")
    if named[0] == "*":
        return len(asked) >= len(named) and asked[len(asked) - len(named) + 1 :] == named[1:]
    if named[-1] == "*":
        return len(asked) >= len(named) and asked[: len(named) - 1] == named[:-1]
    return asked == named


@given(NAME, ENTRY, st.data())
def test_an_entry_names_what_it_names_label_by_label_in_any_spelling(
    host: str, entry: str, data: st.DataObject
) -> None:
    written, entered = data.draw(spelled(host)), data.draw(spelled(entry))
    assert bool(spared(written, [entered])) == by_labels(host, entry)


@given(NAME, st.lists(ENTRY, max_size=5))
def test_the_first_entry_that_names_a_host_is_told(host: str, entries: list[str]) -> None:
    assert spared(host, entries) == next((entry for entry in entries if by_labels(host, entry)), "")


@given(st.text(alphabet=string.printable + "é*.", max_size=30), st.text(alphabet="*.ab ", max_size=8))
def test_any_text_is_taken(host: str, entry: str) -> None:
    assert spared(host, [entry]) in ("", entry)


@pytest.mark.parametrize(
    ("host", "entry", "named"),
    [
        ("example.com", "example.com", True),
        ("www.example.com", "example.com", False),
        ("example.com", "*.example.com", False),
        ("a.b.example.com", "*.example.com", True),
        ("badexample.com", "*.example.com", False),
        ("example.com", "example.*", True),
        ("example.co.uk", "example.*", True),
        ("example", "example.*", False),
        ("examples.com", "example.*", False),
        ("10.1.2.3", "10.*", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "[2001:DB8::1]", True),
        ("example.com", "*", False),
        ("example.com", "*.*", False),
        ("a.example.com", "*example.com", False),
        ("a.example.com", "a.*.com", False),
        ("a.example.com", "*.example.*", False),
        ("", "*.", False),
    ],
)
def test_examples(host: str, entry: str, named: bool) -> None:
    assert bool(spared(host, [entry])) == named
