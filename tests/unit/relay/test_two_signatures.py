"""RSA and Ed25519 side by side, and what may be done to a signed message: judged by dkimpy."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest

from outgate.model.flow import Job, JobRecipient, Location, Prepared, SigningKey
from outgate.model.tenancy import DkimKey
from outgate.relay.signer import Signer
from outgate.store.keys import NewKey, new_dkim_key, new_ed25519_key
from support.judge import received, verdicts

TRACE = b"Received: from c ([192.0.2.1])\r\n\tby relay.test; now\r\nMessage-ID: <0Q@shop.test>\r\nDate: Fri, 20 Nov 2026 07:03:00 +0000\r\n"
CONTENT = b"From: a@shop.test\r\nTo: b@x.test\r\nSubject: hi\r\n\r\n..dot\r\ntext \t x\r\n\r\n\r\n"
BOTH = SigningKey("rsa", "shop.test", "one", "ed", "two")


@functools.cache
def keys() -> dict[str, NewKey]:
    return {"rsa": new_dkim_key(), "ed": new_ed25519_key()}


@functools.cache
def records() -> dict[str, str]:
    return {
        f"{selector}._domainkey.shop.test": DkimKey("", "", selector, made.algorithm, made.public).text
        for selector, made in (("one", keys()["rsa"]), ("two", keys()["ed"]))
    }


def job(content: bytes = CONTENT, key: SigningKey = BOTH) -> Job:
    recipients = (JobRecipient(1, "b@x.test", "x.test", 0),)
    return Job("0Q", "i", "c", key, "a@shop.test", "x.test", recipients, Location(0, 0, 0, 0), 1_795_158_180.7, 2e9, False, False, TRACE, content)  # fmt: skip


def signed(content: bytes = CONTENT, key: SigningKey = BOTH) -> Prepared:
    signer = Signer(threads=0, key_pem=lambda key_id: keys()[key_id].pem, load=lambda job: (b"", b""), notify=lambda call: call())  # fmt: skip
    return signer.sign(job(content, key))


def judged(message: bytes) -> list[bool]:
    return verdicts(message, records())


def test_both_are_right_the_rsa_one_first() -> None:
    message = received(signed())
    assert judged(message) == [True, True]
    assert re.findall(rb"a=([a-z0-9-]+);", message) == [b"rsa-sha256", b"ed25519-sha256"]
    assert re.findall(rb"\r\n s=([a-z]+);", message) == [b"one", b"two"]
    hashes = re.findall(rb"bh=([^;]+);", message)
    assert len(hashes) == 2 and hashes[0] == hashes[1]


def test_either_may_be_lost_and_they_may_change_places() -> None:
    message = received(signed())
    fields = re.findall(rb"DKIM-Signature:.*?\r\n(?![ \t])", message, re.DOTALL)
    first, second = fields
    rest = message.removeprefix(first + second)
    assert judged(first + rest) == judged(second + rest) == [True]
    assert judged(second + first + rest) == [True, True]


def test_one_key_signs_once() -> None:
    prepared = signed(key=SigningKey("rsa", "shop.test", "one"))
    assert judged(received(prepared)) == [True]
    assert signed().fields.startswith(prepared.fields.removesuffix(TRACE))  # the second changes nothing of the first


def test_a_retry_signs_with_the_keys_of_its_acceptance_to_the_octet() -> None:
    assert signed().fields == signed().fields
    loads: list[str] = []

    def load(again: Job) -> tuple[bytes, bytes]:
        loads.append(again.queue_id)
        return TRACE, CONTENT

    other = Signer(threads=0, key_pem=lambda key_id: keys()[key_id].pem, load=load, notify=lambda call: call())
    assert other.sign(replace(job(), trace=None, content=None)).fields == signed().fields and loads == ["0Q"]


@pytest.mark.parametrize("key", [SigningKey("ed", "d.test", "s"), SigningKey("rsa", "d.test", "s", "rsa", "s")])
def test_a_key_of_the_wrong_kind_signs_nothing(key: SigningKey) -> None:
    with pytest.raises(TypeError, match="is not an"):
        signed(key=key)


ADDED = [
    b"From: evil@bank.test",
    b"Subject: win",
    b"To: you@x.test",
    b"Cc: you@x.test",
    b"Reply-To: evil@bank.test",
    b"Date: Fri, 20 Nov 2020 07:03:00 +0000",
    b"Message-ID: <other@bank.test>",
    b"MIME-Version: 1.0",
    b"Content-Type: multipart/mixed; boundary=dot",
    b"Content-Transfer-Encoding: base64",
]
FULL = b"From: a@shop.test\r\nReply-To: a@shop.test\r\nCc: c@x.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\nTo: b@x.test\r\nSubject: hi\r\nSender: a@shop.test\r\nReferences: <1@a>\r\nList-Unsubscribe: <https://shop.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nbody\r\n"


def with_field(message: bytes, field: bytes, *, top: bool) -> bytes:
    header, _, body = message.partition(b"\r\n\r\n")
    lines = [field, header] if top else [header, field]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("content", [CONTENT, FULL], ids=["absent", "present"])
@pytest.mark.parametrize("field", ADDED, ids=lambda field: field.partition(b":")[0].decode())
def test_what_decides_what_a_reader_sees_cannot_be_added(content: bytes, field: bytes, top: bool) -> None:
    assert judged(with_field(received(signed(content)), field, top=top)) == [False, False]


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize(
    "field",
    [
        b"Sender: evil@bank.test",
        b"References: <2@b>",
        b"List-Unsubscribe: <https://bank.test/u>",
        b"List-Unsubscribe-Post: x",
    ],
)
def test_what_is_there_gets_no_second_beside_it(field: bytes, top: bool) -> None:
    assert judged(with_field(received(signed(FULL)), field, top=top)) == [False, False]


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize(
    "field",
    [
        b"Received: from a by b; now",
        b"Return-Path: <a@shop.test>",
        b"Authentication-Results: mx.test; dkim=pass",
        b"ARC-Seal: i=1; a=rsa-sha256",
        b"X-Spam-Score: 0",
        b"List-Id: <l.x.test>",
        b"List-Post: <mailto:l@x.test>",
        b"List-Unsubscribe: <mailto:l-leave@x.test>",
        b"Sender: l-bounces@x.test",
        b"Resent-From: b@x.test",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=x.test; s=x; h=from; bh=AA==; b=AA==",
    ],
    ids=lambda field: field.partition(b":")[0].decode() if isinstance(field, bytes) else field,
)
def test_what_hops_and_lists_add_is_no_harm(field: bytes, top: bool) -> None:
    found = judged(with_field(received(signed()), field, top=top))
    found = [each for each in found if each] if field.startswith(b"DKIM") else found
    assert found == [True, True]


RFC_8463 = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")


def test_the_judge_knows_ed25519_by_rfc_8463s_own_example() -> None:
    record = {
        "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    }
    assert verdicts(RFC_8463, record) == [True]
    assert verdicts(RFC_8463.replace(b"hungry", b"angry!"), record) == [False]
    assert verdicts(RFC_8463.replace(b"b=/gC", b"b=/gD"), record) == [False]
