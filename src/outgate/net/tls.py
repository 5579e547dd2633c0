"""TLS contexts: what we offer as a server and what we ask for as a client.

Standards: RFC 8446, RFC 5246, RFC 8996 (nothing older than TLS 1.2), RFC 7435 (opportunistic).
Promises: TLS 1.2 at least; a verifying context also checks the name.
Dangers: an opportunistic context believes any certificate: it hides from listeners, not from impostors.
Not here: certificates of the laptop mode (`sandbox.ca`), handshakes (`smtp.asyncio`).
"""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import cast

# TLS 1.2 with forward secrecy and authenticated encryption; TLS 1.3 has no others.
_CIPHERS_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(chain_file: Path | None = None, key_file: Path | None = None) -> ssl.SSLContext:
    """Return a server's context with this certificate chain and key (PEM), or without one for a caller that
    loads it. Raises `OSError` or `ssl.SSLError` for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_12)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    # One ticket is enough to resume; each costs time in every handshake.
    context.num_tickets = 1
    if chain_file is not None:
        context.load_cert_chain(chain_file, key_file)
    return context


def verified_context(ca_file: Path | None = None, *, authorities: str = "") -> ssl.SSLContext:
    """Return a client's context that checks chain and name, against `ca_file` or `authorities` (PEM), or the system's
    authorities. Raises `ssl.SSLError`, `OSError` for what cannot be read."""
    context = ssl.create_default_context(cafile=ca_file, cadata=authorities or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def opportunistic_context() -> ssl.SSLContext:
    """Return a client's context that encrypts to whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def has_name(tls: ssl.SSLObject, names: tuple[str, ...]) -> str:
    """Say "" if the peer's certificate, whose chain was checked, has one of `names`, else what it has instead.

    As RFC 6125 section 6.4.3 says, `*` stands for one whole label, the first; as OpenSSL does, not above two others. A
    name is none of an address, nor the other way round."""
    certificate = tls.getpeercert() or {}
    pairs = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    held = [(kind, _address(value) or value.lower()) for kind, value in pairs if kind in ("DNS", "IP Address")]
    wanted: set[tuple[str, str]] = set()
    for name in names:
        if address := _address(name):
            wanted.add(("IP Address", address))
            continue
        wanted.add(("DNS", name.lower()))
        parent = name.lower().partition(".")[2]
        if "." in parent:
            wanted.add(("DNS", f"*.{parent}"))
    if wanted.isdisjoint(held):
        shown = ", ".join(value for _, value in held) or "no name"
        return f"the certificate is for {shown}, not for {' or '.join(names)}"
    return ""


def _address(text: str) -> str:
    """Return an address in its shortest form ("" for what is none): certificates and people write IPv6 at length."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return ""
