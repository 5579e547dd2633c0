"""An outgoing address that is not plumbed, in a running relay: nothing leaves, and the message says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outgate.model.flow import Status
from support.relay import TestRelay, letter, relay
from support.scripted_peer import Peer


def endpoints(*outgoing: str) -> dict[str, object]:
    return {"lo": {"public_name": "smtp.test", "listen": ["127.0.0.1"], "outgoing_addresses": list(outgoing)}}


async def attempts(running: TestRelay, queue_id: str, enough: Callable[[Any], bool]) -> Any:
    """Return a message's record once `enough` of it is there."""
    while True:
        record = await asyncio.to_thread(running.service.store.message, queue_id)
        if record is not None and enough(record):
            return record


async def test_mail_waits_for_the_address_and_leaves_from_no_other(tmp_path: Path) -> None:
    async with (
        Peer() as peer,
        relay(
            tmp_path / "data", endpoints=endpoints("192.0.2.77"), deliver_to=f"127.0.0.1:{peer.port}", retry_first_s=1.0
        ) as running,
    ):
        (source,) = running.service.outbound.ways.sources()
        assert source.suspended and source.checked_at, "looked at when it started"
        client = await running.client()
        await client.envelope()
        queue_id = (await client.send(letter())).rpartition(" ")[2]
        client.close()
        record = await attempts(running, queue_id, lambda it: it.attempts)
        assert record.recipients[0].status is Status.DEFERRED and record.recipients[0].reason == "source"
        assert "192.0.2.77" in record.recipients[0].reply and "outgoing_addresses" in record.recipients[0].reply
        assert peer.connections == 0

        # It is told to be back, and is not: using it shows that at once.
        running.service.outbound.sources._trouble = lambda address: ""
        running.service.outbound.sources.check()
        assert not running.service.outbound.ways.sources()[0].suspended
        running.clock.advance(30)
        await running.service.queue.poke()
        await attempts(running, queue_id, lambda it: len(it.attempts) == 2)
        assert running.service.outbound.ways.sources()[0].suspended and peer.connections == 0
