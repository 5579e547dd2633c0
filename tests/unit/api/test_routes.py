"""Routes over HTTP: shown without secrets, replaced as a whole, refused with the field's name, tried."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import trustme

from support.api_service import Service
from support.ports import closed_port

SMART = {"name": "primary", "type": "smart_host", "host": "Smtp.Example.net.", "username": "shop", "password": "correct horse"}  # fmt: skip
DIRECT = {"name": "direct", "type": "direct"}


@pytest.fixture
def url(configuration_url: str) -> str:
    return f"{configuration_url}/routes"


def put(service: Service, http: httpx2.Client, url: str, *routes: object) -> httpx2.Response:
    return http.put(url, json={"routes": list(routes)}, headers=service.headers("operator"))


def test_an_order_is_put_and_got_without_its_password(service: Service, http: httpx2.Client, url: str) -> None:
    reader = service.headers("reader")
    found = http.get(url, headers=reader).json()
    assert (found["domain"], found["routes"], found["in_force"]) == ("shop.test", [], ["direct"])
    answer = put(service, http, url, SMART, DIRECT)
    assert answer.status_code == 200, answer.text
    shown = {
        "name": "primary", "type": "smart_host", "host": "smtp.example.net", "port": 587, "tls": "starttls",
        "verify": True, "names": [], "authorities": "", "username": "shop", "password_set": True,
    }  # fmt: skip
    assert answer.json()["routes"] == [shown, DIRECT] and answer.json()["in_force"] == ["primary", "direct"]
    assert "correct horse" not in answer.text
    found = http.get(url, headers=reader)
    assert found.json() == answer.json()
    # What was got can be put again.
    again = http.put(url, json=found.json(), headers=service.headers("operator"))
    assert again.status_code == 200 and again.json() == found.json()
    assert put(service, http, url).json()["in_force"] == ["direct"]


CA = trustme.CA().cert_pem.bytes().decode()
WRONG: list[tuple[str, list[dict[str, Any]]]] = [
    ("routes.0.host", [SMART | {"host": "no host"}]),
    ("routes.0.host", [SMART | {"host": None}]),
    ("routes.0.name", [SMART | {"name": "Upper"}]),
    ("routes.0.name", [SMART | {"name": "direct"}]),
    ("routes.0.name", [DIRECT | {"name": "other"}]),
    ("routes.1.name", [SMART, SMART]),
    ("routes.0.tls", [SMART | {"tls": "none"}]),
    ("routes.0.tls", [SMART | {"tls": "opportunistic"}]),
    ("routes.0.tls", [SMART | {"tls": "maybe"}]),
    ("routes.0.port", [SMART | {"port": 0}]),
    ("routes.0.port", [SMART | {"port": True}]),
    ("routes.0.password", [SMART | {"password": None}]),
    ("routes.0.password", [SMART | {"password": "two\nlines"}]),
    ("routes.0.username", [SMART | {"username": ""}]),
    ("routes.0.names", [SMART | {"names": ["*.example.net"]}]),
    ("routes.0.verify", [SMART | {"names": ["a.example.net"], "verify": False}]),
    ("routes.0.authorities", [SMART | {"authorities": "no certificate"}]),
    ("routes.0.authorities", [SMART | {"authorities": CA.replace("M", "N")}]),
    ("routes.0.host", [DIRECT | {"host": "mx.example.net"}]),
    ("routes.0.port_orig", [SMART | {"port_orig": 5025}]),
    ("routes.0.port_orig", [{"name": "t", "type": "egress_forward", "program_id": "1", "environment_id": "2"}]),
    ("routes.0.environment_id", [{"name": "t", "type": "egress_forward", "program_id": "1", "environment_id": "2", "port_orig": 5025}]),
    ("routes.0.type", [SMART | {"type": "carrier-pigeon"}]),
    ("routes", [SMART | {"name": f"r{number}"} for number in range(9)]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "routes"), WRONG)
def test_what_is_wrong_is_named(
    service: Service, http: httpx2.Client, url: str, field: str, routes: list[dict[str, Any]]
) -> None:
    answer = put(service, http, url, *routes)
    assert answer.status_code == 400, answer.text
    (error,) = answer.json()["errors"]
    assert error["target"]["name"] == field, error
    assert http.get(url, headers=service.headers("reader")).json()["routes"] == []


def test_a_password_does_not_follow_to_another_place(service: Service, http: httpx2.Client, url: str) -> None:
    assert put(service, http, url, SMART | {"authorities": CA}).status_code == 200
    answer = put(service, http, url, {**SMART, "password": None, "host": "smtp.evil.example", "authorities": CA})
    assert answer.status_code == 400 and "routes.0.password" in answer.text


def test_another_accounts_environment_is_none(service: Service, http: httpx2.Client, url: str) -> None:
    egress = service.store.egress
    for account, status in (("somebody", 400), (service.account_id, 200)):
        program = egress.add_program("org", account, "p")
        made = egress.add_environment(
            program.id, "e", kind="prod", region="x", tunnel_address="127.1.0.1", client_networks=[]
        )
        route = {
            "name": "t", "type": "egress_forward", "program_id": program.id, "environment_id": made.id, "port_orig": 5025,
        }  # fmt: skip
        assert put(service, http, url, route).status_code == status


def test_only_an_operator_of_the_account_writes(service: Service, http: httpx2.Client, url: str) -> None:
    for roles in (("manager", "writer", "reader"), ("authorizer",)):
        assert http.put(url, json={"routes": []}, headers=service.headers(*roles)).status_code == 403
        assert http.post(f"{url}/direct/test", json={}, headers=service.headers(*roles)).status_code == 403
    foreign = service.headers("operator", account_id="0" * 32)
    assert http.put(url, json={"routes": []}, headers=foreign).status_code == 404


# -- trying ---------------------------------------------------------------------------------------------------


@pytest.fixture
def smart_host() -> Iterator[tuple[int, str]]:
    """Serve one session that wants STARTTLS and a login; give its port and its authority's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def serve(server: socket.socket) -> None:
        sock, _ = server.accept()
        with sock:
            sock.sendall(b"220 mx.test ESMTP\r\n")
            assert sock.recv(1000).startswith(b"EHLO")
            sock.sendall(b"250-mx.test\r\n250 STARTTLS\r\n")
            assert sock.recv(1000) == b"STARTTLS\r\n"
            sock.sendall(b"220 go\r\n")
            with context.wrap_socket(sock, server_side=True) as tls:
                for answer in (b"250-mx.test\r\n250 AUTH PLAIN\r\n", b"235 2.7.0 ok\r\n", b"221 bye\r\n"):
                    tls.recv(1000)
                    tls.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield server.getsockname()[1], authority.cert_pem.bytes().decode()
        thread.join()


def test_a_route_is_tried_step_by_step(
    service: Service, http: httpx2.Client, url: str, smart_host: tuple[int, str]
) -> None:
    port, pem = smart_host
    assert put(service, http, url, SMART | {"host": "127.0.0.1", "port": port, "authorities": pem}).status_code == 200
    answer = http.post(f"{url}/primary/test", json={}, headers=service.headers("operator"))
    assert answer.status_code == 200
    found = answer.json()
    assert found["ok"] and found["reason"] == "" and found["tls"].startswith("TLSv1.")
    did = [step["did"] for step in found["steps"]]
    assert did == [f"connect to 127.0.0.1:{port}", "EHLO", "STARTTLS", "TLS handshake", "EHLO", "AUTH", "QUIT"]
    assert "correct horse" not in answer.text


def test_a_route_that_does_not_work_says_why(service: Service, http: httpx2.Client, url: str) -> None:
    operator = service.headers("operator")
    port = closed_port()
    put(service, http, url, SMART | {"host": "127.0.0.1", "port": port})
    found = http.post(f"{url}/primary/test", json={}, headers=operator).json()
    assert (found["ok"], found["reason"]) == (False, "network") and "refused" in found["steps"][0]["reply"]
    assert http.post(f"{url}/none/test", json={}, headers=operator).status_code == 404
    answer = http.post(f"{url}/direct/test", json={}, headers=operator)
    assert answer.status_code == 400 and "'domain'" in answer.text
    answer = http.post(f"{url}/direct/test", json={"domain": "[127.0.0.300]"}, headers=operator)
    assert answer.status_code == 400
    found = http.post(f"{url}/direct/test", json={"domain": "other.test"}, headers=operator).json()
    assert (found["ok"], found["reason"]) == (False, "dns")
    found = http.post(f"{url}/direct/test", json={"domain": "[127.0.0.66]"}, headers=operator).json()
    assert found["site"] == "[127.0.0.66]" and found["reason"] == "network"
