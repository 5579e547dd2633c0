"""A listener's certificate from files, taken up anew when they change, without a restart.

Standards: RFC 5280 (validity), RFC 6125 (names), RFC 6066 (SNI), RFC 7468 (PEM), RFC 8446 section 4.4.2 (chain order).
Promises: only a pair that fits together, whole and in date, is taken up; else the one before stays, the log says why
    once for each change of the files, and they are tried again every minute; handshakes that begin afterwards have the
    new certificate, sessions under way and tickets given out stay good.
Dangers: validity is judged by the clock that is handed in, the machine's own; files are read through links, so a link
    that is moved is a change.
Not here: contexts (`tls`), the laptop mode's certificates (`sandbox.ca`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID

from outgate.base.clock import Clock, rfc3339
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.net.tls import server_context

_log = Log("outgate.certificates")
_DAY_S = 86_400.0
_SOON_S = 14 * _DAY_S
_AGAIN_S = 60.0
_Stamp = tuple[tuple[int, ...] | None, ...]


class BadCertificate(Exception):
    """A certificate and key that cannot be used; the text says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A pair that was found good: its context, names and end, and all certificates of the chain."""

    context: ssl.SSLContext
    names: frozenset[str]
    ends: float
    chain: tuple[x509.Certificate, ...]


class ServerCertificate:
    """The certificate of one endpoint. `look` may run in a thread, one at a time; handshakes run meanwhile."""

    def __init__(self, chain_file: Path, key_file: Path, names: Sequence[str], clock: Clock) -> None:
        """`names` are those that clients dial, and are warned about if the certificate lacks them. Raises
        `BadCertificate`."""
        self._chain_file = chain_file
        self._key_file = key_file
        self._names = tuple(names)
        self._clock = clock
        self._stamp = self._stamped()
        self._warned_at = 0.0
        # When files that could not be used are read again, though they are the same, and what was said of them.
        self._again_at = inf
        self._said = ""
        self._current = self._loaded()
        # What listeners hold. It stays, and with it the key of the tickets that it gives out.
        self.context = self._current.context
        self.context.sni_callback = self._choose
        self.others: Sequence[ServerCertificate] = ()
        """Other endpoints' certificates, for a client that asks for a name of theirs."""
        self._warn()

    def covers(self, name: str) -> bool:
        """Say whether the certificate is good for a host name: names it, or has a wildcard for its first label."""
        names = self._current.names
        return name in names or f"*.{name.partition('.')[2]}" in names

    def look(self, *, anew: bool = False) -> bool:
        """Look at the files (`anew`: read them also if they seem unchanged); take up a new pair; say whether that was
        done. Blocks. What is wrong is logged."""
        stamp, now = self._stamped(), self._clock.now()
        changed = anew or stamp != self._stamp
        if not changed and now < self._again_at:
            self._tell_age()
            return False
        self._stamp, self._again_at = stamp, inf
        try:
            loaded = self._loaded()
        except BadCertificate as error:
            # What stands in the way may pass by itself: a certificate begins, a descriptor is free again.
            self._again_at = now + _AGAIN_S
            if changed or str(error) != self._said:
                self._said = str(error)
                ends = rfc3339(self._current.ends)
                _log.error("certificate.not_taken", reason=self._said, remains=f"the one before, until {ends}")
            return False
        if self._stamped() != stamp:  # it may be a mixture: the next look decides
            return False
        self._current = loaded
        self._warned_at = 0.0
        names = sorted(loaded.names)
        _log.info("certificate.taken", file=str(self._chain_file), names=names, ends=rfc3339(loaded.ends))
        self._warn()
        return True

    def _choose(self, tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        # OpenSSL asks in each handshake, also where the client names nobody.
        context = self._of((name or "").lower().rstrip("."))
        if context is not self.context:  # to set it again would cost every handshake
            tls.context = context

    def _of(self, name: str) -> ssl.SSLContext:
        if name and not self.covers(name):
            for other in self.others:
                if other.covers(name):
                    return other._current.context
        return self._current.context

    def _stamped(self) -> _Stamp:
        return tuple(_stamp_of(file) for file in (self._chain_file, self._key_file))

    # -- reading --------------------------------------------------------------------------------------------

    def _loaded(self) -> _Loaded:
        """Read both files, judge them, and make a context. Raises `BadCertificate`."""
        chain, key = self._read(self._chain_file), self._read(self._key_file)
        try:
            certificates = tuple(x509.load_pem_x509_certificates(chain))
            own, public = certificates[0], [_public(each) for each in certificates]
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise BadCertificate(f"{self._chain_file} holds no certificates in PEM, or not all: {error}") from None
        self._check_pair(public, key)
        self._check_dates(own)
        context = server_context()
        try:
            # An empty password: a key that needs one must not have the service wait at a terminal.
            context.load_cert_chain(self._chain_file, self._key_file, password=b"")
        except (OSError, ValueError) as error:
            raise BadCertificate(f"{self._chain_file} and {self._key_file} cannot be used: {error}") from None
        return _Loaded(context, _names_of(own), own.not_valid_after_utc.timestamp(), certificates)

    def _read(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            why = error.strerror or str(error)
            raise BadCertificate(f"{file} cannot be read: {why}; let the service's user read it") from None

    def _check_pair(self, certified: Sequence[bytes], key_pem: bytes) -> None:
        try:
            key = load_pem_private_key(key_pem, None)
        except TypeError:
            raise BadCertificate(f"{self._key_file} needs a password: store the key without one") from None
        except (ValueError, UnsupportedAlgorithm):
            raise BadCertificate(f"{self._key_file} holds no private key in PEM, or not all of it") from None
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if public not in certified:
            raise BadCertificate(
                f"the key in {self._key_file} is not that of {self._chain_file}: replace both together"
            )
        if public != certified[0]:
            raise BadCertificate(f"{self._chain_file} must begin with the server's own certificate, then its issuer's")

    def _check_dates(self, own: x509.Certificate) -> None:
        begins, ends = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
        now = self._clock.now()
        if now >= ends:
            raise BadCertificate(f"the certificate in {self._chain_file} ended {rfc3339(ends)}: put a new one there")
        if now < begins:
            raise BadCertificate(f"the certificate in {self._chain_file} begins {rfc3339(begins)}: not yet good")

    # -- warnings -------------------------------------------------------------------------------------------

    def _warn(self) -> None:
        file, chain = str(self._chain_file), self._current.chain
        missing = [name for name in self._names if not self.covers(name)]
        if missing:
            _log.warning("certificate.names", file=file, missing=missing, remedy="have the authority add these names")
        for number, (one, issuer) in enumerate(pairwise(chain), 1):
            if not _issued(one, issuer):
                remedy = f"put each certificate before its issuer's: number {number + 1} has not issued number {number}"
                _log.warning("certificate.chain_order", file=file, remedy=remedy)
                break
        mode = self._mode()
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            remedy = "chmod o= it: whoever has the key can pass for this endpoint"
            _log.warning("certificate.key_open", file=str(self._key_file), mode=f"{mode & 0o777:04o}", remedy=remedy)
        self._tell_age()

    def _mode(self) -> int:
        try:
            return self._key_file.stat().st_mode
        except OSError:
            return 0

    def _tell_age(self) -> None:
        now, ends = self._clock.now(), self._current.ends
        if ends - now < _SOON_S and now - self._warned_at >= _DAY_S:
            self._warned_at = now
            remedy = "renew it: clients refuse it from then on"
            _log.warning("certificate.ends", file=str(self._chain_file), ends=rfc3339(ends), remedy=remedy)


class CertificateWatch:
    """Looks at certificates' files every second, and when told to. Belongs to one event loop."""

    def __init__(self, certificates: Sequence[ServerCertificate], every_s: float = 1.0) -> None:
        self._certificates = certificates
        self._every_s = every_s
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Say whether there is anything to look at."""
        return bool(self._certificates)

    def start(self) -> None:
        """Begin to look, if there is anything to look at."""
        if self._certificates:
            self._task = spawn(self._run(), "certificates")

    async def stop(self) -> None:
        """Stop looking."""
        await cancel(self._task)

    def poke(self) -> None:
        """Read the files now, whether they seem changed or not."""
        self._told.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._every_s)
            told = self._told.is_set()
            self._told.clear()
            for certificate in self._certificates:
                try:
                    await asyncio.to_thread(certificate.look, anew=told)
                except Exception:
                    _log.exception("certificate.look_failed")


def _stamp_of(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    assert isinstance(found, x509.SubjectAlternativeName)
    return frozenset(name.lower().rstrip(".") for name in found.get_values_for_type(x509.DNSName))
