"""A store that cannot be written: 503 in the vendor's form, nothing stored, and the same call succeeds later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from support.api_service import Service, api_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path, authorization="manual") as running:
        yield running


class Disk:
    """The store's disk: every connection that is taken asks how many pages the file may have."""

    def __init__(self, service: Service) -> None:
        self.full = False
        sa.event.listen(service.store._database.engine, "checkout", self._limit)

    def _limit(self, connection: Any, record: object, proxy: object) -> None:
        pages = 1 if self.full else 1_073_741_823  # never less than it has: nothing more fits
        connection.execute(f"PRAGMA max_page_count={pages}")


def test_nothing_is_stored_and_later_it_works(service: Service) -> None:
    disk = Disk(service)
    with httpx2.Client(headers=service.headers("reader", "writer", "manager"), trust_env=False) as http:
        made = http.post(f"{service.smtp_url}/config", json={"name": "Shop", "domain": "shop.test"}).json()
        one = f"{service.smtp_url}/config/{made['id']}"
        zone = {
            "name": "z",
            "account_id": service.account_id,
            "addresses": [{"type": "ipAddress", "value": "192.0.2.1"}],
        }
        long = {**FORM_EXAMPLE, "subscriber_list": "x" * 4000, "unsubscribe": "x" * 4000}  # more than a page holds
        disk.full = True
        refused = [
            http.post(f"{one}/authorization", json=long),
            *(http.post(f"{service.smtp_url}/config", json={"name": "n", "domain": f"d{n}.test"}) for n in range(20)),
            *(http.post(f"{service.cbr_url}/v1/zones", json={**zone, "name": f"z{n}", "description": "x" * 300}) for n in range(20)),
        ]  # fmt: skip
        assert {answer.status_code for answer in refused} <= {201, 503}  # some pages have room left
        failed = [answer for answer in refused if answer.status_code == 503]
        assert refused[0] in failed and len(failed) >= 3
        for answer in failed:
            assert answer.headers["Retry-After"] == "5"
            assert answer.json()["errors"][0]["code"] == "unavailable"
        stored = http.get(f"{service.smtp_url}/config?limit=100").json()["total_count"]
        assert stored == 1 + sum(answer.status_code == 201 for answer in refused[1:21])
        assert http.get(f"{one}/authorization").status_code == 404
        disk.full = False
        assert http.post(f"{one}/authorization", json=long).status_code == 202
