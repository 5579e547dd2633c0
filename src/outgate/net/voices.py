"""What the servers of one zone say, each and together: agreement, contradiction, and whose word is newer.

Standards: RFC 1034 section 4.2.1 (cuts), 1035 section 4.1.1 (AA), 1982 (serial numbers), 2308 (negative answers).
Promises: no I/O; only a server that speaks with authority for the name is believed, and that there is nothing only if
it shows the zone's SOA; void is void, whether it is called no data or no name; the order of records and servers makes
no difference.
Dangers: what a server adds beyond the name it was asked for is not its to tell, so it is not read.
Not here: asking (`net.authority`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset

from outgate.domains.ask import Answer, Heard, Question
from outgate.net.dns import LONGEST_TTL, STATUS, record_of, wire_name

_IN = dns.rdataclass.IN
_HALF = 2**31
_TELLING = ("servfail", "refused", "lame", "malformed", "limit", "timeout", "unreachable")
"""Failures, from what says most about the cause to what says least."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What one server said; `status` as in `Answer`, or "alias" with the name it leads to as the only record."""

    server: str
    status: str
    records: tuple[str | bytes, ...] = ()
    ttl: int = 0

    @property
    def knows(self) -> bool:
        """Say whether the server spoke for the name."""
        return self.status in ("ok", "nodata", "nxdomain", "alias")

    @property
    def said(self) -> tuple[str, frozenset[str | bytes]]:
        """Return what is compared: equal for servers that agree."""
        return "void" if self.status in ("nodata", "nxdomain") else self.status, frozenset(self.records)

    def heard(self, name: str, serial: int | None = None) -> Heard:
        """Return it as evidence."""
        return Heard(self.server, self.status, self.records, name, serial)


def read_voice(response: dns.message.Message, question: Question, zone: str, server: str) -> Voice:
    """Return what `response` says to `question`, put to a server of `zone`; an alias is not followed."""
    status = STATUS.get(response.rcode(), "servfail")
    if status not in ("nodata", "nxdomain"):
        return Voice(server, status)
    if not isinstance(response, dns.message.QueryMessage):
        return Voice(server, "malformed")
    if not response.flags & dns.flags.AA:
        return Voice(server, "lame")
    name = wire_name(question.name)
    found = response.get_rrset(response.answer, name, _IN, dns.rdatatype.from_text(question.rdtype))
    if found is not None:
        if status == "nxdomain":
            return Voice(server, "malformed")
        return Voice(server, "ok", tuple(record_of(rdata) for rdata in found), min(found.ttl, LONGEST_TTL))
    alias = response.get_rrset(response.answer, name, _IN, dns.rdatatype.CNAME)
    if alias is not None:
        targets = tuple(record_of(rdata) for rdata in alias)
        return Voice(server, "alias" if len(targets) == 1 else "malformed", targets, min(alias.ttl, LONGEST_TTL))
    ttl = _negative_ttl(response.authority, name, wire_name(zone))
    return Voice(server, "lame") if ttl is None else Voice(server, status, (), ttl)


def _negative_ttl(authority: Iterable[dns.rrset.RRset], name: dns.name.Name, zone: dns.name.Name) -> int | None:
    """Return how long to believe that there is nothing of `name`; None without an SOA of the zone, or of one within
    it that the name is in: who shows the SOA of a zone above, or none, does not serve this one."""
    for rrset in authority:
        if not (rrset.name.is_subdomain(zone) and name.is_subdomain(rrset.name)):
            continue
        for rdata in rrset:
            if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                return min(rrset.ttl, rdata.minimum, LONGEST_TTL)
    return None


def alike(voices: Iterable[Voice]) -> list[Voice]:
    """Return the voices with the same records where they say the same: kept once, however many servers repeat a long
    answer."""
    kept: dict[tuple[str, frozenset[str | bytes]], tuple[str | bytes, ...]] = {}
    return [replace(voice, records=kept.setdefault(voice.said, voice.records)) for voice in voices]


def together(voices: Sequence[Voice], name: str) -> Answer:
    """Return what servers say together about `name`: their common answer, "split" if they contradict each other, the
    most telling failure if none knows. The status may be "alias"; `name` stands in the evidence."""
    heard = tuple(voice.heard(name) for voice in voices)
    known = [voice for voice in voices if voice.knows]
    if not known:
        failed = sorted(voices, key=lambda voice: _TELLING.index(voice.status))
        return Answer(failed[0].status, server=failed[0].server, heard=heard) if failed else Answer("unreachable")
    if len({voice.said for voice in known}) > 1:
        return Answer("split", heard=heard)
    # A name that one server knows to exist does.
    first = min(known, key=lambda voice: voice.status == "nxdomain")
    return Answer(first.status, first.records, min(voice.ttl for voice in known), first.server, heard=heard)


def pooled(voices: Iterable[Voice]) -> Answer | None:
    """Return all addresses that servers name which contradict each other only in which; None if one names none.

    Content networks hand out other addresses with every answer, from one version of the zone: each is true."""
    known = [voice for voice in voices if voice.knows]
    if not known or any(voice.status != "ok" for voice in known):
        return None
    records = sorted({str(record) for voice in known for record in voice.records})
    return Answer("ok", tuple(records), min(voice.ttl for voice in known), known[0].server)


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a zone a server has: the primary that it comes from, and its serial number."""

    primary: str
    serial: int


def read_version(voice: Voice) -> Version | None:
    """Return the version in an answer to a question for SOA, or None if it holds none."""
    if voice.status != "ok" or len(voice.records) != 1:
        return None
    primary, _, serial, *_ = str(voice.records[0]).split(" ")
    return Version(primary.lower(), int(serial))


def newest(versions: Iterable[Version | None]) -> int | None:
    """Return the serial that is newer than all others; None if that cannot be said, or if nothing differs."""
    known = list(versions)
    if any(version is None for version in known) or len({version.primary for version in known if version}) != 1:
        return None
    serials = {version.serial for version in known if version}
    ahead = [one for one in serials if all(one == other or 0 < (one - other) % 2**32 < _HALF for other in serials)]
    return ahead[0] if ahead and len(serials) > 1 else None
