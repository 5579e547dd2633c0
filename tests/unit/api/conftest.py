"""A service of each test's own, and a client; modules that need another, or one for all their tests, have theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support.api_service import Service, api_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def configuration_url(service: Service, http: httpx2.Client) -> str:
    """Make a configuration; return where it is."""
    body = {"name": "Shop", "domain": "shop.test"}
    made = http.post(f"{service.smtp_url}/config", json=body, headers=service.headers("writer")).json()
    return f"{service.smtp_url}/config/{made['id']}"
