"""The judge of signatures: only the right key, the right name and the whole message are good."""

from __future__ import annotations

from functools import cache

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from measure.judge import Judge

MESSAGE = b"From: a@example.test\r\nSubject: x\r\nX-Bench-Message: abcdefgh-00000001\r\n\r\nOrder abcdefgh-00000001\r\n\r\ntext\r\n"


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def judge() -> Judge:
    public = key().public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Judge(der, "bench", "example.test")


def signed(message: bytes, *, selector: bytes = b"bench", signer: rsa.RSAPrivateKey | None = None) -> bytes:
    pem = (signer or key()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    canonical = (b"relaxed", b"relaxed")
    return dkim.sign(message, selector, b"example.test", pem, canonicalize=canonical) + message


def test_a_signed_message_is_good(judge: Judge) -> None:
    assert judge.is_good(signed(MESSAGE))


def test_a_changed_body_is_not(judge: Judge) -> None:
    assert not judge.is_good(signed(MESSAGE).replace(b"text", b"test"))


def test_an_unsigned_message_is_not(judge: Judge) -> None:
    assert not judge.is_good(MESSAGE)


def test_another_key_is_not(judge: Judge) -> None:
    assert not judge.is_good(signed(MESSAGE, signer=rsa.generate_private_key(65537, 2048)))


def test_another_selector_is_not(judge: Judge) -> None:
    assert not judge.is_good(signed(MESSAGE, selector=b"other"))


def test_the_body_of_another_message_is_not(judge: Judge) -> None:
    assert not judge.is_good(signed(MESSAGE.replace(b"Order abcdefgh-00000001", b"Order abcdefgh-00000002")))
