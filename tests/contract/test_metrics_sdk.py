"""IBM's own Event Notifications client, unmodified, asks our API what became of mail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import Authenticator, BearerTokenAuthenticator, IAMAuthenticator
from ibm_eventnotifications.event_notifications_v1 import BounceMetrics, EventNotificationsV1, Metrics

from support.api_service import Service, api_service
from support.tenant_mail import TenantMail, bounce, defer_and_deliver, deliver, tenant_mail

START = 1_800_000_000.0
WINDOW = {"gte": "2027-01-15T00:00:00Z", "lte": "2027-01-16T00:00:00Z"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture
def mail(service: Service) -> TenantMail:
    return tenant_mail(service, "shop.test")


@pytest.fixture(params=["bearer", "iam"])
def client(service: Service, request: pytest.FixtureRequest) -> EventNotificationsV1:
    authenticator: Authenticator = (
        BearerTokenAuthenticator(service.token("reader"))
        if request.param == "bearer"
        else IAMAuthenticator(service.api_key, url=service.base)
    )
    made = EventNotificationsV1(authenticator=authenticator)
    made.set_service_url(service.en_url)
    return made


def test_metrics(client: EventNotificationsV1, service: Service, mail: TenantMail) -> None:
    deliver(mail, "ann@there.test", at=START)
    defer_and_deliver(mail, "bob@there.test", at=START + 60, times=2)
    bounce(mail, "carl@there.test", at=START + 3600)
    response = client.get_metrics(instance_id=service.instance.id, smtp_config_id=mail.config_id, **WINDOW)
    assert response.get_status_code() == 200
    metrics = Metrics.from_dict(response.get_result())
    assert {metric.key: metric.doc_count for metric in metrics.metrics} == {
        "submitted": 3,
        "success": 2,
        "deferred": 2,
        "bounced": 1,
        "opened": 0,
    }
    for metric in metrics.metrics:
        buckets = metric.histogram.buckets
        assert len(buckets) == 25
        assert sum(bucket.doc_count for bucket in buckets) == metric.doc_count
    bounced = next(metric for metric in metrics.metrics if metric.key == "bounced")
    (when,) = [bucket.key_as_string for bucket in bounced.histogram.buckets if bucket.doc_count]
    assert when.isoformat() == "2027-01-15T09:00:00+00:00"


def test_bounces_page_by_page(client: EventNotificationsV1, service: Service, mail: TenantMail) -> None:
    for number in range(3):
        bounce(mail, f"user{number}@there.test", subject=f"Order {number}", at=START + number)
    where = {"instance_id": service.instance.id, "smtp_config_id": mail.config_id, **WINDOW}
    response = client.get_bounce_metrics(**where, limit=2)
    assert response.get_status_code() == 200
    assert not {"first", "previous", "next"} & response.get_result().keys()
    page = BounceMetrics.from_dict(response.get_result())
    assert (page.total_count, page.offset, page.limit) == (3, 0, 2)
    assert [(item.email_address, item.subject) for item in page.metrics] == [
        ("user2@there.test", "Order 2"),
        ("user1@there.test", "Order 1"),
    ]
    assert page.metrics[0].error_message == "550 5.1.1 no such mailbox"
    assert page.metrics[0].ip_address == "10.0.0.1"
    assert page.metrics[0].timestamp.isoformat() == "2027-01-15T08:00:03+00:00"
    rest = client.get_bounce_metrics(**where, limit=2, offset=2).get_result()
    assert [item["email_address"] for item in rest["metrics"]] == ["user0@there.test"]


def test_filters_the_client_has(client: EventNotificationsV1, service: Service, mail: TenantMail) -> None:
    deliver(mail, "ann@there.test", subject="Your order", at=START)
    bounce(mail, "bob@there.test", subject="Your invoice", at=START)
    where = {"instance_id": service.instance.id, **WINDOW}

    def counted(**filters: str) -> tuple[int, int]:
        found = {m["key"]: m["doc_count"] for m in client.get_metrics(**where, **filters).get_result()["metrics"]}
        return found["submitted"], client.get_bounce_metrics(**where, **filters).get_result()["total_count"]

    assert counted(smtp_config_id=mail.config_id) == (2, 1)
    assert counted(smtp_config_id=mail.config_id, email_to="bob@there.test") == (1, 1)
    assert counted(smtp_config_id=mail.config_id, subject="order") == (1, 0)
    assert counted(destination_type="smtp_custom") == (0, 0)
    for name in ("destination_id", "subscription_id", "source_id", "notification_id"):
        assert counted(smtp_config_id=mail.config_id, **{name: "none-such"}) == (0, 0)


def test_refusals(client: EventNotificationsV1, service: Service, mail: TenantMail) -> None:
    for call in (client.get_metrics, client.get_bounce_metrics):
        with pytest.raises(ApiException) as refused:
            call(instance_id=service.instance.id, **WINDOW)
        assert refused.value.status_code == 400
        assert "smtp_config_id" in refused.value.message
        with pytest.raises(ApiException) as refused:
            call(instance_id=service.instance.id, smtp_config_id="00000000-0000-0000-0000-000000000000", **WINDOW)
        assert refused.value.status_code == 404
        with pytest.raises(ApiException) as refused:
            call(
                instance_id=service.instance.id,
                smtp_config_id=mail.config_id,
                gte=WINDOW["lte"],
                lte=WINDOW["gte"],
            )
        assert refused.value.status_code == 400
