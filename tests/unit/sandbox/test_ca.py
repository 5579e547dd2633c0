"""The sandbox's authority, seen through real handshakes."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from outgate.net.tls import opportunistic_context, server_context, verified_context
from outgate.sandbox.ca import SandboxCa, ServerNames


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """Do a handshake in memory and return the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (one, other, one, other):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return one


def names_of(tls: ssl.SSLObject) -> set[str]:
    certificate = tls.getpeercert()
    assert certificate is not None
    return {value for _, value in certificate["subjectAltName"]}  # type: ignore[union-attr]


def test_the_authority_stays_the_same_and_its_key_is_private(tmp_path: Path) -> None:
    first = SandboxCa(tmp_path).ca_file.read_bytes()
    assert SandboxCa(tmp_path).ca_file.read_bytes() == first
    assert stat.S_IMODE((tmp_path / "ca-key.pem").stat().st_mode) == 0o600


def test_its_certificates_are_believed_by_name_and_address(tmp_path: Path) -> None:
    ca = SandboxCa(tmp_path)
    server, client = ca.context(["smtp.outgate.test"]), verified_context(ca.ca_file)
    for name in ("smtp.outgate.test", "localhost", "127.0.0.1", "::1"):
        assert shake(server, client, name).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(server, client, "other.test")


def test_a_restarted_authority_is_still_believed(tmp_path: Path) -> None:
    client = verified_context(SandboxCa(tmp_path).ca_file)
    assert shake(SandboxCa(tmp_path).context(["a.test"]), client, "a.test").version() == "TLSv1.3"


def test_names_are_certified_when_the_caller_allows_them(tmp_path: Path) -> None:
    ca = SandboxCa(tmp_path)
    allowed = {"smtp.mymail.com"}
    names = ServerNames(ca, ["smtp.outgate.test"], lambda name: name in allowed)
    client = verified_context(ca.ca_file)
    assert names_of(shake(names.context, client, "SMTP.mymail.com")) == {"smtp.mymail.com"}
    assert "127.0.0.1" in names_of(shake(names.context, client, "smtp.outgate.test"))
    assert "smtp.outgate.test" in names_of(shake(names.context, client, "127.0.0.1"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(names.context, client, "other.test")
    allowed.add("other.test")
    assert names_of(shake(names.context, client, "other.test")) == {"other.test"}


def test_a_name_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = SandboxCa(tmp_path)
    made: list[list[str]] = []
    leaf = ca.leaf
    monkeypatch.setattr(ca, "leaf", lambda names: (made.append(list(names)), leaf(names))[1])
    names = ServerNames(ca, ["a.test"], lambda _: True)
    for _ in range(3):
        shake(names.context, verified_context(ca.ca_file), "b.test")
    assert made.count(["b.test"]) == 1


def test_a_name_too_long_for_a_subject_is_certified_all_the_same(tmp_path: Path) -> None:
    ca = SandboxCa(tmp_path)
    name = "a" * 60 + ".b" * 40 + ".test"
    assert shake(ca.context([name]), verified_context(ca.ca_file), name).version() == "TLSv1.3"


def test_nothing_older_than_tls_1_2(tmp_path: Path) -> None:
    for context in (server_context(), verified_context(), opportunistic_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    ca = SandboxCa(tmp_path)
    leaf = ca.leaf(["a.test"])
    (tmp_path / "chain.pem").write_bytes(leaf.chain)
    (tmp_path / "key.pem").write_bytes(leaf.key)
    client = verified_context(ca.ca_file)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    loaded = server_context(tmp_path / "chain.pem", tmp_path / "key.pem")
    cipher = shake(loaded, client, "a.test").cipher()
    assert cipher is not None and cipher[0].startswith("ECDHE-ECDSA")


def test_an_opportunistic_client_takes_what_comes(tmp_path: Path) -> None:
    server = SandboxCa(tmp_path).context(["a.test"])
    assert shake(server, opportunistic_context(), "whoever.test").version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, verified_context(), "a.test")
