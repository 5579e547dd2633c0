"""TLSA records: which are usable, and which certificates they match."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outgate.domains.dane import Tlsa, mismatch, read, usable

NOW = datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC)
AT = NOW.timestamp()


@dataclass
class Made:
    """A certificate, its key, and what records say of it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def record(self, usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
        content = self.der if selector == 0 else self.spki
        digest = {
            0: lambda it: it,
            1: lambda it: hashlib.sha256(it).digest(),
            2: lambda it: hashlib.sha512(it).digest(),
        }
        return Tlsa(usage, selector, matching, digest[matching](content))


def made(name: str, by: Made | None = None, *, authority: bool = False, until: float = 10) -> Made:
    """Make a certificate, valid from ten days ago to `until` days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=10))
        .not_valid_after(NOW + datetime.timedelta(days=until))
        .add_extension(x509.BasicConstraints(authority, None), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return Made(builder.sign(by.key if by else key, hashes.SHA256()), key)


ROOT = made("root", authority=True)
MIDDLE = made("middle", ROOT, authority=True)
LEAF = made("mx.a.test", MIDDLE)
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("3 1 1 ABCD", Tlsa(3, 1, 1, b"\xab\xcd")),
        (" 3\t1 1 ab cd ", Tlsa(3, 1, 1, b"\xab\xcd")),
        ("3 1 1 abc", None), ("3 1 1", None), ("3 1 1 xy", None), ("256 1 1 ab", None), ("-1 1 1 ab", None), ("", None),
    ],
)  # fmt: skip
def test_reading(text: str, record: Tlsa | None) -> None:
    assert read(text) == record


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_ee_matches_the_servers_own_certificate_alone(selector: int, matching: int) -> None:
    record = LEAF.record(3, selector, matching)
    assert usable([record], chain=False) == (record,)
    assert mismatch([record], CHAIN, [], AT) == ""
    assert mismatch([record], [made("mx.a.test").der, LEAF.der], ["mx.a.test"], AT)


def test_ee_looks_at_neither_name_nor_time() -> None:
    old = made("other.test", until=-1)
    assert mismatch([old.record(3)], [old.der], ["mx.a.test"], AT) == ""


@pytest.mark.parametrize("anchor", [ROOT, MIDDLE])
@pytest.mark.parametrize("selector", [0, 1])
def test_ta_takes_a_chain_to_one_of_the_names(anchor: Made, selector: int) -> None:
    record = anchor.record(2, selector, 2)
    assert mismatch([record], CHAIN, ["mx.b.test", "mx.a.test"], AT) == ""
    assert "not valid for mx.b.test" in mismatch([record], CHAIN, ["mx.b.test"], AT)
    assert "no name" in mismatch([record], CHAIN, [], AT)
    assert mismatch([record], [LEAF.der], ["mx.a.test"], AT)  # the anchor must be shown


def test_ta_that_is_published_whole_need_not_be_shown() -> None:
    assert mismatch([ROOT.record(2, 0, 0)], CHAIN[:2], ["mx.a.test"], AT) == ""


def test_ta_takes_validity_and_authority() -> None:
    late = made("mx.a.test", MIDDLE, until=-1)
    assert "not valid at" in mismatch([ROOT.record(2)], [late.der, *CHAIN[1:]], ["mx.a.test"], AT)
    forged = made("mx.evil.test", LEAF)
    for anchor in (ROOT, LEAF):
        assert mismatch([anchor.record(2)], [forged.der, *CHAIN], ["mx.evil.test"], AT)
    stranger = made("mx.a.test", made("root", authority=True))
    assert mismatch([ROOT.record(2)], [stranger.der, ROOT.der], ["mx.a.test"], AT)


@pytest.mark.parametrize(
    "record",
    [
        LEAF.record(0), LEAF.record(1), Tlsa(4, 1, 1, b"x" * 32), Tlsa(3, 2, 1, b"x" * 32), Tlsa(3, 1, 3, b"x" * 32),
        Tlsa(3, 1, 1, b"x" * 31), Tlsa(3, 1, 2, b"x" * 32), Tlsa(3, 0, 0, b"nothing"), Tlsa(3, 1, 0, LEAF.der), None,
    ],
)  # fmt: skip
def test_what_is_unusable(record: Tlsa | None) -> None:
    assert usable([record], chain=True) == ()


def test_ta_is_unusable_without_the_chain() -> None:
    assert usable([ROOT.record(2), LEAF.record(3)], chain=False) == (LEAF.record(3),)
    assert len(usable([ROOT.record(2), LEAF.record(3)], chain=True)) == 2


def test_the_strongest_digest_counts() -> None:
    strong, weak, whole, other = LEAF.record(3, 1, 2), LEAF.record(3, 1, 1), LEAF.record(3, 1, 0), LEAF.record(3, 0, 1)
    assert set(usable([weak, strong, whole, other, strong], chain=True)) == {strong, whole, other}
    assert usable([weak], chain=True) == (weak,)


def test_nothing_shown_matches_nothing() -> None:
    assert "no certificate" in mismatch([LEAF.record(3)], [], ["mx.a.test"], AT)
    assert mismatch([ROOT.record(2)], [b"no certificate", ROOT.der], ["mx.a.test"], AT)
