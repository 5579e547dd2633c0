"""The plan of any targets under any terms: total, in no order, and nothing leaves but by what its mode allows."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from outgate.egress.plan import Forward, Planned, Terms, Way, plan
from outgate.model.egress import (
    AdvancedNetworking,
    EgressTarget,
    Environment,
    Mode,
    NetworkInfrastructure,
    PortForward,
)

ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")
NAMES = ("smtp.example", "DB.example.", "192.0.2.80", "*.odd.example", "")
STATUSES = ("ready", "creating", "updating", "failed", "deleting", "deleted", "unheard-of")
PROGRAMS = ("1", "2", "3")

addresses = st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple)
rules = st.lists(
    st.builds(PortForward, st.sampled_from(NAMES), st.integers(30000, 30003), st.sampled_from((25, 465, 80, 5432))),
    max_size=3,
    unique_by=lambda rule: rule.port_orig,
).map(tuple)
documents: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [
        {"connections": [{"name": "office", "gateway": {"addressSpace": ["10.1.0.0/16"]}}]},
        {},
        {"connections": None},
        {"connections": "office"},
        {"connections": [None, 7, {}, {"gateway": []}, {"gateway": {"addressSpace": "10.0.0.0/8"}}]},
        {"connections": [{"gateway": {"addressSpace": []}}]},
    ]
)


@st.composite
def ways(draw: st.DrawFn, number: int) -> NetworkInfrastructure:
    status, given_ = draw(st.sampled_from(STATUSES)), draw(addresses)
    kind, program = draw(st.sampled_from(list(Mode))), draw(st.sampled_from(PROGRAMS))
    return NetworkInfrastructure(f"w{number}", program, kind, "va7", status, given_, draw(documents), 0.0, 0.0)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[EgressTarget], Terms, list[NetworkInfrastructure]]:
    """Draw ways out of programs, environments that leave by some of them, and what operators have set."""
    known = [draw(ways(number)) for number in range(draw(st.integers(0, 4)))]
    targets: list[EgressTarget] = []
    for number in range(draw(st.integers(0, 4))):
        way = draw(st.sampled_from([None, *known]))
        program = draw(st.sampled_from(PROGRAMS)) if way is None else way.program_id
        status = draw(st.sampled_from(STATUSES))
        place = Environment(
            f"e{number}", program, "prod", "prod", "va7", status, f"127.1.0.{number}", ("10.0.0.0/8",), 0.0, 0.0
        )
        if way is None:
            targets.append(EgressTarget(place, Mode.NONE, (), None))
            continue
        hosts = draw(st.sampled_from([(), ("*.example.com",)]))
        wanted = AdvancedNetworking(place.id, program, way.id, way.kind, draw(rules), hosts, draw(st.integers(1, 9)))
        usable = way.status == "ready"
        mode, own = (way.kind, way.addresses) if usable else (Mode.NONE, ())
        targets.append(EgressTarget(place, mode, own, wanted, way, draw(st.sampled_from([(), ("db.example",)]))))
    terms = Terms(
        shared_addresses=draw(addresses),
        header_targets=frozenset(draw(st.sets(st.sampled_from(("smtp.example", "db.example:25"))))),
        mail_ports=frozenset(draw(st.sets(st.sampled_from((25, 465))))),
        mail_targets=frozenset(draw(st.sets(st.sampled_from(("DB.EXAMPLE", "smtp.example:465"))))),
        tunnels=frozenset(draw(st.sets(st.sampled_from(("w0", "w1", "w2", "w3"))))),
    )
    return targets, terms, known


@given(worlds(), st.randoms())
def test_every_environment_is_planned_once_and_in_whatever_order_alike(
    world: tuple[list[EgressTarget], Terms, list[NetworkInfrastructure]], random: Random
) -> None:
    targets, terms, known = world
    ruleset = plan(targets, terms, known)
    assert [each.environment_id for each in ruleset.environments] == [each.environment.id for each in targets]
    shuffled, others = list(targets), list(known)
    random.shuffle(shuffled)
    random.shuffle(others)
    again = plan(shuffled, terms, others)
    assert {each.environment_id: each for each in again.environments} == {
        each.environment_id: each for each in ruleset.environments
    }


@given(worlds())
def test_an_environment_is_planned_whole_or_refused_with_a_reason(
    world: tuple[list[EgressTarget], Terms, list[NetworkInfrastructure]],
) -> None:
    targets, terms, known = world
    for target, planned in zip(targets, plan(targets, terms, known).environments, strict=True):
        wanted = target.networking
        if wanted is None or target.environment.status in {"deleting", "deleted"}:
            assert planned == Planned(target.environment.id, None, ())
        elif planned.refusal:
            assert (planned.rules, planned.way, planned.generation) == ((), None, wanted.generation)
        else:
            assert planned.proxy is not None
            assert [(rule.listen_port, rule.port) for rule in planned.forwards] == [
                (rule.port_orig, rule.port_dest) for rule in wanted.port_forwards
            ]
            for rule in planned.rules:
                assert rule.listen_address == target.environment.tunnel_address
                assert rule.client_networks == target.environment.client_networks
                assert (rule.environment_id, rule.program_id) == (target.environment.id, target.environment.program_id)
                assert rule.way == planned.way
                if isinstance(rule, Forward):
                    assert rule.engine
                    assert rule.engine_reason


@given(worlds())
def test_nothing_leaves_but_from_what_its_mode_and_its_program_have(
    world: tuple[list[EgressTarget], Terms, list[NetworkInfrastructure]],
) -> None:
    targets, terms, known = world
    owned = {address for way in known if way.kind in {Mode.DEDICATED, Mode.VPN} for address in way.addresses}
    for target, planned in zip(targets, plan(targets, terms, known).environments, strict=True):
        way, infrastructure = planned.way, target.infrastructure
        if way is None or infrastructure is None:
            assert not planned.rules
            continue
        assert infrastructure.status == "ready"
        assert way.sources
        assert way.mode == infrastructure.kind
        if way.mode is Mode.FLEXIBLE:
            allowed = {*terms.shared_addresses, *infrastructure.addresses}
            assert set(way.sources) <= allowed - owned
        else:
            assert way.mode in {Mode.DEDICATED, Mode.VPN}
            assert set(way.sources) <= set(infrastructure.addresses)
            assert not {
                other.program_id
                for other in known
                if other.kind in {Mode.DEDICATED, Mode.VPN} and set(other.addresses) & set(way.sources)
            } - {target.environment.program_id}
        if way.mode is Mode.VPN:
            assert infrastructure.id in terms.tunnels
            assert way.tunnel
        _check_spared(planned, terms, owned)


def _check_spared(planned: Planned, terms: Terms, owned: set[str]) -> None:
    proxy = planned.proxy
    assert proxy is not None
    spared: Way | None = proxy.spared
    if planned.way is not None and planned.way.mode is Mode.FLEXIBLE:
        assert (spared, proxy.non_proxy_hosts) == (None, ())
    if spared is not None:
        assert proxy.non_proxy_hosts
        assert spared.mode is Mode.FLEXIBLE
        assert spared.sources
        assert set(spared.sources) <= set(terms.shared_addresses) - owned


@given(worlds())
def test_an_address_that_is_given_to_a_program_is_its_own_though_it_does_not_use_it(
    world: tuple[list[EgressTarget], Terms, list[NetworkInfrastructure]],
) -> None:
    targets, terms, known = world
    idle = replace(known[0], id="idle", kind=Mode.DEDICATED, addresses=ADDRESSES[:1]) if known else None
    if idle is None:
        return
    for target, planned in zip(targets, plan(targets, terms, [*known, idle]).environments, strict=True):
        if planned.way is not None and ADDRESSES[0] in planned.way.sources:
            assert (target.mode in {Mode.DEDICATED, Mode.VPN}, target.environment.program_id) == (True, idle.program_id)
