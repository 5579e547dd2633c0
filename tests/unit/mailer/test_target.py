"""Whom to dial: the tunnel is known by its names, however they are written."""

from __future__ import annotations

import pytest

from outgate.mailer.config import settle
from outgate.mailer.configuration.forwards import Forward, forwards_from
from outgate.mailer.sending.target import Target, target_of
from outgate.mailer.values import Value

FORWARD = Forward(30465, "smtp.mymail.com", 465)


def target(host: str, *, address: str = "", names: tuple[str, ...] = (), port: str = "30465") -> Target:
    raw = {"smtp.host": Value("String", host), "smtp.port": Value("String", port)}
    listed = [{"name": FORWARD.name, "portDest": FORWARD.destination, "portOrig": FORWARD.port}]
    forwards = forwards_from({"tunnelAddress": address, "portForwards": listed}, {})
    return target_of(settle(raw, env={}, secrets={}), forwards, names)


@pytest.mark.parametrize("host", ["proxy.tunnel", "Proxy.Tunnel", "proxy.tunnel."])
def test_the_vendors_name(host: str) -> None:
    assert target(host) == Target(host, 30465, "smtp.mymail.com", True, FORWARD)
    assert target(host, address="127.0.0.1").label == "smtp.mymail.com:465 via 127.0.0.1:30465"


@pytest.mark.parametrize("host", ["tunnel.shop.test", "TUNNEL.shop.test."])
def test_names_of_ones_own(host: str) -> None:
    assert target(host, names=("", "Tunnel.shop.test")).forward == FORWARD
    assert target(host, address="tunnel.shop.test").forward == FORWARD
    assert target(host).label == f"{host}:30465"


def test_a_port_that_leads_nowhere_known() -> None:
    assert target("proxy.tunnel", port="30587") == Target("proxy.tunnel", 30587, None, True, None)


def test_no_tunnel() -> None:
    assert target("mail.test", names=("",)) == Target("mail.test", 30465, None, False, None)
