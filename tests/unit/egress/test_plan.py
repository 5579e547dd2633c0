"""The plan: each mode, the PROXY header, and that nothing may leave by an address that was not named."""

from __future__ import annotations

import pytest

from outgate.egress.plan import Planned, plan
from outgate.model.egress import AdvancedNetworking, EgressTarget, Environment, Mode, PortForward

RULES = (PortForward("smtp.mymail.com", 30465, 465), PortForward("db.example", 30001, 5432))


def target(mode: Mode, addresses: tuple[str, ...] = (), rules: tuple[PortForward, ...] = RULES) -> EgressTarget:
    place = Environment("10", "4", "prod", "prod", "va7", "updating", "127.1.0.1", ("127.0.0.0/8",), 0.0, 0.0)
    wanted = AdvancedNetworking("10", "4", "7", mode, rules, (), 3)
    return EgressTarget(place, mode, addresses, wanted)


def only(entry: EgressTarget, shared: tuple[str, ...] = ("127.0.0.2",), proxied: tuple[str, ...] = ()) -> Planned:
    ruleset = plan([entry], shared_addresses=shared, proxy_protocol_targets=proxied)
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
        (target(Mode.DEDICATED), ("127.0.0.2",), "dedicated"),
        (target(Mode.FLEXIBLE), (), "shared"),
        (target(Mode.VPN, ("127.0.0.4",)), ("127.0.0.2",), "VPN"),
        (target(Mode.NONE), ("127.0.0.2",), "not ready"),
    ],
)
def test_without_its_way_out_nothing_leaves(entry: EgressTarget, shared: tuple[str, ...], word: str) -> None:
    planned = only(entry, shared)
    assert planned.forwards == ()
    assert word in planned.refusal


def test_nothing_wanted_is_not_a_failure() -> None:
    entry = EgressTarget(target(Mode.NONE).environment, Mode.NONE, (), None)
    assert only(entry) == Planned("10", None, ())


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
    planned = only(target(Mode.FLEXIBLE), proxied=listed)
    assert [forward.proxy_header for forward in planned.forwards] == expected
