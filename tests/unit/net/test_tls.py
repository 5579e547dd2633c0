"""Whose certificate a server shows, where one of several names will do: by real handshakes, beside what OpenSSL says."""

from __future__ import annotations

import ssl

import pytest
import trustme

from outgate.net.tls import has_name, verified_context

AUTHORITY = trustme.CA()
PEM = AUTHORITY.cert_pem.bytes().decode()


def handshake(*held: str, check: str = "") -> ssl.SSLObject:
    """Return a client's session with a server whose certificate is for `held`; OpenSSL checks the name `check`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*held).configure_cert(server)
    client = verified_context(authorities=PEM)
    client.check_hostname = bool(check)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=check or None)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours


@pytest.mark.parametrize(
    ("held", "name", "good"),
    [
        ("mx.dest.test", "MX.dest.test", True),
        ("mx.dest.test", "dest.test", False),
        ("*.dest.test", "mx.dest.test", True),
        ("*.dest.test", "a.mx.dest.test", False),
        ("*.dest.test", "dest.test", False),
        ("*.test", "dest.test", False),  # of a whole top-level domain: nobody's
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:1", True),
        ("2001:db8::1", "2001:db8::2", False),
    ],
)
def test_one_of_several_names_is_judged_as_openssl_judges_one(held: str, name: str, good: bool) -> None:
    found = has_name(handshake(held), ("other.test", name))
    assert (found == "") is good
    assert good or (name in found and held in found)
    if good:
        handshake(held, check=name)
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(held, check=name)


def test_a_name_that_looks_like_an_address_is_none() -> None:
    assert has_name(handshake("xn--r8jz45g.test", "mx.dest.test"), ("192.0.2.1", "2001:db8::1")) != ""
