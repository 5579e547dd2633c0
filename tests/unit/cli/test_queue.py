"""`outgate queue`, against the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from outgate.cli import calling
from outgate.cli.queue import span
from outgate.model.flow import Status
from outgate.model.operations import Order, Scope, Verb
from support.api_service import Service
from support.queue_mail import attempt
from support.tenant_mail import TenantMail, record, submit, tenant_mail

from .conftest import Outgate


@pytest.fixture
def mail(service: Service) -> Iterator[TenantMail]:
    found = service.store.tenancy.configuration_by_domain(service.instance.id, "shop.test")
    yield TenantMail(service, found.id) if found else tenant_mail(service, "shop.test")
    verbs = service.queue.verbs
    scope = Scope(instance_id=service.instance.id)
    verbs.obey(Order(Verb.CANCEL, scope, "test", service.clock.now()), verbs.find(scope))


def deferred(mail: TenantMail, mailbox: str, *, text: str = "later") -> str:
    now = mail.service.clock.now()
    job = submit(mail, mailbox, subject="hello", at=now)
    tried = attempt(job, Status.DEFERRED, at=now + 1, next_at=now + 900)
    record(mail, replace(tried, outcomes=tuple(replace(each, text=text) for each in tried.outcomes)))
    return job.queue_id


def by_operator(outgate: Outgate, *arguments: str, **more: object):  # type: ignore[no-untyped-def]
    return outgate("queue", *arguments, roles=("operator", "reader"), **more)


def test_nothing_waits(outgate: Outgate, mail: TenantMail) -> None:
    shown = by_operator(outgate)
    assert shown.exit_code == 0 and shown.stdout == "Nothing waits.\n"
    assert by_operator(outgate, "holds").stdout == "No hold stands.\n"
    assert by_operator(outgate, "top").stdout.startswith("SITE")


def test_sites_and_messages(outgate: Outgate, mail: TenantMail) -> None:
    queue_id = deferred(mail, "ann@dest.test", text="slow\x1b[2J down")
    shown = by_operator(outgate)
    head, row, summary = shown.stdout.splitlines()
    assert head.split() == ["SITE", "WAITING", "READY", "DEFERRED", "HELD", "UNDER", "WAY", "OLDEST", "NEXT", "WHY"]
    assert row.split()[:6] == ["mx.dest.test", "1", "0", "1", "0", "0"]
    assert "policy: 451 4.7.1 slow" in row and "\x1b" not in shown.stdout
    assert summary == "1 of 1 sites; 1 recipients: 0 ready, 1 deferred, 0 held, 0 under way"
    assert json.loads(by_operator(outgate, "--json").stdout)["sites"][0]["site"] == "mx.dest.test"
    assert by_operator(outgate, "--domain", "other.test").stdout == "Nothing waits.\n"
    listed = by_operator(outgate, "messages", "--site", "mx.dest.test").stdout
    assert queue_id in listed and "ann@dest.test" in listed and listed.endswith("1 of 1\n")
    assert json.loads(by_operator(outgate, "messages", "--message", queue_id, "--json").stdout)["total_count"] == 1


def test_hold_release_and_retry(outgate: Outgate, mail: TenantMail) -> None:
    deferred(mail, "ann@dest.test")
    would = by_operator(outgate, "hold", "--domain", "dest.test", "--dry-run")
    assert would.stdout == "1 recipient(s) of 1 message(s) would be held\n"
    held = by_operator(outgate, "hold", "--config", "shop.test", "--reason", "a pause")
    assert held.exit_code == 0, held.output
    assert held.stdout == ("1 recipient(s) of 1 message(s) held; what comes is held too, until it is released\n")
    assert f"config {mail.config_id}" in by_operator(outgate, "holds").stdout
    tried = by_operator(outgate, "retry", "--domain", "dest.test")
    assert tried.stdout == "0 recipient(s) of 0 message(s) to be tried now; 1 held: release them first\n"
    kept = by_operator(outgate, "release", "--domain", "dest.test")
    assert "1 stay held, for another hold stands (`outgate queue holds`)" in kept.stdout
    assert by_operator(outgate, "release", "--config", "shop.test").stdout == (
        "1 recipient(s) of 1 message(s) released\n"
    )
    now_only = by_operator(outgate, "hold", "--domain", "dest.test", "--now-only", "--json")
    assert json.loads(now_only.stdout)["standing"] is False
    assert by_operator(outgate, "holds").stdout == "No hold stands.\n"


def test_cancel_asks_before_it_ends_more_than_one(
    outgate: Outgate, mail: TenantMail, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = deferred(mail, "ann@dest.test")
    assert "cancelled" in by_operator(outgate, "cancel", "--message", one).stdout
    for name in ("bob", "carl"):
        deferred(mail, f"{name}@dest.test")
    unasked = by_operator(outgate, "cancel", "--domain", "dest.test")
    assert unasked.exit_code == calling.WRONG_USE
    assert "cancel 2 recipient(s) (domain dest.test)? Nobody is there to be asked: add --yes" in unasked.stderr
    monkeypatch.setattr("outgate.cli.queue._somebody", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, err: False)
    refused = by_operator(outgate, "cancel", "--domain", "dest.test")
    assert refused.exit_code == calling.NOT_AS_WANTED and "nothing was done" in refused.stderr
    monkeypatch.setattr("typer.confirm", lambda text, err: True)
    done = by_operator(outgate, "cancel", "--domain", "dest.test")
    assert done.stdout == "2 recipient(s) of 2 message(s) cancelled\n"


def test_reroute(outgate: Outgate, mail: TenantMail) -> None:
    queue_id = deferred(mail, "ann@dest.test")
    assert by_operator(outgate, "reroute", "direct", "--message", queue_id).stdout == (
        "1 recipient(s) of 1 message(s) rerouted\n"
    )
    found = json.loads(by_operator(outgate, "messages", "--json").stdout)["recipients"][0]
    assert found["route"] == "direct"
    assert by_operator(outgate, "reroute", "usual", "--message", queue_id).exit_code == 0
    assert json.loads(by_operator(outgate, "messages", "--json").stdout)["recipients"][0]["route"] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("hold",), 2, "say which mail to hold: --message, --config, --site, --domain or --instance"),
        (("cancel", "--yes"), 2, "say which mail to cancel"),
        (("hold", "--domain", ""), 2, "--domain must not be empty"),
        (("hold", "--domain", "not a domain"), 1, "must be a domain such as example.net"),
        (("hold", "--config", "nobody.test"), 1, "there is no configuration of nobody.test: `outgate smtp list`"),
        (("retry", "--message", "0NOSUCH"), 1, "there is no message '0NOSUCH'"),
        (("hold", "--message", "HERE", "--message", "0NOSUCH"), 1, "there is no message '0NOSUCH'"),
        (("reroute", "moon", "--domain", "dest.test"), 1, "there are direct"),
        (("--sort", "size"), 2, "'size' is not one of depth, age"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(
    outgate: Outgate, mail: TenantMail, arguments: tuple[str, ...], code: int, says: str
) -> None:
    here = deferred(mail, "ann@dest.test")
    done = by_operator(outgate, *(here if word == "HERE" else word for word in arguments))
    assert done.exit_code == code, done.output
    assert json.loads(by_operator(outgate, "messages", "--json").stdout)["recipients"][0]["status"] == "deferred"
    assert says in done.stderr and "Traceback" not in done.stderr


def test_a_selection_that_nothing_fits_is_told_apart_from_work_that_was_done(
    outgate: Outgate, mail: TenantMail
) -> None:
    assert by_operator(outgate, "messages").stdout == "Nothing waits.\n"
    deferred(mail, "ann@dest.test")
    done = by_operator(outgate, "retry", "--domain", "dset.test")
    assert (done.exit_code, done.stdout.partition(" (")[0]) == (
        0,
        "nothing to retry: no mail that waits is what was named",
    )


def test_a_row_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from outgate.cli.calling import print_table

    monkeypatch.setenv("COLUMNS", "20")
    print_table(("A", "WHY"), [("x", "y" * 40)], cut=True)
    assert "y" * 40 in capsys.readouterr().out  # a pipe gets it whole
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(("A", "WHY"), [("x", "y" * 40)], cut=True)
    assert capsys.readouterr().out.splitlines()[1] == "x  " + "y" * 16 + "…"


def test_eighty_columns_have_room_for_why() -> None:
    from outgate.cli.queue import narrow

    site = {
        "site": "a-very-long-name-of-a-mail-host.example.net,and-another.example.net", "recipients": 100_000, "ready": 0,
        "deferred": 99_000, "held": 1_000, "under_way": 0, "oldest_age_s": 90_000, "next_attempt_at": "2001-01-01T00:00:00Z",
        "why": "rate: the site has a pause (the server slows us down: \x1b[31m" + "x" * 100,
    }  # fmt: skip
    heads, row, why = narrow([site], 80)
    assert heads.split() == ["SITE", "WAITING", "DEFERRED", "HELD", "OLDEST", "NEXT"]
    assert row.startswith("a-very-long-name-") and row.endswith("2001-01-01 00:00") and "1d1h" in row
    assert why.startswith("    rate: the site has a pause (") and "\x1b" not in why
    assert max(map(len, (heads, row, why))) <= 80
    assert narrow([], 80) == ["SITE  WAITING  DEFERRED  HELD  OLDEST  NEXT"]


def test_who_is_no_operator_is_told_so(outgate: Outgate, mail: TenantMail) -> None:
    done = outgate("queue", roles=("reader",))
    assert done.exit_code == 1 and "operator" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h"), (90_061, "1d1h"), (172_800, "2d")]
)
def test_a_span_is_short(seconds: int, text: str) -> None:
    assert span(seconds) == text
