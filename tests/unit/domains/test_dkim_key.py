"""Each way in which a published key can be wrong has its own word."""

from __future__ import annotations

import base64
import functools

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from outgate.domains.ask import Answer, Question, answer_from
from outgate.domains.dkim_key import KeyResult, check_key
from outgate.net.dns import answer_all
from outgate.sandbox.zone import Zone
from support.names import answers, served

NAME = "sel._domainkey.shop.test"


@functools.cache
def key(number: int, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    public = _pair(number).public_key().public_bytes(Encoding.DER, form)
    return base64.b64encode(public).decode()


@functools.cache
def _pair(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=1024 if number else 2048)


def result(*records: str, status: str = "") -> str:
    zone = {(NAME, "TXT"): status or list(records), ("shop.test", "A"): ["127.0.0.1"]}
    return answer_from(check_key("shop.test", "sel", key(0)), answers(zone)).result


def test_our_key_in_every_legal_spelling() -> None:
    bare = key(0, PublicFormat.PKCS1)
    spaced = " ".join(key(0)[at : at + 50] for at in range(0, 400, 50))
    for text in (
        f"v=DKIM1; k=rsa; p={key(0)}",
        f"v=DKIM1;k=rsa;p={key(0)};",
        f"v=DKIM1;k=rsa;p={key(0)}; ",
        f"\tv=DKIM1;\r\n\tk=rsa;\r\n p={key(0)[:99]}\r\n\t{key(0)[99:]}\r\n",
        f"v=DKIM1; k=RSA; p={key(0)}; unknown=tag; x=",
        f" v = DKIM1 ; k = rsa ; p = {spaced} ",
        f"p={key(0)}",
        f"v=DKIM1; h=sha1:sha256; s=email; t=y; n=note; p={key(0)}",
        f"v=DKIM1; p={bare}",
    ):
        assert result(text) == "ok", text


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ("v=DKIM1; k=rsa; p=", "revoked"),
        ("v=DKIM1; k=rsa; p={other}", "wrong-key"),
        ("v=DKIM1; k=rsa; p= \t ; t=y", "revoked"),
        ("v=DKIM1; k=ed25519; p={ours}", "wrong-type"),
        ("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "wrong-type"),
        ("v=DKIM1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "malformed"),
        ('"v=DKIM1; k=rsa; p={ours}"', "malformed"),
        ("v=DKIM1; k=rsa; p={ours};;", "malformed"),
        ("v=DKIM1; h=sha1; p={ours}", "wrong-type"),
        ("v=DKIM1; s=tlsrpt; p={ours}", "wrong-type"),
        ("v=DKIM1; k=rsa", "malformed"),
        ("v=DKIM2; p={ours}", "malformed"),
        ("k=rsa; v=DKIM1; p={ours}", "malformed"),
        ("v=DKIM1; p={ours}; p={ours}", "malformed"),
        ("v=DKIM1; p=not*base64", "malformed"),
        ("v=DKIM1; p=AAAA", "malformed"),
        ("v=spf1 -all", "malformed"),
        ("", "malformed"),
    ],
)
def test_wrong_records(record: str, word: str) -> None:
    assert result(record.format(ours=key(0), other=key(1))) == word


def test_our_key_and_something_else_is_not_our_key() -> None:
    der = base64.b64decode(key(0))
    null = der.index(bytes.fromhex("06092a864886f70d0101010500")) + 11
    for changed in (
        der[:null] + b"\x04\x00" + der[null + 2 :],  # other parameters of the algorithm
        der + b"\0",
        der[: null + 6] + b"\x01" + der[null + 7 :],  # bits that are no octets
    ):
        assert result("v=DKIM1; p=" + base64.b64encode(changed).decode()) == "malformed"


def test_missing_several_and_unknown() -> None:
    assert result() == "missing"
    assert result(f"v=DKIM1; p={key(0)}", "v=DKIM1; p=") == "several"
    assert result(status="servfail") == "temperror"
    assert result(status="timeout") == "temperror"


def test_it_asks_for_the_selectors_name_once() -> None:
    asked: list[Question] = []
    answer_from(check_key("shop.test", "sel", key(0)), answers({}, asked))
    assert asked == [Question(NAME, "TXT")]


def test_a_name_that_cannot_be_asked_is_not_asked() -> None:
    asked: list[Question] = []
    found = answer_from(check_key("a" * 60 + ".test", "s" * 64, key(0)), answers({}, asked))
    assert (found.result, asked) == ("malformed", [])


def test_the_explanation_names_the_record() -> None:
    found = answer_from(check_key("shop.test", "sel", key(0)), answers({}))
    assert NAME in found.explanation


def test_testing_is_fine_with_a_warning() -> None:
    zone = {(NAME, "TXT"): [f"v=DKIM1; t=s:y; p={key(0)}"]}
    found = answer_from(check_key("shop.test", "sel", key(0)), answers(zone))
    assert (found.result, "t=y" in found.explanation) == ("ok", True)
    zone = {(NAME, "TXT"): [f"v=DKIM1; t=s; p={key(0)}"]}
    assert "t=y" not in answer_from(check_key("shop.test", "sel", key(0)), answers(zone)).explanation


async def asked_of(zone: Zone) -> KeyResult:
    async with served(zone) as resolver:
        return await answer_all(check_key("shop.test", "sel", key(0)), resolver)


async def test_a_key_in_several_strings_is_one_record() -> None:
    zone = Zone()
    text = f"v=DKIM1; k=rsa; p={key(0)}"
    zone.put(NAME, "TXT", [" ".join(f'"{text[at : at + 100]}"' for at in range(0, len(text), 100))])
    assert (await asked_of(zone)).result == "ok"
    zone.put(NAME, "TXT", [text[:200], text[200:]])  # two records are not two strings
    assert (await asked_of(zone)).result == "several"


async def test_a_key_behind_an_alias() -> None:
    zone = Zone()
    zone.put(NAME, "CNAME", ["shop.keys.provider.example."])
    zone.put("shop.keys.provider.example", "TXT", [f"p={key(0)}"])
    assert (await asked_of(zone)).result == "ok"
    zone.put("shop.keys.provider.example", "TXT", ["p="])
    found = await asked_of(zone)
    assert (found.result, "shop.keys.provider.example" in found.explanation) == ("revoked", True)
    zone.put("shop.keys.provider.example", "TXT", [])
    assert (await asked_of(zone)).result == "missing"


@given(
    st.lists(st.binary(max_size=80) | st.builds(lambda text: b"v=DKIM1; p=" + text, st.binary(max_size=60)), max_size=2)
)
def test_any_record_comes_to_a_result(texts: list[bytes]) -> None:
    answer = Answer("ok" if texts else "nodata", tuple(texts))
    found = answer_from(check_key("shop.test", "sel", key(1)), lambda question: answer)
    assert found.result in {"missing", "revoked", "wrong-key", "wrong-type", "several", "malformed"}
    assert found.explanation.isprintable()


OCTETS = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ("v=DKIM1; k=ed25519; p={octets}", "ok"),
        ("v=DKIM1; k=ED25519; p= {octets} ;", "ok"),
        ("v=DKIM1; k=ed25519; p={other}", "wrong-key"),
        ("v=DKIM1; k=rsa; p={octets}", "wrong-type"),
        ("v=DKIM1; p={octets}", "wrong-type"),
        ("v=DKIM1; k=ed25519; p=", "revoked"),
        ("v=DKIM1; k=ed25519; p=AAAA", "malformed"),
        ("v=DKIM1; k=ed25519; p=?", "malformed"),
        ("v=DKIM1; k=ed25519; h=sha1; p={octets}", "wrong-type"),
    ],
)
def test_ed25519(record: str, word: str) -> None:
    other = base64.b64encode(bytes(32)).decode()
    zone = {(NAME, "TXT"): [record.format(octets=OCTETS, other=other)]}
    found = answer_from(check_key("shop.test", "sel", OCTETS, "ed25519"), answers(zone))
    assert found.result == word, found.explanation
