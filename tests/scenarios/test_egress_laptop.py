"""The egress in the laptop mode: proxies that listen where `dev.json` says, and names that lead to addresses."""

from __future__ import annotations

import socket
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest

from outgate.smtp.proxy_header import encode_v2
from support.running import Running, wait_for
from support.serving import Echo

pytestmark = pytest.mark.scenario


def asked(running: Running, name: str) -> list[str]:
    """Return the IPv4 addresses that the zone tells for a name."""
    host, port = running.address("dns")
    answer = dns.query.udp(dns.message.make_query(name, "A"), host, port=port, timeout=10)
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


def through(address: tuple[str, int], port: int) -> bool:
    """Return whether octets go through a proxy to a port of 127.0.0.1; False where nobody listens."""
    try:
        client = socket.create_connection(address, timeout=10)
    except ConnectionRefusedError:
        return False
    with client:
        client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        client.sendall(b"hello")
        return client.recv(100) == b"HELLO"


def settled(running: Running, url: str, state: str = "ready") -> dict[str, Any]:
    found: dict[str, Any] = wait_for(lambda: running.api.call("GET", url), lambda found: found["status"] == state)
    return found


def test_the_proxy_listens_once_networking_is_enabled(running: Running) -> None:
    dev, api = running.dev, running.api
    program = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}"
    first = f"{program}/environment/{dev['environment_id']}"
    proxy = running.address("http_proxy")
    assert proxy[0] == dev["tunnel_address"]
    made = api.call("POST", f"{program}/environments", {"name": "second", "type": "stage", "region": "va7"})
    second = f"{program}/environment/{made['id']}"
    settled(running, second)
    with Echo() as echo:
        assert not through(proxy, echo.port)
        for url in (first, second):
            api.call("PUT", f"{url}/advancedNetworking", {})
            settled(running, url)
        (shown,) = api.call("GET", f"{second}/advancedNetworking")["_embedded"]["networkingConfigurations"]
        assert shown["tunnelAddress"] != dev["tunnel_address"]
        assert through(proxy, echo.port)
        assert through((shown["tunnelAddress"], proxy[1]), echo.port)
        assert echo.peers == ["127.0.0.2"] * 2
        api.call("DELETE", f"{first}/advancedNetworking")
        settled(running, first)
        assert not through(proxy, echo.port)
        assert through((shown["tunnelAddress"], proxy[1]), echo.port)
    api.call("DELETE", second)
    wait_for(
        lambda: {each["id"] for each in api.call("GET", f"{program}/environments")["_embedded"]["environments"]},
        lambda ids: made["id"] not in ids,
    )


def test_a_client_of_the_proxy_cannot_say_to_the_relay_who_it_is(running: Running) -> None:
    dev, api = running.dev, running.api
    place = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}"
    api.call("PUT", f"{place}/advancedNetworking", {})
    settled(running, place)
    host, port = running.address("submission")
    # The relay believes a header that comes from where the proxy leaves.
    forged = encode_v2(("127.0.0.1", 4711), (host, port))
    for stranger, greeting in (("127.66.0.1", b"554 "), ("127.0.0.1", b"220 ")):
        with socket.create_connection(
            running.address("http_proxy"), timeout=20, source_address=(stranger, 0)
        ) as client:
            client.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            with client.makefile("rb") as answers:
                assert answers.readline().startswith(b"HTTP/1.1 200"), stranger
                assert answers.readline() == b"\r\n"
                if stranger == "127.66.0.1":
                    client.sendall(forged)
                assert answers.readline()[:4] == greeting


def test_names_lead_to_the_tunnel_and_to_the_dedicated_address(running: Running) -> None:
    dev, api = running.dev, running.api
    base = f"{dev['cloud_manager_url']}/api"
    assert asked(running, "proxy.tunnel") == [dev["tunnel_address"]]
    (tenant,) = api.call("GET", f"{base}/tenants")["_embedded"]["tenants"]
    program = api.call(
        "POST", f"{base}/tenant/{tenant['id']}/programs", {"name": "Dedicated", "type": "aem_cloud_service"}
    )
    url = f"{base}/program/{program['id']}"
    name = f"p{program['id']}.external.outgate.test"
    made = api.call("POST", f"{url}/environments", {"name": "prod", "type": "prod", "region": "va7"})
    settled(running, f"{url}/environment/{made['id']}")
    assert asked(running, name) == []
    way = api.call("POST", f"{url}/networkInfrastructures", {"kind": "dedicatedEgressIp", "region": "va7"})
    assert way["status"] == "creating"
    settled(running, f"{url}/networkInfrastructure/{way['id']}")
    assert asked(running, name) == ["127.0.0.3"]
    api.call("DELETE", f"{url}/networkInfrastructure/{way['id']}")
    wait_for(lambda: asked(running, name), lambda found: found == [])
