"""Read a delivery status notification as strictly as RFC 3464 and 6522 are written: the tests' own reader."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

_NAME = re.compile(r"[A-Za-z][A-Za-z-]*")
_DATES = ("arrival-date", "last-attempt-date", "will-retry-until")
_MESSAGE_FIELDS = {"original-envelope-id", "reporting-mta", "arrival-date"}
_RECIPIENT_FIELDS = {
    "original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code", "last-attempt-date",
    "final-log-id", "will-retry-until",
}  # fmt: skip


@dataclass
class Dsn:
    """What a report says: its header, the text for people, the fields for programs, and what it returns."""

    message: EmailMessage
    text: str
    fields: dict[str, str]
    recipients: list[dict[str, str]]
    returned_type: str
    returned: bytes


def read_dsn(raw: bytes) -> Dsn:
    """Return what a report says; fail where it breaks a rule. `raw` has its dots taken out."""
    assert raw.endswith(b"\r\n") and b"\0" not in raw
    lines = raw.split(b"\r\n")
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage) and not message.defects
    assert len(message.get_all("From", [])) == len(message.get_all("To", [])) == len(message.get_all("Date", [])) == 1
    assert message["Auto-Submitted"] == "auto-replied" and message["MIME-Version"] == "1.0"
    assert re.fullmatch(r"<[^<>\s]+@[^<>\s]+>", message["Message-ID"])
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    # By hand, for the library forgives much: the parts between the boundary's lines.
    boundary = message.get_param("boundary")
    assert isinstance(boundary, str)
    _head, *parts = re.split(rb"\r\n--%s(?=\r\n|--\r\n)" % re.escape(boundary.encode()), raw)
    assert parts.pop() == b"--\r\n" and 2 <= len(parts) <= 3
    found = [_part(part) for part in parts]
    assert found[0][0].startswith("text/plain")
    assert found[1][0] in ("message/delivery-status", "message/global-delivery-status")
    if found[1][0] == "message/delivery-status":
        assert found[1][1].isascii() and parts[0].isascii()
    groups = [_fields(group) for group in found[1][1].decode("utf-8").removesuffix("\r\n").split("\r\n\r\n")]
    assert set(groups[0]) <= _MESSAGE_FIELDS and "reporting-mta" in groups[0]
    assert len(groups) >= 2
    for each in groups[1:]:
        assert set(each) <= _RECIPIENT_FIELDS, each
        assert {"final-recipient", "action", "status"} <= set(each)
        assert each["action"] in ("failed", "delayed", "delivered", "relayed", "expanded")
        assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", each["status"])
        assert ("will-retry-until" in each) <= (each["action"] == "delayed")
    for group in groups:
        for name in _DATES:
            if name in group:
                assert parsedate_to_datetime(group[name]) is not None
    kind, returned = found[2] if len(found) == 3 else ("", b"")
    return Dsn(message, found[0][1].decode("utf-8"), groups[0], groups[1:], kind, returned)


def _part(part: bytes) -> tuple[str, bytes]:
    head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    header = _fields(head.decode("ascii"))
    body = email.message_from_bytes(
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: "
        + header["content-transfer-encoding"].encode() + b"\r\n\r\n" + body
    ).get_payload(decode=True)  # fmt: skip
    assert isinstance(body, bytes)
    if header["content-transfer-encoding"] == "7bit":
        assert body.isascii()
    return header["content-type"].partition(";")[0], body


def _fields(block: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in re.sub(r"\r\n[ \t]+", " ", block).split("\r\n"):
        name, colon, value = line.partition(": ")
        assert colon and _NAME.fullmatch(name) and value.strip(), line
        assert name.lower() not in found, name
        found[name.lower()] = value
    return found
