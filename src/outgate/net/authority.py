"""Ask the servers that speak for a name, all of them, instead of a cache: what does the domain publish now?

Standards: RFC 1034 sections 4.2 and 5.3.3, 1035, 1982, 2308; RFC 5452 as `net.dns`.
Promises: a failure is a status, never an exception; a server that fails, or does not speak for the name, decides
nothing; where servers contradict each other the newest version of the zone decides, or nobody (addresses that
merely differ are all true), and never against the zone's primary; every packet waits for its turn; the packets for
one answer are bounded, and so are those for all answers that share an allowance; that there is no such zone is
believed only of a resolver that knows the root's servers.
Dangers: the owner of a zone chooses which addresses we ask: `permitted` is the fence. A lone secondary that is
out of date while all others are silent cannot be told from a sound one; nor can one whose serial is ahead for no
reason while the primary is silent, or is hidden (its name in the SOA leads to none of the servers). A resolver that
knows the root but denies a top-level domain is believed.
Not here: finding the servers (`net.delegation`), weighing what they say (`net.voices`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from outgate.base.clock import Clock
from outgate.domains.ask import Answer, Heard, Question, is_askable
from outgate.net.allowance import Allowance
from outgate.net.delegation import Delegation, Delegations
from outgate.net.dns import LONGEST_TTL, Line, Resolver
from outgate.net.memory import Asking
from outgate.net.pace import Pace
from outgate.net.voices import Version, Voice, alike, newest, pooled, read_version, read_voice, together

_REUSED_S = 60
_ALIASES = 8
_PACKETS = 150
_SPOKEN = frozenset({"ok", "nodata", "nxdomain", "alias", "split"})


def always(name: str, address: str) -> bool:
    """Permit every server."""
    return True


class Authority:
    """An asker whose answers come from the authoritative servers themselves. Belongs to one event loop."""

    def __init__(
        self,
        resolver: Resolver,
        clock: Clock,
        *,
        pace: Pace,
        port: int = 53,
        timeout: float = 2.0,
        tries: int = 2,
        permitted: Callable[[str, str], bool] = always,
        cache_size: int = 10_000,
    ) -> None:
        """`resolver` finds the servers; it is this object's own and has the same `pace`. They are asked at `port`,
        and again after `timeout` seconds up to `tries` times in all. `permitted` judges (host name, address)."""
        if resolver.pace is not pace:
            raise ValueError("the resolver of an authority has the same pace")
        self._resolver = resolver
        self._delegations = Delegations(resolver, clock, permitted)
        self._pace = pace
        self._port = port
        self._timeout = timeout
        self._tries = tries
        # Long enough that a round over many domains does not ask for the same include: each time.
        self._asking = Asking(self._follow, clock, longest=_REUSED_S, size=cache_size)

    async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
        """Answer from the servers, or from what they said within the last minute; `fresh` asks them whatever memory
        says, and who they are if that was found out before `allowance` (which several questions may share) was made.

        The answer is "limit" if it takes more packets than that, or than one answer may."""
        return await self._asking.ask(question, fresh=fresh, allowance=allowance)

    # -- aliases --------------------------------------------------------------------------------------------

    async def _follow(self, question: Question, fresh: bool, whole: Allowance | None) -> Answer:
        """Ask for one name after the other until none is an alias. Each zone's own servers are asked: what the
        server of an alias says about the alias's target counts for nothing."""
        allowance = Allowance(_PACKETS, whole)
        heard: tuple[Heard, ...] = ()
        seen = [question.name]
        ttl = LONGEST_TTL
        while True:
            answer = await self._zone(Question(seen[-1], question.rdtype), seen[0], allowance, fresh=fresh)
            heard += answer.heard
            ttl = min(ttl, answer.ttl)
            alias = answer.alias or (seen[-1] if len(seen) > 1 else "")
            if allowance.exhausted:  # whoever was not asked might have said something else
                return Answer("limit", alias=alias, heard=heard)
            if answer.status != "alias":
                return replace(answer, ttl=ttl, alias=alias, heard=heard)
            target = str(answer.records[0])
            if target in seen or len(seen) > _ALIASES:
                return Answer("limit", alias=target, heard=heard)
            if not is_askable(target) or "\\" in target:  # an escape would mean another name once it is sent
                return Answer("badname", alias=target, heard=heard)
            seen.append(target)

    async def _zone(
        self, question: Question, asked: str, allowance: Allowance, *, fresh: bool, again: bool = False
    ) -> Answer:
        """Return what the zone of a name says about it, perhaps "alias"; `asked` is the name it is asked for. `again`
        says that this is the second look."""
        found = await self._delegations.find(question.name, allowance, fresh=fresh)
        if isinstance(found, Answer):
            return found if found.failed else await self._unserved(question, allowance)
        answer = await self._agree(found, question, "" if question.name == asked else question.name, allowance)
        if answer.status in _SPOKEN or allowance.exhausted:
            return answer
        self._delegations.forget(question.name, found)
        if again or not found.remembered:
            return answer
        return await self._zone(question, asked, allowance, fresh=True, again=True)  # what is remembered may be old

    async def _unserved(self, question: Question, allowance: Allowance) -> Answer:
        """Return what the resolver says about a name without name servers up to the top: nobody is closer to the truth.

        One that sees nothing of the DNS (a captive portal, a forwarder half set up) would say the very same of every
        name, so it is believed only if it knows the servers of the root."""
        root = await self._delegations.root(allowance)
        if root.status != "ok":
            return Answer(root.status if root.failed else "lame", server=root.server)
        answer = await self._resolver.find(question, allowance)
        same = answer.failed or answer.server == root.server
        return answer if same else Answer("lame", server=answer.server)

    # -- servers --------------------------------------------------------------------------------------------

    async def _agree(self, zone: Delegation, question: Question, name: str, allowance: Allowance) -> Answer:
        """Return what the servers of a zone say together, perhaps "alias"; `name` stands in the evidence."""
        voices = await self._hear(zone.addresses, question, zone.zone, allowance)
        answer = together(voices, name)
        if answer.status != "split":
            return answer
        asked = dict(zip(zone.addresses, voices, strict=True))
        known = {address: voice for address, voice in asked.items() if voice.knows}
        versions = await self._versions(tuple(known), zone.zone, allowance)
        decided = await self._decide(zone.zone, known, versions, question, allowance)
        heard = tuple(voice.heard(name, _serial(versions.get(address))) for address, voice in asked.items())
        return replace(decided or answer, heard=heard)

    async def _decide(
        self,
        zone: str,
        known: Mapping[str, Voice],
        versions: Mapping[str, Version | None],
        question: Question,
        allowance: Allowance,
    ) -> Answer | None:
        """Return what servers that contradict each other come to by their versions of the zone, or None."""
        latest = newest(versions.values())
        chosen = [address for address in known if latest is not None and _serial(versions[address]) == latest]
        if chosen:
            if await self._disputed(known, versions, chosen, allowance):
                return None
            # Between the first answer and the version the zone may have changed: they must say it again.
            again = await self._hear(chosen, question, zone, allowance)
            said = {voice.said for voice in again}
            if len(said) == 1 and said == {known[address].said for address in chosen}:
                return together(again, "")
        if question.rdtype not in ("A", "AAAA"):
            return None
        return pooled(known[address] for address in (chosen or known))

    async def _disputed(
        self,
        known: Mapping[str, Voice],
        versions: Mapping[str, Version | None],
        chosen: Sequence[str],
        allowance: Allowance,
    ) -> bool:
        """Say whether the zone's primary is behind the servers that seem to have the newest version, and says something
        else: then a number is wrong, not the primary."""
        version = versions[chosen[0]]
        if version is None:
            return False
        primary = await self._delegations.addresses(version.primary.removesuffix("."), allowance)
        said = {known[address].said for address in chosen}
        return any(address in primary and known[address].said not in said for address in known.keys() - set(chosen))

    async def _versions(self, addresses: Sequence[str], zone: str, allowance: Allowance) -> dict[str, Version | None]:
        voices = await self._hear(addresses, Question(zone, "SOA"), zone, allowance)
        return dict(zip(addresses, map(read_version, voices), strict=True))

    async def _hear(self, addresses: Sequence[str], question: Question, zone: str, allowance: Allowance) -> list[Voice]:
        return alike(
            await asyncio.gather(*(self._ask_server(address, question, zone, allowance) for address in addresses))
        )

    async def _ask_server(self, address: str, question: Question, zone: str, allowance: Allowance) -> Voice:
        line = Line(address, self._port, self._timeout, self._pace, allowance)
        failure = "timeout"
        for number in range(self._tries):
            # Some firewalls drop what they do not know: the last of several tries goes without EDNS.
            response = await line.converse(question, recursive=False, edns=number == 0 or number < self._tries - 1)
            if not isinstance(response, str):
                return read_voice(response, question, zone, line.server)
            failure = response
            if failure != "timeout":
                break
        return Voice(line.server, failure)


def _serial(version: Version | None) -> int | None:
    return version.serial if version is not None else None
