"""Networks of programs: any body is refused with its fields named or read back as sent; no sequence of changes and
results leaves two owners of an address, a way out that is used and gone, or a key without its VPN."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from outgate.model.egress import Mode
from outgate.store import tables as t
from outgate.store.egress import EnvironmentMoving
from outgate.store.infrastructures import InfrastructureMoving, InfrastructureRefused, Wanted
from support.egress_store import Api, World, bare_program, world
from support.network_bodies import connection, fields_of, vpn, without_key

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "vpn", "va7", "10.0.0.0/8", "::/0", "dedicatedEgressIp", "\ud800", "a.example", "1.2.3.4/33"]
    )
    | st.text(max_size=12)
)
names = st.sampled_from(["kind", "region", "name", "portForwards", "addressSpace", "connections"]) | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
NETWORKING: dict[str, Any] = {
    "portForwards": [{"name": "a.example", "portDest": 465, "portOrig": 30465}],
    "nonProxyHosts": ["*.example.com"],
}


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each part of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places_in(part, (*path, key)))]


@st.composite
def bent(draw: st.DrawFn, body: dict[str, Any]) -> Any:
    """A good body of which up to two parts are replaced by something, or taken away."""
    made: Any = copy.deepcopy(body)
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(places_in(made)))
        if not path:
            return draw(anything)
        place = made
        for step in path[:-1]:
            place = place[step]
        if draw(st.booleans()):
            del place[path[-1]]
        else:
            place[path[-1]] = draw(anything)
    return made


async def sent(api: Api, method: str, path: str, body: Any) -> Any:
    headers = {"content-type": "application/json"}
    answer = await api.call(method, path, content=json.dumps(body), headers=headers)
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code == 400:
        # A text that cannot be read at all, or a rule of the program, is one message; else each field is named.
        if isinstance(answer.json()["errors"], dict):
            assert fields_of(answer, answer.json()["errors"].popitem()[0].partition(".")[0])
        return None
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


def cleared(place: World) -> None:
    with place.control._database.writing() as database:
        database.execute(delete(t.advanced_networking))
        database.execute(delete(t.network_infrastructures).where(t.network_infrastructures.c.id != "7"))
        database.execute(update(t.environments).values(status="ready"))


def played(play: Callable[..., Any], **given_by: st.SearchStrategy[Any]) -> None:
    quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    quick(given(**given_by)(play))()


def test_any_body_of_a_network_infrastructure(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        bare_program(place, "5")
        api = Api(place)
        bodies = st.sampled_from(
            [{"kind": "dedicatedEgressIp", "region": "va7"}, vpn(), vpn(dns={"resolvers": ["fd12::1"]})]
        )

        def play(body: Any) -> None:
            answer = asyncio.run(sent(api, "POST", "/api/program/5/networkInfrastructures", body))
            if answer is not None:
                wanted = without_key(body) if body["kind"] == "vpn" else {k: body[k] for k in ("kind", "region")}
                told = {name: value for name, value in wanted.items() if name != "isPrimaryRegion"}
                assert {name: answer[name] for name in told} == told
                assert "sharedKey" not in json.dumps(answer)
                cleared(place)
            assert place.control.infrastructures.of_program("5") == ()

        played(play, body=bodies.flatmap(bent))


def test_any_body_of_advanced_networking(tmp_path: Path) -> None:
    with world(tmp_path, kind=Mode.DEDICATED) as place:
        api = Api(place)
        path = "/api/program/4/environment/10/advancedNetworking"

        def play(body: Any) -> None:
            answer = asyncio.run(sent(api, "PUT", path, body))
            found = place.store.networking("10")
            assert (found is None) == (answer is None)
            if answer is not None:
                (shown,) = asyncio.run(api.call("GET", path)).json()["_embedded"]["networkingConfigurations"]
                for name in NETWORKING:
                    assert shown[name] == body.get(name, [])
                cleared(place)

        played(play, body=bent(NETWORKING))


POOL = ("127.0.0.3", "127.0.0.5", "127.0.0.6")
programs = st.sampled_from(["5", "6"])
step = st.tuples(
    st.sampled_from(["add", "replace", "withdraw", "ready", "failed", "finish", "put", "drop", "applied"]),
    programs,
    st.sampled_from([Mode.FLEXIBLE, Mode.DEDICATED, Mode.VPN]),
    st.sampled_from(["va7", "nld2"]),
    st.integers(0, 1),
)


def test_any_sequence_leaves_a_consistent_store(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        for program in ("5", "6"):
            bare_program(place, program, secondary=("nld2",))

        def play(steps: list[tuple[str, str, Mode, str, int]]) -> None:
            for each in steps:
                before = tables(place)
                try:
                    done = take(place, *each)
                except (InfrastructureMoving, InfrastructureRefused, EnvironmentMoving, LookupError):
                    done = False
                assert done is not False or tables(place) == before, "what is refused changes nothing"
                check(place)
            cleared(place)

        played(play, steps=st.lists(step, max_size=14))


def take(place: World, action: str, program: str, kind: Mode, region: str, behind: int) -> bool | None:
    """Take one step; `behind` is how many generations the engine's answer is late. False: it changed nothing."""
    ways, store = place.control.infrastructures, place.store
    document: dict[str, object] = {"addressSpace": ["10.0.0.0/26"], "connections": [connection()["gateway"]]}
    wanted = Wanted(kind, region, None, document, {"one": "a key"}) if kind is Mode.VPN else Wanted(kind, region)
    if action == "add":
        ways.add(program, wanted, pool=POOL, actor="x")
        return None
    if action == "drop":
        store.delete_networking(program + "0", actor="x")
        return None
    if action == "applied":
        found = store.networking(program + "0")
        return bool(store.settle(program + "0", None if found is None else found.generation - behind, ""))
    way = next((each for each in ways.of_program(program) if each.region == region), None)
    if way is None:
        return False
    if action == "replace":
        ways.replace(program, way.id, wanted, actor="x")
    elif action == "withdraw":
        ways.withdraw(program, way.id, actor="x")
    elif action == "put":
        store.put_networking(program + "0", way.id, [], [], actor="x")
    elif action == "finish":
        return ways.finish_infrastructure(way.id, way.generation - behind)
    else:
        reason = "no address" if action == "failed" else ""
        return ways.settle_infrastructure(way.id, way.generation - behind, action, reason)
    return None


def tables(place: World) -> tuple[Any, ...]:
    return place.control.infrastructures.all(), place.store.targets()


def check(place: World) -> None:
    ways = place.control.infrastructures.all()
    addresses = [address for each in ways for address in each.addresses]
    assert len(addresses) == len(set(addresses)), "one address, one owner"
    assert place.control.infrastructures.allotted().keys() == set(addresses)
    for each in ways:
        mine = [other for other in ways if other.program_id == each.program_id]
        assert len({other.kind for other in mine}) == 1
        assert len({other.region for other in mine}) == len(mine)
        assert bool(each.addresses) == (each.kind is not Mode.FLEXIBLE)
        assert bool(each.reason) == (each.status == "failed")
        keys = place.control.infrastructures.shared_keys(each.id)
        assert keys == ({"one": "a key"} if each.kind is Mode.VPN else {})
    for target in place.store.targets():
        if target.networking is not None:
            way = target.infrastructure
            assert way is not None and way.program_id == target.environment.program_id
            assert way.status != "deleting", "what is used is not taken away"
            assert target.mode is (way.kind if way.status == "ready" else Mode.NONE)
            assert bool(target.egress_addresses) == (way.status == "ready" and way.kind is not Mode.FLEXIBLE)
