"""A small certificate authority for the laptop mode, and a server context that certifies names as they are asked for.

Standards: RFC 5280, RFC 6125 (names in subjectAltName), RFC 6066 (SNI), RFC 5480 (ECDSA P-256).
Promises: the authority stays the same over restarts; leaves are renewed before they expire; a name is certified
only if the caller allows it, and everyone else sees the default certificate.
Dangers: whoever has `ca-key.pem` can be anyone to those who trust `ca.pem`: it is 0600 and for this machine only.
TLS validity is the machine's time, not the sandbox's clock.
Not here: what points where (`zone`).
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outgate.net.tls import server_context

_CA_DAYS = 3650
_LEAF_DAYS = 90
_RENEW_DAYS = 30
_NAMES_KEPT = 500


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate with its chain and key in PEM, and when it should be replaced."""

    chain: bytes
    key: bytes
    renew_at: datetime


class SandboxCa:
    """The authority."""

    def __init__(self, directory: Path) -> None:
        """Read the authority of `directory` (`ca.pem`, `ca-key.pem`), or make one. Raises `OSError`, `ValueError`."""
        self.ca_file = directory / "ca.pem"
        key_file = directory / "ca-key.pem"
        if self.ca_file.exists() and key_file.exists():
            key = load_pem_private_key(key_file.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_file} does not hold an EC key")
            certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _self_signed(key)
            _write_private(key_file, _key_pem(key))
            _write(self.ca_file, certificate.public_bytes(Encoding.PEM))
        self._key = key
        self._certificate = certificate

    def leaf(self, names: Sequence[str]) -> Leaf:
        """Return a certificate for `names`: host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(names[0] if len(names[0]) <= 64 else "outgate sandbox"))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=_LEAF_DAYS))
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_usage(digital_signature=True, key_cert_sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        certificate = builder.sign(self._key, SHA256())
        chain = certificate.public_bytes(Encoding.PEM) + self._certificate.public_bytes(Encoding.PEM)
        return Leaf(chain, _key_pem(key), now + timedelta(days=_LEAF_DAYS - _RENEW_DAYS))

    def context(self, names: Sequence[str]) -> ssl.SSLContext:
        """Return a server context with a new certificate for `names`, and for this machine as well."""
        return _context(self.leaf([*names, "localhost", "127.0.0.1", "::1"]))


class ServerNames:
    """Server contexts by the name that the client asks for. Belongs to one event loop."""

    def __init__(self, ca: SandboxCa, names: Sequence[str], allowed: Callable[[str], bool]) -> None:
        """`names` (and addresses) are certified always; any other that a client asks for only if `allowed` says so."""
        self._ca = ca
        self._names = tuple(names)
        self._allowed = allowed
        self._made: OrderedDict[str, tuple[ssl.SSLContext, datetime]] = OrderedDict()
        self.context = self._fresh("")[0]
        """The context to listen with; a client's hello may choose another."""
        self.context.sni_callback = self._choose

    def _choose(self, tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        # An exception here would end the handshake; a name that is not ours gets what it would without SNI.
        wanted = (name or "").lower().rstrip(".")
        if not wanted or wanted in self._names or not self._allowed(wanted):
            wanted = ""
        context = self._of(wanted)
        if context is not self.context:  # to set it again would cost every handshake
            tls.context = context

    def _of(self, name: str) -> ssl.SSLContext:
        made = self._made.get(name)
        if made is None or made[1] <= datetime.now(UTC):
            made = self._fresh(name)
        self._made.move_to_end(name)
        return made[0]

    def _fresh(self, name: str) -> tuple[ssl.SSLContext, datetime]:
        leaf = self._leaf(name)
        made = (_context(leaf), leaf.renew_at)
        self._made[name] = made
        if len(self._made) > _NAMES_KEPT:
            self._made.popitem(last=False)
        return made

    def _leaf(self, name: str) -> Leaf:
        own = dict.fromkeys((*self._names, "localhost", "127.0.0.1", "::1"))
        return self._ca.leaf([name] if name else list(own))


def _context(leaf: Leaf) -> ssl.SSLContext:
    context = server_context()
    # OpenSSL takes a chain from a file only; this one is gone when the call returns.
    with NamedTemporaryFile(suffix=".pem") as file:
        file.write(leaf.key + leaf.chain)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    name = _subject("Outgate sandbox CA")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(digital_signature=False, key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.chmod(0o644)  # whoever talks to the sandbox may read it
    os.replace(temporary, file)


def _write_private(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
    os.replace(temporary, file)
