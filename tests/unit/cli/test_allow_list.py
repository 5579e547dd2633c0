"""`outgate access allow-list`, against the API."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.api_service import Service

from .conftest import Outgate

LIST = ("access", "allow-list")


@pytest.fixture(autouse=True)
def no_list(service: Service) -> Iterator[None]:
    yield
    if service.store.allow_lists.get(service.account_id, service.instance.id) is not None:
        service.store.allow_lists.delete(service.account_id, service.instance.id)


def networks(outgate: Outgate, service: Service) -> list[str]:
    shown = outgate(*LIST, "show", "--instance", service.instance.id, "--json")
    return json.loads(shown.stdout)["networks"]


def test_a_list_is_made_changed_and_ended(outgate: Outgate, service: Service) -> None:
    made = outgate(*LIST, "set", "192.0.2.0/24", "2001:DB8::1", "--until", "90d", "--note", "until the office moves")
    assert made.exit_code == 0, made.output
    assert "192.0.2.0/24" in made.stdout and "until the office moves" in made.stdout and made.stderr == ""
    assert outgate(*LIST, "add", "198.51.100.7/32", "198.51.100.9-198.51.100.20").exit_code == 0
    assert networks(outgate, service) == [
        "192.0.2.0/24",
        "2001:db8::1",
        "198.51.100.7",
        "198.51.100.9-198.51.100.20",
    ]
    assert outgate(*LIST, "remove", "2001:db8:0::1", "198.51.100.7").exit_code == 0
    assert networks(outgate, service) == ["192.0.2.0/24", "198.51.100.9-198.51.100.20"]
    rows = outgate(*LIST, "show").stdout.splitlines()
    assert rows[1].split()[:2] == [service.instance.id, "2"]
    assert json.loads(outgate(*LIST, "show", "--json").stdout)["count"] == 1
    before = json.loads(outgate(*LIST, "show", "--json").stdout)["allow_lists"][0]
    assert outgate(*LIST, "set", "--until", "120d", "--instance", service.instance.id).exit_code == 0
    after = json.loads(outgate(*LIST, "show", "--json").stdout)["allow_lists"][0]
    assert after["ends_at"] > before["ends_at"] and after["networks"] == before["networks"]
    assert after["note"] == "until the office moves"
    assert outgate(*LIST, "end").exit_code == 0
    assert outgate(*LIST, "show", "--instance", service.instance.id).exit_code == 1
    ended = outgate(*LIST, "end")
    assert ended.exit_code == 1 and "has no allow-list" in ended.stderr and "set" in ended.stderr


def test_one_that_ends_soon_says_so_and_one_that_has_ended_needs_an_end(outgate: Outgate, service: Service) -> None:
    soon = outgate(*LIST, "set", "192.0.2.0/24", "--until", "5d")
    assert soon.exit_code == 0 and "ends in 5 day(s)" in soon.stderr and "zone" in soon.stderr
    for shown in (outgate(*LIST, "show"), outgate(*LIST, "show", "--instance", service.instance.id)):
        assert "ends in 5 day(s)" in shown.stderr
    service.clock.advance(6 * 86_400)
    assert "has ended" in outgate(*LIST, "show").stderr
    again = outgate(*LIST, "add", "192.0.2.1")
    assert again.exit_code == 2 and "--until" in again.stderr


def test_explain_names_the_list(outgate: Outgate, service: Service) -> None:
    assert outgate(*LIST, "set", "192.0.2.0/24", "--until", "90d").exit_code == 0
    inside = outgate("access", "explain", "192.0.2.5")
    assert inside.exit_code == 0
    assert f"the allow-list of instance {service.instance.id} holds 192.0.2.5 until " in inside.stdout
    outside = outgate("access", "explain", "198.51.100.1")
    assert outside.exit_code == 1
    assert "does not allow" in outside.stdout and "the allow-list does not hold 198.51.100.1" in outside.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("set", "192.0.2.0/24"), 2, "--until"),
        (("set", "--until", "90d"), 2, "needs networks"),
        (("set", "office", "--until", "90d"), 2, "'office' is no network"),
        (("set", "192.0.2.1/24", "--until", "90d"), 2, "host bits"),
        (("set", "192.0.2.9-192.0.2.1", "--until", "90d"), 1, "lower first"),
        (("set", "0.0.0.0/0", "--until", "90d"), 1, "wider than a /8"),
        (("set", "192.0.2.0/24", "--until", "500d"), 1, "within 400 days"),
        (("set", "192.0.2.0/24", "--until", "soon"), 2, "--until 'soon' is no end date"),
        (("set", "192.0.2.0/24", "--until", "90d", "--instance", "nobody's"), 1, "there is no instance"),
        (("set", "192.0.2.0/24", "--until", "90d", "--instance", ""), 2, "must not be empty"),
        (("show", "--instance", ""), 2, "must not be empty"),
        (("remove", "192.0.2.0/24"), 1, "has no allow-list"),
        (("add",), 2, "NETWORK"),
    ],
)
def test_wrong_use(outgate: Outgate, arguments: tuple[str, ...], code: int, says: str) -> None:
    wrong = outgate(*LIST, *arguments)
    assert (wrong.exit_code, wrong.stdout) == (code, ""), wrong.output
    assert says in wrong.stderr


def test_what_is_not_there_is_not_removed_nor_all(outgate: Outgate, service: Service) -> None:
    assert outgate(*LIST, "set", "192.0.2.0/24", "--until", "90d").exit_code == 0
    wrong = outgate(*LIST, "remove", "192.0.2.1")
    assert wrong.exit_code == 1 and "192.0.2.1 is not in the list" in wrong.stderr
    last = outgate(*LIST, "remove", "192.0.2.0/24")
    assert last.exit_code == 1 and "`outgate access allow-list end`" in last.stderr
    assert networks(outgate, service) == ["192.0.2.0/24"]
    assert outgate(*LIST, "add", "192.0.2.7", roles=("reader",)).exit_code == 1
