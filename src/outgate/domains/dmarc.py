"""Which DMARC policy receivers find for a domain, and what to publish: advice, never a condition.

Standards: RFC 9989 (which replaces 7489 and 9091): sections 4.7 (tags), 4.8 (grammar), 4.10 (tree walk, policy
discovery, organizational domain).
Promises: no I/O; at most eight questions for any domain; a failed look-up is "temperror".
Dangers: the record is a stranger's text: show it as text.
Not here: whether a message passes (receivers decide), SPF (`spf`), the DKIM key (`dkim_key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from outgate.domains.ask import Evaluation, Question, is_askable

_PARENTS = 7
"""A long name's walk goes on at its last seven labels: eight questions in all."""
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_NEARLY = re.compile(rb"[\s\"']*v\s*=\s*\"?dmarc", re.IGNORECASE)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s,!;]+")
_POLICIES = ("none", "quarantine", "reject")
_VALUES = {
    "p": _POLICIES, "sp": _POLICIES, "np": _POLICIES, "adkim": ("r", "s"), "aspf": ("r", "s"), "t": ("y", "n"),
    "psd": ("y", "n", "u"), "fo": ("0", "1", "d", "s", "d:s", "s:d"),
}  # fmt: skip
_GONE = ("pct", "rf", "ri")
_FAULTS = 5
_QUOTED = 60


@dataclass(frozen=True, slots=True)
class DmarcAdvice:
    """`result` is the policy that applies, "none", "quarantine" or "reject"; or "missing", "several", "malformed" or
    "temperror". `explanation` says in words what was found and what to publish; `record` is the text that was found,
    "" if none; `domain` is where: the domain itself, or the one that it inherits from."""

    result: str
    explanation: str
    record: str
    domain: str


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record's known tags in lower case, reporting addresses as they stand; `faults` says in words what receivers
    ignore in it, `valid` is whether they read it at all."""

    tags: Mapping[str, str]
    faults: tuple[str, ...]
    valid: bool

    @property
    def policy(self) -> str:
        """Return the policy for the domain itself, "" for none that can be used (section 4.10.1)."""
        return self._usable(self.tags.get("p", "none"))

    @property
    def inherited_policy(self) -> str:
        """Return the policy for an existing name below the domain, "" for none that can be used."""
        return self._usable(self.tags.get("sp") or self.tags.get("p", "none"))

    @property
    def reports(self) -> bool:
        """Say whether it names an address for aggregate reports."""
        return any(_URI.fullmatch(uri.strip(" \t")) for uri in self.tags.get("rua", "").split(","))

    def _usable(self, policy: str) -> str:
        if not self.valid:
            return ""
        if all(self.tags.get(tag, "none") in _POLICIES for tag in ("p", "sp", "np")):
            return policy
        return "none" if self.reports else ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What one name of the walk has: a record, or a result that says what is wrong with what is there."""

    domain: str
    text: str
    record: DmarcRecord | None
    result: str = ""
    fault: str = ""


class _Unknown(Exception):
    """A look-up failed; the text says which."""


def is_dmarc(text: bytes) -> bool:
    """Say whether receivers take a TXT record for a DMARC record."""
    return _VERSION.match(text) is not None


def parse_dmarc(text: bytes) -> DmarcRecord:
    """Read a record for which `is_dmarc` holds; what cannot be read is ignored, as receivers do."""
    tags: dict[str, str] = {}
    faults: list[str] = []
    seen = {"v"}
    valid = True
    for part in text.decode("ascii", "backslashreplace").split(";")[1:]:
        name, equals, value = (side.strip(" \t") for side in part.partition("="))
        name = name.lower()
        if not equals and not name:
            continue
        if not equals or not re.fullmatch("[a-z]+", name) or not value:
            faults.append(f"{_short(part)} is not tag=value")
        elif name in seen:  # RFC 6376 section 3.2, whose tag lists these are
            valid = False
            faults.append(f"{name}= appears twice, which makes the record void")
        elif name in _GONE:
            seen.add(name)
            faults.append(f"{name}= is no longer a tag (RFC 9989)")
        elif name in ("rua", "ruf") or name in _VALUES:
            seen.add(name)
            fault, ignored = _judge(name, value)
            faults.extend(fault)
            if not ignored:
                tags[name] = value if name in ("rua", "ruf") else value.lower()
    return DmarcRecord(tags, tuple(faults[:_FAULTS]), valid)


def _judge(name: str, value: str) -> tuple[list[str], bool]:
    """Return what is wrong with a known tag's value, and whether receivers take the default instead."""
    if name in ("rua", "ruf"):
        bad = [uri for uri in value.split(",") if not _URI.fullmatch(uri.strip(" \t"))]
        return [f"{name}= holds {_short(uri)}, which is no address for reports (mailto:…)" for uri in bad], False
    if value.lower() in _VALUES[name]:
        return [], False
    # A policy that cannot be read is more than an absent one: it may void the record.
    return [f"{name}={_short(value)} is none of {', '.join(_VALUES[name])}"], name not in ("p", "sp", "np")


def _short(text: str) -> str:
    return repr(text.strip()[:_QUOTED])


def advise_dmarc(domain: str) -> Evaluation[DmarcAdvice]:
    """Find the policy that receivers apply to mail from `domain` and say what to publish."""
    domain = domain.removesuffix(".").lower()
    if not is_askable(f"_dmarc.{domain}"):
        return DmarcAdvice("malformed", f"_dmarc.{domain} cannot be a DNS name", "", domain)
    try:
        own = yield from _look_up(domain)
        if own.record is not None or own.result:
            return _advice(domain, own)
        above = yield from _above(domain)
    except _Unknown as error:
        return DmarcAdvice("temperror", str(error), "", domain)
    if above is not None:
        return _advice(domain, above)
    explanation = (
        f"{domain} has no DMARC record: publish a TXT record at _dmarc.{domain}, to begin with "
        '"v=DMARC1; p=none"; add "; rua=mailto:…" with a mailbox of yours to receive reports, and raise p= to '
        "quarantine and reject once they show that all your mail passes; large receivers ask for one"
    )
    return DmarcAdvice("missing", explanation, "", domain)


def _above(domain: str) -> Evaluation[_Found | None]:
    """Walk up the tree (section 4.10) and return what counts: the organizational domain's record, else the public
    suffix domain's, else something broken that receivers pass over."""
    labels = domain.split(".")
    walked: list[_Found] = []
    broken: _Found | None = None
    for at in range(max(1, len(labels) - _PARENTS), len(labels)):
        found = yield from _look_up(".".join(labels[at:]))
        if found.record is None:
            broken = broken or (found if found.result else None)
            continue
        walked.append(found)
        if found.record.tags.get("psd") in ("y", "n"):
            break
    if not walked:
        return broken
    last = walked[-1]
    assert last.record is not None
    if last.record.tags.get("psd") == "y":
        # The organizational domain is one label below the public suffix; the suffix's record is for those without.
        below = ".".join(labels[-last.domain.count(".") - 2 :])
        return next((found for found in walked if found.domain == below), last)
    return last


def _look_up(domain: str) -> Evaluation[_Found]:
    name = f"_dmarc.{domain}"
    answer = yield Question(name, "TXT")
    if answer.failed:
        raise _Unknown(f"TXT of {name} could not be asked: {answer.status}")
    texts = [text for text in answer.records if isinstance(text, bytes)]
    records = [text for text in texts if is_dmarc(text)]
    if len(records) > 1:
        fault = f"{name} has {len(records)} DMARC records, so receivers ignore them all: leave one"
        return _Found(domain, _text(b" | ".join(records)), None, "several", fault)
    if records:
        return _Found(domain, _text(records[0]), parse_dmarc(records[0]))
    nearly = [text for text in texts if _NEARLY.match(text)]
    if nearly:
        fault = f'the TXT record at {name} does not begin with "v=DMARC1;" to the letter, so receivers ignore it'
        return _Found(domain, _text(nearly[0]), None, "malformed", fault)
    return _Found(domain, "", None)


def _text(record: bytes) -> str:
    return record.decode("ascii", "backslashreplace")


def _advice(domain: str, found: _Found) -> DmarcAdvice:
    record = found.record
    if record is None:
        return DmarcAdvice(found.result, found.fault, found.text, found.domain)
    inherited = found.domain != domain
    policy = record.inherited_policy if inherited else record.policy
    if not policy:
        explanation = (
            f"receivers ignore the DMARC record at _dmarc.{found.domain}: {'; '.join(record.faults)}; "
            "publish one p= tag: none, quarantine or reject"
        )
        return DmarcAdvice("malformed", explanation, found.text, found.domain)
    words = [_words_of_policy(domain, found.domain, policy)]
    if record.tags.get("t") == "y":
        words.append("t=y asks receivers not to apply it yet")
    if policy == "none" and "p" not in record.tags:
        words.append("it has no p=, which older receivers ignore: add p=none at least")
    elif policy == "none":
        words.append("raise it to quarantine or reject once the reports show that all your mail passes")
    if not record.reports:
        words.append("add rua=mailto:… to receive reports")
    words.extend(record.faults)
    words.append(_words_of_alignment(domain, record))
    return DmarcAdvice(policy, "; ".join(words), found.text, found.domain)


def _words_of_policy(domain: str, source: str, policy: str) -> str:
    wish = {
        "none": "asks for nothing but reports",
        "quarantine": "asks receivers to suspect mail that fails",
        "reject": "asks receivers to refuse mail that fails",
    }[policy]
    where = f"{domain} inherits the DMARC policy of {source}, which" if source != domain else f"the policy of {domain}"
    return f"{where} {wish} ({policy})"


def _words_of_alignment(domain: str, record: DmarcRecord) -> str:
    """Say what the alignment modes mean for mail through us: we sign with d= the very domain of From."""
    if record.tags.get("aspf") == "s":
        spf = f"SPF counts only if the reverse-path is in {domain} itself (aspf=s)"
    else:
        spf = f"SPF counts if the reverse-path is in {domain} or in its organization's other domains"
    return f"our DKIM signature is aligned, since its d= is {domain} itself; {spf}"
