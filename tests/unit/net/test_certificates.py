"""Certificates from files: real files, real handshakes, and what happens when the files change."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from outgate.base.clock import FrozenClock, SystemClock
from outgate.net.certificates import BadCertificate, CertificateWatch, ServerCertificate

NAME = "smtp.outgate.test"
CA = trustme.CA()
TRUST = ssl.create_default_context()
CA.configure_trust(TRUST)
DAY = timedelta(days=1)
Lines = list[tuple[str, dict[str, Any]]]


class Files:
    """A chain and a key, as an operator keeps them."""

    def __init__(self, directory: Path) -> None:
        self.chain, self.key = directory / "chain.pem", directory / "key.pem"

    def put(self, *names: str, ca: trustme.CA = CA, **options: Any) -> trustme.LeafCert:
        leaf = ca.issue_cert(*names or (NAME,), **options)
        self.write(b"".join(each.bytes() for each in leaf.cert_chain_pems), leaf.private_key_pem.bytes())
        return leaf

    def write(self, chain: bytes | None = None, key: bytes | None = None) -> None:
        """Replace one or both by rename, so that each is a new file."""
        for file, data in ((self.chain, chain), (self.key, key)):
            if data is not None:
                new = file.with_suffix(".new")
                new.write_bytes(data)
                new.chmod(0o600)
                os.replace(new, file)

    def certificate(self, *names: str, clock: Any = None) -> ServerCertificate:
        return ServerCertificate(self.chain, self.key, names or (NAME,), clock or SystemClock())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What is logged: event and fields."""
    found: Lines = []

    def note(self: Any, event: str, **fields: Any) -> None:
        found.append((event, fields))

    for level in ("info", "warning", "error", "exception"):
        monkeypatch.setattr(f"outgate.base.log.Log.{level}", note)
    yield found


def events(lines: Lines) -> list[str]:
    return [event for event, _ in lines]


def client(server: ServerCertificate, name: str | None = NAME, session: ssl.SSLSession | None = None) -> Pair:
    return Pair(server.context, TRUST, name, session)


class Pair:
    """A handshake in memory, and the session after it."""

    def __init__(
        self, server: ssl.SSLContext, trust: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        if name is None:
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        self.client = trust.wrap_bio(to_client, to_server, server_hostname=name, session=session)
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        for side in (self.client, self.server) * 2:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        assert self.echo(b"hello") == b"hello"  # with it come the tickets of TLS 1.3

    def echo(self, text: bytes) -> bytes:
        self.client.write(text)
        self.server.write(self.server.read(100))
        return self.client.read(100)

    @property
    def serial(self) -> bytes:
        found = self.client.getpeercert(True)
        assert found is not None
        return found


def der(leaf: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def test_a_new_pair_is_taken_up_and_sessions_under_way_stay(files: Files, lines: Lines) -> None:
    first = files.put()
    server = files.certificate()
    before = client(server)
    assert before.serial == der(first)
    assert not server.look() and lines == []
    second = files.put()
    assert server.look() and events(lines) == ["certificate.taken"]
    after = client(server)
    assert after.serial == der(second) != der(first)
    assert before.echo(b"still here") == b"still here"
    assert client(server, None).serial == der(second)  # a client that names nobody
    third = files.put()
    assert server.look() and client(server).serial == der(third)
    assert after.echo(b"I too") == b"I too"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_of_before_is_good_after(files: Files, version: ssl.TLSVersion) -> None:
    trust = ssl.create_default_context()
    CA.configure_trust(trust)
    trust.maximum_version = trust.minimum_version = version
    files.put()
    server = files.certificate()
    before = Pair(server.context, trust, NAME, None)
    files.put()
    assert server.look()
    again = Pair(server.context, trust, NAME, before.client.session)
    assert again.client.session_reused
    later = Pair(server.context, trust, NAME, again.client.session)
    assert later.client.session_reused
    full = Pair(server.context, trust, NAME, None)
    assert Pair(server.context, trust, NAME, full.client.session).client.session_reused


@pytest.mark.parametrize("half", ["chain", "key"])
def test_half_of_a_change_is_not_taken_up(files: Files, lines: Lines, half: str) -> None:
    first = files.put()
    server = files.certificate()
    other = CA.issue_cert(NAME)
    chain, key = b"".join(each.bytes() for each in other.cert_chain_pems), other.private_key_pem.bytes()
    files.write(chain=chain) if half == "chain" else files.write(key=key)
    for _ in range(3):
        assert not server.look()
    assert events(lines) == ["certificate.not_taken"]  # once for the change, however often it looks
    assert "replace both together" in lines[0][1]["reason"] and "until" in lines[0][1]["remains"]
    assert client(server).serial == der(first)
    files.write(key=key) if half == "chain" else files.write(chain=chain)
    assert server.look() and client(server).serial == der(other)


def leaf_key(leaf: trustme.LeafCert, password: bytes | None = None) -> bytes:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    secret = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)


def test_what_cannot_be_used_is_said_with_the_remedy(files: Files, lines: Lines) -> None:
    good = files.put()
    server = files.certificate()
    chain, key = files.chain.read_bytes(), files.key.read_bytes()
    old = CA.issue_cert(NAME, not_before=datetime.now(UTC) - 9 * DAY, not_after=datetime.now(UTC) - DAY)
    young = CA.issue_cert(NAME, not_before=datetime.now(UTC) + DAY, not_after=datetime.now(UTC) + 9 * DAY)
    curve = ec.generate_private_key(ec.SECP256R1())
    wrong: list[tuple[bytes, bytes, str]] = [
        (chain[:-40], key, "PEM"),
        (b"", key, "holds no certificates in PEM"),
        (b"\xff\x00" * 50, key, "holds no certificates in PEM"),
        (chain, key[: len(key) // 2], "holds no private key in PEM, or not all of it"),
        (chain, b"", "holds no private key in PEM"),
        (chain, leaf_key(good, os.urandom(8).hex().encode()), "store the key without one"),
        (chain, curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "replace both together"),
        (CA.cert_pem.bytes() + chain, key, "must begin with the server's own certificate"),
        (old.cert_chain_pems[0].bytes(), old.private_key_pem.bytes(), "ended "),
        (young.cert_chain_pems[0].bytes(), young.private_key_pem.bytes(), "not yet good"),
    ]
    for number, (bad_chain, bad_key, said) in enumerate(wrong, 1):
        files.write(bad_chain, bad_key)
        assert not server.look() and len(lines) == number
        event, fields = lines[-1]
        assert event == "certificate.not_taken" and said in fields["reason"], (said, fields)
        with pytest.raises(BadCertificate, match=said.replace("(", ".")):
            files.certificate()
    files.key.unlink()
    assert not server.look() and not server.look() and "cannot be read: No such file" in lines[-1][1]["reason"]
    assert len(lines) == len(wrong) + 1
    assert client(server).serial == der(good)
    files.write(chain, key)
    assert server.look() and events(lines)[-1] == "certificate.taken"


def test_a_certificate_that_begins_later_is_taken_up_then(files: Files, lines: Lines) -> None:
    """The clock of an authority that is a little ahead of ours must not keep a renewal away for good."""
    begin = datetime(2027, 3, 1, tzinfo=UTC)
    first = files.put(not_before=begin - 30 * DAY, not_after=begin + 30 * DAY)
    clock = FrozenClock((begin - timedelta(seconds=150)).timestamp())
    server = files.certificate(clock=clock)
    second = files.put(not_before=begin, not_after=begin + 90 * DAY)
    for _ in range(3):
        assert not server.look()
        clock.advance(49)
    assert events(lines) == ["certificate.not_taken"] and "not yet good" in lines[0][1]["reason"]
    assert client(server, None).serial == der(first)
    clock.advance(60)
    assert server.look() and client(server, None).serial == der(second)
    assert events(lines)[1:] == ["certificate.taken"] and not server.look()


def test_a_link_that_is_moved_is_a_change(tmp_path: Path) -> None:
    """As certbot does it: `live/` holds links into `archive/`, and renewal puts others in their place."""
    archive, live = tmp_path / "archive", tmp_path / "live"
    archive.mkdir(), live.mkdir()
    issued = []
    for number in (1, 2):
        leaf = CA.issue_cert(NAME)
        issued.append(leaf)
        (archive / f"fullchain{number}.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
        (archive / f"privkey{number}.pem").write_bytes(leaf.private_key_pem.bytes())
        (archive / f"privkey{number}.pem").chmod(0o600)

    def point(number: int) -> None:
        for part in ("privkey", "fullchain"):
            link = live / "new"
            link.symlink_to(Path("..") / "archive" / f"{part}{number}.pem")
            os.replace(link, live / f"{part}.pem")

    point(1)
    server = ServerCertificate(live / "fullchain.pem", live / "privkey.pem", (NAME,), SystemClock())
    assert client(server).serial == der(issued[0]) and not server.look()
    point(2)
    assert server.look() and client(server).serial == der(issued[1])


def test_files_that_change_while_they_are_read_are_read_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put()
    server = files.certificate()
    files.put()
    load, third = ssl.SSLContext.load_cert_chain, []

    def meanwhile(self: ssl.SSLContext, *given: Any, **options: Any) -> None:
        load(self, *given, **options)
        if not third:
            third.append(files.put())

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", meanwhile)
    first = client(server).serial
    assert not server.look() and client(server).serial == first
    assert server.look() and client(server).serial == der(third[0])


def test_it_warns_before_the_end_once_a_day(files: Files, lines: Lines) -> None:
    end = datetime(2027, 3, 1, tzinfo=UTC)
    files.put(not_before=end - 90 * DAY, not_after=end)
    clock = FrozenClock((end - 15 * DAY).timestamp())
    server = files.certificate(clock=clock)
    server.look()
    assert lines == []
    clock.advance(86_400 + 1)
    for _ in range(3):
        server.look()
    assert events(lines) == ["certificate.ends"] and lines[0][1]["ends"] == "2027-03-01T00:00:00Z"
    clock.advance(86_400 - 60)
    server.look()
    assert len(lines) == 1
    clock.advance(60)
    server.look()
    assert len(lines) == 2
    files.put(not_before=end - 90 * DAY, not_after=end + 90 * DAY)
    assert server.look() and events(lines)[2:] == ["certificate.taken"]
    assert events(lines).count("certificate.ends") == 2


def test_what_may_be_meant_otherwise_is_a_warning(files: Files, lines: Lines) -> None:
    leaf = files.put("*.outgate.test", "other.test")
    files.key.chmod(0o640)
    assert files.certificate("smtp.outgate.test", "OTHER.test".lower()).covers("smtp.outgate.test")
    assert lines == []
    files.key.chmod(0o644)
    files.certificate("private.smtp.outgate.test", "smtp.outgate.test")
    assert events(lines) == ["certificate.names", "certificate.key_open"]
    assert lines[0][1]["missing"] == ["private.smtp.outgate.test"] and lines[1][1]["mode"] == "0644"
    files.write(leaf.cert_chain_pems[0].bytes() + trustme.CA().cert_pem.bytes())
    files.key.chmod(0o600)
    files.certificate("other.test")
    assert events(lines)[2:] == ["certificate.chain_order"]
    middle = CA.create_child_ca()
    files.put(ca=middle)
    files.certificate()
    assert len(lines) == 3


def test_a_client_that_asks_for_another_endpoints_name_sees_its_certificate(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one, other = Files(tmp_path / "a"), Files(tmp_path / "b")
    first, second = one.put("a.test"), other.put("b.test", "*.b.test")
    here, there = one.certificate("a.test"), other.certificate("b.test")
    here.others, there.others = [there], [here]
    assert client(here, "a.test").serial == der(first)
    assert client(here, "B.test").serial == client(here, "x.b.test").serial == der(second)
    assert client(there, "a.test").serial == der(first) == client(here, None).serial
    third = other.put("b.test")
    assert there.look() and client(here, "b.test").serial == der(third)
    with pytest.raises(ssl.SSLCertVerificationError):
        client(here, "c.test")


async def test_the_watch_looks_by_itself_and_when_told(files: Files, lines: Lines) -> None:
    files.put()
    server = files.certificate()
    assert not CertificateWatch([])
    watch = CertificateWatch([server], every_s=0.005)
    assert watch
    watch.start()
    second = files.put()
    while "certificate.taken" not in events(lines):
        await asyncio.sleep(0)
    assert client(server).serial == der(second)
    await watch.stop()
    slow = CertificateWatch([server], every_s=3600)
    slow.start()
    slow.poke()
    while events(lines).count("certificate.taken") < 2:  # read again although nothing has changed
        await asyncio.sleep(0)
    await slow.stop()
    await CertificateWatch([]).stop()
