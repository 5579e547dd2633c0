"""Ask DNS for the texts of a domain, by the resolver of this machine.

Standards: RFC 1035 (TXT), RFC 7208 section 3.1 (which text is SPF).
Promises: one question, with a deadline; a resolver that does not answer gives None, for nothing is known then.
Dangers: a resolver may lie about names within a company.
Not here: what follows (`doctor.hops.sender`).
"""

from __future__ import annotations

from dataclasses import dataclass

import dns.exception
import dns.resolver


@dataclass(frozen=True, slots=True)
class Texts:
    """What there is: `missing`, the name does not exist at all; `spf`, its texts that are SPF records."""

    missing: bool
    spf: tuple[str, ...] = ()


def texts_of(domain: str, seconds: float) -> Texts | None:
    """Return a domain's texts, None if nobody tells."""
    try:
        answer = dns.resolver.get_default_resolver().resolve(domain, "TXT", lifetime=seconds, search=False)
    except dns.resolver.NXDOMAIN:
        return Texts(missing=True)
    except dns.resolver.NoAnswer:
        return Texts(missing=False)
    except (dns.exception.DNSException, OSError, ValueError):
        return None
    texts = [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
    return Texts(False, tuple(text for text in texts if is_spf(text)))


def is_spf(text: str) -> bool:
    """Say whether a text is an SPF record."""
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")
