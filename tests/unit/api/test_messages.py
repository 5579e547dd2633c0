"""Messages are found by queue id and by what is known of them, within their instance, with their whole way."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from outgate.api.messages.models import MESSAGE_EXAMPLE, MESSAGES_EXAMPLE, Message, MessagesList
from outgate.model.flow import (
    Accepted,
    Attempt,
    Client,
    Job,
    Outcome,
    Recipient,
    SigningKey,
    Status,
    Step,
    Submission,
)
from support.api_service import Service, api_service

START = 1_800_000_000.0


def accept(service: Service, queue_id: str, *, mailbox: str, instance_id: str | None = None, at: float = 0.0) -> Job:
    """Store a message as the relay does and return its job."""
    submission = Submission(
        session_id="s1",
        client=Client("192.0.2.7", 40123, "public", "submissions", via="127.0.0.2"),
        helo="app.test",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        username="abcdefghijklmnopqr01",
        reverse_path="noreply@shop.test",
        recipients=(Recipient(mailbox, mailbox.partition("@")[2]),),
        content=b"Subject: hello\r\n\r\nHello\r\n",
        received_at=START + at,
    )
    accepted = Accepted(
        queue_id=queue_id,
        submission=submission,
        instance_id=instance_id or service.instance.id,
        smtp_config_id="c1",
        signing_key=SigningKey("k1", "shop.test", "sel"),
        trace=b"Received: x\r\n",
        message_id=f"<{queue_id}@shop.test>",
        header_from="noreply@shop.test",
        subject="hello",
        accepted_at=START + at,
        expires_at=START + 86_400,
    )
    done: list[tuple[Exception | None, tuple[Job, ...]]] = []
    service.queue.submit(accepted, lambda error, jobs: done.append((error, jobs)))
    service.queue.flush()
    error, jobs = done[0]
    assert error is None
    return jobs[0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("messages")) as running:
        job = accept(running, "A000000000000001", mailbox="ann@there.test")
        running.queue.record(
            Attempt(
                queue_id=job.queue_id,
                site="mx.there.test",
                host="mx.there.test",
                address="198.51.100.5",
                source="127.0.0.1",
                tls="TLSv1.3",
                started_at=START + 1,
                finished_at=START + 2,
                route_reason="MX",
                steps=(Step(START + 1.5, "MAIL", "250 2.1.0 Ok"), Step(START + 2, "end of data", "250 2.0.0 Ok")),
                outcomes=(Outcome(job.recipients[0].id, Status.DELIVERED, 250, "2.0.0", "Ok", "accepted"),),
                recipients=job.recipients,
            )
        )
        running.queue.flush()
        accept(running, "A000000000000002", mailbox="bob@there.test", at=10)
        accept(running, "A000000000000003", mailbox="ann@there.test", at=20)
        held = accept(running, "A000000000000005", mailbox="Carl@there.test", at=-60)
        running.queue.record(
            Attempt(
                queue_id=held.queue_id,
                site="mx.there.test",
                host="mx.there.test",
                address="198.51.100.5",
                source="127.0.0.1",
                tls="",
                started_at=START - 50,
                finished_at=START - 40,
                route_reason="MX",
                steps=(),
                outcomes=(Outcome(held.recipients[0].id, Status.HELD, 0, "", "it is damaged", "incident"),),
                recipients=held.recipients,
            )
        )
        running.queue.flush()
        other = running.store.tenancy.create_instance(running.account_id, "eu-de", "other")
        accept(running, "A000000000000004", mailbox="ann@there.test", instance_id=other.id)
        yield running


def get(service: Service, path: str) -> httpx2.Response:
    return httpx2.get(f"{service.smtp_url}/messages{path}", headers=service.headers("reader"), trust_env=False)


def test_one_message_with_its_whole_way(service: Service) -> None:
    service.trail.clear()
    answer = get(service, "/A000000000000001")
    assert answer.status_code == 200
    body = answer.json()
    assert body["message_id"] == "<A000000000000001@shop.test>"
    assert body["accepted_at"] == "2027-01-15T08:00:00.000Z"
    assert body["client"]["address"] == "192.0.2.7"
    assert body["client"]["via"] == "127.0.0.2"
    assert body["recipients"] == [
        {
            "mailbox": "ann@there.test",
            "status": "delivered",
            "attempts": 1,
            "next_attempt_at": None,
            "reply": "250 2.0.0 Ok",
            "reason": "accepted",
            "updated_at": "2027-01-15T08:00:02.000Z",
        }
    ]
    (attempt,) = body["attempts"]
    assert (attempt["host"], attempt["address"], attempt["source"]) == (
        "mx.there.test",
        "198.51.100.5",
        "127.0.0.1",
    )
    assert [step["did"] for step in attempt["conversation"]] == ["MAIL", "end of data"]
    assert attempt["outcomes"][0]["status"] == "delivered"
    assert [event["event"] for event in body["timeline"]] == ["accepted", "attempt", "delivered"]
    assert body["egress"] == [{"event": "egress.decision", "client": "192.0.2.7"}]
    assert service.trail == [("192.0.2.7", 40123, START)]
    Message.model_validate(body)


def test_a_held_message_says_so_in_its_timeline(service: Service) -> None:
    body = get(service, "/A000000000000005").json()
    Message.model_validate(body)
    assert body["timeline"][-1] == {
        "at": "2027-01-15T07:59:20.000Z",
        "event": "held",
        "recipient": "Carl@there.test",
        "detail": "it is damaged",
        "attempt": 1,
        "actor": "",
    }
    assert body["recipients"][0]["next_attempt_at"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [3, 2, 1, 5]),
        ("?queue_id=A000000000000002", [2]),
        ("?message_id=A000000000000002@shop.test", [2]),
        ("?message_id=%3CA000000000000002@shop.test%3E", [2]),
        ("?recipient=ann@there.test", [3, 1]),
        ("?recipient=ann@THERE.test", [3, 1]),
        ("?recipient=ANN@there.test", []),
        ("?recipient=Carl@there.test", [5]),
        ("?status=delivered", [1]),
        ("?status=held", [5]),
        ("?status=held&status=delivered", [1, 5]),
        ("?status=queued&status=held", [3, 2, 5]),
        ("?status=expired&status=bounced", []),
        ("?recipient=bob@there.test&status=delivered", []),
        ("?gte=2027-01-15T08:00:10Z", [3, 2]),
        ("?gte=2027-01-15t10:00:10.0%2b02:00", [3, 2]),
        ("?lte=2027-01-15T08:00:10Z", [2, 1, 5]),
        ("?gte=2027-01-15T08:00:10Z&lte=2027-01-15T08:00:10Z", [2]),
        ("?queue_id=A000000000000004", []),
    ],
)
def test_search(service: Service, query: str, found: list[int]) -> None:
    body = get(service, query).json()
    assert [int(message["queue_id"][-1]) for message in body["messages"]] == found
    assert body["total_count"] == len(found)
    assert (body["limit"], body["offset"]) == (10, 0)
    assert body["first"]["href"].partition("?")[0] == f"{service.smtp_url}/messages"
    assert not {"previous", "next"} & body.keys()
    MessagesList.model_validate(body)


def test_pages_keep_the_filters(service: Service) -> None:
    body = get(service, "?recipient=ann@there.test&limit=1").json()
    assert (body["total_count"], len(body["messages"])) == (2, 1)
    assert "previous" not in body
    following = httpx2.get(body["next"]["href"], headers=service.headers("reader"), trust_env=False).json()
    assert [message["queue_id"] for message in following["messages"]] == ["A000000000000001"]
    assert "next" not in following
    assert "offset=0" in following["previous"]["href"]


def test_a_page_past_the_end_is_empty(service: Service) -> None:
    body = get(service, "?status=delivered&status=queued&limit=2&offset=4").json()
    assert (body["total_count"], body["messages"]) == (3, [])
    assert "next" not in body
    assert "status=delivered&status=queued&limit=2&offset=2" in body["previous"]["href"]
    MessagesList.model_validate(body)


def test_operators_look_messages_up_too(service: Service) -> None:
    for path in ("", "/A000000000000001"):
        for role, status in (("operator", 200), ("writer", 200), ("runtime", 403)):
            answer = httpx2.get(f"{service.smtp_url}/messages{path}", headers=service.headers(role), trust_env=False)
            assert answer.status_code == status, (path, role)


def test_the_published_description_has_both_operations(service: Service) -> None:
    document = httpx2.get(f"{service.en_url}/openapi.json", trust_env=False).json()
    found = document["paths"]["/v1/instances/{instance_id}/smtp/messages"]["get"]
    one = document["paths"]["/v1/instances/{instance_id}/smtp/messages/{queue_id}"]["get"]
    assert (found["operationId"], one["operationId"]) == ("list_messages", "get_message")
    schemas = {parameter["name"]: parameter["schema"] for parameter in found["parameters"]}
    assert schemas["status"]["items"]["enum"] == [status.value for status in Status]
    assert (schemas["gte"]["format"], schemas["lte"]["format"]) == ("date-time", "date-time")
    for operation in (found, one):
        assert operation["responses"].keys() == {"200", "400", "401", "403", "404", "503"}
    Message.model_validate(MESSAGE_EXAMPLE)
    MessagesList.model_validate(MESSAGES_EXAMPLE)


def test_message_of_another_instance_is_404(service: Service) -> None:
    assert get(service, "/A000000000000004").status_code == 404


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?status=lost", "status"),
        ("?status=", "status"),
        ("?status=held&status=Held", "status"),
        ("?status=held,bounced", "status"),
        ("?status=" + "&status=".join(["held"] * 21), "status"),
        ("?gte=yesterday", "gte"),
        ("?gte=2027-01-15", "gte"),
        ("?gte=2027-W02-5T08:00:00Z", "gte"),
        ("?gte=2027-01-15T08:00:00%2B00:00:00", "gte"),
        ("?lte=2027-01-15T08:00:00", "lte"),
        ("?lte=2027-01-15T08:00:60Z", "lte"),
        ("?gte=2027-01-15T08:00:01Z&lte=2027-01-15T08:00:00Z", "gte"),
        ("?queue_id=", "queue_id"),
        ("?queue_id=" + "A" * 33, "queue_id"),
        ("?message_id=", "message_id"),
        ("?message_id=" + "x" * 999, "message_id"),
        ("?recipient=", "recipient"),
        ("?recipient=ann", "recipient"),
        ("?recipient=ann@", "recipient"),
        ("?recipient=%00@there.test", "recipient"),
        ("?recipient=ann@" + "x" * 251, "recipient"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=ten", "limit"),
        ("?offset=-1", "offset"),
        ("?offset=2147483649", "offset"),
    ],
)
def test_bad_query_is_named(service: Service, query: str, names: str) -> None:
    answer = get(service, query)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["target"]["name"] == names
