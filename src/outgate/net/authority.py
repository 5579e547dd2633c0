"""Ask the servers that speak for a name, all of them, instead of a cache: what does the domain publish now?

Standards: RFC 1034 sections 4.2 and 5.3.3, 1035, 1982, 2308; RFC 5452 as `net.dns`.
Promises: a failure is a status, never an exception; a server that fails, or does not speak for the name, decides
nothing; where servers contradict each other the newest version of the zone decides, or nobody (addresses that
merely differ are all true); every packet waits for its turn; the questions for one answer are bounded.
Dangers: the owner of a zone chooses which addresses we ask: `permitted` is the fence. A lone secondary that is
out of date while all others are silent cannot be told from a sound one.
Not here: finding the servers (`net.delegation`), weighing what they say (`net.voices`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import dns.flags

from outgate.base.clock import Clock
from outgate.domains.ask import Answer, Heard, Question, is_askable
from outgate.net.delegation import Allowance, Delegation, Delegations
from outgate.net.dns import LONGEST_TTL, Resolver, converse, query
from outgate.net.memory import Asking
from outgate.net.pace import Pace
from outgate.net.voices import Version, Voice, alike, newest, pooled, read_version, read_voice, together

_REUSED_S = 60
_ALIASES = 8
_QUESTIONS = 150
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

    async def ask(self, question: Question, *, fresh: bool = False) -> Answer:
        """Answer from the servers, or from what they said within the last minute; `fresh` asks them, and who they
        are, whatever memory says."""
        return await self._asking.ask(question, fresh=fresh)

    # -- aliases --------------------------------------------------------------------------------------------

    async def _follow(self, question: Question, fresh: bool) -> Answer:
        """Ask for one name after the other until none is an alias. Each zone's own servers are asked: what the
        server of an alias says about the alias's target counts for nothing."""
        allowance = Allowance(_QUESTIONS)
        heard: tuple[Heard, ...] = ()
        seen = [question.name]
        ttl = LONGEST_TTL
        while True:
            answer = await self._zone(Question(seen[-1], question.rdtype), seen[0], allowance, fresh=fresh)
            heard += answer.heard
            ttl = min(ttl, answer.ttl)
            if answer.status != "alias":
                alias = answer.alias or (seen[-1] if len(seen) > 1 else "")
                return replace(answer, ttl=ttl, alias=alias, heard=heard)
            target = str(answer.records[0])
            if target in seen or len(seen) > _ALIASES:
                return Answer("limit", alias=target, heard=heard)
            if not is_askable(target) or "\\" in target:  # an escape would mean another name once it is sent
                return Answer("badname", alias=target, heard=heard)
            seen.append(target)

    async def _zone(self, question: Question, asked: str, allowance: Allowance, *, fresh: bool) -> Answer:
        """Return what the zone of a name says about it, perhaps "alias"; `asked` is the name it is asked for."""
        name = "" if question.name == asked else question.name
        while True:
            found = await self._delegations.find(question.name, allowance, fresh=fresh)
            if isinstance(found, Answer):
                if found.failed:
                    return found
                # No name servers up to the top: there is nobody closer to the truth than the resolver, which says
                # so itself with the same words it would use for any name that does not exist.
                return await self._resolver.ask(question, fresh=True)
            answer = await self._agree(found, question, name, allowance)
            if answer.status in _SPOKEN:
                return answer
            self._delegations.forget(question.name, found)
            if not found.remembered:
                return answer
            fresh = True  # what was remembered may be out of date: look once more

    # -- servers --------------------------------------------------------------------------------------------

    async def _agree(self, zone: Delegation, question: Question, name: str, allowance: Allowance) -> Answer:
        """Return what the servers of a zone say together, perhaps "alias"; `name` stands in the evidence."""
        voices = await self._hear(zone.addresses, question, zone.zone, allowance)
        answer = together(voices, name)
        if answer.status != "split":
            return answer
        versions, decided = await self._newest(zone, voices, question, allowance)
        asked = [(voice, _serial(versions.get(address))) for address, voice in zip(zone.addresses, voices, strict=True)]
        if decided is None and question.rdtype in ("A", "AAAA"):
            latest = newest(versions.values())
            decided = pooled(voice for voice, serial in asked if latest in (None, serial))
        heard = tuple(voice.heard(name, serial) for voice, serial in asked)
        return replace(decided or answer, heard=heard)

    async def _newest(
        self, zone: Delegation, voices: Sequence[Voice], question: Question, allowance: Allowance
    ) -> tuple[dict[str, Version | None], Answer | None]:
        """Return which version of the zone each server has that knows, and what those with the newest say together;
        None if that cannot be said."""
        known = {address: voice for address, voice in zip(zone.addresses, voices, strict=True) if voice.knows}
        versions = await self._versions(tuple(known), zone.zone, allowance)
        serial = newest(versions.values())
        if serial is None:
            return versions, None
        chosen = [address for address in known if _serial(versions[address]) == serial]
        # Between the first answer and the version the zone may have changed: they must say it again.
        again = await self._hear(chosen, question, zone.zone, allowance)
        said = {voice.said for voice in again}
        if len(said) != 1 or said != {known[address].said for address in chosen}:
            return versions, None
        return versions, together(again, "")

    async def _versions(self, addresses: Sequence[str], zone: str, allowance: Allowance) -> dict[str, Version | None]:
        voices = await self._hear(addresses, Question(zone, "SOA"), zone, allowance)
        return dict(zip(addresses, map(read_version, voices), strict=True))

    async def _hear(self, addresses: Sequence[str], question: Question, zone: str, allowance: Allowance) -> list[Voice]:
        return alike(
            await asyncio.gather(*(self._ask_server(address, question, zone, allowance) for address in addresses))
        )

    async def _ask_server(self, address: str, question: Question, zone: str, allowance: Allowance) -> Voice:
        server = f"{address}:{self._port}"
        if not allowance.take():
            return Voice(server, "limit")
        failure = "timeout"
        for _ in range(self._tries):
            message = query(question)
            message.flags &= ~dns.flags.RD
            response = await converse(message, address, self._port, timeout=self._timeout, pace=self._pace)
            if not isinstance(response, str):
                return read_voice(response, question, zone, server)
            failure = response
            if failure != "timeout":
                break
        return Voice(server, failure)


def _serial(version: Version | None) -> int | None:
    return version.serial if version is not None else None
