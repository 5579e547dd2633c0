"""Evaluate a domain's sender policy for one address: check_host, its seven results and its limits.

Standards: RFC 7208 whole; section 4.6.4 for the limits (ten terms that look up, two void look-ups, ten names
of an MX or a PTR); errata 5436 (an empty exp= is a permerror).
Promises: no I/O; at most about 230 questions for any record; a failed look-up is a temperror, never a verdict.
Dangers: an explanation is a stranger's text: show it as text, never follow it.
Not here: asking (`net.dns`), grammar and macros (`spf_record`), what a result means to us (`relay.onboarding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from outgate.base import addresses
from outgate.domains.ask import Answer, Evaluation, Question, is_askable
from outgate.domains.spf_record import (
    BadRecord,
    Directive,
    Record,
    check_explanation,
    expand,
    expand_name,
    is_spf,
    parse,
    uses,
)

_TERMS = 10
_VOID = 2
_NAMES = 10


@dataclass(frozen=True, slots=True)
class SpfResult:
    """`result` is pass, fail, softfail, neutral, none, temperror or permerror; `cause` says in words what decided:
    the directive that matched, or what is wrong; `explanation` is the domain's own text for a fail, or ""."""

    result: str
    cause: str
    explanation: str = ""


class _Error(Exception):
    """Ends the evaluation with temperror or permerror."""

    def __init__(self, result: str, cause: str) -> None:
        super().__init__(cause)
        self.result = result
        self.cause = cause


def check_host(
    address: str, domain: str, sender: str, helo: str, *, receiver: str = "unknown", now: int = 0
) -> Evaluation[SpfResult]:
    """Evaluate `domain`'s policy for mail from `address` by `sender` (a mailbox, or a domain, or "" for the null
    sender) that said `helo`. `receiver` and `now` (epoch seconds) serve explanations. Raises `ValueError` for an
    address that is none."""
    try:
        return (yield from _Host(address, domain, sender, helo, receiver, now).check(domain, top=True))
    except _Error as error:
        return SpfResult(error.result, error.cause)


class _Host:
    """What stays the same through includes and redirects, and the counts of the limits."""

    def __init__(self, address: str, domain: str, sender: str, helo: str, receiver: str, now: int) -> None:
        self._address = addresses.place(ip_address(address))
        local, at, sender_domain = sender.rpartition("@")
        self._local = local if at and local else "postmaster"
        self._sender_domain = sender_domain or domain
        self._helo = helo
        self._receiver = receiver
        self._now = now
        self._terms = 0
        self._void = 0

    # -- a record -------------------------------------------------------------------------------------------

    def check(self, domain: str, *, top: bool) -> Evaluation[SpfResult]:
        """Evaluate one domain's record; `top` says that its explanation counts."""
        domain = domain.removesuffix(".")
        if not is_askable(domain) or "." not in domain:
            return SpfResult("none", f"{domain!r} is not a full domain name")
        answer = yield Question(domain, "TXT")
        if answer.failed:
            raise _Error("temperror", f"TXT of {domain}: {answer.status}")
        texts = [text for text in answer.records if isinstance(text, bytes) and is_spf(text)]
        if not texts:
            return SpfResult("none", f"{domain} has no SPF record")
        if len(texts) > 1:
            raise _Error("permerror", f"{domain} has {len(texts)} SPF records")
        try:
            record = parse(texts[0])
        except BadRecord as error:
            raise _Error("permerror", f"SPF record of {domain}: {error}") from None
        for directive in record.directives:
            if (yield from self._matches(directive, domain)):
                explanation = ""
                if directive.result == "fail" and top and record.explanation:
                    try:
                        explanation = yield from self._explanation(record, domain)
                    except _Error:
                        explanation = ""
                return SpfResult(directive.result, f"{directive.text} of {domain}", explanation)
        if not record.redirect:
            return SpfResult("neutral", f"nothing in the SPF record of {domain} matches {self._address}")
        return (yield from self._redirected(record, domain, top=top))

    def _redirected(self, record: Record, domain: str, *, top: bool) -> Evaluation[SpfResult]:
        self._count_term()
        target = yield from self._name(record.redirect, domain)
        result = yield from self.check(target, top=top)
        if result.result == "none":
            raise _Error("permerror", f"redirect of {domain}: {result.cause}")
        return result

    # -- mechanisms -----------------------------------------------------------------------------------------

    def _matches(self, directive: Directive, domain: str) -> Evaluation[bool]:
        match directive.mechanism:
            case "all":
                return True
            case "ip4" | "ip6":
                network = directive.network
                return network is not None and network.version == self._address.version and self._address in network
            case "include":
                return (yield from self._include(directive, domain))
            case "ptr":
                self._count_term()
                target = yield from self._name(directive.target, domain)
                names = yield from self._validated_names()
                return any(name == target.lower() or name.endswith("." + target.lower()) for name in names)
            case "exists":
                self._count_term()
                target = yield from self._name(directive.target, domain)
                return bool((yield from self._look_up(target, "A")))
            case "a":
                self._count_term()
                target = yield from self._name(directive.target, domain)
                return (yield from self._has_address(target, directive))
            case _:
                self._count_term()
                target = yield from self._name(directive.target, domain)
                return (yield from self._mx(target, directive))

    def _include(self, directive: Directive, domain: str) -> Evaluation[bool]:
        self._count_term()
        target = yield from self._name(directive.target, domain)
        result = yield from self.check(target, top=False)
        if result.result == "none":
            raise _Error("permerror", f"{directive.text} of {domain}: {result.cause}")
        return result.result == "pass"

    def _mx(self, target: str, directive: Directive) -> Evaluation[bool]:
        hosts = yield from self._look_up(target, "MX")
        if len(hosts) > _NAMES:
            raise _Error("permerror", f"{target} has more than {_NAMES} MX hosts")
        for host in hosts:
            if (yield from self._has_address(str(host).partition(" ")[2], directive)):
                return True
        return False

    def _has_address(self, name: str, directive: Directive) -> Evaluation[bool]:
        prefix = directive.prefix4 if self._address.version == 4 else directive.prefix6
        for found in (yield from self._look_up(name, self._address_type)):
            if self._address in ip_network((str(found), prefix), strict=False):
                return True
        return False

    @property
    def _address_type(self) -> str:
        return "A" if self._address.version == 4 else "AAAA"

    def _validated_names(self) -> Evaluation[list[str]]:
        """Return the host names of the address that lead back to it (section 5.5); failures are skipped."""
        answer = yield Question(self._address.reverse_pointer, "PTR")
        self._count_void(answer)
        names: list[str] = []
        for record in answer.records[:_NAMES]:
            name = str(record).removesuffix(".").lower()
            if not is_askable(name):
                continue
            found = yield Question(name, self._address_type)
            self._count_void(found)
            if any(ip_address(str(address)) == self._address for address in found.records):
                names.append(name)
        return names

    # -- look-ups and limits --------------------------------------------------------------------------------

    def _look_up(self, name: str, rdtype: str) -> Evaluation[Sequence[str | bytes]]:
        if not is_askable(name):  # what macros made of it is no name: as if it did not exist
            return ()
        answer = yield Question(name, rdtype)
        if answer.failed:
            raise _Error("temperror", f"{rdtype} of {name}: {answer.status}")
        self._count_void(answer)
        return answer.records

    def _count_term(self) -> None:
        self._terms += 1
        if self._terms > _TERMS:
            raise _Error("permerror", f"the policy needs more than {_TERMS} look-ups")

    def _count_void(self, answer: Answer) -> None:
        if answer.void:
            self._void += 1
            if self._void > _VOID:
                raise _Error("permerror", f"more than {_VOID} look-ups of the policy found nothing")

    # -- macros ---------------------------------------------------------------------------------------------

    def _name(self, spec: str, domain: str) -> Evaluation[str]:
        return expand_name(spec, (yield from self._values(spec, domain)))

    def _values(self, text: str, domain: str) -> Evaluation[dict[str, str]]:
        address = self._address
        dotted = str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))
        validated = "unknown"
        if uses(text, "p"):
            validated = yield from self._validated_name(domain)
        return {
            "s": f"{self._local}@{self._sender_domain}",
            "l": self._local,
            "o": self._sender_domain,
            "d": domain,
            "i": dotted,
            "p": validated,
            "v": "in-addr" if address.version == 4 else "ip6",
            "h": self._helo,
            "c": str(address),
            "r": self._receiver,
            "t": str(self._now),
        }

    def _validated_name(self, domain: str) -> Evaluation[str]:
        """Return the %{p} macro: the domain itself, else a name below it, else any, else "unknown"."""
        names = yield from self._validated_names()
        wanted = domain.lower()
        below = [name for name in names if name.endswith("." + wanted)]
        return wanted if wanted in names else [*below, *names, "unknown"][0]

    def _explanation(self, record: Record, domain: str) -> Evaluation[str]:
        """Return the domain's text for a fail; whatever goes wrong with it counts for nothing (section 6.2)."""
        target = yield from self._name(record.explanation, domain)
        if not is_askable(target):
            return ""
        answer = yield Question(target, "TXT")
        if answer.status != "ok" or len(answer.records) != 1:
            return ""
        try:
            text = bytes(answer.records[0]).decode("ascii") if isinstance(answer.records[0], bytes) else ""
            check_explanation(text)
        except (UnicodeDecodeError, BadRecord):
            return ""
        return expand(text, (yield from self._values(text, domain)))
