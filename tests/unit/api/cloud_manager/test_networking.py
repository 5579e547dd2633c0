"""Advanced networking over the API: which way out, what waits, what is shown beside, and sequences of changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate.model.egress import Mode
from support.egress_store import Api, World, world
from support.network_bodies import fields_of

ENABLE = "enableEnvironmentAdvancedNetworkingConfiguration.arg2"
PATH = "/api/program/4/environment/10/advancedNetworking"


@pytest.fixture
def place(with_bare: World) -> World:
    return with_bare


def rule(port: int, name: str = "smtp.mymail.com", dest: int = 465) -> dict[str, Any]:
    return {"name": name, "portDest": dest, "portOrig": port}


async def shown(api: Api, path: str = PATH) -> dict[str, Any]:
    (found,) = (await api.call("GET", path)).json()["_embedded"]["networkingConfigurations"]
    return found


def said(answer: httpx2.Response) -> str:
    (error,) = answer.json()["errors"]
    return error if isinstance(error, str) else error["message"]


async def test_nothing_is_a_valid_wish(api: Api, place: World) -> None:
    answer = await api.call("PUT", PATH, json={})
    assert (answer.status_code, answer.json()["status"]) == (200, "updating")
    found = await shown(api)
    assert (found["portForwards"], found["nonProxyHosts"], found["advancedNetworkingEnabled"]) == ([], [], True)
    assert (found["status"], found["engines"], found["advice"]) == ("updating", [], [])


async def test_what_is_shown_may_be_sent_back(api: Api, place: World) -> None:
    rules = [rule(30465), rule(30587, dest=587)]
    await api.call("PUT", PATH, json={"portForwards": rules})
    place.store.settle("10", 1, "30465 is taken by another program on this host")
    found = await shown(api)
    assert found["statusDetails"]["message"].startswith("30465 is taken")
    assert (await api.call("PUT", PATH, json=found)).status_code == 200
    assert (await shown(api))["portForwards"] == rules
    assert "statusDetails" not in await shown(api)


async def test_each_forward_names_its_engine_and_why(api: Api, place: World) -> None:
    await api.call("PUT", PATH, json={"portForwards": [rule(30465), rule(30466)]})
    found = await shown(api)
    assert [each["portOrig"] for each in found["engines"]] == [30465, 30466]
    assert all(each["engine"] == found["engine"] == "forwarder" and each["reason"] for each in found["engines"])
    assert (found["tunnelAddress"], found["egressAddresses"]) == ("127.1.0.1", ["127.0.0.2"])


async def test_what_is_allowed_and_advised_against(api: Api) -> None:
    rules = [rule(30080, dest=80), rule(30443, dest=443), rule(31000), rule(30999, dest=8443)]
    assert (await api.call("PUT", PATH, json={"portForwards": rules})).status_code == 200
    advice = (await shown(api))["advice"]
    assert [each["field"] for each in advice] == [
        "portForwards[0].portDest",
        "portForwards[1].portDest",
        "portForwards[2].portOrig",
    ]
    assert all(each["message"] for each in advice)


async def test_as_many_as_there_are_ports(api: Api, place: World) -> None:
    every = [rule(port) for port in range(30000, 31001)]
    answer = await api.call("PUT", PATH, json={"portForwards": [*every, rule(30000)]})
    assert fields_of(answer, ENABLE) == ["portForwards"]
    answer = await api.call("PUT", PATH, json={"portForwards": [5] * 500_000, "nonProxyHosts": [5] * 500_000})
    assert fields_of(answer, ENABLE) == ["portForwards", "nonProxyHosts"]
    assert len(answer.content) < 10_000
    answer = await api.call("PUT", PATH, json={f"field{number}": 1 for number in range(50_000)})
    assert len(fields_of(answer, ENABLE)) == 20
    assert place.store.networking("10") is None
    assert (await api.call("PUT", PATH, json={"portForwards": every})).status_code == 200
    assert len((await shown(api))["portForwards"]) == 1001


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], ""),
        (None, ""),
        ({"portForwards": None}, "portForwards"),
        ({"nonProxyHosts": {}}, "nonProxyHosts"),
        ({"portForwards": [rule(30465), rule(30465, "other.example")]}, "portForwards[1].portOrig"),
        ({"nonProxyHosts": ["a.example"]}, "nonProxyHosts"),
        ({"portforwards": []}, "portforwards"),
    ],
)
async def test_a_wrong_body_leaves_all_as_it_was(api: Api, place: World, body: Any, field: str) -> None:
    await api.call("PUT", PATH, json={"portForwards": [rule(30001)]})
    place.store.settle("10", 1, "")
    before = await shown(api)
    headers = {"content-type": "application/json"}
    answer = await api.call("PUT", PATH, content="null" if body is None else None, json=body, headers=headers)
    assert fields_of(answer, ENABLE) == [field]
    assert await shown(api) == before
    assert (await api.call("GET", "/api/program/4/environment/10")).json()["status"] == "ready"


async def test_a_number_that_json_cannot_say(api: Api) -> None:
    content = '{"portForwards": [{"name": "a.example", "portDest": 1e999, "portOrig": -1e999}]}'
    answer = await api.call("PUT", PATH, content=content, headers={"content-type": "application/json"})
    assert fields_of(answer, ENABLE) == ["portForwards[0].portDest", "portForwards[0].portOrig"]


async def test_hosts_that_are_spared(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED) as place:
        api = Api(place)
        hosts = ["example.com", "*.example.com", "shop.*"]
        assert (await api.call("PUT", PATH, json={"nonProxyHosts": hosts})).status_code == 200
        assert (await shown(api))["nonProxyHosts"] == hosts
        place.store.settle("10", 1, "")
        for wrong in ("*", "*.*", "a.*.com", "*example.com", "shop*", "*.shop.*", "Shop.test", ""):
            answer = await api.call("PUT", PATH, json={"nonProxyHosts": [wrong]})
            assert fields_of(answer, ENABLE) == ["nonProxyHosts[0]"], wrong


async def test_of_two_at_once_one_is_taken(api: Api, place: World) -> None:
    bodies = [{"portForwards": [rule(30001 + number)]} for number in range(2)]
    answers = await asyncio.gather(*(api.call("PUT", PATH, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 200)
    assert (await shown(api))["portForwards"] == bodies[winner]["portForwards"]
    assert api.pokes == [1]


class TestWhichWayOut:
    async def test_one_of_another_region_only_is_not_said_to_be_none(self, api: Api, place: World) -> None:
        place.store.add_infrastructure("5", Mode.FLEXIBLE, "deu6", primary=False)
        answer = await api.call("PUT", "/api/program/5/environment/50/advancedNetworking", json={})
        assert answer.status_code == 400
        assert "no network infrastructure for region va7 nor for its primary one" in said(answer)

    async def test_none_yet_then_creating_then_failed_then_ready(self, api: Api, place: World) -> None:
        path = "/api/program/5/environment/50/advancedNetworking"
        answer = await api.call("PUT", path, json={})
        assert answer.status_code == 400
        assert "no network infrastructure" in said(answer)
        made = await api.call(
            "POST", "/api/program/5/networkInfrastructures", json={"kind": "dedicatedEgressIp", "region": "va7"}
        )
        number = made.json()["id"]
        answer = await api.call("PUT", path, json={})
        assert (answer.status_code, f"{number} is creating" in said(answer)) == (409, True)
        place.control.infrastructures.settle_infrastructure(number, 1, "failed", "127.0.0.3 is not on this host")
        answer = await api.call("PUT", path, json={})
        assert (answer.status_code, "127.0.0.3 is not on this host" in said(answer)) == (400, True)
        assert place.store.networking("50") is None
        place.control.infrastructures.settle_infrastructure(number, 1, "ready")
        assert (await api.call("PUT", path, json={})).status_code == 200
        found = await shown(api, path)
        assert (found["networkInfrastructureId"], found["egressAddresses"]) == (number, ["127.0.0.3"])
        place.store.settle("50", 1, "")
        assert (await api.call("DELETE", path)).status_code == 200
        place.store.settle("50", None, "")
        await api.call("DELETE", f"/api/program/5/networkInfrastructure/{number}")
        answer = await api.call("PUT", path, json={})
        assert (answer.status_code, f"{number} is deleting" in said(answer)) == (409, True)

    async def test_the_region_s_own_else_the_primary_s(self, api: Api, place: World) -> None:
        numbers: dict[str, str] = {}
        for region in ("va7", "nld2"):
            body = {"kind": "dedicatedEgressIp", "region": region}
            answer = await api.call("POST", "/api/program/5/networkInfrastructures", json=body)
            numbers[region] = answer.json()["id"]
            place.control.infrastructures.settle_infrastructure(numbers[region], 1, "ready")
        for region, expected in (("nld2", "nld2"), ("va7", "va7"), ("jpn4", "va7")):
            environment = place.store.add_environment(
                "5", region, kind="dev", region=region, tunnel_address="127.1.0.9", client_networks=[]
            )
            path = f"/api/program/5/environment/{environment.id}/advancedNetworking"
            assert (await api.call("PUT", path, json={})).status_code == 200
            assert (await shown(api, path))["networkInfrastructureId"] == numbers[expected]

    async def test_a_vpn_that_failed_lets_nothing_be_enabled(self, tmp_path: Path) -> None:
        with world(tmp_path, kind=Mode.VPN) as place:
            api = Api(place)
            reason = "the VPN's data path is not available in this release: nothing leaves"
            place.control.infrastructures.settle_infrastructure("7", 1, "failed", reason)
            answer = await api.call("PUT", PATH, json={"portForwards": [rule(30465)]})
            assert (answer.status_code, reason in said(answer)) == (400, True)

    async def test_one_that_fails_later_shows_no_address(self, api: Api, place: World) -> None:
        await api.call("PUT", PATH, json={"portForwards": [rule(30465)]})
        place.control.infrastructures.settle_infrastructure("7", 1, "failed", "no shared address")
        found = await shown(api)
        assert (found["egressAddresses"], found["engines"]) == ([], [])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_of_whom(api: Api, method: str) -> None:
    body = {"json": {}} if method == "PUT" else {}
    for path in ("/api/program/4/environment/50", "/api/program/9/environment/10"):
        assert (await api.call(method, path + "/advancedNetworking", **body)).status_code == 404
    assert (await api.call(method, PATH, token="stranger", **body)).status_code == 404
