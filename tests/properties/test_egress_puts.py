"""Any sequence of changes leaves exactly the last one in force, and its environments ready."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.egress.reconcile import Reconciler
from outgate.model.egress import PortForward
from support.egress_peers import Bench, tunnel_address
from support.egress_store import world

rules = st.dictionaries(st.integers(30000, 30005), st.sampled_from(["a.example", "b.example"]), max_size=4)
change = st.tuples(st.sampled_from(["10", "11"]), st.none() | rules, st.booleans())


@settings(max_examples=25, deadline=None)
@given(st.lists(change, max_size=8))
def test_the_last_put_is_in_force(changes: list[tuple[str, dict[int, str] | None, bool]]) -> None:
    asyncio.run(_play(changes))


async def _play(changes: list[tuple[str, dict[int, str] | None, bool]]) -> None:
    with tempfile.TemporaryDirectory() as name, world(Path(name), tunnel=tunnel_address()) as place:
        async with Bench(Path(name)) as bench:
            reconciler = Reconciler(
                store=place.store,
                engine=bench.engine,
                shared_addresses=["127.0.0.2"],
                proxy_protocol_targets=[],
                changes=place.control.data_version,
            )
            last: dict[str, dict[int, str]] = {"10": {}, "11": {}}
            for environment, wanted, both in changes:
                # Two environments on one address must not want one port: shift the second's.
                shift = 10 if environment == "11" else 0
                if wanted is None:
                    if place.store.networking(environment) is None:
                        continue
                    place.store.delete_networking(environment, actor="test")
                    last[environment] = {}
                else:
                    last[environment] = {port + shift: name for port, name in wanted.items()}
                    forwards = [PortForward(name, port, 25) for port, name in last[environment].items()]
                    place.store.put_networking(environment, "7", forwards, [], actor="test")
                await asyncio.gather(*(reconciler.reconcile() for _ in range(1 + both)))
            in_force = {(each.environment_id, each.listen_port, each.name) for each in bench.engine.forwards()}
            assert in_force == {
                (environment, port, name) for environment, wanted in last.items() for port, name in wanted.items()
            }
            assert {each.status for each in place.store.environments("4")} == {"ready"}
