"""Ask DNS servers and remember what they said for as long as they allow.

Standards: RFC 1035, 2308 (negative answers), 5452 (random port and id; dnspython's), 6891 (EDNS), 7766 (TCP).
Promises: a failure is a status, never an exception; a truncated answer is asked again over TCP; no answer
outlives its TTL by the injected clock; the cache is bounded; one question is asked once at a time.
Dangers: answers are strangers' words; without DNSSEC they are not even certainly theirs.
Not here: what answers mean (`domains`, `relay.routing`), which addresses may be dialled (`net.guard`).
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.TXT

from outgate.base.clock import Clock
from outgate.base.tasks import spawn
from outgate.domains.ask import Answer, Evaluation, Question, is_askable

R = TypeVar("R")

_LONGEST_TTL = 86_400
_PAYLOAD = 1232
_STATUS = {
    dns.rcode.NOERROR: "nodata",
    dns.rcode.NXDOMAIN: "nxdomain",
    dns.rcode.REFUSED: "refused",
    dns.rcode.SERVFAIL: "servfail",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One MX: preference and host name, lower case, without a final dot ("" for the null MX)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class ExchangeAnswer:
    """What DNS says about a domain's MX: `status` as in `Answer`; `exchanges` by preference."""

    status: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """What DNS says about a name's addresses: "ok", "nodata" (surely none), or why it could not be asked."""

    status: str
    addresses: tuple[str, ...]


class Resolver:
    """A stub resolver. Belongs to one event loop."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        clock: Clock,
        *,
        timeout: float = 2.0,
        rounds: int = 2,
        cache_size: int = 10_000,
    ) -> None:
        """`servers` are (address, port) in the order to ask; each gets `timeout` seconds in each of `rounds`."""
        if not servers:
            raise ValueError("a resolver needs at least one server")
        self._servers = tuple(servers)
        self._clock = clock
        self._timeout = timeout
        self._rounds = rounds
        self._cache_size = cache_size
        self._cache: OrderedDict[Question, tuple[float, Answer]] = OrderedDict()
        self._asking: dict[Question, asyncio.Task[Answer]] = {}

    async def ask(self, question: Question, *, fresh: bool = False) -> Answer:
        """Answer from memory or from a server; `fresh` asks the server whatever memory says."""
        question = Question(question.name.removesuffix(".").lower(), question.rdtype.upper())
        if not is_askable(question.name):
            return Answer("badname")
        if not fresh and (known := self._remembered(question)) is not None:
            return known
        task = self._asking.get(question)
        if task is None or fresh:
            task = spawn(self._ask_servers(question), f"dns {question.rdtype} {question.name}")
            self._asking[question] = task
            task.add_done_callback(lambda done: self._asked(question, done))
        # Shielded: the question may be others' too when one who waits for it gives up.
        return await asyncio.shield(task)

    async def exchanges(self, domain: str) -> ExchangeAnswer:
        """Return the MX hosts of `domain`; the null MX is one with host "" (RFC 7505)."""
        answer = await self.ask(Question(domain, "MX"))
        found = [str(record).partition(" ") for record in answer.records]
        ordered = sorted((int(preference), host) for preference, _, host in found)
        return ExchangeAnswer(answer.status, tuple(Exchange(preference, host) for preference, host in ordered))

    async def hosts(self, name: str) -> AddressAnswer:
        """Return the addresses of `name`, IPv4 first, and how sure their absence is."""
        answers = await asyncio.gather(self.ask(Question(name, "A")), self.ask(Question(name, "AAAA")))
        found = tuple(str(record) for answer in answers for record in answer.records)
        if found:
            return AddressAnswer("ok", found)
        failed = [answer.status for answer in answers if answer.failed]
        return AddressAnswer(failed[0] if failed else "nodata", ())

    async def addresses(self, name: str) -> list[str]:
        """Return the addresses of `name`, IPv4 first; none if it has none or cannot be asked."""
        return list((await self.hosts(name)).addresses)

    def forget(self) -> None:
        """Empty the memory."""
        self._cache.clear()

    # -- memory ---------------------------------------------------------------------------------------------

    def _remembered(self, question: Question) -> Answer | None:
        entry = self._cache.get(question)
        if entry is None:
            return None
        left = int(entry[0] - self._clock.now())
        if left <= 0:
            del self._cache[question]
            return None
        self._cache.move_to_end(question)
        return replace(entry[1], ttl=left, server="cache")

    def _asked(self, question: Question, task: asyncio.Task[Answer]) -> None:
        if self._asking.get(question) is not task:  # a fresher one is under way: its answer counts
            return
        del self._asking[question]
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result()
        if not answer.failed:  # what is known replaces memory, and a TTL of 0 erases it
            self._cache.pop(question, None)
            if answer.ttl > 0:
                self._cache[question] = (self._clock.now() + answer.ttl, answer)
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)

    # -- servers --------------------------------------------------------------------------------------------

    async def _ask_servers(self, question: Question) -> Answer:
        """Ask server after server until one knows; the last failure is the answer if none does."""
        last = Answer("unreachable")
        for _ in range(self._rounds):
            for address, port in self._servers:
                answer = await self._ask_server(question, address, port)
                if not answer.failed:
                    return answer
                last = answer
        return last

    async def _ask_server(self, question: Question, address: str, port: int) -> Answer:
        server = f"{address}:{port}"
        query = dns.message.make_query(wire_name(question.name), question.rdtype, use_edns=0, payload=_PAYLOAD)
        try:
            response = await self._exchange(query, address, port)
        except (dns.exception.Timeout, TimeoutError):
            return Answer("timeout", server=server)
        except (OSError, EOFError):
            return Answer("unreachable", server=server)
        except (dns.exception.DNSException, struct.error, ValueError):
            return Answer("malformed", server=server)
        return _read(response, question, server)

    async def _exchange(self, query: dns.message.Message, address: str, port: int) -> dns.message.Message:
        backend = dns.asyncbackend.get_backend("asyncio")
        try:
            # What does not belong to our question is dropped unread: it may be someone guessing at ports and ids.
            return await dns.asyncquery.udp(
                query,
                address,
                timeout=self._timeout,
                port=port,
                ignore_unexpected=True,
                ignore_errors=True,
                raise_on_truncation=True,
                backend=backend,
            )
        except dns.message.Truncated:
            return await dns.asyncquery.tcp(query, address, timeout=self._timeout, port=port, backend=backend)


def _read(response: dns.message.Message, question: Question, server: str) -> Answer:
    """Turn a server's message into an answer; aliases are followed within the message."""
    status = _STATUS.get(response.rcode(), "servfail")
    if status not in ("nodata", "nxdomain"):
        return Answer(status, server=server)
    if not isinstance(response, dns.message.QueryMessage):
        return Answer("malformed", server=server)
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException:
        return Answer("malformed", server=server)
    ttl = min(chain.minimum_ttl, _LONGEST_TTL)
    if chain.answer is None:
        # Without an SOA nothing says how long to believe in a negative answer (RFC 2308 section 5).
        negative = ttl if any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority) else 0
        return Answer(status, (), negative, server)
    return Answer("ok", tuple(_record(rdata) for rdata in chain.answer), ttl, server)


def _record(rdata: dns.rdata.Rdata) -> str | bytes:
    if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(rdata.strings)
    if isinstance(rdata, dns.rdtypes.ANY.MX.MX):
        return f"{rdata.preference} {host_name(rdata.exchange)}"
    if rdata.rdtype in (dns.rdatatype.PTR, dns.rdatatype.CNAME, dns.rdatatype.NS):
        target: dns.name.Name = rdata.target  # pyright: ignore[reportAttributeAccessIssue]
        return host_name(target)
    return rdata.to_text()


def host_name(name: dns.name.Name) -> str:
    """Return a name in lower case without its final dot; "" for the root."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def wire_name(name: str) -> dns.name.Name:
    """Return an askable name, label by label: no escape in it means anything."""
    return dns.name.Name([label.encode("ascii") for label in name.split(".")] + [b""])


async def answer_all(evaluation: Evaluation[R], resolver: Resolver, *, fresh: bool = False) -> R:
    """Drive `evaluation` with a resolver's answers and return its result."""
    try:
        question = next(evaluation)
        while True:
            question = evaluation.send(await resolver.ask(question, fresh=fresh))
    except StopIteration as end:
        return end.value
