"""The vendor's status log: a record of each delivery, deferral and bounce, a JSON object on a line of its own file.

Standards: RFC 8259, RFC 3339; the ids, levels and fields of IBM Cloud's platform log records of Event Notifications.
Promises: addresses are masked; a file that cannot be written delays and loses no mail: that is logged once, and again
    when it works.
Dangers: a line per recipient and attempt, written on the event loop: off unless `log.status_file` names a file.
Not here: the record of events, which is the store's and whole (`store.event_rows`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from outgate.base.clock import rfc3339
from outgate.base.log import Log
from outgate.base.masking import masked
from outgate.model.flow import Attempt, Job, Outcome, Status

_log = Log("outgate.status_log")

_KINDS = {
    Status.DELIVERED: ("event-notifications.00022I", "INFO", "SENT"),
    Status.DEFERRED: ("event-notifications.00023I", "INFO", "DEFERRED"),
    Status.BOUNCED: ("event-notifications.00013W", "WARN", "BOUNCED"),
    Status.EXPIRED: ("event-notifications.00013W", "WARN", "BOUNCED"),
}
_RESOLUTION = {
    Status.DELIVERED: "",
    Status.DEFERRED: "None is needed: it is tried again by itself.",
    Status.BOUNCED: "Mend what the reply says, then send again.",
    Status.EXPIRED: "It was tried until it expired: ask the recipient's operator, then send again.",
}


class StatusLog:
    """The file. Lines are appended, each whole, so it may be moved away or cut by others at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = False

    def try_out(self) -> None:
        """Open the file once, so that a start says what is wrong with its place. Raises `OSError`."""
        os.close(self._open())

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def tell(self, job: Job, attempt: Attempt) -> None:
        """Write what an attempt meant for each recipient."""
        mailboxes = {recipient.id: recipient.mailbox for recipient in attempt.recipients}
        lines = [
            json.dumps(_record(job, attempt, outcome, mailboxes.get(outcome.recipient_id, "")), ensure_ascii=False)
            for outcome in attempt.outcomes
            if outcome.status in _KINDS
        ]
        if not lines:
            return
        data = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        try:
            file = self._open()
            try:
                os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:
            if not self._failed:
                _log.error("status_log.failed", file=str(self._path), error=str(error), remedy="make it writable")
            self._failed = True
            return
        if self._failed:
            self._failed = False
            _log.info("status_log.works_again", file=str(self._path))


def _record(job: Job, attempt: Attempt, outcome: Outcome, mailbox: str) -> dict[str, object]:
    number, level, word = _KINDS[outcome.status]
    said = " ".join(part for part in (str(outcome.code or ""), outcome.enhanced, outcome.text) if part)
    size = job.location.length
    sender, recipient = masked(job.reverse_path) or "<>", masked(mailbox)
    message = f"{word}: message of {size} bytes from {sender} to {recipient}"
    if outcome.status is not Status.DELIVERED:
        message += f": {masked(said)}"
    return {
        "logSourceCRN": f"crn:v1:bluemix:public:event-notifications::::{job.instance_id}::",
        "saveServiceCopy": False,
        "resourceGroupId": "",
        "message": message,
        "msg_timestamp": rfc3339(attempt.finished_at, milliseconds=True),
        "messageID": number,
        "resolution": _RESOLUTION[outcome.status],
        "documentsURL": "",
        "sourceID": job.smtp_config_id,
        "notificationID": job.queue_id,
        "destinationID": recipient,
        "level": level,
    }
