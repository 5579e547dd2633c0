"""Who may do what: one table for every operation of every API, held against the APIs' own tables and what they answer.

A route that is not in the table fails, and so does a line of the table that no route has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from outgate.api import cloud_manager, event_notifications, identity, operations, restrictions, vpc
from outgate.api.identity.roles import ALL_ROLES, covered
from support import api_service
from support.api_service import Lazily, Service

NOWHERE = "00000000-0000-0000-0000-000000000000"
READ = {"reader", "writer", "manager", "authorizer", "operator"}
WRITE = {"writer", "manager"}
MANAGE = {"manager"}
AUTHORIZE = {"authorizer"}
OPERATE = {"operator"}
EGRESS_READ = {"reader", "writer", "manager", "operator"}
EGRESS = {"writer", "manager", "operator"}
RUNTIME = {"runtime"}
PUBLIC = set(ALL_ROLES)

EXPECTED: dict[str, dict[str, set[str]]] = {
    "event-notifications": {
        "create_smtp_configuration": WRITE,
        "list_smtp_configurations": READ,
        "get_smtp_configuration": READ,
        "update_smtp_configuration": WRITE,
        "delete_smtp_configuration": WRITE,
        "update_verify_smtp": WRITE,
        "get_smtp_checks": READ,
        "get_smtp_allowed_ips": READ,
        "submit_smtp_authorization": WRITE,
        "get_smtp_authorization": READ,
        "approve_smtp_authorization": AUTHORIZE,
        "reject_smtp_authorization": AUTHORIZE,
        "get_smtp_dkim": READ,
        "update_smtp_dkim": WRITE,
        "rotate_smtp_dkim": WRITE,
        "cancel_smtp_dkim_rotation": WRITE,
        "get_smtp_rules": READ,
        "update_smtp_rules": OPERATE,
        "get_smtp_routes": READ,
        "replace_smtp_routes": OPERATE,
        "test_smtp_route": OPERATE,
        "get_smtp_settings": READ,
        "update_smtp_settings": OPERATE,
        "create_smtp_user": WRITE,
        "list_smtp_users": READ,
        "get_smtp_user": READ,
        "update_smtp_user": WRITE,
        "delete_smtp_user": WRITE,
        "rotate_smtp_user": WRITE,
        "list_suppressions": READ,
        "add_suppressions": EGRESS,
        "get_suppression": READ,
        "remove_suppression": EGRESS,
        "import_suppressions": EGRESS,
        "export_suppressions": READ,
        "get_metrics": READ,
        "get_bounce_metrics": READ,
        "list_endpoints": READ,
        "list_messages": READ,
        "get_message": READ,
    },
    "context-based-restrictions": {
        "create_zone": MANAGE,
        "list_zones": READ,
        "get_zone": READ,
        "replace_zone": MANAGE,
        "delete_zone": MANAGE,
        "list_available_serviceref_targets": READ,
        "get_serviceref_target": READ,
        "create_rule": MANAGE,
        "list_rules": READ,
        "get_rule": READ,
        "replace_rule": MANAGE,
        "delete_rule": MANAGE,
        "list_allow_lists": READ,
        "get_allow_list": READ,
        "put_allow_list": MANAGE,
        "delete_allow_list": MANAGE,
        "get_account_settings": READ,
        "list_available_service_operations": READ,
        "explain_access": READ,
    },
    "iam": {
        "get_token": PUBLIC,
        "get_keys": PUBLIC,
        "create_api_key": MANAGE,
        "list_api_keys": READ,
        "get_api_keys_details": READ,
        "get_api_key": READ,
        "update_api_key": MANAGE,
        "delete_api_key": MANAGE,
    },
    "vpc/v1": {
        "list_vpcs": READ,
        "create_vpc": MANAGE,
        "get_vpc": READ,
        "delete_vpc": MANAGE,
        "list_subnets": READ,
        "create_subnet": MANAGE,
        "get_subnet": READ,
        "delete_subnet": MANAGE,
        "list_subnet_reserved_ips": READ,
        "create_subnet_reserved_ip": MANAGE,
        "get_subnet_reserved_ip": READ,
        "delete_subnet_reserved_ip": MANAGE,
        "list_endpoint_gateways": READ,
        "create_endpoint_gateway": MANAGE,
        "get_endpoint_gateway": READ,
        "update_endpoint_gateway": WRITE,
        "delete_endpoint_gateway": MANAGE,
        "list_endpoint_gateway_ips": READ,
        "get_endpoint_gateway_ip": READ,
        "add_endpoint_gateway_ip": WRITE,
        "remove_endpoint_gateway_ip": WRITE,
    },
    "operations/v1": {
        "show_queue": OPERATE,
        "list_queue_messages": OPERATE,
        "hold_queue": OPERATE,
        "release_queue": OPERATE,
        "retry_queue": OPERATE,
        "cancel_queue": OPERATE,
        "reroute_queue": OPERATE,
        "list_holds": OPERATE,
        "list_sources": OPERATE,
        "list_ways": OPERATE,
        "show_egress": OPERATE,
        "list_egress_addresses": OPERATE,
        "list_egress_environments": OPERATE,
        "place_egress_environment": OPERATE,
        "list_guard_exceptions": OPERATE,
        "add_guard_exception": OPERATE,
        "remove_guard_exception": OPERATE,
        "read_egress_audit": OPERATE,
    },
    "cloud-manager": {
        "getPrograms": EGRESS_READ,
        "getTenants": EGRESS_READ,
        "getTenant": EGRESS_READ,
        "getProgramsForTenant": EGRESS_READ,
        "addProgram": MANAGE,
        "getProgram": EGRESS_READ,
        "deleteProgram": MANAGE,
        "getProgramRegions": EGRESS_READ,
        "getEnvironments": EGRESS_READ,
        "createEnvironment": EGRESS,
        "getEnvironment": EGRESS_READ,
        "deleteEnvironment": EGRESS,
        "getEnvironmentVariables": EGRESS_READ,
        "patchEnvironmentVariables": EGRESS,
        "startEnvironmentRuntime": RUNTIME,
        "testEnvironmentConnectivity": EGRESS,
        "getNetworkInfrastructures": EGRESS_READ,
        "createNetworkInfrastructure": MANAGE,
        "getNetworkInfrastructure": EGRESS_READ,
        "updateNetworkInfrastructure": MANAGE,
        "deleteNetworkInfrastructure": MANAGE,
        "getEnvironmentAdvancedNetworkingConfigurationList": EGRESS_READ,
        "enableEnvironmentAdvancedNetworkingConfiguration": EGRESS,
        "disableEnvironmentAdvancedNetworkingConfiguration": EGRESS,
    },
}
TABLES = {
    "event-notifications": event_notifications.ROLES,
    "context-based-restrictions": restrictions.ROLES,
    "cloud-manager": cloud_manager.ROLES,
    "iam": identity.ROLES,
    "operations/v1": operations.ROLES,
    "vpc/v1": vpc.ROLES,
}
OPERATIONS = [(api, operation) for api, operations in EXPECTED.items() for operation in operations]


def routes_of(routes: Iterable[Any]) -> Iterator[APIRoute]:
    """Give the operations among routes, those of included routers too (which the framework keeps as they were)."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from routes_of(router.routes)


class Apis:
    """Every API in this process, with one account and one instance."""

    def __init__(self, service: Service, apps: dict[str, FastAPI]) -> None:
        self.service = service
        self.apps = apps
        self.said = b""
        """The body of the last answer."""

    def routes(self, api: str) -> dict[str, APIRoute]:
        return {str(route.operation_id or route.name): route for route in routes_of(self.apps[api].routes)}

    async def ask(self, api: str, route: APIRoute, token: str | None) -> tuple[int, bool]:
        """Call an operation with ids of nothing and a body that nobody takes; return status and "was it read"."""
        service = self.service
        path = route.path.replace("{instance_id}", service.instance.id).replace("{account_id}", service.account_id)
        path = "/".join(NOWHERE if part.startswith("{") else part for part in path.split("/"))
        headers = [(b"content-type", b"text/plain"), (b"x-api-key", b"test"), (b"x-gw-ims-org-id", b"nobody")]
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        (method,) = route.methods
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        read, statuses, self.said = False, [], b""

        async def receive() -> dict[str, Any]:
            nonlocal read
            if read:
                await asyncio.Event().wait()  # as with a server, nothing more comes until the client goes
            read = True
            return {"type": "http.request", "body": b"{", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status"))
            self.said += message.get("body", b"")

        await self.apps[api](scope, receive, send)
        return statuses[0], read


@pytest.fixture(scope="module")
def apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    apps: dict[str, FastAPI] = {}

    def kept(prefixes: dict[str, Lazily], _otherwise: Lazily) -> None:
        apps.update({prefix.strip("/"): app.made() for prefix, app in prefixes.items()})

    @contextmanager
    def unserved(_app: None) -> Iterator[str]:
        yield "http://127.0.0.1"

    directory: Path = tmp_path_factory.mktemp("roles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_service, "Mounts", kept)
        patch.setattr(api_service, "serving", unserved)
        with api_service.api_service(directory) as service:
            yield Apis(service, apps)


@pytest.mark.parametrize("api", EXPECTED)
def test_every_route_is_in_the_table_and_every_line_is_a_route(apis: Apis, api: str) -> None:
    assert set(apis.routes(api)) == set(EXPECTED[api])


def test_every_api_is_in_the_table(apis: Apis) -> None:
    assert set(apis.apps) == set(EXPECTED)


@pytest.mark.parametrize("api", TABLES)
def test_the_apis_own_tables_are_this_one(api: str) -> None:
    public = {operation for operation, roles in EXPECTED[api].items() if roles == PUBLIC}
    assert {name: set(roles) for name, roles in TABLES[api].items()} == {
        name: roles for name, roles in EXPECTED[api].items() if name not in public
    }


@pytest.mark.parametrize("role", ALL_ROLES)
@pytest.mark.parametrize(("api", "operation"), OPERATIONS)
async def test_each_operation_with_each_role_alone(apis: Apis, api: str, operation: str, role: str) -> None:
    route = apis.routes(api)[operation]
    status, read = await apis.ask(api, route, apis.service.token(role))
    if role in EXPECTED[api][operation]:
        assert status not in (401, 403, 500)
    else:
        assert (status, read) == (403, False)


@pytest.mark.parametrize(("api", "operation"), OPERATIONS)
async def test_without_a_token_nothing_is_read(apis: Apis, api: str, operation: str) -> None:
    route = apis.routes(api)[operation]
    if EXPECTED[api][operation] == PUBLIC:
        assert (await apis.ask(api, route, None))[0] not in (401, 403)
    else:
        assert await apis.ask(api, route, None) == (401, False)
        assert await apis.ask(api, route, apis.service.token("manager") + "x") == (401, False)


@pytest.mark.parametrize(("api", "operation"), OPERATIONS)
def test_who_has_a_role_may_do_whatever_those_that_it_covers_may(api: str, operation: str) -> None:
    """So that a manager may give a key the role of a reader."""
    allowed = EXPECTED[api][operation]
    for role in ALL_ROLES:
        if covered([role]) & allowed:
            assert role in allowed


@pytest.mark.parametrize("operation", [name for name in EXPECTED["event-notifications"] if name != "list_endpoints"])
async def test_another_accounts_instance_reads_like_none_to_every_operation(apis: Apis, operation: str) -> None:
    """Whatever roles its caller has, and before the body or another id in the path is looked at."""
    route = apis.routes("event-notifications")[operation]
    stranger = apis.service.token(*ALL_ROLES, account_id=apis.service.store.tenancy.create_account())
    assert await apis.ask("event-notifications", route, stranger) == (404, False)
    assert f"no instance '{apis.service.instance.id}'".encode() in apis.said
    await apis.ask("event-notifications", route, apis.service.token(*ALL_ROLES))
    assert b"no instance" not in apis.said
