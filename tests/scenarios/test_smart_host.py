"""A real Postfix as smart host, with AUTH and TLS: it is killed, mail goes another way, it comes back, mail returns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.mailing import advance, submit, zone
from support.running import Running, wait_for
from support.smart_host import PASSWORD, USER, SmartHost

pytestmark = pytest.mark.scenario
DOMAIN, NAME, PORT_ORIG = "customer.test", "smart.test", 30587


@pytest.fixture(scope="module")
def smart_host(running: Running) -> Iterator[SmartHost]:
    server = SmartHost(DOMAIN, NAME)
    try:
        server.start()
        zone(running, NAME, "A", server.address)
        yield server
    finally:
        server.stop()


def route(server: SmartHost, name: str = "primary", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "type": "smart_host", "host": NAME, "port": server.port, "authorities": server.pem,
        "username": USER, "password": PASSWORD,
    } | more  # fmt: skip


def set_routes(running: Running, *routes: dict[str, Any]) -> None:
    """Have mail go by these routes, and wait until the service knows of it."""
    done = running.outgate("route", "set", running.dev["domain"], "-", input=json.dumps({"routes": routes}))
    assert done.returncode == 0, done.stderr
    # It acts on what is in the store within a second; the last name was never there before.
    last = routes[-1]["name"]
    wait_for(lambda: tried(running, last, "--domain", DOMAIN).stderr, lambda said: "there is no route" not in said)


def tried(running: Running, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    return running.outgate("route", "test", running.dev["domain"], name, *more)


def attempt(running: Running, to: str = f"ann@{DOMAIN}") -> dict[str, Any]:
    """Send a mail; return the one attempt that delivered it."""
    found = running.settled(submit(running, to))
    assert [recipient["status"] for recipient in found["recipients"]] == ["delivered"], found
    (only,) = found["attempts"]
    return only


def test_killed_and_brought_back(running: Running, smart_host: SmartHost) -> None:
    set_routes(running, route(smart_host), {"name": "direct", "type": "direct"})
    place = f"{NAME}:{smart_host.port}"

    first = attempt(running)
    assert first["route_reason"] == f"route primary: preferred; smart host {place}"
    assert first["tls"].startswith("TLSv1.") and first["site"] == place
    assert any(step["did"] == "AUTH" and step["reply"].startswith("235 ") for step in first["conversation"])
    assert f"sasl_username={USER}" in smart_host.log()
    (mail,) = smart_host.mails()
    assert b"DKIM-Signature: " in mail
    assert PASSWORD not in json.dumps(first) and PASSWORD not in running.log.read_text()

    smart_host.halt()
    before = len(running.inbox())
    reasons = [attempt(running)["route_reason"] for _ in range(4)]
    assert all(reason.startswith("route direct: primary failed just now (") for reason in reasons[:3]), reasons
    assert "refused" in reasons[0]
    assert reasons[3].startswith("route direct: primary failed 3 times, tried again at "), reasons
    assert len(running.inbox()) == before + 4
    resting = running.outgate("route", "health").stdout
    assert f"smart_host  {NAME} {smart_host.port}" in resting and "network" in resting

    smart_host.again()
    assert attempt(running)["route_reason"].startswith("route direct: primary failed 3 times"), "before its time"
    advance(running, 31)
    back = attempt(running)
    assert back["route_reason"] == f"route primary: tried again after 3 failures; smart host {place}"
    assert attempt(running)["route_reason"] == f"route primary: preferred; smart host {place}"
    assert len(smart_host.mails()) == 3


def test_a_wrong_password_and_a_wrong_authority_are_passed_over_and_told(
    running: Running, smart_host: SmartHost
) -> None:
    other = route(smart_host, "stranger", authorities=running.data.joinpath("ca.pem").read_text())
    locked = route(smart_host, "locked", password="wrong")
    set_routes(running, other, locked, route(smart_host, "good"))
    only = attempt(running, f"bob@{DOMAIN}")
    assert only["site"] == f"{NAME}:{smart_host.port}"
    said = only["route_reason"]
    assert said.startswith("route good: stranger failed just now (") and "certificate" in said
    assert "locked failed just now (" in said and "refused the login: 535 5.7.8" in said

    told = tried(running, "locked")
    assert told.returncode == 1 and "does not work (login)" in told.stderr
    assert "TLS handshake" in told.stdout and "535 5.7.8" in told.stdout and "wrong" not in told.stdout
    told = tried(running, "stranger")
    assert told.returncode == 1 and "does not work (tls)" in told.stderr
    told = tried(running, "good")
    assert told.returncode == 0, told.stderr
    did = [line.split("  ")[1] for line in told.stdout.splitlines() if line.startswith("20")]
    assert did[1:] == ["EHLO", "STARTTLS", "TLS handshake", "EHLO", "AUTH", "QUIT"]


def test_through_an_egress_forward(running: Running, smart_host: SmartHost) -> None:
    dev, api = running.dev, running.api
    tunnel = {
        "name": "tunnel", "type": "egress_forward", "program_id": dev["program_id"],
        "environment_id": dev["environment_id"], "port_orig": PORT_ORIG, "authorities": smart_host.pem,
        "username": USER, "password": PASSWORD,
    }  # fmt: skip
    set_routes(running, tunnel, route(smart_host, "beside"))
    said = attempt(running)["route_reason"]
    assert said.startswith("route beside: tunnel cannot be used (advanced networking is not enabled in environment ")

    forward = {"name": NAME, "portDest": smart_host.port, "portOrig": PORT_ORIG}
    api.call("PUT", api.environment("advancedNetworking"), {"portForwards": [forward]})
    wait_for(lambda: tried(running, "tunnel").returncode, lambda code: code == 0)
    only = attempt(running)
    assert only["route_reason"].startswith(f"route tunnel: preferred; forward {PORT_ORIG} of environment ")
    assert only["site"] == f"{NAME}:{smart_host.port}" and only["tls"].startswith("TLSv1.")
    assert "client=unknown[127.0.0.2]" in smart_host.log(), "the egress's address, not the relay's"

    # Its target is ourselves: mail would go round in circles.
    _, port = running.address("submission")
    forward = {"name": dev["smtp_host_name"], "portDest": port, "portOrig": PORT_ORIG}
    api.call("PUT", api.environment("advancedNetworking"), {"portForwards": [forward]})
    wait_for(lambda: tried(running, "tunnel").stderr, lambda said: "ourselves" in said)
    # Delivery notices within a second.
    wait_for(lambda: attempt(running)["route_reason"], lambda said: "ourselves" in said)


def test_the_installation_goes_by_itself_again(running: Running) -> None:
    done = running.outgate("route", "set", running.dev["domain"], "--default")
    assert done.returncode == 0 and "it goes by: direct" in done.stdout
    wait_for(lambda: attempt(running)["route_reason"], lambda said: said.startswith("MX "))
