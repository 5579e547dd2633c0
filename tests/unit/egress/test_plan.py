"""The plan: each mode, the PROXY header, and that nothing may leave by an address that was not named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outgate.egress.plan import (
    FORWARDER,
    NO_DEDICATED,
    NO_SHARED,
    NO_TUNNEL,
    Planned,
    Terms,
    external_names,
    plan,
)
from outgate.model.egress import (
    AdvancedNetworking,
    EgressTarget,
    Environment,
    Mode,
    NetworkInfrastructure,
    PortForward,
)
from outgate.net.guard import compile_exceptions

RULES = (PortForward("smtp.mymail.com", 30465, 465), PortForward("db.example", 30001, 5432))
VPN = {
    "connections": [
        {"name": "office", "gateway": {"address": "192.0.2.1", "addressSpace": ["10.1.0.0/16"]}},
        {"name": "plant", "gateway": {"address": "192.0.2.2", "addressSpace": ["10.2.0.0/16", "10.3.0.0/16"]}},
    ]
}


def target(
    kind: Mode,
    addresses: tuple[str, ...] = (),
    *,
    status: str = "ready",
    hosts: tuple[str, ...] = (),
    program: str = "4",
    environment: str = "10",
    document: dict[str, object] | None = None,
    exceptions: tuple[str, ...] = (),
) -> EgressTarget:
    place = Environment(
        environment, program, "prod", "prod", "va7", "updating", "127.1.0.1", ("127.0.0.0/8",), 0.0, 0.0
    )
    way = NetworkInfrastructure(f"w{program}", program, kind, "va7", status, addresses, document or {}, 0.0, 0.0)
    wanted = AdvancedNetworking(environment, program, way.id, kind, RULES, hosts, 3)
    usable = status == "ready"
    mode = kind if usable else Mode.NONE
    return EgressTarget(place, mode, addresses if usable else (), wanted, way, exceptions)


def only(entry: EgressTarget, **terms: Any) -> Planned:
    ruleset = plan([entry], Terms(**{"shared_addresses": ("127.0.0.2",), **terms}))
    (planned,) = ruleset.environments
    assert ruleset.forwards == planned.forwards
    return planned


def test_flexible_leaves_from_the_shared_addresses() -> None:
    planned = only(target(Mode.FLEXIBLE))
    assert (planned.generation, planned.refusal) == (3, "")
    first = planned.forwards[0]
    assert (first.listen_address, first.listen_port, first.name, first.port) == (
        "127.1.0.1",
        30465,
        "smtp.mymail.com",
        465,
    )
    assert (first.environment_id, first.program_id, first.client_networks) == ("10", "4", ("127.0.0.0/8",))
    assert {forward.way.sources for forward in planned.forwards} == {("127.0.0.2",)}
    assert first.engine == "forwarder"
    assert first.engine_reason


def test_dedicated_leaves_from_the_programs_own_address_only() -> None:
    planned = only(target(Mode.DEDICATED, ("127.0.0.3",)))
    assert {forward.way.sources for forward in planned.forwards} == {("127.0.0.3",)}


@pytest.mark.parametrize(
    ("entry", "shared", "word"),
    [
        (target(Mode.DEDICATED), ("127.0.0.2",), NO_DEDICATED),
        (target(Mode.FLEXIBLE), (), NO_SHARED),
        (target(Mode.VPN, ("127.0.0.4",)), ("127.0.0.2",), NO_TUNNEL),
        (target(Mode.VPN, ("127.0.0.4",), status="failed"), ("127.0.0.2",), NO_TUNNEL),
        (target(Mode.FLEXIBLE, status="creating"), ("127.0.0.2",), "network infrastructure w4 is creating"),
        (
            target(Mode.DEDICATED, ("127.0.0.3",), status="failed"),
            ("127.0.0.2",),
            "network infrastructure w4 is failed",
        ),
        (target(Mode.FLEXIBLE, status="deleting"), ("127.0.0.2",), "network infrastructure w4 is deleting"),
        (target(Mode.NONE), ("127.0.0.2",), "the environment's mode is none"),
    ],
)
def test_without_its_way_out_nothing_leaves(entry: EgressTarget, shared: tuple[str, ...], word: str) -> None:
    planned = only(entry, shared_addresses=shared)
    assert (planned.rules, planned.way) == ((), None)
    assert planned.refusal == word


def test_the_reason_of_a_way_out_is_the_environments() -> None:
    entry = target(Mode.DEDICATED, ("127.0.0.3",), status="failed")
    assert entry.infrastructure is not None
    entry = replace(entry, infrastructure=replace(entry.infrastructure, reason="127.0.0.3 is not here"))
    assert only(entry).refusal == "network infrastructure w4 is failed: 127.0.0.3 is not here"


def test_nothing_wanted_is_not_a_failure() -> None:
    entry = EgressTarget(target(Mode.NONE).environment, Mode.NONE, (), None)
    assert only(entry) == Planned("10", None, ())


def test_what_is_being_taken_away_has_no_rules() -> None:
    entry = target(Mode.FLEXIBLE)
    going = replace(entry, environment=replace(entry.environment, status="deleting"))
    assert only(going) == Planned("10", None, ())


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ((), [False, False]),
        (("smtp.mymail.com",), [True, False]),
        (("SMTP.mymail.com.",), [True, False]),
        (("smtp.mymail.com:465", "db.example:1"), [True, False]),
        (("mymail.com",), [False, False]),
    ],
)
def test_only_listed_targets_get_a_proxy_header(listed: tuple[str, ...], expected: list[bool]) -> None:
    planned = only(target(Mode.FLEXIBLE), header_targets=frozenset(listed))
    assert [forward.proxy_header for forward in planned.forwards] == expected
    assert [forward.engine_reason.endswith("PROXY header") for forward in planned.forwards] == expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, [False, False]),
        ({"mail_ports": frozenset({465})}, [True, False]),
        ({"mail_targets": frozenset({"db.example:5432"})}, [False, True]),
        ({"mail_targets": frozenset({"DB.example"})}, [False, True]),
        ({"mail_targets": frozenset({"db.example:465"})}, [False, False]),
    ],
)
def test_mail_is_known_by_port_or_by_name(terms: dict[str, Any], expected: list[bool]) -> None:
    planned = only(target(Mode.FLEXIBLE), **terms)
    assert [forward.mail for forward in planned.forwards] == expected
    assert [forward.engine_reason.startswith("it carries SMTP") for forward in planned.forwards] == expected
    assert {forward.engine for forward in planned.forwards} == {FORWARDER}


def test_the_proxy_of_each_mode() -> None:
    hosts = ("*.example.com",)
    flexible = only(target(Mode.FLEXIBLE, hosts=hosts), proxy_port=4000).proxy
    assert flexible is not None
    assert (flexible.listen_address, flexible.listen_port) == ("127.1.0.1", 4000)
    assert (flexible.way.sources, flexible.non_proxy_hosts, flexible.spared) == (("127.0.0.2",), (), None)
    dedicated = only(target(Mode.DEDICATED, ("127.0.0.3",), hosts=hosts)).proxy
    assert dedicated is not None
    assert (dedicated.way.sources, dedicated.non_proxy_hosts) == (("127.0.0.3",), hosts)
    assert dedicated.spared is not None
    assert (dedicated.spared.mode, dedicated.spared.sources) == (Mode.FLEXIBLE, ("127.0.0.2",))
    planned = only(target(Mode.DEDICATED, ("127.0.0.3",), hosts=hosts))
    for host, port, way in (
        ("A.Example.com.", 443, dedicated.spared),
        ("a.example.com", 80, dedicated.spared),
        ("a.example.com", 465, dedicated.way),
        ("example.com", 443, dedicated.way),
    ):
        assert planned.way_to(host, port) == way, (host, port)
    # Without a shared address what is spared has no way at all: it does not leave from the program's own.
    spared = only(target(Mode.DEDICATED, ("127.0.0.3",), hosts=hosts), shared_addresses=()).proxy
    assert spared is not None
    assert (spared.spared, spared.non_proxy_hosts) == (None, hosts)
    closed = only(target(Mode.DEDICATED, ("127.0.0.3",), hosts=hosts), shared_addresses=())
    assert (closed.way_to("a.example.com", 443), closed.way_to("b.example", 443)) == (None, spared.way)


def test_a_vpn_with_a_tunnel_knows_what_belongs_into_it() -> None:
    entry = target(Mode.VPN, ("127.0.0.3",), hosts=("*.example.com",), document=dict(VPN))
    planned = only(entry, tunnels=frozenset({"w4"}))
    way, proxy = planned.way, planned.proxy
    assert way is not None
    assert proxy is not None
    assert proxy.spared is not None
    assert (proxy.spared.sources, proxy.spared.tunnel) == (("127.0.0.2",), way.tunnel)
    assert (way.sources, way.tunnel) == (("127.0.0.3",), ("10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"))
    nowhere = only(target(Mode.VPN, ("127.0.0.3",)), tunnels=frozenset({"w4"}))
    assert "no address space" in nowhere.refusal
    assert nowhere.rules == ()


def test_an_address_of_two_programs_is_nobodys() -> None:
    mine = target(Mode.DEDICATED, ("127.0.0.3",))
    others = target(Mode.DEDICATED, ("127.0.0.3",), program="5", environment="11")
    first, second = plan([mine, others], Terms(shared_addresses=("127.0.0.2",))).environments
    assert first.refusal == "127.0.0.3 is given to program 5 too: nothing leaves from an address of two"
    assert second.refusal == "127.0.0.3 is given to program 4 too: nothing leaves from an address of two"


def test_what_is_a_programs_own_is_not_shared() -> None:
    own = target(Mode.DEDICATED, ("127.0.0.3",))
    flexible = target(Mode.FLEXIBLE, program="5", environment="11")
    shared = plan([own, flexible], Terms(shared_addresses=("127.0.0.2", "127.0.0.3"))).environments[1]
    assert shared.way is not None
    assert shared.way.sources == ("127.0.0.2",)
    assert plan([own, flexible], Terms(shared_addresses=("127.0.0.3",))).environments[1].refusal == NO_SHARED


def test_exceptions_of_the_settings_and_of_the_environment() -> None:
    entry = target(Mode.FLEXIBLE, exceptions=("db.internal",))
    way = only(entry, exceptions=("10.0.0.0/8",)).way
    assert way is not None
    assert way.exceptions == compile_exceptions(["10.0.0.0/8", "db.internal"])


def test_external_names() -> None:
    def way(kind: Mode, status: str, *addresses: str) -> NetworkInfrastructure:
        return NetworkInfrastructure("7", "4", kind, "va7", status, addresses, {}, 0.0, 0.0)

    ways = [way(Mode.DEDICATED, "ready", "192.0.2.1", "192.0.2.2"), way(Mode.FLEXIBLE, "ready", "192.0.2.9")]
    names = external_names(ways, domain="external.example", vpn_address="192.0.2.4")
    assert names == {("p4.external.example", "192.0.2.1"), ("p4.external.example", "192.0.2.2")}
    names = external_names([way(Mode.VPN, "ready", "192.0.2.1")], domain="d.example", vpn_address="192.0.2.4")
    assert names == {("p4.d.example", "192.0.2.1"), ("p4.va7-gateway.d.example", "192.0.2.4")}
    for status in ("creating", "failed", "deleting"):
        closed = [way(Mode.DEDICATED, status, "192.0.2.1"), way(Mode.VPN, status, "192.0.2.1")]
        assert external_names(closed, domain="d.example", vpn_address="192.0.2.4") == frozenset()
