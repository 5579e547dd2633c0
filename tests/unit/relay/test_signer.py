"""Signing: an independent judge agrees, the bytes are the same each time, keys are opened once."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from outgate.model.flow import Job, JobRecipient, Location, Prepared, SigningKey
from outgate.relay.signer import Signer

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
TRACE = b"Received: from c ([192.0.2.1])\r\n\tby relay.test; now\r\nMessage-ID: <0Q@shop.test>\r\nDate: Fri, 20 Nov 2026 07:03:00 +0000\r\n"


def job(
    content: bytes = b"From: a@shop.test\r\nSubject: hi\r\n\r\n..dot\r\ntext \t x\r\n\r\n\r\n", key: str = "k1"
) -> Job:
    recipients = (JobRecipient(1, "b@x.test", "x.test", 0),)
    return Job("0Q", "i", "c", SigningKey(key, "shop.test", "sel"), "a@shop.test", "x.test", recipients, Location(0, 0, 0, 0), 1_795_158_180.7, 2e9, False, False, TRACE, content)  # fmt: skip


class Keys:
    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, key_id: str) -> bytes:
        self.opened.append(key_id)
        if key_id == "missing":
            raise LookupError(key_id)
        if key_id == "ec":
            return ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        return PEM


def signer(keys: Keys | None = None, stored: tuple[bytes, bytes] | None = None) -> Signer:
    def load(job: Job) -> tuple[bytes, bytes]:
        if stored is None:
            raise OSError("gone")
        return stored

    return Signer(threads=1, key_pem=keys or Keys(), load=load, notify=asyncio.get_event_loop_policy)  # type: ignore[arg-type]


def judged(prepared: Prepared) -> bool:
    """Say whether dkimpy believes in what the receiver sees."""
    import base64

    wire = prepared.fields + prepared.content
    seen = re.sub(rb"(\A|\r\n)\.", rb"\1", wire)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(PUBLIC)
    return bool(
        dkim.verify(seen, dnsfunc=lambda name, timeout=5: record if name == b"sel._domainkey.shop.test." else None)
    )


@pytest.mark.parametrize(
    "content",
    [
        b"From: a@shop.test\r\nSubject: hi\r\n\r\n..dot\r\ntext \t x\r\n\r\n\r\n",
        b"From: a@shop.test\r\nTo: b@x.test,\r\n\tc@x.test\r\nSubject:  two  \r\n spaces\r\n\r\n",
        b"From: a@shop.test\r\n\r\n",
        b"FROM:a@shop.test\r\nreply-to: x@y\r\n\r\nbody",
    ],
)
def test_an_independent_judge_agrees(content: bytes) -> None:
    one = signer()
    prepared = one.sign(job(content if content.endswith(b"\r\n") else content + b"\r\n"))
    assert judged(prepared)
    assert prepared.fields.endswith(TRACE)
    signed = re.sub(rb"\s", b"", prepared.fields)
    assert b"Message-ID" in signed.partition(b"bh=")[0] and b"Date" in signed.partition(b"bh=")[0]
    one.close()


def test_a_change_is_noticed_by_the_judge() -> None:
    one = signer()
    prepared = one.sign(job())
    assert not judged(replace(prepared, content=prepared.content.replace(b"hi", b"ho")))
    assert not judged(replace(prepared, fields=b"From: evil@bank.test\r\n" + prepared.fields))
    one.close()


def test_the_same_bytes_every_time_also_from_the_spool_and_by_another_process() -> None:
    fresh = job()
    assert fresh.content is not None
    one, other = signer(), signer(stored=(TRACE, fresh.content))
    again = other.sign(replace(fresh, trace=None, content=None))
    assert one.sign(fresh).fields == one.sign(fresh).fields == again.fields
    assert again.content == fresh.content
    one.close()
    other.close()


def test_a_key_is_opened_once_until_it_is_forgotten() -> None:
    keys = Keys()
    one = signer(keys)
    for _ in range(3):
        one.sign(job())
    one.sign(job(key="k2"))
    assert keys.opened == ["k1", "k2"]
    one.forget("k1")
    one.sign(job())
    assert keys.opened == ["k1", "k2", "k1"]
    one.close()


async def test_results_come_on_the_loop_and_failures_do_not_stop_it() -> None:
    loop = asyncio.get_running_loop()
    one = Signer(threads=2, key_pem=Keys(), load=lambda job: (b"", b""), notify=loop.call_soon_threadsafe)
    found: asyncio.Queue[tuple[Prepared | None, Exception | None]] = asyncio.Queue()

    def took(prepared: Prepared | None, error: Exception | None) -> None:
        found.put_nowait((prepared, error))
        if isinstance(error, LookupError):
            raise RuntimeError("the owner has a bug")

    for key in ("missing", "ec", "k1", "k1"):
        one.prepare(job(key=key), took)
    results = [await found.get() for _ in range(4)]
    assert sorted(type(error).__name__ for _, error in results) == ["LookupError", "NoneType", "NoneType", "TypeError"]
    assert all((prepared is None) == (error is not None) for prepared, error in results)
    one.close()
