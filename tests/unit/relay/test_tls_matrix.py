"""What receiving domains ask of TLS, cell by cell: MTA-STS × DANE × what the server shows; and what senders ask."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from outgate.app import StartFailed
from outgate.model.flow import Attempt, Status
from support.policies import document, policy
from support.relay import letter, relay
from support.scripted_peer import OFFER, Peer
from support.tls_world import Names, World, names, tlsa, world


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    with names(tmp_path_factory.mktemp("unbound")) as found:
        yield found


def publish(w: World, domain: str, *, sts: str, dane: str, good: bytes, port: int) -> None:
    """Let `domain` have one MX host, mx.`domain`, and ask what the cell says."""
    zone = w.names.signed
    zone.put(f"{domain}.", "MX", f"10 mx.{domain}.")
    zone.put(f"mx.{domain}.", "A", "127.0.0.1")
    records = {"usable": tlsa(good), "unusable": tlsa(good, usage=1), "bogus": tlsa(good)}
    if dane != "none":
        zone.put(f"_{port}._tcp.mx.{domain}.", "TLSA", records[dane], spoilt=dane == "bogus")
    if sts != "none":
        w.publish_policy(domain, document(policy(sts, f"mx.{domain}")))
    zone.sign()


def told(attempt: Attempt) -> str:
    """Return all that the trail says."""
    steps = [f"{step.did}: {step.reply}" for step in attempt.steps]
    return "\n".join([attempt.route_reason, *steps, attempt.outcomes[0].text])


def expected(sts: str, dane: str, shown: str) -> Status:
    """Return what must become of the message, as the RFCs have it."""
    if dane == "bogus":
        goes = False
    elif dane == "usable" or sts == "enforce":
        goes = shown == "good"
    else:
        goes = dane == "none" or shown != "plain"
    return Status.DELIVERED if goes else Status.DEFERRED


@pytest.mark.parametrize("shown", ["good", "wrong", "plain"])
@pytest.mark.parametrize("dane", ["none", "usable", "unusable", "bogus"])
@pytest.mark.parametrize("sts", ["none", "testing", "enforce"])
async def test_a_cell(dns: Names, tmp_path: Path, sts: str, dane: str, shown: str) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        good, chain = w.context(w.ca, f"mx.{domain}")
        wrong, _ = w.context(trustme.CA(), f"mx.{domain}")
        async with Peer({"good": good, "wrong": wrong, "plain": None}[shown]) as peer:
            publish(w, domain, sts=sts, dane=dane, good=chain[0], port=peer.port)
            attempt = await w.once(domain, peer)
    (outcome,) = attempt.outcomes
    assert outcome.status is expected(sts, dane, shown), told(attempt)
    mail = [command for command in peer.commands if command.startswith(("MAIL", "RCPT", "DATA"))]
    if outcome.status is Status.DELIVERED:
        assert len(peer.messages) == 1 and bool(attempt.tls) is (shown != "plain")
    else:
        assert not mail and not peer.messages and outcome.reason == "tls"
        assert "must" in outcome.text and f"mx.{domain}" in outcome.text
        asks = "TLSA records at" if dane == "bogus" else f"DANE of mx.{domain}" if dane == "usable" else ""
        asks = asks or (f"MTA-STS enforce of {domain}" if sts == "enforce" else "no usable TLSA record")
        assert asks in outcome.text
    noted = f"MTA-STS testing of {domain} only asks to be told" in told(attempt)
    assert noted is (sts == "testing" and dane in ("none", "unusable") and shown != "good")
    if shown != "plain" and attempt.tls and dane == "usable":
        assert set(peer.server_names) == {f"mx.{domain}"}


@pytest.mark.parametrize("by", ["dane", "authorities"])
async def test_with_both_it_is_dane_that_is_checked(dns: Names, tmp_path: Path, by: str) -> None:
    domain, stranger = dns.domain(), trustme.CA()
    async with world(dns, tmp_path) as w:
        _, chain = w.context(w.ca, f"mx.{domain}")
        context, own = w.context(w.ca if by == "authorities" else stranger, f"mx.{domain}")
        async with Peer(context) as peer:
            good = own[0] if by == "dane" else chain[0]
            publish(w, domain, sts="enforce", dane="usable", good=good, port=peer.port)
            attempt = await w.once(domain, peer)
    assert (attempt.outcomes[0].status is Status.DELIVERED) is (by == "dane"), told(attempt)
    assert f"DANE of mx.{domain}" in attempt.route_reason


async def test_dane_needs_a_resolver_that_is_trusted(dns: Names, tmp_path: Path) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path, trusted=False) as w:
        wrong, _ = w.context(w.ca, "other.test")
        _, chain = w.context(w.ca, f"mx.{domain}")
        async with Peer(wrong) as peer:
            publish(w, domain, sts="none", dane="usable", good=chain[0], port=peer.port)
            attempt = await w.once(domain, peer)
    assert attempt.outcomes[0].status is Status.DELIVERED


@pytest.mark.parametrize(
    ("mx", "alias", "records_at", "holds"),
    [
        ("mx.{d}.test", "", "mx.{d}.test", True),
        ("mx.{d}.test", "real.{d}.test", "real.{d}.test", True),
        ("mx.{d}.test", "real.{d}.test", "mx.{d}.test", True),  # the name before the alias comes second
        ("mx.{d}.test", "real.{d}.plain", "mx.{d}.test", True),  # what is signed at the beginning counts
        ("mx.{d}.plain", "", "mx.{d}.plain", False),  # nobody vouches for the address
    ],
)
async def test_aliases_and_zones_without_signatures(
    dns: Names, tmp_path: Path, mx: str, alias: str, records_at: str, holds: bool
) -> None:
    domain = dns.domain()
    mx, alias, records_at = (text.format(d=domain.removesuffix(".test")) for text in (mx, alias, records_at))
    async with world(dns, tmp_path) as w:
        zone = {True: dns.signed, False: dns.plain}
        wrong, _ = w.context(w.ca, "other.test")
        _, chain = w.context(w.ca, mx)
        async with Peer(wrong) as peer:
            dns.signed.put(f"{domain}.", "MX", f"10 {mx}.")
            if alias:
                dns.signed.put(f"{mx}.", "CNAME", f"{alias}.")
            zone[(alias or mx).endswith("test")].put(f"{alias or mx}.", "A", "127.0.0.1")
            zone[records_at.endswith("test")].put(f"_{peer.port}._tcp.{records_at}.", "TLSA", tlsa(chain[0]))
            dns.signed.sign()
            dns.plain.sign()
            attempt = await w.once(domain, peer)
            assert (attempt.outcomes[0].status is Status.DEFERRED) is holds, told(attempt)


async def test_without_a_signed_mx_there_is_no_dane(dns: Names, tmp_path: Path) -> None:
    domain = dns.domain("plain")
    host = f"mx.{domain.removesuffix('.plain')}.test"
    async with world(dns, tmp_path) as w:
        wrong, _ = w.context(w.ca, "other.test")
        _, chain = w.context(w.ca, host)
        async with Peer(wrong) as peer:
            dns.plain.put(f"{domain}.", "MX", f"10 {host}.")
            dns.signed.put(f"{host}.", "A", "127.0.0.1")
            dns.signed.put(f"_{peer.port}._tcp.{host}.", "TLSA", tlsa(chain[0]))
            dns.signed.sign()
            dns.plain.sign()
            assert (await w.once(domain, peer)).outcomes[0].status is Status.DELIVERED


async def test_servers_that_know_no_tlsa_keep_no_mail_from_where_nobody_signs(dns: Names, tmp_path: Path) -> None:
    """Without signatures nobody asks for TLSA, so servers that answer that badly do no harm (RFC 7672 section 2.1.1)."""
    domain = dns.domain()
    host = f"mx.{domain.removesuffix('.test')}.plain"
    async with world(dns, tmp_path) as w, Peer() as peer:
        dns.signed.put(f"{domain}.", "MX", f"10 {host}.")
        dns.plain.put(f"{host}.", "A", "127.0.0.1")
        dns.plain.failing.add("TLSA")
        dns.signed.sign()
        dns.plain.sign()
        assert (await w.once(domain, peer)).outcomes[0].status is Status.DELIVERED


async def test_another_host_is_tried_before_mail_waits(dns: Names, tmp_path: Path) -> None:
    """The best host shows a wrong certificate, the next one's TLSA records are bogus, the third is not in the policy."""
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        right, _ = w.context(w.ca, f"d.{domain}")
        async with Peer(right) as peer:
            zone = dns.signed
            zone.put(f"{domain}.", "MX", *(f"{n} {name}.{domain}." for n, name in enumerate("abcd")))
            for name in "abcd":
                zone.put(f"{name}.{domain}.", "A", "127.0.0.1")
            zone.put(f"_{peer.port}._tcp.b.{domain}.", "TLSA", "3 1 1 " + "ab" * 32, spoilt=True)
            w.publish_policy(domain, document(policy("enforce", f"a.{domain}", f"b.{domain}", f"d.{domain}")))
            zone.sign()
            attempt = await w.once(domain, peer)
    assert attempt.outcomes[0].status is Status.DELIVERED and attempt.host == f"d.{domain}"
    assert f"does not name c.{domain}" in attempt.route_reason
    assert f"TLSA records at _{peer.port}._tcp.b.{domain} cannot be known" in attempt.route_reason


async def test_in_mode_testing_a_host_that_the_policy_does_not_name_is_noted(dns: Names, tmp_path: Path) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w, Peer() as peer:
        dns.signed.put(f"{domain}.", "MX", f"10 mx.{domain}.")
        dns.signed.put(f"mx.{domain}.", "A", "127.0.0.1")
        w.publish_policy(domain, document(policy("testing", f"*.mx.{domain}")))
        dns.signed.sign()
        attempt = await w.once(domain, peer)
    assert attempt.outcomes[0].status is Status.DELIVERED
    assert f"MTA-STS testing of {domain} does not name mx.{domain}" in attempt.route_reason


async def test_work_of_another_demand_goes_over_another_connection(dns: Names, tmp_path: Path) -> None:
    """Two domains with one MX host, of which one asks for a verified certificate: it is wrong."""
    strict, lax = dns.domain(), dns.domain()
    async with world(dns, tmp_path) as w:
        wrong, _ = w.context(w.ca, "other.test")
        async with Peer(wrong) as peer:
            for domain in (strict, lax):
                dns.signed.put(f"{domain}.", "MX", f"10 mx.{strict}.")
            dns.signed.put(f"mx.{strict}.", "A", "127.0.0.1")
            w.publish_policy(strict, document(policy("enforce", f"mx.{strict}")))
            dns.signed.sign()
            delivery = w.delivery(peer.port)
            went = await w.send(delivery, lax)
            waits = await w.send(delivery, strict)
            await delivery.stop()
    assert went.outcomes[0].status is Status.DELIVERED and waits.outcomes[0].status is Status.DEFERRED
    assert len(peer.messages) == 1


async def test_work_that_may_not_use_a_host_shares_no_connection_with_work_that_may(dns: Names, tmp_path: Path) -> None:
    """Two domains with the same MX hosts, of which one's records are bogus: that counts for the signed domain alone."""
    signed, plain = dns.domain(), dns.domain("plain")
    async with world(dns, tmp_path) as w:
        context, _ = w.context(w.ca, f"a.{signed}")
        async with Peer(context) as peer:
            for name in "ab":
                dns.signed.put(f"{name}.{signed}.", "A", "127.0.0.1")
            dns.signed.put(f"_{peer.port}._tcp.a.{signed}.", "TLSA", "3 1 1 " + "ab" * 32, spoilt=True)
            for zone, domain in ((dns.signed, signed), (dns.plain, plain)):
                zone.put(f"{domain}.", "MX", f"10 a.{signed}.", f"20 b.{signed}.")
                zone.sign()
            delivery = w.delivery(peer.port)
            first, second = await w.send(delivery, plain), await w.send(delivery, signed)
            await delivery.stop()
    assert (first.host, second.host) == (f"a.{signed}", f"b.{signed}")
    assert peer.connections == 2


# -- what senders ask ---------------------------------------------------------------------------------------------


def signed_mx(dns: Names, domain: str) -> None:
    dns.signed.put(f"{domain}.", "MX", f"10 mx.{domain}.")
    dns.signed.put(f"mx.{domain}.", "A", "127.0.0.1")
    dns.signed.sign()


@pytest.mark.parametrize(
    ("offers", "certificate", "enhanced"),
    [(True, "good", ""), (False, "good", "5.7.30"), (True, "wrong", "5.7.10"), (True, "none", "5.7.10")],
)
async def test_requiretls(dns: Names, tmp_path: Path, offers: bool, certificate: str, enhanced: str) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        context: ssl.SSLContext | None = None
        if certificate != "none":
            context, _ = w.context(w.ca, f"mx.{domain}" if certificate == "good" else "other.test")
        async with Peer(context, offer=(*OFFER, *(["REQUIRETLS"] if offers else []))) as peer:
            signed_mx(dns, domain)
            attempt = await w.once(domain, peer, requiretls=True)
    (outcome,) = attempt.outcomes
    if enhanced:
        assert (outcome.status, outcome.enhanced, outcome.reason) == (Status.BOUNCED, enhanced, "tls"), told(attempt)
        assert not peer.messages and not any(command.startswith("MAIL") for command in peer.commands)
    else:
        assert outcome.status is Status.DELIVERED, told(attempt)
        assert any(command.startswith("MAIL") and command.endswith(" REQUIRETLS") for command in peer.commands)


@pytest.mark.parametrize(("certificate", "status"), [("good", Status.DELIVERED), ("wrong", Status.DEFERRED)])
async def test_a_report_with_requiretls_goes_in_tls_also_where_that_is_not_offered(
    dns: Names, tmp_path: Path, certificate: str, status: Status
) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        context, _ = w.context(w.ca, f"mx.{domain}" if certificate == "good" else "other.test")
        async with Peer(context, offer=OFFER) as peer:
            signed_mx(dns, domain)
            delivery = w.delivery(peer.port)
            attempt = await w.send(delivery, domain, requiretls=True, reverse_path="")
            assert attempt.outcomes[0].status is status, told(attempt)
            # What is not a report shares no connection with it.
            other = await w.send(delivery, domain, requiretls=True)
            assert other.outcomes[0].status is Status.BOUNCED, told(other)
            await delivery.stop()
    assert len(peer.messages) == (status is Status.DELIVERED)


async def test_requiretls_goes_by_dane_and_by_a_policy_too(dns: Names, tmp_path: Path) -> None:
    dane, sts = dns.domain(), dns.domain("plain")
    async with world(dns, tmp_path) as w:
        stranger, chain = w.context(trustme.CA(), "whoever.test")
        async with Peer(stranger, offer=("REQUIRETLS",)) as peer:
            publish(w, dane, sts="none", dane="usable", good=chain[0], port=peer.port)
            assert (await w.once(dane, peer, requiretls=True)).outcomes[0].status is Status.DELIVERED
        context, _ = w.context(w.ca, f"mx.{sts}")
        async with Peer(context, offer=("REQUIRETLS",)) as peer:
            dns.plain.put(f"{sts}.", "MX", f"10 mx.{sts}.")
            dns.plain.put(f"mx.{sts}.", "A", "127.0.0.1")
            w.publish_policy(sts, document(policy("testing", f"mx.{sts}")))
            dns.plain.sign()
            assert (await w.once(sts, peer, requiretls=True)).outcomes[0].status is Status.DELIVERED


async def test_requiretls_bounces_where_nothing_vouches_for_the_mx(dns: Names, tmp_path: Path) -> None:
    domain = dns.domain("plain")
    async with world(dns, tmp_path) as w:
        context, _ = w.context(w.ca, f"mx.{domain}")
        async with Peer(context, offer=("REQUIRETLS",)) as peer:
            dns.plain.put(f"{domain}.", "MX", f"10 mx.{domain}.")
            dns.plain.put(f"mx.{domain}.", "A", "127.0.0.1")
            dns.plain.sign()
            (outcome,) = (await w.once(domain, peer, requiretls=True)).outcomes
    assert (outcome.status, outcome.enhanced) == (Status.BOUNCED, "5.7.10")
    assert "DNSSEC or MTA-STS" in outcome.text and not peer.connections


@pytest.mark.parametrize("dane", ["usable", "bogus", "none"])
async def test_tls_required_no_goes_whatever_is_asked(dns: Names, tmp_path: Path, dane: str) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        _, chain = w.context(w.ca, f"mx.{domain}")
        async with Peer() as peer:
            publish(w, domain, sts="enforce", dane=dane, good=chain[0], port=peer.port)
            attempt = await w.once(domain, peer, tls_optional=True)
            assert attempt.outcomes[0].status is Status.DELIVERED and "TLS-Required: No" in attempt.route_reason
        wrong, _ = w.context(w.ca, "other.test")
        async with Peer(wrong, offer=("REQUIRETLS",)) as other:
            publish(w, domain, sts="enforce", dane=dane, good=chain[0], port=other.port)
            insisted = await w.once(domain, other, tls_optional=True, requiretls=True)
    assert insisted.outcomes[0].status is not Status.DELIVERED and not other.messages


# -- opportunistic ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"250 forged\r\n", b"x"])
async def test_who_speaks_before_the_handshake_gets_no_mail_in_clear_either(
    dns: Names, tmp_path: Path, octets: bytes
) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        context, _ = w.context(w.ca, f"mx.{domain}")
        async with Peer(context, after_tls_reply=octets) as peer:
            signed_mx(dns, domain)
            attempt = await w.once(domain, peer)
    (outcome,) = attempt.outcomes
    assert (outcome.status, outcome.reason) == (Status.DEFERRED, "tls"), told(attempt)
    assert "spoke between its 220" in outcome.text
    assert peer.connections == 1 and not any(command.startswith("MAIL") for command in peer.commands)


# -- the service --------------------------------------------------------------------------------------------------


async def test_the_service_keeps_to_dane_by_its_setting(dns: Names, tmp_path: Path) -> None:
    domain = dns.domain()
    async with world(dns, tmp_path) as w:
        wrong, _ = w.context(w.ca, "other.test")
        _, chain = w.context(w.ca, f"mx.{domain}")
        host, at = dns.resolver
        async with (
            Peer(wrong) as peer,
            relay(tmp_path / "data", dane_resolver=f"{host}:{at}", delivery_port=peer.port, mta_sts=False) as running,
        ):
            publish(w, domain, sts="none", dane="usable", good=chain[0], port=peer.port)
            waiting: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
            finished = running.service.outbound.delivery._finished
            running.service.outbound.delivery._finished = lambda job, attempt: (finished(job, attempt), waiting.set_result(attempt))  # type: ignore[assignment,return-value]  # fmt: skip
            client = await running.client()
            assert (await client.envelope("a@example.test", f"you@{domain}")).startswith("354 ")
            assert (await client.send(letter())).startswith("250 ")
            attempt = await waiting
            client.close()
    assert (attempt.outcomes[0].status, attempt.outcomes[0].reason) == (Status.DEFERRED, "tls")
    assert f"DANE of mx.{domain} demands a certificate that TLSA records match" in attempt.outcomes[0].text


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_a_file_of_authorities_that_cannot_be_read_ends_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "trust.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartFailed, match=r"relay\.authorities_file .*trust\.pem"):
        async with relay(tmp_path / "data", authorities_file=str(file)):
            pass
