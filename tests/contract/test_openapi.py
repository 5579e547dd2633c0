"""Schemathesis drives every operation by its published description: no 5xx, no status or answer that is not in it.

The ids in a path are mostly those of things that exist, so that what lies behind a 404 is reached too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from outgate.api import cloud_manager as cloud_manager_api
from outgate.api import event_notifications as event_notifications_api
from outgate.api import operations as operations_api
from outgate.api import restrictions as restrictions_api
from outgate.api import vpc as vpc_api
from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from outgate.api.identity import roles as identity_roles
from outgate.model.access import Address
from outgate.model.egress import Mode
from outgate.model.suppression import NewSuppression
from outgate.store.access import SMTP_API
from outgate.store.keys import new_dkim_key
from outgate.store.places import NewEnvironment
from support.api_service import GROUNDS, Service, api_service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
THOROUGHLY = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_turn = itertools.count()


@schemathesis.serializer("text/csv")
def as_csv(_context: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


ANN = "ann@things.test"
ORG = "ABC@AdobeOrg"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("api")) as running:
        yield running


class Things:
    """Something of every kind, made again when an operation has deleted it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.key = new_dkim_key()

    def ids(self, base: str) -> dict[str, str]:
        """Return the ids of what the API at a base URL tells of."""
        found = self.tenant_ids()
        if base == self.service.vpc_url:
            found |= self.network_ids()
        if base in (self.service.cloud_manager_url, self.service.operations_url):
            found |= self.cloud_ids()
        return found

    def tenant_ids(self) -> dict[str, str]:
        store, instance = self.service.store, self.service.instance
        found = store.tenancy.configurations(instance.id).items
        configuration = found[0] if found else self.configuration()
        users = store.tenancy.users(configuration.id).items
        user = users[0] if users else self.user(configuration.id)
        zones = store.access.zones(self.service.account_id)
        zone = zones[0] if zones else self.zone()
        rules = store.access.rules(self.service.account_id)
        rule = rules[0] if rules else self.rule(zone.id)
        keys = store.identity.api_keys(self.service.account_id)
        if not keys:
            keys = (store.identity.create_api_key(self.service.account_id, "again", ["reader"])[0],)
        if store.allow_lists.get(self.service.account_id, instance.id) is None:
            self.allow_list()
        if store.suppressions.get(instance.id, ANN) is None:
            store.suppressions.add(instance.id, [NewSuppression(ANN, "manual", "test")])
        return {
            "instance_id": instance.id,
            "address": ANN,
            "smtp_config_id": configuration.id,
            "user_id": user.id,
            "zone_id": zone.id,
            "rule_id": rule.id,
            "key_id": keys[-1].id,
            "id": keys[-1].id,
            "account_id": self.service.account_id,
            "name": "direct",
        }

    def cloud_ids(self) -> dict[str, str]:
        """Return what an environment's life takes, each settled as the engine would; made again when deleted."""
        control, tenant = self.service.store, self.service.account_id
        found = control.egress.programs(ORG, tenant)
        program = next((each for each in found if each.name == "things"), None)
        if program is None:
            program = control.egress.add_program(ORG, tenant, "things")
        for way in control.infrastructures.of_program(program.id):
            control.infrastructures.finish_infrastructure(way.id, way.generation)
            control.infrastructures.settle_infrastructure(way.id, way.generation, "ready")
        for place in control.egress.environments(program.id):
            wanted = control.egress.networking(place.id)
            control.egress.settle(place.id, None if wanted is None else wanted.generation, "")
        places = control.egress.environments(program.id)
        if not any(place.type == "prod" for place in places):
            wanted = NewEnvironment("prod", "prod", "va7")
            made = control.places.create_environment(program.id, wanted, GROUNDS, actor="test")
            control.egress.settle(made.id, None, "")
            places = (*places, made)
        ways = control.infrastructures.of_program(program.id)
        way = ways[0] if ways else control.egress.add_infrastructure(program.id, Mode.FLEXIBLE, "va7")
        return {
            "tenant_id": tenant,
            "program_id": program.id,
            "environment_id": places[-1].id,
            "infrastructure_id": way.id,
        }

    def network_ids(self) -> dict[str, str]:
        store, account_id = self.service.store, self.service.account_id
        vpcs = store.vpc.vpcs(account_id)
        vpc = vpcs[0] if vpcs else store.vpc.create_vpc(account_id, "us-south", "things", by="test")
        subnets = [subnet for subnet, _ in store.vpc.subnets(account_id)]
        subnet = (
            subnets[0]
            if subnets
            else store.vpc.create_subnet(
                account_id, vpc.id, name="things", zone="us-south-1", network="10.9.0.0/24", by="test"
            )
        )
        ips = store.vpc.reserved_ips(account_id, subnet.id)
        ip = (
            ips[0]
            if ips
            else store.vpc.reserve(
                account_id, subnet.id, address=None, name="things", auto_delete=False, gateway_id=None, by="test"
            )
        )
        for going in store.gateways.wanted():
            store.gateways.end(going.id)
        gateways = store.gateways.gateways(account_id)
        gateway = (
            gateways[0]
            if gateways
            else store.gateways.create(
                account_id,
                subnet.vpc.id,
                name="things",
                target="crn",
                region="us-south",
                service_endpoint="private.smtp.us-south.outgate.test",
                dns_mode="primary",
                ip=None,
                by="test",
            )
        )
        return {
            "vpc_id": vpc.id,
            "subnet_id": subnet.id,
            "reserved_ip_id": ip.id if gateway.ip is None else gateway.ip.id,
            "gateway_id": gateway.id,
        }

    def configuration(self) -> Any:
        made = self.service.store.tenancy.create_configuration(
            self.service.instance.id, name="Shop", domain="shop.test", description="", key=self.key
        )
        self.service.store.verification.submit_form(made.id, FORM_EXAMPLE, "test")
        return made

    def user(self, smtp_config_id: str) -> Any:
        instance_id = self.service.instance.id
        return self.service.store.tenancy.create_user(instance_id, smtp_config_id, description="", verifier="v")

    def zone(self) -> Any:
        return self.service.store.access.create_zone(
            self.service.account_id,
            name="zone",
            description="",
            addresses=(Address("subnet", "127.0.0.0/8"),),
            excluded=(),
            by="test",
        )

    def allow_list(self) -> Any:
        return self.service.store.allow_lists.create(
            self.service.account_id,
            self.service.instance.id,
            networks=(Address("subnet", "192.0.2.0/24"),),
            ends_at=self.service.clock.now() + 86_400,
            note="",
            by="test",
        )

    def rule(self, zone_id: str) -> Any:
        resource = [
            {"name": "accountId", "value": self.service.account_id},
            {"name": "serviceName", "value": "event-notifications"},
        ]
        return self.service.store.access.create_rule(
            self.service.account_id,
            description="",
            document={
                "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone_id}]}],
                "resources": [{"attributes": resource}],
                "operations": {"api_types": [{"api_type_id": SMTP_API}]},
            },
            enforcement="disabled",
            by="test",
        )


@pytest.fixture(scope="module")
def things(service: Service) -> Things:
    return Things(service)


@pytest.fixture(scope="module")
def event_notifications(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.en_url}/openapi.json")


@pytest.fixture(scope="module")
def restrictions(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.cbr_url}/openapi.json")


@pytest.fixture(scope="module")
def identity(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.base}/iam/openapi.json")


@pytest.fixture(scope="module")
def vpc(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.vpc_url}/openapi.json")


@pytest.fixture(scope="module")
def operations(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.operations_url}/openapi.json")


@pytest.fixture(scope="module")
def cloud_manager(service: Service) -> Any:
    return schemathesis.openapi.from_url(f"{service.cloud_manager_url}/openapi.json")


def drive(schema: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things) -> None:
    """Send one operation what its description allows, or what it does not, and hold each answer against it."""
    operation = schema.find_operation_by_id(operation_id)
    headers = service.headers("reader", "writer", "manager", "authorizer", "operator", "runtime")
    headers |= {"x-api-key": "test", "x-gw-ims-org-id": ORG}
    base = schema.location.removesuffix("/openapi.json")
    reads = operation.method.upper() == "GET"
    there = things.ids(base)

    @THOROUGHLY
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        real = there if reads else things.ids(base)  # a case before may have deleted something
        turn = next(_turn)
        if turn % 4:
            case.path_parameters = {name: real.get(name, given) for name, given in (case.path_parameters or {}).items()}
        if turn % 4 and case.query and "account_id" in case.query:
            case.query = {**case.query, "account_id": real["account_id"]}
        case.call_and_validate(headers=headers, checks=CHECKS)

    run()


MODES = pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)


@MODES
@pytest.mark.parametrize("operation_id", event_notifications_api.ROLES)
def test_event_notifications(
    event_notifications: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things
) -> None:
    drive(event_notifications, operation_id, mode, service, things)


@MODES
@pytest.mark.parametrize("operation_id", restrictions_api.ROLES)
def test_restrictions(
    restrictions: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things
) -> None:
    drive(restrictions, operation_id, mode, service, things)


@MODES
@pytest.mark.parametrize("operation_id", identity_roles.ROLES)
def test_identity(identity: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things) -> None:
    drive(identity, operation_id, mode, service, things)


@pytest.mark.parametrize(
    ("operation_id", "mode"),
    # Nothing is asked of who wants the keys, so there is nothing to ask wrongly.
    [
        ("get_token", GenerationMode.POSITIVE),
        ("get_token", GenerationMode.NEGATIVE),
        ("get_keys", GenerationMode.POSITIVE),
    ],
)
def test_identity_for_everybody(
    identity: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things
) -> None:
    drive(identity, operation_id, mode, service, things)


@MODES
@pytest.mark.parametrize("operation_id", vpc_api.ROLES)
def test_vpc(vpc: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things) -> None:
    drive(vpc, operation_id, mode, service, things)


@MODES
@pytest.mark.parametrize("operation_id", operations_api.ROLES)
def test_operations(operations: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things) -> None:
    drive(operations, operation_id, mode, service, things)


@MODES
@pytest.mark.parametrize("operation_id", cloud_manager_api.ROLES)
def test_cloud_manager(
    cloud_manager: Any, operation_id: str, mode: GenerationMode, service: Service, things: Things
) -> None:
    drive(cloud_manager, operation_id, mode, service, things)


def test_every_operation_is_described(
    event_notifications: Any, restrictions: Any, vpc: Any, operations: Any, cloud_manager: Any
) -> None:
    for schema, roles in (
        (event_notifications, event_notifications_api.ROLES),
        (restrictions, restrictions_api.ROLES),
        (vpc, vpc_api.ROLES),
        (operations, operations_api.ROLES),
        (cloud_manager, cloud_manager_api.ROLES),
    ):
        described = {result.ok().definition.raw["operationId"] for result in schema.get_all_operations()}
        assert described == set(roles)


def test_every_example_is_as_its_schema_says(
    event_notifications: Any, restrictions: Any, identity: Any, vpc: Any, operations: Any, cloud_manager: Any
) -> None:
    for schema in (event_notifications, restrictions, identity, vpc, operations, cloud_manager):
        document = schema.raw_schema
        seen = 0
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
                    for media in holder.get("content", {}).values():
                        if "example" in media:
                            seen += 1
                            described = {**media["schema"], "components": document["components"]}
                            errors = list(jsonschema_rs.validator_for(described).iter_errors(media["example"]))
                            assert not errors, f"{method} {path}: {errors[0]}"
        assert seen > 5
