"""No line of the log has an address in full, whatever befalls mail; the status log has the vendor's records."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.base.log import configure
from outgate.model.flow import Status
from outgate.relay.status_log import StatusLog
from support.queue_mail import NOW, Desk, accepted, attempt
from support.relay import relay
from support.scripted_peer import Peer

ADDRESSES = ("anna@dest.test", "ben@dest.test", "carl@dest.test", "nobody@elsewhere.test")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger("outgate")
    before = (list(root.handlers), root.level, root.propagate)
    stream = io.StringIO()
    configure("debug", stream)
    yield stream
    root.handlers[:], root.level, root.propagate = before


def addresses_in(text: str) -> list[str]:
    return [each for each in (*ADDRESSES, "a@example.test", "you@receiver.test") if each in text]


async def settled(running: object, queue_id: str) -> Status:
    async with asyncio.timeout(60):
        while True:
            record = await asyncio.to_thread(running.service.store.message, queue_id)  # type: ignore[attr-defined]
            if record is not None and record.recipients[0].attempts:
                return record.recipients[0].status
            await asyncio.sleep(0.01)


async def test_a_whole_relay_at_debug_level_logs_no_address(
    tmp_path: Path, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "status.jsonl"
    monkeypatch.setenv("OUTGATE_LOG__STATUS_FILE", str(records))
    async with (
        Peer(offer=()) as peer,
        relay(tmp_path / "data", deliver_to=f"127.0.0.1:{peer.port}", delivery_tls="none") as running,
    ):
        client = await running.client()
        statuses: list[Status] = []
        for mailbox, reply in (
            ("anna@dest.test", b"250 2.1.5 Ok\r\n"),
            ("ben@dest.test", b"451 4.7.1 <ben@dest.test>: come back later\r\n"),
            ("carl@dest.test", b"550 5.1.1 carl@dest.test is not known here\r\n"),
        ):
            peer.answers["RCPT"] = reply
            await client.envelope("a@example.test", mailbox)
            said = await client.send(b"From: a@example.test\r\nTo: " + mailbox.encode() + b"\r\n\r\nhello\r\n")
            statuses.append(await settled(running, said.rpartition(" ")[2]))
        assert statuses == [Status.DELIVERED, Status.DEFERRED, Status.BOUNCED]
        assert (await client.say("MAIL FROM:<nobody@elsewhere.test>")).startswith("550 ")
        await client.envelope()
        assert (await client.send(b"From: nobody@elsewhere.test\r\n\r\nhello\r\n")).startswith("550 ")
        client.close()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {"delivery.outcome", "access.decision", "message.refused"} <= {line["event"] for line in lines}
    assert addresses_in(written.getvalue()) == []
    told = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    assert [(each["messageID"], each["level"]) for each in told] == [
        ("event-notifications.00022I", "INFO"),
        ("event-notifications.00023I", "INFO"),
        ("event-notifications.00013W", "WARN"),
    ]
    assert addresses_in(records.read_text("utf-8")) == []
    delivered, deferred, bounced = (each["message"] for each in told)
    assert delivered.startswith("SENT: message of ") and "from *@e*a*p*e.t*s* to a*n*@d*s*.t*s*" in delivered
    assert "451 4.7.1 <b*n@d*s*.t*s*>: come back later" in deferred
    assert "550 5.1.1 c*r*@d*s*.t*s* is not known here" in bounced
    assert {"logSourceCRN", "saveServiceCopy", "resourceGroupId", "msg_timestamp", "resolution", "documentsURL"} <= set(
        told[0]
    )
    assert records.stat().st_mode & 0o777 == 0o600


def test_what_goes_wrong_in_the_store_is_logged_without_addresses(tmp_path: Path, written: io.StringIO) -> None:
    desk = Desk(tmp_path)
    (job,) = desk.store_all(accepted("anna@dest.test"))
    desk.store.close()
    desk.store.record(attempt(job))  # too late: the whole outcome is logged
    assert "queue.outcome_after_close" in written.getvalue()
    assert "a*n*@d*s*.t*s*" in written.getvalue()
    assert addresses_in(written.getvalue()) == []


def test_a_status_log_that_cannot_be_written_is_said_once_and_again_when_it_works(
    tmp_path: Path, written: io.StringIO
) -> None:
    desk = Desk(tmp_path / "data")
    (job,) = desk.store_all(accepted("anna@dest.test"))
    desk.store.close()
    missing = tmp_path / "not" / "there.jsonl"
    log = StatusLog(missing)
    with pytest.raises(OSError):
        log.try_out()
    for _ in range(3):
        log.tell(job, attempt(job, at=NOW))
    assert written.getvalue().count("status_log.failed") == 1
    missing.parent.mkdir()
    log.tell(job, attempt(job, Status.HELD))  # nothing that the vendor has a record for
    assert not missing.exists()
    log.tell(job, attempt(job, Status.EXPIRED))
    assert written.getvalue().count("status_log.works_again") == 1
    (told,) = [json.loads(line) for line in missing.read_text().splitlines()]
    assert told["messageID"] == "event-notifications.00013W" and told["notificationID"] == job.queue_id
