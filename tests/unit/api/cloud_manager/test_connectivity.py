"""The connectivity test over the API: who may, what is asked, what is answered, and what the audit has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outgate.api.cloud_manager.models import ConnectivityShown
from outgate.base.clock import FrozenClock
from outgate.base.tasks import spawn
from outgate.egress.connectivity import Connectivity, Times
from outgate.egress.plan import Way
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode
from outgate.net.dns import Resolver
from outgate.net.guard import compile_exceptions
from outgate.sandbox.zone import Zone
from support.egress_peers import Target
from support.egress_store import Api, World
from support.names import Peer, peers

PATH = "/api/program/4/environment/10/connectivityTest"
SERVER = "127.0.0.63"


@asynccontextmanager
async def service(place: World, ways: dict[str, Way | str], **times: float) -> AsyncGenerator[Api]:
    """Yield the API over a real test, which asks a name server of its own."""
    zone = Zone()
    zone.put("shop.example", "A", ["127.0.0.1"], 60)
    async with peers({SERVER: Peer(zone)}) as port:
        resolver = Resolver([(SERVER, port)], FrozenClock(), rounds=1)
        tests = Connectivity(
            resolvers=[resolver],
            ways=lambda each, _host, _port: ways.get(each, "advanced networking is off"),
            times=Times(**times),
        )
        yield Api(place, connectivity=tests)


WAY = Way(Mode.FLEXIBLE, ("127.0.0.2",), compile_exceptions(["127.0.0.0/8"]))


async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if (await reader.read(1)) == b"G":
        writer.write(b"HTTP/1.1 418 I'm a teapot\r\n\r\n")


def test_a_writer_tests_and_the_audit_tells(place: World) -> None:
    async def run() -> None:
        async with Target(teapot) as target, service(place, {"10": WAY}) as api:
            response = await api.call("POST", PATH, json={"host": "Shop.Example.", "port": target.port})
            assert {address for address, _ in target.peers} == {"127.0.0.2"}
        assert response.status_code == 200 and response.headers["x-request-id"]
        assert response.json() == {
            "resolvers": [
                {
                    "name": "default",
                    "dns_resolution": {"ips": ["127.0.0.1"]},
                    "port_open": True,
                    "http_connectivity": {"protocol": "HTTP", "status_code": 418, "reason": "I'm a teapot"},
                    "reachability": "Reachable",
                }
            ]
        }
        ConnectivityShown.model_validate(response.json())
        row = place.store.audit(target="10")[0]
        assert (row.actor, row.action) == ("person", "connectivity.test")
        assert row.detail == {"host": "shop.example", "port": target.port}

    asyncio.run(run())


def test_who_may_only_read_and_strangers_do_not_test(place: World) -> None:
    async def run() -> None:
        async with service(place, {"10": WAY}) as api:
            for token in ("reader", "stranger", None):
                response = await api.call("POST", PATH, token=token, json={"host": "shop.example", "port": 443})
                assert response.status_code == {"reader": 403, "stranger": 404, None: 401}[token]
            other = PATH.replace("environment/10", "environment/99")
            assert (await api.call("POST", other, json={"host": "shop.example", "port": 443})).status_code == 404
        assert not [row for row in place.store.audit() if row.action == "connectivity.test"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], {""}),
        ({}, {".host", ".port"}),
        ({"host": "", "port": 0}, {".host", ".port"}),
        ({"host": "a..b", "port": 65_536}, {".host", ".port"}),
        ({"host": "http://a.example/", "port": "443"}, {".host", ".port"}),
        ({"host": "a.example\r\nX: y", "port": True}, {".host", ".port"}),
        ({"host": "fe80::1%a\r\nX: y", "port": 443.0}, {".host", ".port"}),
        ({"host": "x" * 300, "port": None}, {".host", ".port"}),
        ({"host": "\ud800", "port": -1}, {".host", ".port"}),
        ({"host": ["a"], "port": 10**30}, {".host", ".port"}),
    ],
)
def test_each_field_that_is_wrong_is_named(place: World, body: Any, fields: set[str]) -> None:
    async def run() -> None:
        async with service(place, {"10": WAY}) as api:
            response = await api.call(
                "POST", PATH, content=json.dumps(body).encode(), headers={"content-type": "application/json"}
            )
        assert response.status_code == 400 and response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert document["type"] == "http://ns.adobe.com/adobecloud/validation-exception"
        assert set(document["errors"]) == {f"testEnvironmentConnectivity.arg2{field}" for field in fields}

    asyncio.run(run())


def test_addresses_are_asked_for_as_they_are(place: World) -> None:
    class Noted:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str, int]] = []

        async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
            self.asked.append((environment_id, host, port))
            return {"error": "Request timeout"}

    async def run() -> None:
        tests = Noted()
        api = Api(place, connectivity=tests)
        for host in ("192.0.2.1", "[2001:DB8:0::1]", "::ffff:10.0.0.1"):
            assert (await api.call("POST", PATH, json={"host": host, "port": 25})).json() == {
                "error": "Request timeout"
            }
        assert [host for _, host, _ in tests.asked] == ["192.0.2.1", "2001:db8::1", "::ffff:a00:1"]

    asyncio.run(run())


def test_an_environment_that_nothing_leaves_is_a_conflict(place: World) -> None:
    async def run() -> None:
        async with service(place, {}) as api:
            response = await api.call("POST", PATH, json={"host": "shop.example", "port": 443})
        assert response.status_code == 409
        (error,) = response.json()["errors"]
        assert error["code"] == "closed" and "advanced networking is off" in error["message"]
        response = await Api(place).call("POST", PATH, json={"host": "shop.example", "port": 443})
        assert response.status_code == 409 and "no egress runs here" in response.text

    asyncio.run(run())


def test_one_test_at_a_time(place: World) -> None:
    class Held:
        def __init__(self) -> None:
            self.began, self.go = asyncio.Event(), asyncio.Event()

        async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
            self.began.set()
            await self.go.wait()
            raise Refused("closed", "gone meanwhile")

    async def run() -> None:
        held = Held()
        api = Api(place, connectivity=held)
        wanted = {"host": "shop.example", "port": 443}
        first = spawn(api.call("POST", PATH, json=wanted), "first")
        await held.began.wait()
        assert (await api.call("POST", PATH, json=wanted)).json()["errors"][0]["code"] == "busy"
        held.go.set()
        assert (await first).status_code == 409
        assert (await api.call("POST", PATH, json=wanted)).json()["errors"][0]["code"] == "closed"

    asyncio.run(run())
