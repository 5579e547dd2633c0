"""The endpoints over the API: what there is, in full, to whoever may read."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from outgate.api.event_notifications import examples
from outgate.api.event_notifications.models import Endpoints
from support.api_service import Service, api_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("endpoints")) as running:
        yield running


def test_every_endpoint_with_all_that_a_client_needs(service: Service) -> None:
    answer = httpx2.get(f"{service.en_url}/v1/endpoints", headers=service.headers("reader"))
    assert answer.status_code == 200
    Endpoints.model_validate(answer.json())
    assert answer.json()["endpoints"] == [
        {
            "id": "fra",
            "regions": ["eu-de", "eu-es"],
            "public_name": "smtp.test",
            "private_name": "private.smtp.test",
            "submission_port": 587,
            "submissions_port": 465,
            "addresses": ["192.0.2.10"],
            "outgoing_addresses": ["192.0.2.20", "2001:db8::20"],
            "ehlo_name": "out.test",
        },
        {
            "id": "dal",
            "regions": [],
            "public_name": "smtp.dal.test",
            "private_name": "private.smtp.dal.test",
            "submission_port": 2587,
            "submissions_port": 2465,
            "addresses": [],
            "outgoing_addresses": ["192.0.2.21"],
            "ehlo_name": "out.dal.test",
        },
    ]


def test_only_to_who_may_read(service: Service) -> None:
    assert httpx2.get(f"{service.en_url}/v1/endpoints").status_code == 401
    assert httpx2.get(f"{service.en_url}/v1/endpoints", headers=service.headers("runtime")).status_code == 403


def test_it_is_described(service: Service) -> None:
    paths = httpx2.get(f"{service.en_url}/openapi.json").json()["paths"]
    described = paths["/v1/endpoints"]["get"]
    assert described["operationId"] == "list_endpoints"
    (example,) = [each["example"] for each in described["responses"]["200"]["content"].values()]
    assert example == examples.ENDPOINTS
    Endpoints.model_validate(example)
