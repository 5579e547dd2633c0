"""The laptop mode's door."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from outgate.sandbox.local import LocalOnly, foreign


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:8025", b"127.0.0.1:1", b"[::1]:8025", b"localhost.:80"])
def test_this_machine(host: bytes) -> None:
    assert foreign([(b"host", host)]) == ""
    assert foreign([(b"host", host), (b"origin", b"http://" + host)]) == ""


@pytest.mark.parametrize(
    "host", [b"evil.test", b"localhost.evil.test", b"127.0.0.1.evil.test", b"evil.test:127", b"", b"[::1", b"127.0.0.1@evil.test", b"evil.test@127.0.0.1", b"2130706433", b"\xff"]
)  # fmt: skip
def test_other_machines(host: bytes) -> None:
    assert foreign([(b"host", host)]) == "Host"
    assert foreign([(b"host", b"localhost"), (b"origin", b"http://" + host)]) == "Origin"


def test_no_host_two_hosts_and_an_origin_without_a_name() -> None:
    assert foreign([]) == "Host"
    assert foreign([(b"host", b"localhost"), (b"host", b"localhost")]) == "Host"
    assert foreign([(b"host", b"localhost"), (b"origin", b"null")]) == "Origin"
    assert (
        foreign([(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"http://evil.test")])
        == "Origin"
    )


@pytest.mark.parametrize(
    "origin", [b"http://localhost:3000", b"http://localhost", b"https://localhost:443", b"http://localhost:x"]
)
def test_a_page_of_another_port_of_this_machine_is_foreign(origin: bytes) -> None:
    assert foreign([(b"host", b"localhost:8025"), (b"origin", origin)]) == "Origin"


@pytest.mark.parametrize("origin", [b"http://127.0.0.1:8025", b"http://localhost:8025", b"http://[::1]:8025"])
def test_our_own_page_by_any_of_our_names(origin: bytes) -> None:
    assert foreign([(b"host", b"localhost:8025"), (b"origin", origin)]) == ""


@pytest.mark.parametrize(("host", "through"), [(b"localhost", True), (b"evil.test", False)])
async def test_the_application_is_reached_only_through_the_door(host: bytes, through: bool) -> None:
    reached: list[str] = []
    sent: list[MutableMapping[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await LocalOnly(application)({"type": "http", "path": "/x", "headers": [(b"Host", host)]}, receive, send)
    assert reached == (["/x"] if through else [])
    assert [message.get("status") for message in sent] == ([] if through else [403, None])
