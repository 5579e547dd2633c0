"""DANE: TLSA records read, judged, and held against the certificates of a handshake.

Standards: RFC 6698 (records), RFC 7671 (sections 5: usages, 9: digest agility), RFC 7672 section 3 (SMTP).
Promises: DANE-EE(3) looks at the certificate alone: neither name nor validity; DANE-TA(2) demands a chain from the
record's certificate to one of the names, valid now; a record that says nothing to SMTP is unusable, never a match.
Dangers: records are evidence only if DNSSEC vouches for them: who asks must see to that.
Not here: asking (`net.dns`), what follows where all records are unusable (`relay.tls_rules`), handshakes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_TA, _EE = 2, 3
_CERTIFICATE, _KEY = 0, 1
_FULL, _SHA256, _SHA512 = 0, 1, 2
_LENGTHS = {_SHA256: 32, _SHA512: 64}
_TEXT = re.compile(r"(\d{1,3})[ \t]+(\d{1,3})[ \t]+(\d{1,3})[ \t]+([0-9A-Fa-f][0-9A-Fa-f \t]*)", re.ASCII)
_LONGEST_CHAIN = 20


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A TLSA record (RFC 6698): certificate usage, selector, matching type, and the association data."""

    usage: int
    selector: int
    matching: int
    data: bytes


def read(text: str) -> Tlsa | None:
    """Read a record in presentation form ("3 1 1 0123…"); None if it is none."""
    found = _TEXT.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    usage, selector, matching = (int(number) for number in found.groups()[:3])
    digits = re.sub(r"[ \t]", "", found[4])
    if max(usage, selector, matching) > 255 or not digits or len(digits) % 2:
        return None
    return Tlsa(usage, selector, matching, bytes.fromhex(digits))


def usable(records: Iterable[Tlsa | None], *, chain: bool) -> tuple[Tlsa, ...]:
    """Return the records that can decide, the strongest digest only (RFC 7671 section 9). `chain` says whether
    handshakes give the whole chain: without it DANE-TA(2) cannot be judged."""
    usages = (_TA, _EE) if chain else (_EE,)
    good = [record for record in records if record is not None and record.usage in usages and _is_sound(record)]
    best: dict[tuple[int, int], int] = {}
    for record in good:
        kind = (record.usage, record.selector)
        best[kind] = max(best.get(kind, _FULL), record.matching)
    kept = [each for each in good if each.matching in (_FULL, best[each.usage, each.selector])]
    return tuple(dict.fromkeys(kept))


def _is_sound(record: Tlsa) -> bool:
    """Say whether a record's parts are known and fit together."""
    if record.selector not in (_CERTIFICATE, _KEY):
        return False
    if record.matching != _FULL:
        return _LENGTHS.get(record.matching) == len(record.data)
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        if record.selector == _CERTIFICATE:
            x509.load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def mismatch(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: float) -> str:
    """Return "" if a usable record matches, else why none does. `chain` is what the server showed (DER), its own
    certificate first; `names` are those DANE-TA(2) may find in it; `now` is in epoch seconds."""
    if not chain:
        return "the server showed no certificate"
    if any(record.usage == _EE and _matches(record, chain[0]) for record in records):
        return ""
    anchors = [record for record in records if record.usage == _TA]
    reasons: list[str] = []
    for certificate in _anchors(anchors, chain[:_LONGEST_CHAIN]):
        reason = _distrust(certificate, chain[:_LONGEST_CHAIN], names, now)
        if not reason:
            return ""
        reasons.append(reason)
    if reasons:
        return f"its chain ends in a certificate of the TLSA records, but {reasons[-1]}"
    return f"its certificate matches none of {len(records)} TLSA records"


def _anchors(records: Sequence[Tlsa], chain: Sequence[bytes]) -> list[bytes]:
    """Return the certificates above the server's own that a record matches, or is."""
    found = [shown for shown in chain[1:] if any(_matches(record, shown) for record in records)]
    published = [record.data for record in records if (record.selector, record.matching) == (_CERTIFICATE, _FULL)]
    return list(dict.fromkeys([*found, *published]))


def _matches(record: Tlsa, certificate: bytes) -> bool:
    content = certificate if record.selector == _CERTIFICATE else _public_key(certificate)
    if content is None:
        return False
    if record.matching == _SHA256:
        content = hashlib.sha256(content).digest()
    elif record.matching == _SHA512:
        content = hashlib.sha512(content).digest()
    return content == record.data


def _public_key(certificate: bytes) -> bytes | None:
    """Return the SubjectPublicKeyInfo of a certificate, as it is written there."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _distrust(anchor: bytes, chain: Sequence[bytes], names: Sequence[str], now: float) -> str:
    """Return why `chain` does not lead from `anchor` to one of `names` at `now`; "" if it does."""
    from cryptography import x509
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

    # A private authority need not keep the rules of the Web's: what must be there is whose names these are, and
    # (the verifier looks at it) that who signed is an authority.
    anything, either = ExtensionPolicy.permit_all(), Criticality.AGNOSTIC
    signer = anything.require_present(x509.BasicConstraints, either, None)
    server = anything.require_present(x509.SubjectAlternativeName, either, None)
    builder = PolicyBuilder().time(datetime.fromtimestamp(now, UTC))
    builder = builder.extension_policies(ca_policy=signer, ee_policy=server)
    reason = "there is no name to look for"
    for name in dict.fromkeys(names):
        try:
            shown = [x509.load_der_x509_certificate(each) for each in chain]
            store = Store([x509.load_der_x509_certificate(anchor)])
            builder.store(store).build_server_verifier(x509.DNSName(name)).verify(shown[0], shown[1:])
        except (ValueError, VerificationError, x509.DuplicateExtension) as error:
            reason = f"it is not valid for {name}: {str(error).partition(' (encountered')[0]}"
        else:
            return ""
    return reason
