"""The Cloud Manager API: shapes that the clients rely on, each refusal, and what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from outgate.model.egress import Mode
from support.egress_store import ORG, Api, World, world

REL = "http://ns.adobe.com/adobecloud/rel/"
VARIABLES = "/api/program/4/environment/10/variables"
NETWORKING = "/api/program/4/environment/10/advancedNetworking"
RUNTIME = "/api/program/4/environment/10/runtime"
RULE = {"name": "smtp.mymail.com", "portDest": 465, "portOrig": 30465}


def errors_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the fields of a validation problem, after checking its shape."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "http://ns.adobe.com/adobecloud/validation-exception"
    assert (body["title"], body["status"]) == ("Constraint Violations", 400)
    for field, entry in body["errors"].items():
        assert entry["field"] == field
        assert set(entry) == {"field", "code", "message", "invalidValue"}
        # The vendor's client shows the field only beside a value that JavaScript takes for true.
        assert entry["invalidValue"]
    return body["errors"]


class TestDiscovery:
    async def test_the_way_that_the_clients_take(self, api: Api) -> None:
        listed = (await api.call("GET", "/api/programs")).json()
        assert listed["_totalNumberOfItems"] == 1
        (program,) = listed["_embedded"]["programs"]
        assert (program["id"], program["name"], program["status"]) == ("4", "Shop", "ready")
        # The light form: what only the program itself tells is left out.
        assert not {"imsOrgId", "type", "capabilities"} & set(program)
        program = (await api.call("GET", program["_links"]["self"]["href"])).json()
        assert (program["imsOrgId"], program["capabilities"]) == (ORG, {"sandbox": False})
        href = program["_links"][REL + "environments"]["href"]
        assert href == "/api/program/4/environments"
        found = (await api.call("GET", href)).json()["_embedded"]["environments"]
        assert [each["id"] for each in found] == ["10", "11"]
        assert found[0]["_links"][REL + "variables"]["href"] == VARIABLES
        assert found[0]["_links"][REL + "advancedNetworking"]["href"] == NETWORKING
        one = (await api.call("GET", found[0]["_links"]["self"]["href"])).json()
        assert (one["id"], one["programId"], one["type"], one["status"]) == ("10", "4", "prod", "ready")

    async def test_hrefs_stay_the_same_when_mounted(self, api: Api) -> None:
        outer = FastAPI()
        outer.mount("/cloud-manager", api.app)
        answer = await api.call("GET", "/cloud-manager/api/program/4", app=outer)
        assert answer.json()["_links"]["self"]["href"] == "/api/program/4"
        missing = await api.call("GET", "/cloud-manager/api/nothing", app=outer)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")

    async def test_environments_by_type(self, api: Api) -> None:
        answer = await api.call("GET", "/api/program/4/environments?type=stage")
        assert [each["id"] for each in answer.json()["_embedded"]["environments"]] == ["11"]
        wrong = await api.call("GET", "/api/program/4/environments?type=moon")
        assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
        assert [each["name"] for each in wrong.json()["invalidParams"]] == ["type"]

    async def test_network_infrastructures(self, api: Api) -> None:
        listed = (await api.call("GET", "/api/program/4/networkInfrastructures")).json()
        (one,) = listed["_embedded"]["networkInfrastructures"]
        assert (one["id"], one["kind"], one["region"], one["status"]) == ("7", "flexiblePortEgress", "va7", "ready")
        assert one["_links"]["self"]["href"] == "/api/program/4/networkInfrastructure/7"
        assert (await api.call("GET", one["_links"]["self"]["href"])).json()["id"] == "7"
        assert (await api.call("GET", "/api/program/4/networkInfrastructure/8")).status_code == 404

    @pytest.mark.parametrize("path", ["/api/program/5", "/api/program/4/environment/12", "/api/x", "/"])
    async def test_what_is_not_there_is_a_problem(self, api: Api, path: str) -> None:
        answer = await api.call("GET", path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json()["status"], answer.json()["title"]) == (404, "Not Found")
        assert answer.headers["x-request-id"]

    async def test_a_method_that_is_not_there(self, api: Api) -> None:
        answer = await api.call("POST", "/api/programs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        assert answer.headers["content-type"] == "application/problem+json"


class TestGateway:
    @pytest.mark.parametrize(
        ("token", "headers", "status", "code"),
        [
            (None, {}, 401, "401010"),
            ("wrong", {}, 401, "401013"),
            ("good", {"x-api-key": None}, 403, "403000"),
            ("good", {"x-api-key": "another"}, 403, "403003"),
            ("good", {"x-api-key": "other-key"}, 403, "403003"),
            ("good", {"x-gw-ims-org-id": None}, 403, "403010"),
            ("good", {"x-gw-ims-org-id": "other@AdobeOrg"}, 403, "403025"),
        ],
    )
    async def test_refusals(
        self, api: Api, token: str | None, headers: dict[str, str | None], status: int, code: str
    ) -> None:
        answer = await api.call("GET", VARIABLES, token=token, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error_code"] == code
        assert set(answer.json()) == {"error_code", "message"}
        assert answer.headers["x-request-id"]

    async def test_another_account_sees_no_programs_of_the_same_organisation(self, api: Api) -> None:
        answer = await api.call("GET", "/api/programs", token="stranger")
        assert answer.json()["_embedded"]["programs"] == []

    async def test_another_account_cannot_tell_which_programs_exist(self, api: Api) -> None:
        for place in ("", "/environments", "/environment/10/variables", "/networkInfrastructures"):
            there = await api.call("GET", f"/api/program/4{place}", token="stranger")
            nowhere = await api.call("GET", f"/api/program/3{place}", token="stranger")
            assert there.status_code == nowhere.status_code == 404
            assert there.text.replace("program 4", "program 3") == nowhere.text

    async def test_an_api_key_of_the_account_is_as_good_as_the_client(self, api: Api) -> None:
        assert (await api.call("GET", VARIABLES, headers={"x-api-key": "own-key"})).status_code == 200

    async def test_roles(self, api: Api) -> None:
        for method, path, body in (("PATCH", VARIABLES, []), ("PUT", NETWORKING, {}), ("DELETE", NETWORKING, None)):
            answer = await api.call(method, path, token="reader", json=body)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "403027"), path
        answer = await api.call("POST", RUNTIME, token="manager", json={"service": "author"})
        assert (answer.status_code, answer.json()["error_code"]) == (403, "403027")
        assert (await api.call("GET", VARIABLES, token="reader")).status_code == 200


class TestVariables:
    async def listed(self, api: Api) -> list[dict[str, Any]]:
        answer = await api.call("GET", VARIABLES)
        found: list[dict[str, Any]] = answer.json()["_embedded"]["variables"]
        assert answer.json()["_totalNumberOfItems"] == len(found)
        return [{name: value for name, value in each.items() if name != "_links"} for each in found]

    async def test_set_list_change_and_delete(self, api: Api) -> None:
        answer = await api.call(
            "PATCH",
            VARIABLES,
            json=[
                {"name": "EMAIL_USERNAME", "value": "me", "type": "string", "service": "author"},
                {"name": "EMAIL_PASSWORD", "value": "pa$$word-1", "type": "secretString"},
            ],
        )
        assert (answer.status_code, answer.content) == (204, b"")
        assert await self.listed(api) == [
            {"name": "EMAIL_PASSWORD", "type": "secretString", "status": "ready"},
            {"name": "EMAIL_USERNAME", "type": "string", "value": "me", "service": "author", "status": "ready"},
        ]
        await api.call("PATCH", VARIABLES, json=[{"name": "EMAIL_USERNAME", "value": "you", "service": "author"}])
        assert (await self.listed(api))[1]["value"] == "you"
        gone = [
            {"name": "EMAIL_USERNAME", "value": "", "service": "author"},
            {"name": "EMAIL_PASSWORD", "value": ""},
            {"name": "NEVER_THERE", "value": ""},
        ]
        assert (await api.call("PATCH", VARIABLES, json=gone)).status_code == 204
        assert await self.listed(api) == []

    async def test_a_secret_is_nowhere_but_in_the_runtime(self, api: Api, tmp_path: Path) -> None:
        secret = {"name": "KEY", "value": "s3cr3t-value-x", "type": "secretString"}
        await api.call("PATCH", VARIABLES, json=[secret])
        assert "s3cr3t-value-x" not in (await api.call("GET", VARIABLES)).text
        for file in tmp_path.iterdir():
            assert b"s3cr3t-value-x" not in file.read_bytes(), file
        answer = await api.call("POST", RUNTIME, json={"service": "author"})
        assert answer.json()["secrets"] == {"KEY": "s3cr3t-value-x"}

    @pytest.mark.parametrize(
        ("entry", "field"),
        [
            ({"value": "x"}, "name"),
            ({"name": 5, "value": "x"}, "name"),
            ({"name": "A", "value": "x"}, "name"),
            ({"name": "A" * 101, "value": "x"}, "name"),
            ({"name": "1AB", "value": "x"}, "name"),
            ({"name": "AB-C", "value": "x"}, "name"),
            ({"name": "AB\n", "value": "x"}, "name"),
            ({"name": "ÄB", "value": "x"}, "name"),
            ({"name": "A\ud800", "value": "x"}, "name"),
            ({"name": "AEM_PROXY_HOST", "value": "x"}, "name"),
            ({"name": "AB"}, "value"),
            ({"name": "AB", "value": None}, "value"),
            ({"name": "AB", "value": "x" * 2049}, "value"),
            ({"name": "AB", "value": "x" * 500, "type": "secretString"}, "value"),
            ({"name": "AB", "value": "nul\0"}, "value"),
            ({"name": "AB", "value": "half \ud800"}, "value"),
            ({"name": "AB", "value": "x", "type": "number"}, "type"),
            ({"name": "AB", "value": "x", "type": ["string"]}, "type"),
            ({"name": "AB", "value": "x", "service": "Author"}, "service"),
            ({"name": "AB", "value": "x", "service": ""}, "service"),
            ({"name": "AB", "value": "x", "service": {"a": 1}}, "service"),
        ],
    )
    async def test_a_wrong_field_is_named_and_nothing_is_stored(
        self, api: Api, entry: dict[str, object], field: str
    ) -> None:
        import json

        good = {"name": "GOOD_ONE", "value": "y"}
        content = json.dumps([good, entry])
        answer = await api.call("PATCH", VARIABLES, content=content, headers={"content-type": "application/json"})
        assert list(errors_of(answer)) == [f"patchEnvironmentVariables.arg2[1].{field}"]
        assert await self.listed(api) == []

    async def test_the_longest_values_fit(self, api: Api) -> None:
        body = [
            {"name": "PLAIN", "value": "x" * 2048},
            {"name": "SECRET", "value": "x" * 499, "type": "secretString"},
        ]
        assert (await api.call("PATCH", VARIABLES, json=body)).status_code == 204

    async def test_values_are_never_echoed(self, api: Api) -> None:
        for kind in ("string", "secretString"):
            body = [{"name": "AB", "value": "hidden" * 400, "type": kind}]
            answer = await api.call("PATCH", VARIABLES, json=body)
            assert errors_of(answer)["patchEnvironmentVariables.arg2[0].value"]["invalidValue"] == "****"
            assert "hidden" not in answer.text

    async def test_what_the_command_line_turns_into_json_is_text_again(self, api: Api) -> None:
        body = [
            {"name": "V_TRUE", "value": True},
            {"name": "V_INT", "value": 30465},
            {"name": "V_OBJ", "value": {"a": [1, "é"]}},
        ]
        assert (await api.call("PATCH", VARIABLES, json=body)).status_code == 204
        assert {each["name"]: each["value"] for each in await self.listed(api)} == {
            "V_TRUE": "true",
            "V_INT": "30465",
            "V_OBJ": '{"a":[1,"é"]}',
        }

    async def test_the_type_of_a_variable_cannot_change(self, api: Api) -> None:
        await api.call("PATCH", VARIABLES, json=[{"name": "KEY", "value": "a", "type": "secretString"}])
        for entry in ({"value": "b"}, {"value": "b", "type": "string"}, {"value": "", "type": "string"}):
            answer = await api.call("PATCH", VARIABLES, json=[{"name": "KEY", **entry}])
            errors = errors_of(answer)
            assert list(errors) == ["patchEnvironmentVariables.arg2[0].type"]
            assert "secretString" in errors["patchEnvironmentVariables.arg2[0].type"]["message"]
        # For another service it is another variable.
        other = [{"name": "KEY", "value": "b", "service": "author"}]
        assert (await api.call("PATCH", VARIABLES, json=other)).status_code == 204

    async def test_a_refused_change_changes_nothing(self, api: Api) -> None:
        await api.call("PATCH", VARIABLES, json=[{"name": "KEY", "value": "a", "type": "secretString"}])
        body = [{"name": "NEW_ONE", "value": "x"}, {"name": "KEY", "value": "b"}]
        errors_of(await api.call("PATCH", VARIABLES, json=body))
        assert [each["name"] for each in await self.listed(api)] == ["KEY"]

    async def test_reserved_prefixes_are_shown_as_ignored_and_do_not_reach_the_application(self, api: Api) -> None:
        names = ["INTERNAL_A", "ADOBE_B", "CONST_C", "AEM_HTTP_PROXY_PORT", "MINE"]
        await api.call("PATCH", VARIABLES, json=[{"name": name, "value": "x"} for name in names])
        states = {each["name"]: each["status"] for each in await self.listed(api)}
        assert states == {**dict.fromkeys(names, "ignored"), "MINE": "ready"}
        answer = await api.call("POST", RUNTIME, json={"service": "author"})
        assert answer.json()["variables"] == {"MINE": "x"}
        assert answer.json()["reserved"]["AEM_HTTP_PROXY_PORT"] == "3128"

    async def test_two_hundred_and_no_more(self, api: Api) -> None:
        many = [{"name": f"V_{number}", "value": "x"} for number in range(200)]
        assert (await api.call("PATCH", VARIABLES, json=many)).status_code == 204
        errors = errors_of(await api.call("PATCH", VARIABLES, json=[{"name": "ONE_MORE", "value": "x"}]))
        assert list(errors) == ["patchEnvironmentVariables.arg2"]
        swap = [{"name": "V_0", "value": ""}, {"name": "ONE_MORE", "value": "x"}]
        assert (await api.call("PATCH", VARIABLES, json=swap)).status_code == 204

    async def test_the_same_name_twice_in_one_change(self, api: Api) -> None:
        body = [{"name": "AB", "value": "1"}, {"name": "AB", "value": "2"}]
        assert list(errors_of(await api.call("PATCH", VARIABLES, json=body))) == [
            "patchEnvironmentVariables.arg2[1].name"
        ]
        body[1]["service"] = "author"
        assert (await api.call("PATCH", VARIABLES, json=body)).status_code == 204


class TestBodies:
    @pytest.mark.parametrize("content", ["", "{", "[NaN]", "[" * 100_000, '{"a":1,"a":2}', "[1" + "0" * 5000 + "]"])
    async def test_what_is_not_json_says_so(self, api: Api, content: str) -> None:
        headers: dict[str, str | None] = {"content-type": "application/json"}
        answer = await api.call("PUT", NETWORKING, content=content, headers=headers)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["errors"]

    async def test_another_content_type(self, api: Api) -> None:
        for path, method in ((VARIABLES, "PATCH"), (NETWORKING, "PUT"), (RUNTIME, "POST")):
            answer = await api.call(method, path, content="{}", headers={"content-type": "text/plain"})
            assert answer.status_code == 415
            assert "application/json" in answer.json()["errors"][0]["message"]

    async def test_too_long(self, api: Api) -> None:
        headers: dict[str, str | None] = {"content-type": "application/json"}
        answer = await api.call("PUT", NETWORKING, content=b" " * (4 * 1024 * 1024 + 1), headers=headers)
        assert answer.status_code == 413

    async def test_bodies_of_the_wrong_kind(self, api: Api) -> None:
        for body in ({}, "x", 5, True):
            assert list(errors_of(await api.call("PATCH", VARIABLES, json=body))) == ["patchEnvironmentVariables.arg2"]
        assert list(errors_of(await api.call("PATCH", VARIABLES, json=[5]))) == ["patchEnvironmentVariables.arg2[0]"]
        operation = "enableEnvironmentAdvancedNetworkingConfiguration.arg2"
        for body in ([], "x", 5, True):
            assert list(errors_of(await api.call("PUT", NETWORKING, json=body))) == [operation]


class TestNetworking:
    async def test_put_replaces_all_and_answers_updating(self, api: Api, place: World) -> None:
        empty = (await api.call("GET", NETWORKING)).json()
        assert (empty["_totalNumberOfItems"], empty["_embedded"]) == (0, {"networkingConfigurations": []})
        answer = await api.call("PUT", NETWORKING, json={"portForwards": [RULE], "nonProxyHosts": []})
        assert answer.status_code == 200
        assert (answer.json()["id"], answer.json()["status"]) == ("10", "updating")
        assert api.pokes == [1]
        (shown,) = (await api.call("GET", NETWORKING)).json()["_embedded"]["networkingConfigurations"]
        assert shown["portForwards"] == [RULE]
        assert (shown["programId"], shown["environmentId"], shown["networkInfrastructureId"]) == ("4", "10", "7")
        assert shown["advancedNetworkingEnabled"] is True
        assert (shown["tunnelAddress"], shown["egressAddresses"], shown["engine"]) == (
            "127.1.0.1",
            ["127.0.0.2"],
            "forwarder",
        )
        refused = await api.call("PUT", NETWORKING, json={})
        assert (refused.status_code, refused.json()["status"], refused.json()["title"]) == (409, 409, "Conflict")
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await api.call("DELETE", NETWORKING)).status_code == 409
        place.store.settle("10", 1, "")
        # What GET shows may be sent back.
        again = {key: value for key, value in shown.items() if key != "portForwards"}
        assert (await api.call("PUT", NETWORKING, json=again)).status_code == 200
        (shown,) = (await api.call("GET", NETWORKING)).json()["_embedded"]["networkingConfigurations"]
        assert shown["portForwards"] == []

    async def test_delete_disables(self, api: Api, place: World) -> None:
        assert (await api.call("DELETE", NETWORKING)).status_code == 404
        assert (await api.call("GET", "/api/program/4/environment/10")).json()["status"] == "ready"
        await api.call("PUT", NETWORKING, json={})
        place.store.settle("10", 1, "")
        answer = await api.call("DELETE", NETWORKING)
        assert (answer.status_code, answer.json()["status"]) == (200, "updating")
        assert (await api.call("GET", NETWORKING)).json()["_totalNumberOfItems"] == 0

    async def test_a_failure_is_shown_with_its_reason(self, api: Api, place: World) -> None:
        await api.call("PUT", NETWORKING, json={"portForwards": [RULE]})
        place.store.settle("10", 1, "127.1.0.1:30465 is taken by another program on this host")
        (shown,) = (await api.call("GET", NETWORKING)).json()["_embedded"]["networkingConfigurations"]
        assert shown["status"] == "failed"
        assert "127.1.0.1:30465" in shown["statusDetails"]["message"]
        assert (await api.call("PUT", NETWORKING, json={})).status_code == 200

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": None}, "name"),
            ({"name": ""}, "name"),
            ({"name": "Smtp.example"}, "name"),
            ({"name": "a_b.example"}, "name"),
            ({"name": "a.example."}, "name"),
            ({"name": "-a.example"}, "name"),
            ({"name": "::1"}, "name"),
            ({"name": "a.example\n"}, "name"),
            ({"name": "a" * 64 + ".example"}, "name"),
            ({"name": "a." * 127 + "example"}, "name"),
            ({"name": 5}, "name"),
            ({"portOrig": None}, "portOrig"),
            ({"portOrig": 29999}, "portOrig"),
            ({"portOrig": 31001}, "portOrig"),
            ({"portOrig": "30465"}, "portOrig"),
            ({"portOrig": True}, "portOrig"),
            ({"portOrig": 30465.5}, "portOrig"),
            ({"portDest": None}, "portDest"),
            ({"portDest": 0}, "portDest"),
            ({"portDest": 65536}, "portDest"),
            ({"portDest": -1}, "portDest"),
            ({"portDest": 10**400}, "portDest"),
        ],
    )
    async def test_a_wrong_forward_names_its_field(
        self, api: Api, place: World, change: dict[str, object], field: str
    ) -> None:
        answer = await api.call("PUT", NETWORKING, json={"portForwards": [{**RULE, **change}]})
        operation = "enableEnvironmentAdvancedNetworkingConfiguration.arg2"
        assert list(errors_of(answer)) == [f"{operation}.portForwards[0].{field}"]
        assert place.store.networking("10") is None
        assert api.pokes == []

    async def test_limits_are_inclusive(self, api: Api) -> None:
        rules = [
            {"name": "192.0.2.1", "portDest": 1, "portOrig": 30000},
            {"name": "a-b.1x", "portDest": 65535, "portOrig": 31000},
        ]
        assert (await api.call("PUT", NETWORKING, json={"portForwards": rules})).status_code == 200

    async def test_every_wrong_field_at_once(self, api: Api) -> None:
        body = {
            "portForwards": [RULE, RULE, 5, {}],
            "nonProxyHosts": ["*.ok.example", "ok.*", "*", 5, "a b", "*.x.*"],
            "portForward": [],
        }
        base = "enableEnvironmentAdvancedNetworkingConfiguration.arg2."
        errors = errors_of(await api.call("PUT", NETWORKING, json=body))
        assert set(errors) == {
            base + name
            for name in (
                "portForward",
                "portForwards[1].portOrig",
                "portForwards[2]",
                "portForwards[3].name",
                "portForwards[3].portOrig",
                "portForwards[3].portDest",
                "nonProxyHosts[2]",
                "nonProxyHosts[3]",
                "nonProxyHosts[4]",
                "nonProxyHosts[5]",
                "nonProxyHosts",
            )
        }
        assert "flexiblePortEgress" in errors[base + "nonProxyHosts"]["message"]

    async def test_non_proxy_hosts_with_a_dedicated_address(self, tmp_path: Path) -> None:
        with world(tmp_path, kind=Mode.DEDICATED) as place:
            api = Api(place)
            assert (await api.call("PUT", NETWORKING, json={"nonProxyHosts": ["*.a.example"]})).status_code == 200
            (shown,) = (await api.call("GET", NETWORKING)).json()["_embedded"]["networkingConfigurations"]
            assert shown["nonProxyHosts"] == ["*.a.example"]
            assert shown["egressAddresses"] == ["127.0.0.3"]

    async def test_without_an_infrastructure_that_is_ready(self, api: Api, place: World) -> None:
        store = place.store
        store.add_program(ORG, "a" * 32, "Bare", program_id="5")
        store.add_environment(
            "5", "prod", kind="prod", region="va7", tunnel_address="127.1.0.5", client_networks=[], environment_id="50"
        )
        path = "/api/program/5/environment/50/advancedNetworking"
        answer = await api.call("PUT", path, json={})
        assert answer.status_code == 400
        assert "no network infrastructure" in answer.json()["errors"][0]
        store.add_infrastructure("5", Mode.DEDICATED, "va7", status="creating")
        assert (await api.call("PUT", path, json={})).status_code == 409


class TestRuntime:
    async def test_everything_an_application_starts_with(self, api: Api, place: World) -> None:
        body = [
            {"name": "USER_NAME", "value": "for all"},
            {"name": "USER_NAME", "value": "for author", "service": "author"},
            {"name": "ELSEWHERE", "value": "x", "service": "publish"},
            {"name": "PASSWORD", "value": "one", "type": "secretString", "service": "author"},
        ]
        await api.call("PATCH", VARIABLES, json=body)
        await api.call("PUT", NETWORKING, json={"portForwards": [RULE]})
        answer = await api.call("POST", RUNTIME, json={"service": "author"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            "variables": {"USER_NAME": "for author"},
            "secrets": {"PASSWORD": "one"},
            "runModes": ["author", "prod"],
            "reserved": {
                "AEM_PROXY_HOST": "127.1.0.1",
                "AEM_HTTP_PROXY_PORT": "3128",
                "AEM_HTTPS_PROXY_PORT": "3128",
            },
            "tunnelAddress": "127.1.0.1",
            "portForwards": [RULE],
        }
        publish = (await api.call("POST", RUNTIME, json={"service": "publish"})).json()
        assert publish["variables"] == {"USER_NAME": "for all", "ELSEWHERE": "x"}
        assert publish["secrets"] == {}
        uses = [row for row in place.store.audit(target="10") if row.action == "environment.run"]
        assert [(row.actor, row.detail) for row in uses] == [
            ("person", {"service": "publish"}),
            ("person", {"service": "author"}),
        ]

    @pytest.mark.parametrize("body", [{}, [], {"service": "moon"}, {"service": None}, {"service": ["author"]}])
    async def test_a_service_is_required(self, api: Api, place: World, body: object) -> None:
        errors_of(await api.call("POST", RUNTIME, json=body))
        assert place.store.audit(target="10") == ()


async def test_our_own_failure_shows_its_id_and_nothing_else(api: Api, place: World) -> None:
    place.control.close()
    place.store._database = None
    answer = await api.call("GET", "/api/program/4")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in answer.json()["errors"][0]["message"]
    assert "Error" not in answer.json()["errors"][0]["message"]
