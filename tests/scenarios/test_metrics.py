"""Mail that is really sent, deferred and refused shows in the metrics as the vendor's client reads them."""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_eventnotifications.event_notifications_v1 import EventNotificationsV1

from support.running import Running

pytestmark = pytest.mark.scenario


def submit(running: Running, recipient: str) -> str:
    """Send a small mail over STARTTLS; return the queue id."""
    message = EmailMessage()
    message["From"] = f"shop@{running.dev['domain']}"
    message["To"] = recipient
    message["Subject"] = f"for {recipient}"
    message.set_content("Hello.\n")
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    with smtplib.SMTP(*running.address("submission"), timeout=30) as client:
        client.starttls(context=context)
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        client.mail(f"shop@{running.dev['domain']}")
        client.rcpt(recipient)
        code, text = client.data(message.as_string())
    assert code == 250, text
    return text.decode().rpartition(" ")[2]


def test_metrics_tell_what_became_of_real_mail(running: Running) -> None:
    api, dev = running.api, running.dev
    api.call(
        "PUT",
        api.sandbox("inbox/behaviour"),
        [
            {"recipient": "later@*", "at": "rcpt", "reply": "451 4.7.1 later", "times": 1},
            {"recipient": "nobody@*", "at": "rcpt", "reply": "550 5.1.1 no such mailbox", "times": 1},
        ],
    )
    begin = datetime.now(UTC) - timedelta(minutes=1)
    delivered = submit(running, "ann@customer.test")
    deferred = submit(running, "later@customer.test")
    bounced = submit(running, "nobody@customer.test")
    running.settled(delivered)
    running.settled(bounced)
    running.settled(deferred, "deferred")
    api.call("POST", api.sandbox("clock"), {"advance_s": 3600})
    assert running.settled(deferred)["recipients"][0]["status"] == "delivered"

    root = dev["identity_url"].removesuffix("/identity/token")
    client = EventNotificationsV1(authenticator=IAMAuthenticator(dev["api_key"], url=root))
    client.set_service_url(dev["event_notifications_url"])
    where = {
        "instance_id": dev["instance_id"],
        "smtp_config_id": dev["smtp_config_id"],
        "gte": f"{begin:%Y-%m-%dT%H:%M:%SZ}",
        "lte": f"{begin + timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}",
    }
    metrics = client.get_metrics(**where).get_result()["metrics"]
    assert {metric["key"]: metric["doc_count"] for metric in metrics} == {
        "submitted": 3,
        "success": 2,
        "deferred": 1,
        "bounced": 1,
        "opened": 0,
    }
    for metric in metrics:
        assert sum(bucket["doc_count"] for bucket in metric["histogram"]["buckets"]) == metric["doc_count"]
    only = client.get_metrics(**where, email_to="later@customer.test").get_result()["metrics"]
    assert [metric["doc_count"] for metric in only] == [1, 1, 1, 0, 0]
    bounces = client.get_bounce_metrics(**where).get_result()
    assert bounces["total_count"] == 1
    (bounce,) = bounces["metrics"]
    assert bounce["email_address"] == "nobody@customer.test"
    assert bounce["subject"] == "for nobody@customer.test"
    assert bounce["error_message"] == "550 5.1.1 no such mailbox"
    assert bounce["ip_address"] == "127.0.0.1"
