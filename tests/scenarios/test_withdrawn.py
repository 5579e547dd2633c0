"""A rule that changes ends the sessions it no longer allows, with the words for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.model.access import Address
from outgate.sandbox.tenant import SMTP_API
from support.relay import TestRelay, relay

pytestmark = pytest.mark.scenario


def demand_another_network(running: TestRelay) -> None:
    """Add a rule to the tenant's own: all that apply must allow."""
    account = running.tenant.account_id
    zone = running.control.access.create_zone(
        account, name="else", description="", addresses=(Address("subnet", "192.0.2.0/24"),), excluded=(), by="test"
    )
    resource = [
        {"name": "accountId", "value": account},
        {"name": "serviceName", "value": "event-notifications"},
        {"name": "serviceInstance", "value": running.tenant.instance_id},
    ]
    document: dict[str, object] = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone.id}]}],
        "resources": [{"attributes": resource}],
        "operations": {"api_types": [{"api_type_id": SMTP_API}]},
    }
    running.control.access.create_rule(account, description="", document=document, enforcement="enabled", by="test")


async def test_open_sessions_end_wherever_they_are(tmp_path: Path) -> None:
    async with relay(tmp_path / "data", proxy_trusted=["192.0.2.1/24"]) as running:
        idle, writing, before_login = await running.client(), await running.client(), await running.client(login=False)
        assert (await writing.envelope()).startswith("354 ")
        writing.writer.write(b"From: a@example.test\r\n")
        demand_another_network(running)
        await running.service.changed()
        for client in (idle, writing, before_login):
            assert await client.heard() == "421 4.7.0 Access withdrawn, closing"
            assert await client.heard() == ""
            client.close()
