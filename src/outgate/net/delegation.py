"""Which servers speak for a name: found by asking a resolver for the name servers of its zone.

Standards: RFC 1034 section 4.2 (zones and cuts), 2181 section 6.
Promises: what is found is remembered for its TTL, an hour at most, and forgotten on request; every packet is counted
against an allowance, and what could not be asked because of that is not taken for missing; the number of servers is
capped.
Dangers: a zone's owner chooses its servers' names and addresses: `permitted` decides which may be asked.
Not here: asking those servers (`net.authority`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from outgate.base.clock import Clock
from outgate.domains.ask import Answer, Question, is_askable
from outgate.net.allowance import Allowance
from outgate.net.dns import Resolver
from outgate.net.memory import Memory

_LONGEST_TTL = 3600
_LABELS = 20
_HOSTS = 8
_ADDRESSES = 8
_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Delegation:
    """The addresses of the servers that speak for `zone` and the names of their hosts; `remembered` says that they
    were found earlier, but none of it before `since` (as `Allowance.begun`; 0: that is not known)."""

    zone: str
    addresses: tuple[str, ...]
    hosts: tuple[str, ...]
    since: int
    remembered: bool = False


class Delegations:
    """Find the servers of names. Belongs to one event loop."""

    def __init__(self, resolver: Resolver, clock: Clock, permitted: Callable[[str, str], bool]) -> None:
        """`permitted` judges (host name, address) of a name server before it is asked."""
        self._resolver = resolver
        self._permitted = permitted
        # The resolver's memory is passed by, for it may keep an answer for a day.
        self._zones: Memory[str, Delegation] = Memory(clock, _SIZE)
        self._hosts: Memory[Question, tuple[Answer, int]] = Memory(clock, _SIZE)

    async def find(self, name: str, allowance: Allowance, *, fresh: bool) -> Delegation | Answer:
        """Return the servers of the zone that `name` is in, or the answer that says why there are none.

        That is a failing one, or "nxdomain" if nothing up to the top-level domain has name servers. `fresh` uses
        nothing that was found out before `allowance` was made."""
        labels = name.split(".")
        failure: Answer | None = None
        walked: list[str] = []
        # Of a very long name the first labels are skipped: were there a zone among them, its parent's servers
        # would not speak for the name, which is noticed.
        for at in range(max(0, len(labels) - _LABELS), len(labels)):
            zone = ".".join(labels[at:])
            walked.append(zone)
            known = self._zones.get(zone)
            if known is not None and _recent(known[0].since, allowance, fresh):
                return self._remember(walked, replace(known[0], remembered=True), known[1])
            answer = await self._resolver.find(Question(zone, "NS"), allowance)
            if answer.status == "servfail":
                # Some servers cannot be asked for the NS of a name within their zone: the next label may tell.
                failure = failure or answer
            elif answer.failed:
                return answer
            elif answer.status == "ok" and not answer.alias:
                if failure is not None and at == len(labels) - 1:  # a top-level domain's servers only refer on
                    return failure
                return await self._delegation(zone, answer, walked, allowance, fresh=fresh)
        return failure or Answer("nxdomain")

    async def root(self, allowance: Allowance) -> Answer:
        """Return the name servers of the root as the resolver has them since `allowance` was made: a resolver that
        has none sees nothing of the DNS, or keeps it to itself."""
        return await self._host(Question("", "NS"), allowance, fresh=True)

    async def addresses(self, host: str, allowance: Allowance) -> frozenset[str]:
        """Return the addresses of a server, as far as they can be found out."""
        if not is_askable(host):
            return frozenset()
        questions = (Question(host, "A"), Question(host, "AAAA"))
        found = await asyncio.gather(*(self._host(question, allowance, fresh=False) for question in questions))
        return frozenset(str(record) for answer in found for record in answer.records)

    def forget(self, name: str, delegation: Delegation) -> None:
        """Forget that `delegation` is where `name` is looked up, and where its hosts are."""
        labels = name.split(".")
        for at in range(len(labels) - delegation.zone.count(".")):
            self._zones.drop(".".join(labels[at:]))
        for host in delegation.hosts:
            self._hosts.drop(Question(host, "A"))
            self._hosts.drop(Question(host, "AAAA"))

    def _remember(self, names: Sequence[str], delegation: Delegation, seconds: int) -> Delegation:
        for name in names:
            self._zones.keep(name, delegation, min(seconds, _LONGEST_TTL))
        return delegation

    async def _delegation(
        self, zone: str, answer: Answer, walked: Sequence[str], allowance: Allowance, *, fresh: bool
    ) -> Delegation | Answer:
        hosts = sorted({str(record) for record in answer.records if is_askable(str(record))})
        if len(hosts) > _HOSTS:
            hosts = sorted(random.sample(hosts, _HOSTS))
        questions = [Question(host, rdtype) for host in hosts for rdtype in ("A", "AAAA")]
        found = await asyncio.gather(*(self._host(question, allowance, fresh=fresh) for question in questions))
        if any(each.status == "limit" for each in found):  # some of its servers would be passed over
            return Answer("limit")
        ttl = answer.ttl
        lists: dict[str, list[str]] = {host: [] for host in hosts}
        for question, addresses in zip(questions, found, strict=True):
            for address in map(str, addresses.records):
                if self._permitted(question.name, address):
                    lists[question.name].append(address)
                    ttl = min(ttl, addresses.ttl)
        # One address of each host before the second of any.
        taken = chain.from_iterable(zip_longest(*lists.values()))
        addresses = tuple(dict.fromkeys(address for address in taken if address is not None))[:_ADDRESSES]
        if not addresses:
            failed = [answer.status for answer in found if answer.failed]
            return Answer(failed[0] if failed else "unreachable")
        since = allowance.begun if fresh else 0
        return self._remember(walked, Delegation(zone, addresses, tuple(hosts), since), ttl)

    async def _host(self, question: Question, allowance: Allowance, *, fresh: bool) -> Answer:
        known = self._hosts.get(question)
        if known is not None and _recent(known[0][1], allowance, fresh):
            return replace(known[0][0], ttl=known[1])
        answer = await self._resolver.find(question, allowance)
        if not answer.failed:
            self._hosts.keep(question, (answer, allowance.begun if fresh else 0), min(answer.ttl, _LONGEST_TTL))
        return answer


def _recent(since: int, allowance: Allowance, fresh: bool) -> bool:
    """Say whether what was found out at `since` may be used: the questions of one check need not all look anew."""
    return not fresh or since >= allowance.begun
