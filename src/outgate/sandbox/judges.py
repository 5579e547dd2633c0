"""Independent judges of received mail: dkimpy and pyspf, asking the sandbox's DNS with real packets.

Standards: RFC 6376, RFC 8463, RFC 7208, as these two libraries understand them; nothing of `domains` is used here.
Promises: a judgement never raises; the judges see the sandbox's clock and DNS, and only those.
Dangers: both libraries are synchronous and keep their DNS in a module's variable: call from a thread, and they
take turns. dkimpy needs milliseconds per signature. For Ed25519 it wants PyNaCl: where that is not installed, it gets
OpenSSL's curve under PyNaCl's names, for the last step alone; what is hashed, and how, is dkimpy's all the same.
Not here: storing (`inbox`).
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import threading
from collections.abc import Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import dkim
import dkim.util
import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import spf
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from outgate.base.clock import Clock
from outgate.net.dns import host_name, wire_name

_TIMEOUT_S = 5
_SIGNATURES = 5
_turns = threading.Lock()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdicts as JSON values. `dkim`: result (pass, fail, none, temperror), domain, selector, reason, and each
    signature's verdict. `spf`: result (RFC 7208), domain, identity, explanation."""

    dkim: dict[str, Any]
    spf: dict[str, Any]


class _NoAnswer(Exception):
    """DNS did not answer; the text says how."""


class _VerifyKey:
    """What dkimpy uses of PyNaCl's class of that name."""

    def __init__(self, key: bytes, encoder: object) -> None:
        self._key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))

    def verify(self, message: bytes, signature: bytes) -> None:
        self._key.verify(signature, message)


def complete_dkimpy() -> None:
    """Let dkimpy verify Ed25519 where PyNaCl is not installed."""
    if importlib.util.find_spec("nacl") is None:
        dkim.nacl = SimpleNamespace(
            signing=SimpleNamespace(VerifyKey=_VerifyKey),
            encoding=SimpleNamespace(Base64Encoder=None),
            exceptions=SimpleNamespace(BadSignatureError=InvalidSignature, ValueError=ValueError),
        )


class Judges:
    """The two of them."""

    def __init__(self, server: tuple[str, int], clock: Clock) -> None:
        """`server` is the (address, port) of the DNS to ask."""
        self._server = server
        self._clock = clock
        complete_dkimpy()

    def judge(self, message: bytes, *, client_address: str, mail_from: str, helo: str) -> Judgement:
        """Judge a message as received: no dots stuffed. Blocks; call from a thread."""
        with _turns, self._their_world():
            return Judgement(self._dkim(message), self._spf(client_address, mail_from, helo))

    @contextlib.contextmanager
    def _their_world(self) -> Generator[None]:
        """Let both see our DNS, and dkimpy our time: it refuses signatures from what it takes for the future."""
        before = spf.DNSLookup, dkim.time
        spf.DNSLookup = self._look_up
        dkim.time = SimpleNamespace(time=self._clock.now)
        try:
            yield
        finally:
            spf.DNSLookup, dkim.time = before

    # -- DKIM -----------------------------------------------------------------------------------------------

    def _dkim(self, message: bytes) -> dict[str, Any]:
        try:
            judge = dkim.DKIM(message, timeout=_TIMEOUT_S)
            present = [value for name, value in judge.headers if name.lower() == b"dkim-signature"]
        except dkim.DKIMException as error:
            return _verdict("fail", "", "", str(error))
        verdicts = [self._signature(message, number, value) for number, value in enumerate(present[:_SIGNATURES])]
        if not verdicts:
            return _verdict("none", "", "", "the message has no DKIM-Signature")
        best = min(verdicts, key=lambda verdict: ("pass", "temperror", "fail").index(verdict["result"]))
        return {**best, "signatures": verdicts}

    def _signature(self, message: bytes, number: int, value: bytes) -> dict[str, Any]:
        failed: list[str] = []

        def key_of(name: bytes, timeout: float = _TIMEOUT_S) -> bytes | None:
            try:
                response = self._ask(name.decode("ascii").removesuffix("."), "TXT")
            except (_NoAnswer, UnicodeDecodeError) as error:
                failed.append(str(error))
                return None
            if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                failed.append(dns.rcode.to_text(response.rcode()))
            for rrset in response.answer:
                if rrset.rdtype == dns.rdatatype.TXT:
                    return b"".join(next(iter(rrset)).strings)
            return None

        tags: dict[bytes, bytes] = {}
        try:
            tags = dkim.util.parse_tag_value(value)
            good = dkim.DKIM(message, timeout=_TIMEOUT_S).verify(idx=number, dnsfunc=key_of)
            reason = "" if good else "the signature does not verify, or its key cannot be used"
        except (dkim.DKIMException, dkim.util.InvalidTagValueList, ValueError, TypeError, AssertionError) as error:
            good, reason = False, str(error) or type(error).__name__
        domain, selector = (tags.get(key, b"").decode("ascii", "replace") for key in (b"d", b"s"))
        if failed:
            return _verdict("temperror", domain, selector, f"the key could not be asked for: {failed[0]}")
        return _verdict("pass" if good else "fail", domain, selector, reason)

    # -- SPF ------------------------------------------------------------------------------------------------

    def _spf(self, client_address: str, mail_from: str, helo: str) -> dict[str, Any]:
        domain = mail_from.rpartition("@")[2] or helo
        try:
            query = spf.query(i=client_address, s=mail_from, h=helo, timeout=_TIMEOUT_S, querytime=20)
            result, _, explanation = query.check()
        except Exception as error:  # what strangers publish must not end the judge; pyspf asserts in places
            result, explanation = "temperror", f"{type(error).__name__}: {error}"
        return {
            "result": result,
            "domain": domain,
            "identity": "mailfrom" if mail_from else "helo",
            "explanation": explanation,
        }

    def _look_up(self, name: str, qtype: str, strict: bool = True, timeout: float = _TIMEOUT_S) -> list[Any]:
        """Answer as pyspf wants it: ((name, type), value) for each record, aliases included."""
        try:
            response = self._ask(name, qtype)
        except _NoAnswer as error:
            raise spf.TempError(f"DNS {error}") from None
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise spf.TempError(f"DNS {dns.rcode.to_text(response.rcode())} for {name}")
        found: list[Any] = []
        for rrset in response.answer:
            key = (host_name(rrset.name), dns.rdatatype.to_text(rrset.rdtype))
            found += [(key, _value(rdata)) for rdata in rrset]
        return found

    def _ask(self, name: str, rdtype: str) -> dns.message.Message:
        address, port = self._server
        try:
            query = dns.message.make_query(wire_name(name), rdtype, use_edns=0, payload=1232)
            response, _ = dns.query.udp_with_fallback(query, address, _TIMEOUT_S, port, ignore_unexpected=True)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise _NoAnswer(f"{rdtype} of {name}: {type(error).__name__}") from None
        return response


def _value(rdata: Any) -> Any:
    if rdata.rdtype == dns.rdatatype.TXT:
        return rdata.strings
    if rdata.rdtype == dns.rdatatype.MX:
        return (rdata.preference, host_name(rdata.exchange))
    if rdata.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.PTR):
        return host_name(rdata.target)
    return rdata.to_text()


def _verdict(result: str, domain: str, selector: str, reason: str) -> dict[str, Any]:
    return {"result": result, "domain": domain, "selector": selector, "reason": reason}
