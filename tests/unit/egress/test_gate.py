"""Who is let in, and how many."""

from __future__ import annotations

import pytest

from outgate.egress.gate import Gate, Limits
from outgate.egress.refusal import Refused
from support.egress_peers import forward


def said(caplog: pytest.LogCaptureFixture, event: str) -> int:
    return sum(event in record.message for record in caplog.records)


def test_the_limit_the_alert_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "outgate")
    gate = Gate(Limits())
    for _ in range(749):
        gate.enter("10")
    assert said(caplog, "egress.many_connections") == 0
    for _ in range(251):
        gate.enter("10")
    with pytest.raises(Refused, match="the environment has 1000 connections open") as refused:
        gate.enter("10")
    assert refused.value.kind == "limit"
    gate.enter("11")
    assert (gate.open("10"), gate.open("11")) == (1000, 1)
    # Around the alert it is told of once.
    for _ in range(5):
        for _ in range(300):
            gate.leave("10")
        for _ in range(300):
            gate.enter("10")
    assert (said(caplog, "egress.many_connections"), said(caplog, "egress.fewer_connections")) == (1, 0)
    for _ in range(326):
        gate.leave("10")
    assert said(caplog, "egress.fewer_connections") == 1
    for _ in range(100):
        gate.enter("10")
    assert said(caplog, "egress.many_connections") == 2
    for _ in range(774):
        gate.leave("10")
    assert gate.open("10") == 0


def test_the_clients_of_a_proxy_have_a_bound_of_their_own() -> None:
    gate = Gate(Limits(proxy_connections_per_environment=2))
    gate.enter_proxy("10")
    gate.enter_proxy("10")
    with pytest.raises(Refused, match="proxy has 2 clients"):
        gate.enter_proxy("10")
    assert (gate.proxied("10"), gate.open("10")) == (2, 0)
    gate.leave_proxy("10")
    gate.enter_proxy("10")


def test_only_clients_of_the_networks_are_let_in() -> None:
    gate = Gate(Limits())
    rule = forward("127.0.0.1", 1, "a.example", 1, client_networks=("10.1.0.0/16", "fd00::/8"))
    for client in ("10.1.2.3", "fd00::1"):
        gate.admit(rule, client)
    for client in ("10.2.0.1", "::1", "nonsense", ""):
        with pytest.raises(Refused) as refused:
            gate.admit(rule, client)
        assert refused.value.kind == "client-network"
    with pytest.raises(Refused):
        gate.admit(forward("127.0.0.1", 1, "a.example", 1, client_networks=()), "127.0.0.1")
