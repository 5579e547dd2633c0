"""The HTTP(S) proxy of `outgate egress serve`, as a process of its own: settings, ways by mode."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.egress_peers import tunnel_address
from support.serving import SETTINGS, Echo, environment, serving

pytestmark = pytest.mark.scenario


def asked(tunnel: str, port: int, head: str) -> bytes:
    """Return the first octets that the proxy answers a head with."""
    with socket.create_connection((tunnel, port), timeout=10) as client:
        client.sendall(head.encode())
        return client.recv(1000)


def connect(port: int) -> str:
    return f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"


def test_what_the_settings_say_is_held_to(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    config = (
        f"{SETTINGS}http_proxy_port = 3998\nproxy_head_bytes = 8192\nproxy_head_timeout_s = 0.2\n"
        "proxy_connections_per_environment = 1\nproxy_keepalive_s = 0.2\n"
    )
    with serving(tmp_path, environment(tunnel), config=config) as service:
        again = "OPTIONS * HTTP/1.1\r\nHost: x\r\n"
        with socket.create_connection((tunnel, 3998), timeout=10) as client:
            client.sendall(again.encode() + b"\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            assert b" 503 " in asked(tunnel, 3998, again + "\r\n")
            assert client.recv(1000) == b""  # let go: it asks for nothing
        for head, status in ((again + "X: " + "y" * 9_000, b" 431 "), (again, b" 408 ")):
            # The one place is free once the client before has gone.
            while b" 503 " in (answer := asked(tunnel, 3998, head)):
                pass
            assert status in answer
        assert service.status()["environments"][0]["reason"] == ""


def test_a_dedicated_environment_leaves_from_its_address_and_closes_other_ports_of_spared_hosts(tmp_path: Path) -> None:
    tunnel, spared = tunnel_address(), tunnel_address()
    own = {"programId": "4", "kind": "dedicatedEgressIp", "egressAddresses": ["127.0.0.3"]}
    config = f"{SETTINGS}http_proxy_port = 3997\n"
    with (
        Echo() as echo,
        serving(
            tmp_path,
            environment(tunnel, **own),
            environment(spared, **own, nonProxyHosts=["127.*"]),
            config=config,
        ),
    ):
        with socket.create_connection((tunnel, 3997), timeout=10) as client:
            client.sendall(connect(echo.port).encode() + b"hello")
            heard = b""
            while not heard.endswith(b"HELLO"):
                heard += client.recv(1000)
        assert heard == b"HTTP/1.1 200 Connection established\r\n\r\nHELLO" and echo.peers == ["127.0.0.3"]
        answer = asked(spared, 3997, connect(echo.port))
        assert answer.startswith(b"HTTP/1.1 403 ") and b"80 and 443 only" in answer
        assert echo.peers == ["127.0.0.3"]
