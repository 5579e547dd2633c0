"""What a domain may be, and the records that its owner is asked to publish."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import ValidationError

from outgate.api.event_notifications.documents import (
    LONGEST_DOMAIN,
    NewConfiguration,
    configuration_document,
)
from outgate.api.event_notifications.parts import SmtpRecords
from outgate.model.tenancy import DkimKey, SmtpConfiguration, Verification
from outgate.store.keys import new_dkim_key

LONGEST = ("x" * 63 + ".") * 3 + "x" * (LONGEST_DOMAIN - 3 * 64 - 5) + ".test"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("a-b.c1.test", "a-b.c1.test"),
        (LONGEST, LONGEST),
    ],
)
def test_domains_are_stored_in_lower_case_a_labels(given: str, stored: str) -> None:
    assert NewConfiguration(name="n", domain=given).domain == stored


@pytest.mark.parametrize("given", ["x" + LONGEST, "x" * 64 + ".test", "-a.test", "a_b.test", "a.test/", "a.123", "."])
def test_other_domains_are_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        NewConfiguration(name="n", domain=given)


def test_names_may_use_the_documented_signs() -> None:
    name = "Shop 1 - _ / . ? : ' \" ; , + = ! # @ $ % ^ & * ( )"
    assert NewConfiguration(name=name, domain="a.test", description="Bücher").name == name


def test_longest_records_fit_dns_and_the_vendor_s_limits() -> None:
    key = new_dkim_key()
    selector = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    pending = Verification.PENDING
    configuration = SmtpConfiguration(
        "c", "i", "n", "", LONGEST, pending, pending, pending,
        DkimKey("k", "c", selector, key.algorithm, key.public), 1_800_000_000.0, 1_800_000_060.0,
    )  # fmt: skip
    document = configuration_document(configuration, SmtpRecords("spf.outgate.test"))
    config = document["config"]
    assert isinstance(config, dict)
    assert len(config["dkim"]["txt_name"]) == 253
    assert len(config["dkim"]["txt_value"]) <= 500
    public = load_der_public_key(base64.b64decode(config["dkim"]["txt_value"].partition("p=")[2], validate=True))
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048
    assert document["updated_at"] == "2027-01-15T08:01:00Z"
