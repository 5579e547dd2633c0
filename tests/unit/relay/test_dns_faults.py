"""The fault matrix of a domain's name servers: whatever they do wrong, no check fails while the record is there and no
domain is suspended, and every removal is found, and suspends, as soon as one sound server can be heard."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import spf as pyspf

from outgate.model.tenancy import Standing, Verification
from outgate.relay.onboarding import Finding
from outgate.relay.standing import Schedule, after
from outgate.sandbox.zone import Zone
from support.names import BLIND, RESOLVER, Peer, authority, delegate
from support.onboarding import Kept, configuration, public_key, verifier

SUCCESSFUL, FAILED = Verification.SUCCESSFUL, Verification.FAILED

GOOD_SPF, OTHER_SPF = "v=spf1 ip4:192.0.2.1 -all", "v=spf1 ip4:198.51.100.0/24 -all"
KEY = "sel._domainkey.shop.test"
RECORDS = {
    "present": {("shop.test", "A"): ["192.0.2.80"], ("shop.test", "TXT"): [GOOD_SPF], (KEY, "TXT"): ["p={key}"]},
    "removed": {("shop.test", "A"): [], ("shop.test", "TXT"): [], (KEY, "TXT"): []},
    "replaced": {("shop.test", "A"): ["192.0.2.81"], ("shop.test", "TXT"): [OTHER_SPF], (KEY, "TXT"): ["p="]},
}
VERDICTS = {
    "present": {"a": SUCCESSFUL, "spf": SUCCESSFUL, "dkim": SUCCESSFUL},
    "removed": {"a": FAILED, "spf": FAILED, "dkim": FAILED},
    "replaced": {"a": SUCCESSFUL, "spf": FAILED, "dkim": FAILED},
}
BEFORE = {"present": "removed", "removed": "present", "replaced": "present"}
"""What a server that is out of date still has."""

SOUND = ("", "truncated", "edns-formerr")
SILENT = ("servfail", "refused", "drop", "lame", "referral", "truncated-no-tcp", "malformed")
CONTRARY = ("stale", "split")
FAULTS = (*SOUND, *SILENT, *CONTRARY)


def test_the_records_mean_what_the_matrix_takes_them_for() -> None:
    for record, result in ((GOOD_SPF, "pass"), (OTHER_SPF, "fail")):
        found, _, _ = pyspf.query(i="192.0.2.1", s="postmaster@shop.test", h="out.outgate.test").check(spf=record)
        assert found == result


def fill(zone: Zone, truth: str, serial: int) -> None:
    for (name, rdtype), values in RECORDS[truth].items():
        zone.put(name, rdtype, [value.format(key=public_key()) for value in values], 60)
    zone.put("shop.test", "SOA", [f"hidden.shop.test. h.shop.test. {serial} 3600 600 86400 60"], 60)


def server(truth: str, fault: str) -> Peer:
    """Return a server of shop.test: version 8 of the zone is the truth; "stale" has version 7, "split" has version 7's
    content and calls it 8."""
    peer = Peer(fault="" if fault in CONTRARY else fault)
    fill(peer.zone, BEFORE[truth] if fault in CONTRARY else truth, 7 if fault == "stale" else 8)
    return peer


def brief(findings: dict[str, Finding]) -> dict[str, Verification | None]:
    return {check: finding.state for check, finding in findings.items()}


async def examine(truth: str, faults: Sequence[str], resolver: str = "") -> dict[str, Finding]:
    addresses = [f"127.0.0.{11 + number}" for number in range(len(faults))]
    root = Peer(Zone(address=RESOLVER), resolver)
    delegate(root.zone, "shop.test", *addresses)
    servers = {address: server(truth, fault) for address, fault in zip(addresses, faults, strict=True)}
    async with authority({RESOLVER: root} | servers, timeout=2.0) as asker:
        check = verifier(asker, Kept(), "192.0.2.1")
        found = await asyncio.gather(*(check.examine(configuration(), [name], fresh=True) for name in ("spf", "dkim")))
    return {finding.check: finding for finding in itertools.chain(*found)}


def expected(truth: str, faults: Sequence[str], check: str) -> Verification | None:
    """Return the state that must come out: the truth if a sound server is heard, unless one of the very same version
    contradicts it; nothing if nobody is heard."""
    if check == "a" and truth == "replaced" and any(fault in SOUND for fault in faults):
        return SUCCESSFUL  # which address it is may be in doubt, but not that there is one
    return VERDICTS[truth][check] if any(fault in SOUND for fault in faults) and "split" not in faults else None


def in_four_days(findings: dict[str, Finding]) -> Standing:
    """Return how a verified domain stands that is looked at every six hours, and is found like this each time."""
    it = replace(configuration(SUCCESSFUL, SUCCESSFUL), standing=Standing.VERIFIED)
    checked = [finding.checked() for finding in findings.values()]
    states = {one.check: one.state for one in checked if one.check in ("spf", "dkim") and one.state is not None}
    for hours in range(0, 97, 6):
        it = replace(it, **states)
        found = after(it, checked, hours * 3600.0, Schedule())
        it = replace(it, standing=found.standing, standing_since=found.since, failing=found.failing)
    return it.standing


def combinations() -> list[tuple[str, ...]]:
    """Return faults of two and three servers. A lone server out of date, with all others silent, cannot be told from
    a sound one, so those are left out."""
    three = ("", "servfail", "drop", "lame", "stale", "split")
    two = list(itertools.combinations_with_replacement(FAULTS, 2))
    found = [*two, *(pair[::-1] for pair in two if pair[1] in CONTRARY)]
    found += itertools.combinations_with_replacement(three, 3)
    return [
        faults
        for faults in found
        if any(fault in SOUND for fault in faults) or not any(fault in CONTRARY for fault in faults)
    ]


async def worlds(truth: str) -> AsyncIterator[tuple[tuple[str, ...], dict[str, Finding]]]:
    """Examine every combination, some at a time."""
    few = asyncio.Semaphore(8)

    async def one(faults: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Finding]]:
        async with few:
            return faults, await examine(truth, faults)

    for world in asyncio.as_completed([one(faults) for faults in combinations()]):
        yield await world


@pytest.mark.parametrize("truth", RECORDS)
async def test_the_matrix(truth: str) -> None:
    wrong: list[str] = []
    states: Counter[str] = Counter()
    async for faults, findings in worlds(truth):
        removed = any(expected(truth, faults, check) is FAILED for check in ("a", "spf", "dkim"))
        if in_four_days(findings) is not (Standing.SUSPENDED if removed else Standing.VERIFIED):
            wrong.append(f"{faults}: {in_four_days(findings)}")
        for check in ("a", "spf", "dkim"):
            finding = findings[check]
            states[str(finding.state)] += 1
            assert finding.explanation
            if finding.state is not expected(truth, faults, check):
                wrong.append(f"{faults} {check}: {finding.state} {finding.result} {finding.explanation}")
    assert not wrong, "\n".join(wrong)
    assert (states["FAILED"] > 0) is (truth != "present")
    assert states["None"] > 0


@pytest.mark.parametrize("fault", SILENT)
async def test_a_sole_server_that_fails_fails_nothing(fault: str) -> None:
    findings = await examine("removed", [fault])
    assert {finding.state for finding in findings.values()} == {None}
    assert {finding.result for finding in findings.values()} == {"temperror"}


async def test_evidence_of_a_contradiction_names_the_versions() -> None:
    finding = (await examine("removed", ["", "stale"]))["dkim"]
    assert [(heard.status, heard.serial) for heard in finding.asked[0].answer.heard] == [("nodata", 8), ("ok", 7)]
    finding = (await examine("present", ["", "split"]))["dkim"]
    assert (finding.state, finding.result) == (None, "temperror")
    assert "split" in finding.explanation


# -- what lies in other zones ---------------------------------------------------------------------------------------


async def elsewhere(truth: str, faults: Sequence[str], resolver: str = "") -> dict[str, Finding]:
    """Examine a sound domain whose policy and key are a provider's, whose servers have `faults`."""
    root = Peer(Zone(address=RESOLVER))
    delegate(root.zone, "shop.test", "127.0.0.11")
    delegate(root.zone, "provider.test", *(f"127.0.0.{21 + number}" for number in range(len(faults))))
    shop = Peer()
    fill(shop.zone, "present", 8)
    shop.zone.put("shop.test", "TXT", ["v=spf1 include:spf.provider.test -all"])
    shop.zone.delete(KEY, "TXT")
    shop.zone.put(KEY, "CNAME", ["key.provider.test."])
    servers = {RESOLVER: root, "127.0.0.11": shop}
    for number, fault in enumerate(faults):
        servers[f"127.0.0.{21 + number}"] = peer = Peer(fault="" if fault in CONTRARY else fault)
        there = (truth == "present") is not (fault in CONTRARY)
        peer.zone.put("spf.provider.test", "TXT", [GOOD_SPF] if there else [], 60)
        peer.zone.put("key.provider.test", "TXT", [f"p={public_key()}"] if there else [], 60)
        peer.version("provider.test", 7 if fault == "stale" else 8)
    root.fault = resolver
    async with authority(servers, timeout=2.0) as asker:
        check = verifier(asker, Kept(), "192.0.2.1")
        found = await asyncio.gather(*(check.examine(configuration(), [name], fresh=True) for name in ("spf", "dkim")))
    return {finding.check: finding for finding in itertools.chain(*found)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("truth", ["present", "removed"])
async def test_faults_of_a_providers_servers(truth: str, fault: str) -> None:
    with_a_sound_one, alone = await asyncio.gather(elsewhere(truth, ["", fault]), elsewhere(truth, [fault]))
    state = None if fault == "split" else VERDICTS[truth]["spf"]
    assert brief(with_a_sound_one) == {"a": SUCCESSFUL, "spf": state, "dkim": state}
    if fault in SILENT:
        assert brief(alone) == {"a": SUCCESSFUL, "spf": None, "dkim": None}


# -- the resolver ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*BLIND, "servfail", "refused", "drop", "malformed", "truncated-no-tcp"])
@pytest.mark.parametrize("truth", RECORDS)
async def test_a_resolver_that_fails_or_sees_nothing_fails_nothing(truth: str, fault: str) -> None:
    """All of the domain's own servers are sound, but nobody says which they are."""
    worlds = [examine(truth, ["", ""], fault)]
    if truth != "replaced":
        worlds.append(elsewhere(truth, [""], fault))
    for findings in await asyncio.gather(*worlds):
        assert {(finding.state, finding.result) for finding in findings.values()} == {(None, "temperror")}, findings
        assert in_four_days(findings) is Standing.VERIFIED


# -- the primary ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", RECORDS)
@pytest.mark.parametrize("faults", [("", "ahead"), ("ahead", ""), ("", "", "ahead"), ("ahead", "", "drop")])
async def test_a_secondary_whose_number_is_ahead_for_no_reason(truth: str, faults: tuple[str, ...]) -> None:
    """It has the zone of another time; the primary is one of the sound servers, and heard."""
    addresses = [f"127.0.0.{11 + number}" for number in range(len(faults))]
    root = Peer(Zone(address=RESOLVER))
    delegate(root.zone, "shop.test", *addresses)
    primary = f"ns{faults.index('') + 1}.shop.test."
    servers = {}
    for address, fault in zip(addresses, faults, strict=True):
        servers[address] = server(truth, "split" if fault == "ahead" else fault)
        servers[address].version("shop.test", 2026010101 if fault == "ahead" else 5, primary)
    async with authority({RESOLVER: root} | servers, timeout=2.0) as asker:
        findings = await verifier(asker, Kept(), "192.0.2.1").examine(configuration(), ["spf", "dkim"], fresh=True)
    assert {finding.state for finding in findings} == {None}
