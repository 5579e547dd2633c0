"""MTA-STS: what a domain publishes about TLS at its MX hosts, read and judged.

Standards: RFC 8461 sections 3.1 (record), 3.2 (policy), 4.1 (matching), 5 (modes); RFC 6125 (wildcards).
Promises: a policy is read as the RFC writes it, or `BadPolicy` says what is wrong; sizes are limited before anything is
split; a wildcard stands for exactly one left-most label.
Dangers: who reads a policy more kindly than others sees protection where there is none.
Not here: fetching (`net.http`), keeping (`relay.sts_policies`), what comes of it beside DANE (`relay.tls_rules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST = 65_536
"""Octets of a policy that are read (RFC 8461 section 3.3 suggests a limit)."""
LONGEST_AGE = 31_557_600
"""Seconds that a policy may be kept: about a year (section 3.2)."""
LEAST_AGE = 60
"""Seconds that a policy counts whatever it says: one with a max_age of 0 would else hold for no message, and be fetched
for each."""
MOST_HOSTS = 100
"""Patterns of one policy: the RFC has no limit, memory has."""

_ID = re.compile(rb"id=([A-Za-z0-9]{1,32})")
_EXTENSION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_AGE = re.compile(r"[0-9]{1,10}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_MODES = ("enforce", "testing", "none")


class BadPolicy(ValueError):
    """The policy cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a domain asks: `mode` "enforce", "testing" or "none"; `hosts` are names or `*.name` in lower case (none in
    mode "none" at most); `max_age` in seconds."""

    mode: str
    hosts: tuple[str, ...]
    max_age: int

    def names(self, host: str) -> bool:
        """Say whether one of the patterns is that of `host` (A-labels; case and a final dot do not matter)."""
        host = host.lower().removesuffix(".")
        _, _, parent = host.partition(".")
        return any(pattern == host or (pattern[:2] == "*." and pattern[2:] == parent) for pattern in self.hosts)


@dataclass(frozen=True, slots=True)
class Kept:
    """A policy that was fetched: under which `id` of the record, when, and when it was used last (epoch seconds)."""

    domain: str
    id: str
    policy: Policy
    fetched_at: float
    used_at: float

    @property
    def expires_at(self) -> float:
        """Return until when it counts, whatever DNS says meanwhile."""
        return self.fetched_at + max(self.policy.max_age, LEAST_AGE)


def policy_id(records: Iterable[bytes]) -> str | None:
    """Return the id of the one MTA-STS record among the TXT records at `_mta-sts.DOMAIN`, None if there is no valid one
    (section 3.1): two of them are none."""
    found = [record for record in records if record.startswith(b"v=STSv1;")]
    if len(found) != 1:
        return None
    fields = [field.strip(b" \t") for field in found[0].split(b";")[1:]]
    if fields and not fields[-1]:
        fields.pop()
    ids = [match[1] for field in fields if (match := _ID.fullmatch(field))]
    if not ids or not all(_ID.fullmatch(field) or _is_extension(field) for field in fields):
        return None
    return ids[0].decode("ascii")


def _is_extension(field: bytes) -> bool:
    return not field.startswith(b"id=") and _EXTENSION.fullmatch(field) is not None


def read_policy(text: bytes) -> Policy:
    """Read a policy file. Of a field that is there twice the first counts, except `mx`; unknown fields are skipped.
    Raises `BadPolicy`."""
    if len(text) > LONGEST:
        raise BadPolicy(f"longer than {LONGEST} octets")
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise BadPolicy("not UTF-8") from None
    fields: dict[str, str] = {}
    hosts: list[str] = []
    for line in lines:
        line = line.removesuffix("\r")
        if not line.strip(" \t"):
            continue
        # No expression for the whole line: one that trims its value takes squared time over spaces.
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise BadPolicy(f"not a field: {_shown(line)}")
        value = value.strip(" \t")
        if name == "mx":
            hosts.append(_pattern(value))
        else:
            fields.setdefault(name, value)
    return _policy(fields, hosts)


def _policy(fields: dict[str, str], hosts: Sequence[str]) -> Policy:
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if fields.get("version") != "STSv1":
        raise BadPolicy("the version is not STSv1")
    if mode not in _MODES:
        raise BadPolicy(f"the mode is none of {', '.join(_MODES)}: {_shown(mode)}")
    if not _AGE.fullmatch(age):
        raise BadPolicy(f"max_age is not a number of seconds: {_shown(age)}")
    if not hosts and mode != "none":
        raise BadPolicy("it names no mx")
    if len(hosts) > MOST_HOSTS:
        raise BadPolicy(f"more than {MOST_HOSTS} mx")
    return Policy(mode, tuple(dict.fromkeys(hosts)), min(int(age), LONGEST_AGE))


def _pattern(text: str) -> str:
    pattern = text.lower() if text.isascii() else ""
    if len(pattern) > 253 or not _PATTERN.fullmatch(pattern):
        raise BadPolicy(f"mx is neither a name nor *.name: {_shown(text)}")
    return pattern


def _shown(text: str) -> str:
    return ascii(text[:60])


def ruling(policy: Policy | None, host: str) -> str:
    """Return what a policy wants of one MX host: "" (nothing), "verify" (its certificate for its name), "skip" (it is
    no host of this domain), or, in mode testing, "note verify" and "note skip": the same, but mail goes all the
    same."""
    if policy is None or policy.mode == "none":
        return ""
    wanted = "verify" if policy.names(host) else "skip"
    return wanted if policy.mode == "enforce" else f"note {wanted}"
