"""Programs, tenants, regions and environments over the Cloud Manager API: made, listed, taken away, and each refusal."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from support.egress_store import ACCOUNT, ORG, Api, World

REL = "http://ns.adobe.com/adobecloud/rel/"
PROGRAMS = f"/api/tenant/{ACCOUNT}/programs"
ENVIRONMENTS = "/api/program/4/environments"
NEW_PROGRAM = {"name": "Second", "type": "aem_cloud_service"}
NEW = {"name": "dev-1", "type": "dev", "region": "va7"}


def wrong_fields(answer: httpx2.Response) -> list[str]:
    """Return the fields of a validation problem, after checking its shape."""
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), answer.text
    body = answer.json()
    assert (body["type"], body["title"]) == (
        "http://ns.adobe.com/adobecloud/validation-exception",
        "Constraint Violations",
    )
    return sorted(name.partition(".arg1")[2].removeprefix(".") for name in body["errors"])


def coded(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a problem with one coded error."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    ((entry),) = answer.json()["errors"]
    return answer.status_code, entry["code"]


class TestPrograms:
    async def test_made_listed_and_taken_away(self, api: Api, place: World) -> None:
        body = {**NEW_PROGRAM, "capabilities": {"sandbox": True}, "solutionNames": ["aemsites"], "goLive": {}}
        place.clock.advance(1)
        made = await api.call("POST", PROGRAMS, json=body)
        assert made.status_code == 201
        program = made.json()
        assert (program["name"], program["status"], program["capabilities"]) == ("Second", "ready", {"sandbox": True})
        assert (program["tenantId"], program["imsOrgId"]) == (ACCOUNT, ORG)
        links = {name.removeprefix(REL): entry["href"] for name, entry in program["_links"].items()}
        path = f"/api/program/{program['id']}"
        assert links == {
            "self": path,
            "tenant": f"/api/tenant/{ACCOUNT}",
            "environments": f"{path}/environments",
            "networkInfrastructures": f"{path}/networkInfrastructures",
            "regions": f"{path}/regions",
        }
        for href in links.values():
            assert (await api.call("GET", href)).status_code == 200, href
        for listing in ("/api/programs", PROGRAMS):
            listed = (await api.call("GET", listing)).json()
            assert [each["id"] for each in listed["_embedded"]["programs"]] == ["4", program["id"]]
        gone = await api.call("DELETE", path)
        assert (gone.status_code, gone.json()["status"]) == (200, "deleting")
        assert (await api.call("GET", path)).status_code == 404
        assert (await api.call("DELETE", path)).status_code == 404
        assert [row.action for row in place.store.audit(target=program["id"])] == ["program.delete", "program.create"]

    async def test_a_taken_name(self, api: Api) -> None:
        answer = await api.call("POST", PROGRAMS, json={**NEW_PROGRAM, "name": "Shop"})
        assert coded(answer) == (409, "exists")
        # Another organisation's programs have names of their own.
        elsewhere = {"x-gw-ims-org-id": "Other@AdobeOrg"}
        answer = await api.call("POST", PROGRAMS, json={**NEW_PROGRAM, "name": "Shop"}, headers=elsewhere)
        assert answer.status_code == 201

    async def test_one_that_holds_something_stays(self, api: Api, place: World) -> None:
        answer = await api.call("DELETE", "/api/program/4")
        assert coded(answer) == (412, "not_empty")
        assert "environment 10, 11" in answer.text and "network infrastructure 7" in answer.text
        assert (await api.call("GET", "/api/program/4")).json()["status"] == "ready"

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": None}, "name"),
            ({"name": 5}, "name"),
            ({"name": "x" * 65}, "name"),
            ({"name": "a\0b"}, "name"),
            ({"name": "half \\ud800"}, "name"),
            ({"type": None}, "type"),
            ({"type": "media_library"}, "type"),
            ({"type": []}, "type"),
            ({"capabilities": 5}, "capabilities"),
            ({"capabilities": {"sandbox": "yes"}}, "capabilities.sandbox"),
        ],
    )
    async def test_a_wrong_field_is_named_and_nothing_is_made(
        self, api: Api, change: dict[str, object], field: str
    ) -> None:
        import json

        text = json.dumps({**NEW_PROGRAM, **change}).replace("\\\\ud800", "\\ud800")
        answer = await api.call("POST", PROGRAMS, content=text, headers={"content-type": "application/json"})
        assert wrong_fields(answer) == [field]
        assert (await api.call("GET", PROGRAMS)).json()["_totalNumberOfItems"] == 1

    async def test_a_body_that_is_no_object(self, api: Api) -> None:
        for path in (PROGRAMS, ENVIRONMENTS):
            assert wrong_fields(await api.call("POST", path, json=[])) == [""]

    async def test_pages(self, api: Api, place: World) -> None:
        for number in range(4):
            place.clock.advance(1)
            await api.call("POST", PROGRAMS, json={**NEW_PROGRAM, "name": f"more {number}"})
        names: list[str] = []
        path = f"{PROGRAMS}?limit=2"
        while path:
            page = (await api.call("GET", path)).json()
            assert page["_totalNumberOfItems"] == 5
            names += [each["name"] for each in page["_embedded"]["programs"]]
            path = page["_links"].get("next", {}).get("href", "")
        assert names == ["Shop", "more 0", "more 1", "more 2", "more 3"]
        assert (page["_page"]["start"], page["_page"]["prev"], page["_page"]["limit"]) == (4, 2, 2)
        assert "next" not in page["_page"]
        back = (await api.call("GET", page["_links"]["prev"]["href"])).json()
        assert [each["name"] for each in back["_embedded"]["programs"]] == ["more 1", "more 2"]
        beyond = (await api.call("GET", "/api/programs?start=99")).json()
        assert (beyond["_embedded"]["programs"], beyond["_totalNumberOfItems"]) == ([], 5)

    @pytest.mark.parametrize(
        "query", ["start=-1", "start=x", "limit=0", "limit=1001", "limit=" + "9" * 5000, "start=²"]
    )
    async def test_a_page_that_cannot_be(self, api: Api, query: str) -> None:
        answer = await api.call("GET", f"/api/programs?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        body = answer.json()
        assert (body["type"], body["title"]) == ("http://ns.adobe.com/adobecloud/error", "Validation failed")
        (entry,) = body["invalidParams"]
        assert entry["name"] == query.partition("=")[0]
        assert body["missingParams"] == [] and entry["reason"] in body["errors"][0]["message"]


class TestTenants:
    async def test_the_one_that_there_is(self, api: Api) -> None:
        (one,) = (await api.call("GET", "/api/tenants")).json()["_embedded"]["tenants"]
        assert (one["id"], one["imsOrgId"], one["status"]) == (ACCOUNT, ORG, "ready")
        assert (await api.call("GET", one["_links"]["self"]["href"])).json() == one
        programs = (await api.call("GET", one["_links"][REL + "programs"]["href"])).json()
        assert programs["_embedded"]["programs"][0]["id"] == "4"

    @pytest.mark.parametrize("path", ["/api/tenant/nobody", "/api/tenant/nobody/programs"])
    async def test_another_is_not_there(self, api: Api, path: str) -> None:
        assert coded(await api.call("GET", path)) == (404, "not_found")

    async def test_nothing_is_made_in_anothers(self, api: Api) -> None:
        assert coded(await api.call("POST", "/api/tenant/nobody/programs", json=NEW_PROGRAM)) == (404, "not_found")


async def test_regions(api: Api) -> None:
    answer = (await api.call("GET", "/api/program/4/regions")).json()
    assert [each["name"] for each in answer["_embedded"]["regions"]] == ["aus5", "deu6", "va7"]


class TestEnvironments:
    async def test_made_ready_and_taken_away(self, api: Api, place: World) -> None:
        body = {**NEW, "description": "Ümläut\nline", "secondaryRegionDeployments": [{"region": "deu6"}], "x": 1}
        answer = await api.call("POST", ENVIRONMENTS, json=body)
        assert (answer.status_code, api.pokes) == (201, [1])
        made = answer.json()
        assert (made["status"], made["type"], made["region"], made["programId"]) == ("creating", "dev", "va7", "4")
        assert made["description"] == "Ümläut\nline"
        assert made["secondaryRegionDeployments"] == [{"region": "deu6"}]
        path = made["_links"]["self"]["href"]
        assert (await api.call("GET", path)).json() == made
        assert place.store.settle(made["id"], None, "")
        assert (await api.call("GET", path)).json()["status"] == "ready"
        variables = f"{path}/variables"
        body = [{"name": "KEY", "value": "s", "type": "secretString"}]  # pyright: ignore[reportAssignmentType]
        assert (await api.call("PATCH", variables, json=body)).status_code == 204
        assert (await api.call("PUT", f"{path}/advancedNetworking", json={})).status_code == 200
        assert coded(await api.call("DELETE", path)) == (409, "moving")
        assert place.store.settle(made["id"], 1, "")
        gone = await api.call("DELETE", path)
        assert (gone.status_code, gone.json()["status"]) == (201, "deleting")
        assert api.pokes == [1, 1, 1]
        # Until the engine has closed it, it is there, holds nothing, and takes nothing.
        assert (await api.call("GET", variables)).json()["_totalNumberOfItems"] == 0
        assert coded(await api.call("PATCH", variables, json=body)) == (409, "moving")
        assert coded(await api.call("POST", f"{path}/runtime", json={"service": "author"})) == (409, "moving")
        assert (await api.call("PUT", f"{path}/advancedNetworking", json={})).status_code == 409
        assert coded(await api.call("DELETE", path)) == (409, "moving")
        assert place.store.finish_deletion(made["id"])
        assert (await api.call("GET", path)).status_code == 404
        assert [row.action for row in place.store.audit(target=made["id"])][:2] == [
            "environment.deleted",
            "environment.delete",
        ]

    async def test_tunnel_addresses_are_never_shared(self, api: Api, place: World) -> None:
        """127.1.0.3 is something else's, and others are in use: the rest of 1 to 6 is given out in order."""
        made: list[Any] = []
        used = {each.tunnel_address for each in place.store.environments("4")} | {"127.1.0.3"}
        free = [each for each in (f"127.1.0.{last}" for last in range(1, 7)) if each not in used]
        for number in range(len(free)):
            answer = await api.call("POST", ENVIRONMENTS, json={**NEW, "name": f"dev-{number}"})
            assert answer.status_code == 201
            made.append(place.store.environment("4", answer.json()["id"]))
        assert [each.tunnel_address for each in made] == free
        assert {each.client_networks for each in made} == {("127.0.0.0/8",)}
        full = await api.call("POST", ENVIRONMENTS, json=NEW)
        assert coded(full) == (409, "exhausted") and "egress.tunnel_network" in full.text
        assert place.store.settle(made[1].id, None, "")
        path = f"/api/program/4/environment/{made[1].id}"
        assert (await api.call("DELETE", path)).status_code == 201
        assert (await api.call("POST", ENVIRONMENTS, json=NEW)).status_code == 409
        assert place.store.settle(made[1].id, None, "")
        again = (await api.call("POST", ENVIRONMENTS, json=NEW)).json()
        assert place.store.environment("4", again["id"]).tunnel_address == free[1]

    async def test_one_production_environment(self, api: Api) -> None:
        answer = await api.call("POST", ENVIRONMENTS, json={**NEW, "type": "prod"})
        assert wrong_fields(answer) == ["type"] and "environment 10" in answer.text

    async def test_the_production_environment_stays_while_networks_need_it(self, api: Api, place: World) -> None:
        answer = await api.call("DELETE", "/api/program/4/environment/10")
        assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request")
        assert "network infrastructure 7" in answer.json()["errors"][0]
        assert (await api.call("GET", "/api/program/4/environment/10")).json()["status"] == "ready"
        # Another environment is nobody's ground.
        assert (await api.call("DELETE", "/api/program/4/environment/11")).status_code == 201
        assert (await api.call("DELETE", "/api/program/4/networkInfrastructure/7")).status_code in (200, 204)
        assert place.control.infrastructures.finish_infrastructure("7", 2)
        assert (await api.call("DELETE", "/api/program/4/environment/10")).status_code == 201
        assert place.store.finish_deletion("10") and place.store.finish_deletion("11")
        assert (await api.call("DELETE", "/api/program/4")).status_code == 200

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": None}, "name"),
            ({"name": ""}, "name"),
            ({"name": "x" * 65}, "name"),
            ({"name": "a\x1bb"}, "name"),
            ({"name": ["dev"]}, "name"),
            ({"type": None}, "type"),
            ({"type": "preprod"}, "type"),
            ({"type": {}}, "type"),
            ({"region": None}, "region"),
            ({"region": "moon"}, "region"),
            ({"region": 10**400}, "region"),
            ({"description": None}, "description"),
            ({"description": "x" * 1025}, "description"),
            ({"secondaryRegionDeployments": {}}, "secondaryRegionDeployments"),
            ({"secondaryRegionDeployments": [5] * 100_000}, "secondaryRegionDeployments"),
            ({"secondaryRegionDeployments": ["deu6"]}, "secondaryRegionDeployments[0]"),
            ({"secondaryRegionDeployments": [{}]}, "secondaryRegionDeployments[0].region"),
            ({"secondaryRegionDeployments": [{"region": "va7"}]}, "secondaryRegionDeployments[0].region"),
            ({"secondaryRegionDeployments": [{"region": "deu6"}] * 2}, "secondaryRegionDeployments[1].region"),
        ],
    )
    async def test_a_wrong_field_is_named_and_nothing_is_made(
        self, api: Api, change: dict[str, object], field: str
    ) -> None:
        answer = await api.call("POST", ENVIRONMENTS, json={**NEW, **change})
        assert wrong_fields(answer) == [field]
        assert (await api.call("GET", ENVIRONMENTS)).json()["_totalNumberOfItems"] == 2
        assert api.pokes == []

    async def test_another_organisations_program_takes_none(self, api: Api) -> None:
        for method, path in (("POST", ENVIRONMENTS), ("DELETE", "/api/program/4/environment/11")):
            answer = await api.call(method, path, json=NEW, token="stranger")
            assert answer.status_code == 404


class TestHostile:
    @pytest.mark.parametrize("identifier", ["%00", "%2e%2e", "4%2f..", "9" * 4000, "%ff%fe", "%ed%a0%80", "4'--", "*"])
    @pytest.mark.parametrize(
        "path", ["/api/program/{}", "/api/program/4/environment/{}", "/api/tenant/{}", "/api/program/{}/environments"]
    )
    async def test_ids_of_nothing(self, api: Api, path: str, identifier: str) -> None:
        answer = await api.call("GET", path.format(identifier))
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 1000

    @pytest.mark.parametrize(("path", "allow"), [(PROGRAMS, "GET, POST"), ("/api/program/4", "DELETE, GET")])
    async def test_a_method_that_is_not_there_is_told_of_all_that_are(self, api: Api, path: str, allow: str) -> None:
        answer = await api.call("PATCH", path, json=[])
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert coded(answer) == (405, "route")

    @pytest.mark.parametrize("path", [PROGRAMS, ENVIRONMENTS])
    async def test_bodies_that_are_not_read(self, api: Api, path: str) -> None:
        json_type: dict[str, str | None] = {"content-type": "application/json"}
        assert coded(await api.call("POST", path, content="{}", headers={"content-type": "text/json"})) == (
            415,
            "unsupported_media_type",
        )
        for content in (b"", b"{", b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b'{"name":NaN}', b"1" * 5000):
            answer = await api.call("POST", path, content=content, headers=json_type)
            assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request"), content[:10]

        async def endless() -> Any:
            for _ in range(100):
                yield b" " * 65_536

        answer = await api.call("POST", path, content=endless(), headers=json_type)
        assert coded(answer) == (413, "payload_too_large")

    async def test_a_store_that_is_busy_says_so_and_stores_nothing(self, api: Api, place: World) -> None:
        from sqlalchemy.exc import OperationalError

        def locked(*_: object, **__: object) -> None:
            raise OperationalError("BEGIN", None, Exception("database is locked"))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place.control.places, "create_program", locked)
            answer = await api.call("POST", PROGRAMS, json=NEW_PROGRAM)
        assert coded(answer) == (503, "unavailable")
        assert answer.headers["retry-after"] and "locked" not in answer.text
