"""The queue over HTTP: what waits and why, and operators' verbs; what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from outgate.model.flow import Status
from support.api_service import Service
from support.queue_mail import attempt
from support.tenant_mail import TenantMail, record, submit, tenant_mail

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def mail(service: Service) -> TenantMail:
    return tenant_mail(service, "shop.test")


class Operations:
    """Calls with an operator's token."""

    def __init__(self, service: Service, http: httpx2.Client) -> None:
        self.service, self.http = service, http
        self.headers = service.headers("operator")

    def get(self, path: str, **query: object) -> Any:
        answer = self.http.get(f"{self.service.operations_url}/{path}", params=query, headers=self.headers)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, verb: str, selection: object, **more: object) -> httpx2.Response:
        body = {"selection": selection, **more}
        return self.http.post(f"{self.service.operations_url}/queue/{verb}", json=body, headers=self.headers)

    def do(self, verb: str, selection: object, **more: object) -> Any:
        answer = self.post(verb, selection, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def operations(service: Service, http: httpx2.Client) -> Operations:
    return Operations(service, http)


def deferred(mail: TenantMail, mailbox: str, *, site: str = "mx.dest.test") -> str:
    """Have a message deferred; return its queue id."""
    now = mail.service.clock.now()
    job = submit(mail, mailbox, subject="hello", at=now)
    record(mail, replace(attempt(job, Status.DEFERRED, at=now + 1, next_at=now + 900), site=site))
    return job.queue_id


def test_sites_with_age_next_attempt_and_why(mail: TenantMail, operations: Operations) -> None:
    for number in range(3):
        deferred(mail, f"{number}@dest.test")
    deferred(mail, "x@other.test", site="mx.other.test")
    operations.service.clock.advance(120)
    found = operations.get("queue", limit=1)
    assert (found["total_count"], found["recipients"], found["deferred"]) == (2, 4, 4)
    assert "offset=1" in found["next"]["href"]
    (site,) = found["sites"]
    assert (site["site"], site["recipients"], site["deferred"], site["held"]) == ("mx.dest.test", 3, 3, 0)
    assert 120 <= site["oldest_age_s"] < 180 and site["next_attempt_at"] > site["oldest_accepted_at"]
    assert site["why"] == "policy: 451 4.7.1 later" and site["hold"] is None
    assert [each["site"] for each in operations.get("queue", sort="age", domain="other.test")["sites"]] == [
        "mx.other.test"
    ]
    listed = operations.get("queue/messages", site="mx.dest.test", limit=2)
    assert listed["total_count"] == 3 and len(listed["recipients"]) == 2
    first = listed["recipients"][0]
    assert (first["recipient"], first["status"], first["attempts"]) == ("0@dest.test", "deferred", 1)
    assert (first["reason"], first["reply"], first["under_way"]) == ("policy", "451 4.7.1 later", False)
    assert operations.get("queue/messages", queue_id=first["queue_id"])["total_count"] == 1


def test_a_hold_stands_and_is_ended(mail: TenantMail, operations: Operations, service: Service) -> None:
    queue_id = deferred(mail, "ann@dest.test")
    weighed = operations.do("hold", {"domain": "DEST.test"}, dry_run=True)
    assert (weighed["changed"], weighed["messages"], weighed["standing"]) == (1, 1, False)
    assert operations.get("holds") == {"total_count": 0, "holds": []}
    done = operations.do("hold", {"domain": "DEST.test"}, reason="a pause")
    assert (done["verb"], done["changed"], done["standing"], done["dry_run"]) == ("hold", 1, True, False)
    (hold,) = operations.get("holds")["holds"]
    assert hold["selection"]["domain"] == "dest.test"
    assert (hold["by"], hold["reason"]) == ("iam-tester", "a pause")
    (site,) = operations.get("queue")["sites"]
    assert site["hold"] == hold and site["why"] == "held: domain dest.test: a pause (by iam-tester)"
    assert operations.do("release", {"queue_ids": [queue_id]})["kept"] == 1
    assert operations.do("release", {"domain": "dest.test"})["changed"] == 1
    assert operations.get("holds")["holds"] == []
    message = httpx2.get(
        f"{service.smtp_url}/messages/{queue_id}", headers=service.headers("reader"), trust_env=False
    ).json()
    told = [(each["event"], each["actor"]) for each in message["timeline"] if each["actor"]]
    assert told == [("held", "iam-tester"), ("released", "iam-tester")]


def test_a_hold_of_messages_or_of_what_is_there_now_does_not_stand(mail: TenantMail, operations: Operations) -> None:
    first, _ = deferred(mail, "ann@dest.test"), deferred(mail, "bob@dest.test")
    assert operations.do("hold", {"queue_ids": [first]})["standing"] is False
    assert operations.do("hold", {"domain": "dest.test"}, standing=False) | {"selection": 0} == {
        "verb": "hold",
        "dry_run": False,
        "standing": False,
        "selection": 0,
        "changed": 1,
        "messages": 1,
        "under_way": 0,
        "held": 1,
        "kept": 0,
        "final": 0,
    }
    assert operations.get("holds")["total_count"] == 0


def test_retry_reroute_and_cancel(mail: TenantMail, operations: Operations, service: Service) -> None:
    first, second = deferred(mail, "ann@dest.test"), deferred(mail, "bob@dest.test")
    assert operations.do("retry", {"queue_ids": [first]})["changed"] == 1
    assert operations.get("queue")["ready"] == 1
    assert operations.do("reroute", {"smtp_config_id": mail.config_id}, route="direct")["changed"] == 2
    assert {each["route"] for each in operations.get("queue/messages")["recipients"]} == {"direct"}
    assert operations.do("cancel", {"instance_id": service.instance.id})["changed"] == 2
    assert operations.get("queue") | {"first": 0} == {
        "total_count": 0,
        "offset": 0,
        "limit": 10,
        "recipients": 0,
        "ready": 0,
        "deferred": 0,
        "held": 0,
        "under_way": 0,
        "sites": [],
        "first": 0,
    }
    assert operations.do("cancel", {"queue_ids": [first, second]})["final"] == 2


@pytest.mark.parametrize(
    ("verb", "selection", "more", "status", "says"),
    [
        ("cancel", {}, {}, 400, "must name messages"),
        ("cancel", {"domain": ""}, {}, 400, "must name messages"),
        ("cancel", {"domain": "not a domain"}, {}, 400, "selection.domain"),
        ("hold", {"queue_ids": ["0ABC"]}, {"standing": True}, 400, "standing"),
        ("hold", {"smtp_config_id": NOBODY}, {}, 400, "no configuration"),
        ("hold", {"instance_id": NOBODY}, {}, 400, "no instance"),
        ("retry", {"queue_ids": ["0ABC"]}, {}, 404, "no message '0ABC'"),
        ("reroute", {"domain": "dest.test"}, {"route": "moon"}, 400, "there are direct"),
        ("reroute", {"domain": "dest.test"}, {}, 400, "route"),
        ("hold", {"domain": "dest.test"}, {"reason": "two\nlines"}, 400, "reason"),
        ("hold", {"queue_ids": ["0ABC"] * 101}, {}, 400, "queue_ids"),
        ("hold", {"queue_ids": ["../x"]}, {}, 400, "queue_ids"),
    ],
)
def test_what_is_refused(
    operations: Operations, verb: str, selection: object, more: dict[str, object], status: int, says: str
) -> None:
    answer = operations.post(verb, selection, **more)
    assert answer.status_code == status and says in answer.text, answer.text


@pytest.mark.parametrize("roles", [("reader", "writer", "manager", "authorizer"), ("runtime",)])
def test_only_operators(service: Service, http: httpx2.Client, roles: tuple[str, ...]) -> None:
    for path in ("queue", "queue/messages", "holds"):
        answer = http.get(f"{service.operations_url}/{path}", headers=service.headers(*roles))
        assert answer.status_code == 403 and "operator" in answer.text
