"""From hosts to a connection, over real sockets: a dead family, preference, TLS that is demanded, AUTH, ourselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import Host, Login, Route, TlsDemand, TlsLevel
from outgate.net.tls import opportunistic_context
from outgate.relay.dialling import DeliveryLimits, Dialler, NoHost, Opened
from outgate.relay.endpoints import Endpoint
from outgate.relay.sources import Sources
from outgate.smtp.transaction import Step
from support.ports import closed_port
from support.scripted_peer import OFFER, Peer, authority, server_context

PASSWORD = "correct horse"


@contextlib.contextmanager
def mute(address: str = "127.0.0.9") -> Iterator[int]:
    """Give the port of a place that answers nobody: its backlog is full."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server, contextlib.ExitStack() as waiting:
        server.bind((address, 0))
        server.listen(0)
        port: int = server.getsockname()[1]
        for _ in range(4):
            client = waiting.enter_context(socket.socket(family))
            client.setblocking(False)
            client.connect_ex((address, port))
        yield port


def dialler(**options: Any) -> Dialler:
    options = {"limits": DeliveryLimits(reply=10.0), "tls": opportunistic_context(), "beside_s": 0.01} | options
    return Dialler(clock=FrozenClock(), **options)


def host(peer: Peer | int, address: str = "127.0.0.1", **more: Any) -> Host:
    return Host("mx.test", address, peer if isinstance(peer, int) else peer.port, **more)


async def opening(*hosts: Host, by: Dialler | None = None) -> tuple[Opened | NoHost, list[Step]]:
    steps: list[Step] = []
    found = await (by or dialler()).open(Route("mx.test", hosts, "", "lo", "out.test"), steps)
    if isinstance(found, Opened):
        steps.extend(found.connection.greeting_steps)
        await found.connection.quit()
    return found, steps


def said(steps: list[Step]) -> str:
    return "\n".join(f"{step.did}: {step.reply}" for step in steps)


# -- which host ---------------------------------------------------------------------------------------------------


async def test_an_address_that_does_not_answer_costs_a_moment_and_stays_in_the_trail() -> None:
    async with Peer() as peer:
        with mute("::1") as dead:
            found, steps = await opening(host(dead, "::1"), host(peer))
    assert isinstance(found, Opened) and found.host.address == "127.0.0.1"
    assert f"connect to ::1:{dead}: no answer yet when 127.0.0.1 answered" in said(steps)


async def test_a_refused_address_is_followed_by_the_next_at_once() -> None:
    port = closed_port("127.0.0.8")
    async with Peer() as peer:
        found, steps = await opening(host(port, "127.0.0.8"), host(peer), by=dialler(beside_s=3600.0))
    assert isinstance(found, Opened) and "refused" in steps[0].reply


async def test_what_is_preferred_less_waits_until_all_that_is_preferred_more_has_failed() -> None:
    async with Peer() as better, Peer() as worse:
        better.silent_at = "greeting"
        limits = DeliveryLimits(reply=0.3)
        found, steps = await opening(host(better), host(worse, preference=20), by=dialler(limits=limits))
        assert isinstance(found, Opened) and found.host.port == worse.port
        assert "timeout: no answer (greeting)" in said(steps)
        with mute() as dead:
            found, steps = await opening(host(dead, "127.0.0.9"), host(worse, preference=20), by=dialler(limits=limits))
    assert isinstance(found, Opened) and "timeout: not connected within 0.3 s" in said(steps)


async def test_families_alternate_within_a_preference() -> None:
    tried: list[str] = []
    hosts = [host(1, address) for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4", "::1")]
    found, steps = await opening(*hosts, by=dialler(beside_s=3600.0))
    tried = [step.did.split()[2].rpartition(":")[0] for step in steps]
    assert tried == ["127.0.0.2", "::1", "127.0.0.3", "127.0.0.4"]
    assert isinstance(found, NoHost) and found.reason == "network" and found.text.count("refused") == 4


async def test_whoever_is_given_up_leaves_no_socket_behind() -> None:
    async with Peer() as peer:
        with mute() as dead, mute("127.0.0.10") as dead_too:
            task = asyncio.ensure_future(opening(host(dead, "127.0.0.9"), host(dead_too, "127.0.0.10")))
            for _ in range(10):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert peer.connections == 0  # an unclosed socket would be a ResourceWarning, which is an error


async def test_a_server_that_says_421_is_unavailable() -> None:
    async with Peer(answers={"greeting": b"421 4.3.2 not now\r\n"}) as peer:
        found, _ = await opening(host(peer))
    assert isinstance(found, NoHost) and found.reason == "unavailable"


async def test_a_server_that_greets_with_our_name_is_ourselves() -> None:
    async with Peer(answers={"greeting": b"220 SMTP.Outgate.test ESMTP Outgate\r\n"}) as peer:
        found, _ = await opening(host(peer), by=dialler(own_names=frozenset({"smtp.outgate.test"})))
    assert isinstance(found, NoHost) and found.reason == "loop" and "ourselves" in found.text
    assert not any(command.startswith("EHLO") for command in peer.commands)


# -- from where ---------------------------------------------------------------------------------------------------


def sources(*addresses: str) -> Sources:
    return Sources([Endpoint("lo", (), "s.test", "p.test", ("127.0.0.1",), addresses, "out.test")], FrozenClock())


async def test_an_address_that_is_not_plumbed_is_suspended_when_it_is_used() -> None:
    watched = sources("192.0.2.77")
    async with Peer() as peer:
        by = dialler(sources=watched)
        found, steps = await opening(host(peer, source="192.0.2.77"), by=by)
        assert isinstance(found, NoHost) and found.reason == "source"
        assert f"connect to 127.0.0.1:{peer.port} from 192.0.2.77: 192.0.2.77 is not an address" in said(steps)
        assert watched.suspended("192.0.2.77")
        found, steps = await opening(host(peer, source="192.0.2.77"), by=by)
        assert isinstance(found, NoHost) and found.reason == "source" and "is suspended" in said(steps)
        assert peer.connections == 0, "it left from another address"


async def test_it_leaves_from_the_address_it_was_told() -> None:
    async with Peer() as peer:
        found, _ = await opening(host(peer, source="127.0.0.77"), by=dialler(sources=sources("127.0.0.77")))
        assert isinstance(found, Opened)
        _, steps = await opening(host(1, source="127.0.0.77"))
    assert "connect to 127.0.0.1:1 from 127.0.0.77: " in said(steps)


def test_a_bound_socket_takes_no_port_for_itself() -> None:
    option = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
            sock.bind((address, 0))
            assert sock.getsockname()[1] == 0


# -- under which TLS ----------------------------------------------------------------------------------------------


def verified(ca_pem: str, *names: str) -> TlsDemand:
    return TlsDemand(TlsLevel.VERIFIED, names, why="route primary", authorities=ca_pem)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("names", "good"),
    [((), True), (("mx.test",), True), (("other.test",), False), (("other.test", "mx.test"), True), (("a.test", "b.test"), False)],
)  # fmt: skip
async def test_a_certificate_that_is_demanded(implicit: bool, names: tuple[str, ...], good: bool) -> None:
    ca, _ = authority()
    pem = ca.cert_pem.bytes().decode()
    async with Peer(context=server_context(ca, "mx.test"), implicit=implicit, auth="PLAIN", offer=OFFER) as peer:
        login = Login("shop", PASSWORD)
        found, _ = await opening(host(peer, tls=verified(pem, *names), implicit=implicit, login=login))
    if good:
        assert isinstance(found, Opened) and found.connection.tls
        assert peer.logins == [("shop", PASSWORD)]
    else:
        assert isinstance(found, NoHost) and found.reason == "tls"
        assert peer.logins == [], "the password was told to whoever answered"


async def test_verified_needs_an_authority_and_tls_that_is_offered() -> None:
    ca, _ = authority()
    other = authority()[0].cert_pem.bytes().decode()
    async with Peer(context=server_context(ca, "mx.test")) as peer:
        found, _ = await opening(host(peer, tls=verified(other)))
        assert isinstance(found, NoHost) and found.reason == "tls" and "certificate" in found.text
        found, _ = await opening(host(peer, tls=TlsDemand(TlsLevel.ENCRYPTED)))
        assert isinstance(found, Opened) and found.connection.tls
        found, _ = await opening(host(peer, tls=verified("no PEM")))
        assert isinstance(found, NoHost) and found.reason == "tls" and "cannot be read" in found.text
    async with Peer() as peer:
        found, _ = await opening(host(peer, tls=TlsDemand(TlsLevel.ENCRYPTED)))
        assert isinstance(found, NoHost) and found.reason == "tls" and "does not offer STARTTLS" in found.text


async def test_an_address_alone_must_be_in_the_certificate() -> None:
    ca, _ = authority()
    pem = ca.cert_pem.bytes().decode()
    for names, good in ((("127.0.0.1",), True), (("mx.test",), False)):
        async with Peer(context=server_context(ca, *names)) as peer:
            found, _ = await opening(Host("", "127.0.0.1", peer.port, tls=verified(pem)))
            assert isinstance(found, Opened) is good


# -- with which login ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5 LOGIN PLAIN"])
async def test_auth(mechanism: str) -> None:
    ca, _ = authority()
    async with Peer(context=server_context(ca, "mx.test"), auth=mechanism) as peer:
        found, steps = await opening(host(peer, tls=TlsDemand(TlsLevel.ENCRYPTED), login=Login("shop", PASSWORD)))
    assert isinstance(found, Opened) and peer.logins == [("shop", PASSWORD)]
    assert "AUTH: 235 2.7.0" in said(steps) and PASSWORD not in said(steps)


async def test_a_login_that_fails() -> None:
    ca, _ = authority()
    demand, login = TlsDemand(TlsLevel.ENCRYPTED), Login("shop", PASSWORD)
    async with Peer(context=server_context(ca, "mx.test"), auth="PLAIN", answers={"AUTH": b"535 5.7.8 no\r\n"}) as peer:
        found, _ = await opening(host(peer, tls=demand, login=login))
        assert isinstance(found, NoHost) and found.reason == "login" and "535" in found.text
    async with Peer(context=server_context(ca, "mx.test")) as peer:
        found, _ = await opening(host(peer, tls=demand, login=login))
        assert isinstance(found, NoHost) and found.reason == "login" and "neither AUTH PLAIN" in found.text


@pytest.mark.parametrize("code", [b"535 5.7.8", b"421 4.7.0", b"235 2.7.0", b"334", b""])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_server_that_repeats_the_password_has_it_shown_nowhere(mechanism: str, code: bytes) -> None:
    ca, _ = authority()
    forms = [PASSWORD.encode(), b64encode(PASSWORD.encode()), b64encode(b"\0shop\0" + PASSWORD.encode())]
    for form in forms:
        told = code + b" you said " + form + b"\r\n"
        async with Peer(context=server_context(ca, "mx.test"), auth=mechanism, answers={"AUTH": told}) as peer:
            found, steps = await opening(host(peer, tls=TlsDemand(TlsLevel.ENCRYPTED), login=Login("shop", PASSWORD)))
        assert peer.logins == [("shop", PASSWORD)]
        shown = said(steps) + repr(found) + (str(found.reply) if isinstance(found, NoHost) else "")
        if isinstance(found, Opened):
            shown += repr(found.connection.greeting_steps)
        assert code == b"334" or "you said (secret)" in shown
        assert not any(form.decode() in shown for form in forms)


async def test_a_password_is_never_sent_in_the_clear() -> None:
    async with Peer(auth="PLAIN") as peer:
        for level in (TlsLevel.NONE, TlsLevel.OPPORTUNISTIC):
            found, _ = await opening(host(peer, tls=TlsDemand(level), login=Login("shop", PASSWORD)))
            assert isinstance(found, NoHost) and found.reason == "login" and "no TLS" in found.text
    assert peer.logins == []


async def test_opportunistic_goes_without_tls_where_the_handshake_breaks() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with Peer(context=old) as peer:
        found, steps = await opening(host(peer))
    assert isinstance(found, Opened) and not found.connection.tls and "TLS handshake" in said(steps)
