"""Network infrastructures over the API: three kinds, every rule, every wrong field named, keys that go in only."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate.api.cloud_manager.infrastructure_bodies import CREATE, IPSEC_LEAST, IPSEC_POLICY, UPDATE
from support.egress_store import ACCOUNT, ORG, Api, World, bare_program
from support.network_bodies import POLICY, connection, fields_of, shared_key, vpn, without_key

PLURAL = "/api/program/5/networkInfrastructures"
DEDICATED = {"kind": "dedicatedEgressIp", "region": "va7"}
FLEXIBLE = {"kind": "flexiblePortEgress", "region": "va7"}


@pytest.fixture
def place(with_bare: World) -> World:
    return with_bare


async def made(api: Api, place: World, body: dict[str, Any], status: str = "ready", reason: str = "") -> str:
    """Create one, have it settled; return its path."""
    answer = await api.call("POST", PLURAL, json=body)
    assert answer.status_code == 201, answer.text
    assert place.control.infrastructures.settle_infrastructure(answer.json()["id"], 1, status, reason)
    path: str = answer.json()["_links"]["self"]["href"]
    return path


def said(answer: httpx2.Response, status: int) -> str:
    """Return the one message of a refusal that names no field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    (error,) = answer.json()["errors"]
    return error if isinstance(error, str) else error["message"]


class TestLife:
    async def test_from_nothing_to_ready_to_gone(self, api: Api, place: World) -> None:
        answer = await api.call("POST", PLURAL, json=DEDICATED)
        assert answer.status_code == 201
        shown = answer.json()
        number = shown["id"]
        path = f"/api/program/5/networkInfrastructure/{number}"
        assert (shown["_links"]["self"]["href"], answer.headers["location"]) == (path, path)
        assert isinstance(number, str)
        assert {name: shown[name] for name in ("programId", "kind", "region", "isPrimaryRegion", "status")} == {
            "programId": "5",
            **DEDICATED,
            "isPrimaryRegion": True,
            "status": "creating",
        }
        # 127.0.0.2 is in the pool too, and everybody else leaves from it.
        assert shown["egressAddresses"] == ["127.0.0.3"]
        assert "statusDetails" not in shown
        assert (shown["created"], shown["updated"]) == (shown["created"], shown["created"])
        assert api.pokes == [1]
        assert "creating" in said(await api.call("DELETE", path), 409)
        place.control.infrastructures.settle_infrastructure(number, 1, "ready")
        assert (await api.call("GET", path)).json() == {**shown, "status": "ready"}
        assert (await api.call("GET", PLURAL)).json()["_embedded"]["networkInfrastructures"] == [
            {**shown, "status": "ready"}
        ]
        answer = await api.call("DELETE", path)
        assert (answer.status_code, answer.json()["status"]) == (200, "deleting")
        assert "deleting" in said(await api.call("DELETE", path), 409)
        place.control.infrastructures.finish_infrastructure(number, 2)
        for method in ("GET", "DELETE"):
            assert number in said(await api.call(method, path), 404)
        assert number in said(await api.call("PUT", path, json=DEDICATED), 404)
        assert (await api.call("GET", PLURAL)).json()["_totalNumberOfItems"] == 0

    async def test_a_failure_says_why(self, api: Api, place: World) -> None:
        path = await made(api, place, DEDICATED, "failed", "127.0.0.3 is not on this host")
        shown = (await api.call("GET", path)).json()
        assert shown["status"] == "failed"
        assert shown["statusDetails"] == {
            "errorCode": "DEDICATED_ADDRESS_UNAVAILABLE",
            "publicDetails": {"kind": "dedicatedEgressIp", "region": "va7", "egressAddresses": ["127.0.0.3"]},
            "message": "127.0.0.3 is not on this host",
        }
        assert (await api.call("DELETE", path)).status_code == 200

    async def test_a_vpn_is_edited(self, api: Api, place: World) -> None:
        body = vpn()
        path = await made(api, place, body, "failed", "the VPN's data path is not available in this release")
        shown = (await api.call("GET", path)).json()
        assert {name: shown[name] for name in body} == without_key(body)
        assert (shown["gatewayAddress"], shown["egressAddresses"]) == ("127.0.0.4", ["127.0.0.3"])
        assert shown["statusDetails"]["errorCode"] == "VPN_UNAVAILABLE"
        # What GET shows may be sent back, with the key.
        shown["connections"][0] |= {"sharedKey": shared_key(), "name": "renamed"}
        answer = await api.call("PUT", path, json=shown)
        assert (answer.status_code, answer.json()["status"]) == (200, "updating")
        assert answer.json()["connections"][0]["name"] == "renamed"
        assert "statusDetails" not in answer.json()
        assert "updating" in said(await api.call("PUT", path, json=body), 409)
        assert "updating" in said(await api.call("DELETE", path), 409)
        found = place.control.infrastructures.shared_keys(shown["id"])
        assert found == {"renamed": shown["connections"][0]["sharedKey"]}
        assert api.pokes == [1, 1]

    @pytest.mark.parametrize("body", [FLEXIBLE, DEDICATED])
    async def test_the_others_are_not(self, api: Api, place: World, body: dict[str, Any]) -> None:
        path = await made(api, place, body)
        assert "delete it and create anew" in said(await api.call("PUT", path, json=body), 400)

    async def test_deletion_waits_until_no_environment_uses_it(self, api: Api, place: World) -> None:
        path, used = "/api/program/4/networkInfrastructure/7", "/api/program/4/environment/11/advancedNetworking"
        assert (await api.call("PUT", used, json={})).status_code == 200
        answer = await api.call("DELETE", path)
        assert "environment 11" in said(answer, 400)
        assert answer.json()["type"].endswith("/validation-exception")
        place.store.settle("11", 1, "")
        assert (await api.call("DELETE", used)).status_code == 200
        assert (await api.call("DELETE", path)).status_code == 200

    async def test_whose_it_is(self, api: Api, place: World) -> None:
        path = await made(api, place, FLEXIBLE)
        for method, where in (("POST", PLURAL), ("PUT", path), ("DELETE", path)):
            assert (await api.call(method, where, token="reader", json=FLEXIBLE)).status_code == 403
            assert (await api.call(method, where, token="stranger", json=FLEXIBLE)).status_code == 404
        other = path.replace("/5/", "/4/")
        assert (await api.call("GET", other)).status_code == 404
        assert (await api.call("DELETE", other)).status_code == 404


class TestRulesOfAProgram:
    async def test_what_stands_in_the_way(self, api: Api, place: World) -> None:
        place.store.add_program(ORG, ACCOUNT, "Bare", program_id="6")
        answer = await api.call("POST", "/api/program/6/networkInfrastructures", json=FLEXIBLE)
        assert "type prod" in said(answer, 400)
        with place.control._database.writing() as connection:
            connection.exec_driver_sql("UPDATE programs SET sandbox = 1 WHERE id = '6'")
        answer = await api.call("POST", "/api/program/6/networkInfrastructures", json=FLEXIBLE)
        assert "sandbox" in said(answer, 400)
        assert (await api.call("POST", "/api/program/9/networkInfrastructures", json=FLEXIBLE)).status_code == 404
        answer = await api.call("POST", PLURAL, json={**FLEXIBLE, "region": "deu6"})
        assert fields_of(answer, CREATE) == ["region"]
        assert "va7, nld2" in answer.json()["errors"][f"{CREATE}.region"]["message"]
        await made(api, place, FLEXIBLE)
        assert "one kind" in said(await api.call("POST", PLURAL, json=DEDICATED), 409)
        assert "region va7 has" in said(await api.call("POST", PLURAL, json=FLEXIBLE), 409)
        answer = await api.call("POST", PLURAL, json={**FLEXIBLE, "region": "nld2", "isPrimaryRegion": True})
        assert fields_of(answer, CREATE) == ["isPrimaryRegion"]
        answer = await api.call("POST", PLURAL, json={**FLEXIBLE, "region": "nld2"})
        assert (answer.status_code, answer.json()["isPrimaryRegion"]) == (201, False)

    async def test_of_two_at_once_one_is_made(self, api: Api) -> None:
        answers = await asyncio.gather(*(api.call("POST", PLURAL, json=DEDICATED) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [201, 409]

    async def test_an_empty_pool_says_who_can_help(self, api: Api, place: World) -> None:
        for number in ("6", "7", "8"):
            bare_program(place, number)
        for number in ("6", "7"):
            answer = await api.call("POST", f"/api/program/{number}/networkInfrastructures", json=DEDICATED)
            assert answer.status_code == 201
        answer = await api.call("POST", "/api/program/8/networkInfrastructures", json=DEDICATED)
        assert "egress.dedicated_addresses" in said(answer, 400)
        assert (await api.call("GET", "/api/program/8/networkInfrastructures")).json()["_totalNumberOfItems"] == 0

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"kind": "flexiblePortEgress", "addressSpace": [], "dns": None, "connections": []}, "kind"),
            ({"region": "nld2"}, "region"),
            ({"addressSpace": ["10.104.0.0/24"]}, "addressSpace"),
        ],
    )
    async def test_what_cannot_be_changed_of_a_vpn(
        self, api: Api, place: World, change: dict[str, object], field: str
    ) -> None:
        path = await made(api, place, vpn())
        answer = await api.call("PUT", path, json=vpn(**change))
        assert fields_of(answer, UPDATE) == [field]
        assert (await api.call("GET", path)).json()["status"] == "ready"


def at(path: str, value: object) -> dict[str, Any]:
    """Return a VPN's body with one thing changed, or (`...`) taken away."""
    body: Any = vpn()
    place = body
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return body


CONNECTION = "connections[0]"
GATEWAY = f"{CONNECTION}.gateway"
WRONG: list[tuple[dict[str, Any], str]] = [
    (at("kind", ...), "kind"),
    (at("kind", "none"), "kind"),
    (at("kind", "VPN"), "kind"),
    (at("kind", ["vpn"]), "kind"),
    (at("region", ...), "region"),
    (at("region", 7), "region"),
    (at("isPrimaryRegion", "true"), "isPrimaryRegion"),
    (at("sharedKey", "lost"), "sharedKey"),
    (at("addressSpace", ...), "addressSpace"),
    (at("addressSpace", "10.0.0.0/24"), "addressSpace"),
    (at("addressSpace", []), "addressSpace"),
    (at("addressSpace", ["10.0.0.0/24", "10.0.1.0/24"]), "addressSpace"),
    (at("addressSpace", ["10.0.0.0/27"]), "addressSpace[0]"),
    (at("addressSpace", ["10.0.0.0"]), "addressSpace[0]"),
    (at("addressSpace", ["10.0.0.1/24"]), "addressSpace[0]"),
    (at("addressSpace", ["10.0.0.0/255.255.255.0"]), "addressSpace[0]"),
    (at("addressSpace", ["fd00::/32"]), "addressSpace[0]"),
    (at("addressSpace", [None]), "addressSpace[0]"),
    (at("dns", ...), "dns"),
    (at("dns", ["10.151.0.1"]), "dns"),
    (at("dns.resolvers", ...), "dns.resolvers"),
    (at("dns.resolvers", []), "dns.resolvers"),
    (at("dns.resolvers", ["10.151.0.1"] * 17), "dns.resolvers"),
    (at("dns.resolvers", ["10.150.0.1"]), "dns.resolvers[0]"),
    (at("dns.resolvers", ["fd13::1"]), "dns.resolvers[0]"),
    (at("dns.resolvers", ["a.example"]), "dns.resolvers[0]"),
    (at("dns.resolvers", [180879361]), "dns.resolvers[0]"),
    (at("dns.domains", "shop.example"), "dns.domains"),
    (at("dns.domains", ["a b"]), "dns.domains[0]"),
    (at("dns.search", []), "dns.search"),
    (at("connections", ...), "connections"),
    (at("connections", []), "connections"),
    (at("connections", [connection(), connection()]), "connections"),
    (at("connections", ["one"]), CONNECTION),
    (at("connections.0.name", ...), f"{CONNECTION}.name"),
    (at("connections.0.name", "a b"), f"{CONNECTION}.name"),
    (at("connections.0.name", "a" * 65), f"{CONNECTION}.name"),
    (at("connections.0.sharedKey", ...), f"{CONNECTION}.sharedKey"),
    (at("connections.0.sharedKey", ""), f"{CONNECTION}.sharedKey"),
    (at("connections.0.sharedKey", "x" * 257), f"{CONNECTION}.sharedKey"),
    (at("connections.0.sharedKey", "clé"), f"{CONNECTION}.sharedKey"),
    (at("connections.0.sharedKey", "two\nlines"), f"{CONNECTION}.sharedKey"),
    (at("connections.0.sharedkey", "x"), f"{CONNECTION}.sharedkey"),
    (at("connections.0.gateway", ...), GATEWAY),
    (at("connections.0.gateway", "203.0.113.1"), GATEWAY),
    (at("connections.0.gateway.address", ...), f"{GATEWAY}.address"),
    (at("connections.0.gateway.address", "vpn.example"), f"{GATEWAY}.address"),
    (at("connections.0.gateway.address", "0.0.0.0"), f"{GATEWAY}.address"),
    (at("connections.0.gateway.address", "224.0.0.1"), f"{GATEWAY}.address"),
    (at("connections.0.gateway.address", "fe80::1%eth0"), f"{GATEWAY}.address"),
    (at("connections.0.gateway.addressSpace", ...), f"{GATEWAY}.addressSpace"),
    (at("connections.0.gateway.addressSpace", []), f"{GATEWAY}.addressSpace"),
    (at("connections.0.gateway.addressSpace", ["10.151.0.0/16", "x/1"]), f"{GATEWAY}.addressSpace[1]"),
    (at("connections.0.gateway.port", 500), f"{GATEWAY}.port"),
    (at("connections.0.ipsecPolicy", ...), f"{CONNECTION}.ipsecPolicy"),
    (at("connections.0.ipsecPolicy.dpd", 1), f"{CONNECTION}.ipsecPolicy.dpd"),
    *((at(f"connections.0.ipsecPolicy.{name}", ...), f"{CONNECTION}.ipsecPolicy.{name}") for name in POLICY),
    *((at(f"connections.0.ipsecPolicy.{name}", "AES257"), f"{CONNECTION}.ipsecPolicy.{name}") for name in POLICY),
    *((at(f"connections.0.ipsecPolicy.{name}", 1e999), f"{CONNECTION}.ipsecPolicy.{name}") for name in POLICY),
    *(
        (at(f"connections.0.ipsecPolicy.{name}", value), f"{CONNECTION}.ipsecPolicy.{name}")
        for name, (least, most) in IPSEC_LEAST.items()
        for value in (least - 1, most + 1, True, float(least))
    ),
]


class TestBodies:
    async def test_a_wrong_field_is_named_and_nothing_is_kept(self, api: Api, place: World) -> None:
        for body, field in WRONG:
            content = json.dumps(body).replace("Infinity", "1e999")
            answer = await api.call("POST", PLURAL, content=content, headers={"content-type": "application/json"})
            assert fields_of(answer, CREATE) == [field], body
        assert place.control.infrastructures.of_program("5") == ()
        assert api.pokes == []

    @pytest.mark.parametrize("name", ["addressSpace", "dns", "connections"])
    async def test_what_is_for_a_vpn_only(self, api: Api, name: str) -> None:
        answer = await api.call("POST", PLURAL, json={**DEDICATED, name: vpn()[name]})
        assert fields_of(answer, CREATE) == [name]

    @pytest.mark.parametrize("body", [[], "vpn", None, 5])
    async def test_a_body_is_an_object(self, api: Api, body: object) -> None:
        content = json.dumps(body)
        answer = await api.call("POST", PLURAL, content=content, headers={"content-type": "application/json"})
        assert fields_of(answer, CREATE) == [""]

    async def test_every_spelling_and_every_limit_is_taken(self, api: Api, place: World) -> None:
        longest = max(len(allowed) for allowed in IPSEC_POLICY.values())
        policies = [
            {
                **{name: allowed[min(at, len(allowed) - 1)] for name, allowed in IPSEC_POLICY.items()},
                **{name: least for name, (least, _) in IPSEC_LEAST.items()},
            }
            for at in range(longest)
        ]
        path = await made(api, place, vpn())
        generation = 1
        for policy in policies:
            body = vpn(connections=[connection(ipsecPolicy=policy, sharedKey="x" * 256)])
            answer = await api.call("PUT", path, json=body)
            assert answer.json()["connections"][0]["ipsecPolicy"] == policy
            generation += 1
            place.control.infrastructures.settle_infrastructure(answer.json()["id"], generation, "ready")
        # The counts are the contract's: a spelling lost or added by mistake is noticed.
        assert [len(allowed) for allowed in IPSEC_POLICY.values()] == [8, 5, 4, 9, 6, 7]


class TestKeys:
    """A shared key goes in and is never seen again, wherever in the body it stood."""

    async def test_in_no_answer_file_or_log(
        self, api: Api, place: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        key = shared_key()
        seen: list[str] = []
        for body in (
            vpn(connections=[connection(sharedKey=key + "\n")]),
            vpn(connections=[connection(sharedKey=[key])]),
            vpn(connections=[connection(name=key + " ", sharedKey=5)]),
            vpn(connections=[connection(sharedkey=key)]),
            vpn(connections=[connection(gateway=key)]),
            vpn(connections=[connection(ipsecPolicy=key)]),
            vpn(connections=[key]),
            vpn(connections=key),
            vpn(connections={"sharedKey": key}),
            vpn(sharedKey=key),
            {**DEDICATED, "connections": [connection(sharedKey=key)]},
            [{"sharedKey": key}],
        ):
            answer = await api.call("POST", PLURAL, json=body)
            assert answer.status_code == 400, answer.text
            seen.append(answer.text)
        path = await made(api, place, vpn(connections=[connection(sharedKey=key)]), "failed", "no data path")
        body = vpn(connections=[connection(sharedKey=key)])
        for method, where in (("GET", path), ("GET", PLURAL), ("PUT", path), ("GET", path)):
            answer = await api.call(method, where, **({"json": body} if method == "PUT" else {}))
            assert answer.status_code == 200
            seen.append(answer.text)
        seen += [repr(place.store.audit()), *(repr(vars(record)) for record in caplog.records)]
        assert not [text for text in seen if key in text]
        assert not [file for file in tmp_path.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
        number = path.rpartition("/")[2]
        assert place.control.infrastructures.shared_keys(number) == {"connection-1": key}
