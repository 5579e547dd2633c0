"""The private endpoint in a running laptop mode, from the vendor's own client to the mail that comes in there."""

from __future__ import annotations

import smtplib
import socket
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator
from ibm_vpc import VpcV1
from ibm_vpc.vpc_v1 import (
    EndpointGatewayReservedIPReservedIPPrototypeTargetContext,
    EndpointGatewayTargetPrototypeEndpointGatewayTargetResourceTypeProviderCloudServicePrototype,
    SubnetIdentityById,
    VPCIdentityById,
)

from outgate.base.clock import OffsetClock
from outgate.store.control import open_control
from outgate.store.secrets import open_box
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
STRANGER = "127.66.0.1"  # in nobody's zone
CRN = "crn:v1:bluemix:public:event-notifications:us-south::::"


def vpc_client(running: Running) -> VpcV1:
    client = VpcV1(authenticator=BearerTokenAuthenticator(running.dev["token"]))
    client.set_service_url(running.dev["vpc_url"])
    return client


def create(running: Running, client: VpcV1, **ip: Any) -> dict[str, Any]:
    return client.create_endpoint_gateway(
        target=EndpointGatewayTargetPrototypeEndpointGatewayTargetResourceTypeProviderCloudServicePrototype(
            crn=CRN, resource_type="provider_cloud_service"
        ),
        vpc=VPCIdentityById(running.dev["vpc_id"]),
        name="mail",
        ips=[
            EndpointGatewayReservedIPReservedIPPrototypeTargetContext(
                SubnetIdentityById(running.dev["subnet_id"]), auto_delete=True, **ip
            )
        ],
    ).get_result()


def in_state(client: VpcV1, gateway_id: str, state: str) -> dict[str, Any]:
    return wait_for(
        lambda: client.get_endpoint_gateway(gateway_id).get_result(), lambda found: found["lifecycle_state"] == state
    )


def gone(client: VpcV1, gateway_id: str) -> None:
    def status() -> int:
        try:
            return client.get_endpoint_gateway(gateway_id).get_status_code()
        except ApiException as error:
            return error.status_code

    wait_for(status, lambda found: found == 404)


def resolved(running: Running, name: str) -> list[str]:
    import dns.message
    import dns.query
    import dns.rdatatype

    host, port = running.address("dns")
    answer = dns.query.udp(dns.message.make_query(name, "A"), host, port=port, timeout=30)
    return [rdata.to_text() for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for rdata in rrset]


def submit(running: Running, address: str, name: str, source: str) -> dict[str, Any]:
    """Send a mail over implicit TLS to an address, with the certificate that it must have by that name."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"a@{running.dev['domain']}", "b@there.test", "private"
    message.set_content("Hello.\n")
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    raw = socket.create_connection((address, running.address("submissions")[1]), 30, source_address=(source, 0))

    class Client(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
            return context.wrap_socket(raw, server_hostname=name)

    with Client(name, 465) as client:
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        client.send_message(message)
        _, said = client.docmd("NOOP")
        assert said
    return wait_for(running.inbox, bool)[0]


def open_to_the_vpc(running: Running) -> None:
    """Have the instance's one rule allow the VPC at the private endpoint, beside what it allows already."""
    api, account = running.api, running.dev["account_id"]
    address = {"type": "vpc", "value": running.dev["vpc_crn"]}
    zone = api.call("POST", api.restrictions("v1/zones"), {"name": "vpc", "addresses": [address]})
    (rule,) = api.call("GET", api.restrictions(f"v1/rules?account_id={account}"))["rules"]
    attributes = [{"name": "networkZoneId", "value": zone["id"]}, {"name": "endpointType", "value": "private"}]
    body = {
        "contexts": [*rule["contexts"], {"attributes": attributes}],
        "resources": rule["resources"],
        "operations": rule["operations"],
        "enforcement_mode": "enabled",
        "description": rule["description"],
    }
    control = open_control(running.data / "control.db", open_box(running.data / "master.key"), OffsetClock())
    try:  # as another process may, so that it is noticed and not told
        control.access.replace_rule(
            account,
            rule["id"],
            expected=None,
            description=body["description"],
            document={name: body[name] for name in ("contexts", "resources", "operations")},
            enforcement="enabled",
            by="test",
        )
    finally:
        control.close()


def greeted(running: Running, address: str, source: str) -> str:
    with socket.create_connection(
        (address, running.address("submission")[1]), 30, source_address=(source, 0)
    ) as client:
        return client.makefile("rb").readline().decode()


def test_the_whole_story(tmp_path: Path) -> None:
    running = Running(tmp_path / "data").start()
    try:
        client = vpc_client(running)
        assert client.get_vpc(running.dev["vpc_id"]).get_result()["crn"] == running.dev["vpc_crn"]
        assert client.get_subnet(running.dev["subnet_id"]).get_result()["ipv4_cidr_block"] == "127.20.0.0/24"
        gateway_id = create(running, client)["id"]
        made = in_state(client, gateway_id, "stable")
        address, (name,) = made["ips"][0]["address"], made["service_endpoints"]
        assert address == "127.20.0.4" and resolved(running, name) == [address]

        assert greeted(running, address, STRANGER).startswith("554 5.7.1")
        open_to_the_vpc(running)
        wait_for(lambda: greeted(running, address, STRANGER), lambda said: said.startswith("220 "))
        assert greeted(running, running.address("submission")[0], STRANGER).startswith("554 5.7.1")
        with pytest.raises(OSError):
            submit(running, "127.0.0.1", running.dev["smtp_host_name"], STRANGER)
        found = submit(running, address, name, STRANGER)
        assert f"by {name}" in running.raw(found["id"]).decode()
        explained = running.outgate("access", "explain", STRANGER, "--vpc", running.dev["vpc_crn"])
        assert explained.returncode == 0 and "SMTP: Permit" in explained.stdout, explained
        assert running.outgate("access", "explain", STRANGER).returncode == 1

        assert running.stop() == 0
        running.start()  # what was open is open again
        client = vpc_client(running)
        assert client.get_endpoint_gateway(gateway_id).get_result()["lifecycle_state"] == "stable"
        assert greeted(running, address, STRANGER).startswith("220 ")

        assert client.delete_endpoint_gateway(gateway_id).get_status_code() == 202
        gone(client, gateway_id)
        with pytest.raises(ConnectionRefusedError):
            greeted(running, address, STRANGER)
        assert resolved(running, name) == []
        assert client.list_subnet_reserved_ips(running.dev["subnet_id"]).get_result()["reserved_ips"] == []
    finally:
        assert running.stop() == 0


def test_an_address_that_another_program_holds(running: Running) -> None:
    client = vpc_client(running)
    held = ("127.20.0.9", running.address("submissions")[1])
    with socket.create_server(held):
        made = create(running, client, address=held[0])
        failed = in_state(client, made["id"], "failed")
        (reason,) = failed["lifecycle_reasons"]
        assert "127.20.0.9" in reason["message"] and failed["health_state"] == "inapplicable"
        with pytest.raises(ConnectionRefusedError):  # not at one of its ports only
            greeted(running, held[0], "127.0.0.1")
    in_state(client, made["id"], "stable")
    assert greeted(running, held[0], "127.0.0.1").startswith("220 ")
    client.delete_endpoint_gateway(made["id"])
    gone(client, made["id"])


def test_a_gateway_that_another_process_deletes_is_noticed(running: Running) -> None:
    client = vpc_client(running)
    made = create(running, client)
    in_state(client, made["id"], "stable")
    control = open_control(running.data / "control.db", open_box(running.data / "master.key"), OffsetClock())
    try:
        control.gateways.delete(running.dev["account_id"], made["id"])
    finally:
        control.close()
    gone(client, made["id"])


def test_what_the_description_says_needs_no_token(running: Running) -> None:
    status, body = running.status("GET", f"{running.dev['vpc_url']}/openapi.json")
    assert status == 200 and b"create_endpoint_gateway" in body
