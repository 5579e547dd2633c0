"""Verification over a real name server: states, evidence, and what a failing resolver may not do."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import DkimKey, SmtpConfiguration, Verification
from outgate.net.dns import Resolver
from outgate.relay.onboarding import Verifier
from outgate.sandbox.zone import Zone
from support.names import served

PENDING, SUCCESSFUL, FAILED = Verification.PENDING, Verification.SUCCESSFUL, Verification.FAILED


@functools.cache
def public_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def configuration(spf: Verification = PENDING, dkim: Verification = PENDING) -> SmtpConfiguration:
    key = DkimKey("k", "c", "sel", "rsa", public_key())
    return SmtpConfiguration("c", "i", "Shop", "", "shop.test", spf, dkim, PENDING, key, 0.0, 0.0)


class Kept:
    """The store's part: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def record_verification(
        self,
        smtp_config_id: str,
        check: str,
        state: Verification | None,
        *,
        result: str,
        explanation: str,
        asked: Sequence[object] = (),
    ) -> None:
        assert smtp_config_id == "c"
        self.told.append(
            {"check": check, "state": state, "result": result, "explanation": explanation, "asked": list(asked)}
        )

    def of(self, check: str) -> dict[str, Any]:
        return next(entry for entry in reversed(self.told) if entry["check"] == check)


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.put("shop.test", "A", ["127.0.0.1"])
    zone.put("shop.test", "TXT", ["v=spf1 include:spf.outgate.test ~all"])
    zone.put("spf.outgate.test", "TXT", ["v=spf1 ip4:192.0.2.1 ip4:192.0.2.2 ip6:2001:db8::1 -all"])
    zone.put("sel._domainkey.shop.test", "TXT", [f"v=DKIM1; k=rsa; p={public_key()}"])
    return zone


def verifier(resolver: Resolver, kept: Kept, *addresses: str) -> Verifier:
    return Verifier(
        resolver,
        kept,
        outgoing_addresses=addresses or ("192.0.2.1", "192.0.2.2", "2001:db8::1"),
        ehlo_name="out.outgate.test",
        clock=FrozenClock(),
    )


async def test_all_is_well(zone: Zone) -> None:
    kept = Kept()
    async with served(zone) as resolver:
        states = await verifier(resolver, kept).verify(configuration(), ["spf", "dkim", "en_authorization"])
    assert states == {"spf": SUCCESSFUL, "dkim": SUCCESSFUL, "en_authorization": PENDING}
    assert [(entry["check"], entry["state"], entry["result"]) for entry in kept.told] == [
        ("a", None, "ok"),
        ("spf", SUCCESSFUL, "pass"),
        ("dkim", SUCCESSFUL, "ok"),
    ]
    asked = [(entry["name"], entry["type"], entry["status"]) for entry in kept.of("spf")["asked"]]
    assert asked == [("shop.test", "TXT", "ok"), ("spf.outgate.test", "TXT", "ok")]
    assert kept.of("dkim")["asked"][0]["records"] == [f"v=DKIM1; k=rsa; p={public_key()}"]


async def test_one_address_that_does_not_pass_is_enough(zone: Zone) -> None:
    kept = Kept()
    async with served(zone) as resolver:
        states = await verifier(resolver, kept, "192.0.2.1", "192.0.2.3").verify(configuration(SUCCESSFUL), ["spf"])
    assert states == {"spf": FAILED}
    assert kept.of("spf")["result"] == "softfail"
    assert "192.0.2.3" in kept.of("spf")["explanation"]


async def test_a_domain_without_an_address_fails(zone: Zone) -> None:
    kept = Kept()
    zone.put("shop.test", "A", [])
    async with served(zone) as resolver:
        assert await verifier(resolver, kept).verify(configuration(), ["spf"]) == {"spf": FAILED}
    assert (kept.of("a")["result"], kept.of("spf")["result"]) == ("missing", "no-address")


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "DROP"])
@pytest.mark.parametrize("name", [("shop.test", "A"), ("shop.test", "TXT"), ("spf.outgate.test", "TXT")])
@pytest.mark.parametrize("before", [SUCCESSFUL, PENDING, FAILED])
async def test_a_resolvers_failure_keeps_the_state(
    zone: Zone, rcode: str, name: tuple[str, str], before: Verification
) -> None:
    kept = Kept()
    zone.put_failure(*name, rcode)
    async with served(zone, timeout=0.05, rounds=1) as resolver:
        assert await verifier(resolver, kept).verify(configuration(before), ["spf"]) == {"spf": before}
    told = kept.of("spf")
    assert (told["state"], told["result"]) == (None, "temperror")
    assert "the state is kept" in told["explanation"]


async def test_a_definite_failure_beats_an_unknown_address(zone: Zone) -> None:
    zone.put_failure("shop.test", "A", "SERVFAIL")
    zone.put("shop.test", "TXT", ["v=spf1 -all"])
    async with served(zone) as resolver:
        assert await verifier(resolver, Kept()).verify(configuration(SUCCESSFUL), ["spf"]) == {"spf": FAILED}


@pytest.mark.parametrize(
    ("values", "state", "result"),
    [
        (["v=DKIM1; k=rsa; p="], FAILED, "revoked"),
        (["v=DKIM1; k=rsa; p=AAAA"], FAILED, "malformed"),
        ([], FAILED, "missing"),
    ],
)
async def test_wrong_keys(zone: Zone, values: list[str], state: Verification, result: str) -> None:
    kept = Kept()
    zone.put("sel._domainkey.shop.test", "TXT", values)
    async with served(zone) as resolver:
        assert await verifier(resolver, kept).verify(configuration(dkim=SUCCESSFUL), ["dkim"]) == {"dkim": state}
    assert kept.of("dkim")["result"] == result


async def test_a_key_that_cannot_be_asked_for_keeps_the_state(zone: Zone) -> None:
    kept = Kept()
    zone.put_failure("sel._domainkey.shop.test", "TXT", "SERVFAIL")
    async with served(zone) as resolver:
        states = await verifier(resolver, kept).verify(configuration(dkim=SUCCESSFUL), ["dkim"])
    assert states == {"dkim": SUCCESSFUL}
    assert kept.of("dkim")["state"] is None


async def test_check_now_looks_past_the_cache(zone: Zone) -> None:
    zone.put("sel._domainkey.shop.test", "TXT", [], 3600)
    async with served(zone) as resolver:
        check = verifier(resolver, Kept())
        assert await check.verify(configuration(), ["dkim"]) == {"dkim": FAILED}
        zone.put("sel._domainkey.shop.test", "TXT", [f"p={public_key()}"])
        assert await check.verify(configuration(), ["dkim"]) == {"dkim": SUCCESSFUL}


async def test_there_are_no_other_checks(zone: Zone) -> None:
    async with served(zone) as resolver:
        with pytest.raises(ValueError, match="dmarc"):
            await verifier(resolver, Kept()).verify(configuration(), ["dmarc"])
        with pytest.raises(ValueError, match="outgoing address"):
            Verifier(resolver, Kept(), outgoing_addresses=(), ehlo_name="x", clock=FrozenClock())
