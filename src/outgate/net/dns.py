"""Ask DNS servers and remember what they said for as long as they allow.

Standards: RFC 1035, 2308 (negative answers), 4035 and 6840 (AD), 5452 (random port and id), 6891 (EDNS;
section 6.2.2 for servers without it), 7766 (TCP).
Promises: a failure is a status, never an exception; a truncated answer is asked again over TCP; a server that knows no
EDNS is asked without; no answer outlives its TTL by the injected clock; the cache is bounded; one question is asked
once at a time.
Dangers: answers are strangers' words; without DNSSEC they are not even certainly theirs. An answer is `secure` by the
word of a resolver that the operator trusts, over a way that the operator trusts: of any other the word is not read.
Not here: what answers mean (`domains`, `relay.routing`), which addresses may be dialled (`net.guard`), asking
the servers that speak for a name (`net.authority`), remembering (`net.memory`), plain responses (`net.plain`).
"""

from __future__ import annotations

import asyncio
import functools
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.TXT

from outgate.base.clock import Clock
from outgate.domains.ask import Answer, Evaluation, Question
from outgate.net import plain, udp
from outgate.net.allowance import Allowance
from outgate.net.memory import Asking
from outgate.net.pace import Pace
from outgate.net.plain import LONGEST_TTL as LONGEST_TTL

R = TypeVar("R")

BOTH = frozenset({"A", "AAAA"})
_PAYLOAD = 1232
STATUS = {
    dns.rcode.NOERROR: "nodata",
    dns.rcode.NXDOMAIN: "nxdomain",
    dns.rcode.REFUSED: "refused",
    dns.rcode.SERVFAIL: "servfail",
}
_NOT_REPEATED = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})
"""Errors of whom has not read the question."""
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One MX: preference and host name, lower case, without a final dot ("" for the null MX)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class ExchangeAnswer:
    """What DNS says about a domain's MX: `status`, `alias` and `secure` as in `Answer`; `exchanges` by preference."""

    status: str
    exchanges: tuple[Exchange, ...]
    alias: str = ""
    secure: bool = False


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """What DNS says about a name's addresses: "ok", "nodata" (surely none), or why it could not be asked. `alias` and
    `secure` are as in `Answer`, of all answers that have addresses."""

    status: str
    addresses: tuple[str, ...]
    alias: str = ""
    secure: bool = False


class Asker(Protocol):
    """What answers questions: a `Resolver`, or an `Authority` (`net.authority`)."""

    async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
        """Answer, perhaps from memory; `fresh` finds out whatever memory says. Where `allowance`, which several
        questions may share, does not suffice, the answer is "limit"."""
        ...


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
        pace: Pace | None = None,
        trusted: bool = False,
    ) -> None:
        """`servers` are (address, port) in the order to ask; each gets `timeout` seconds in each of `rounds`.
        `pace` spaces what is sent to them. `trusted`: they validate, and what they call authentic is believed."""
        if not servers:
            raise ValueError("a resolver needs at least one server")
        self.pace = pace
        self._servers = tuple(servers)
        self._timeout = timeout
        self._rounds = rounds
        self._trusted = trusted
        self._asking = Asking(
            lambda question, _, allowance: self.find(question, allowance), clock, longest=LONGEST_TTL, size=cache_size
        )

    async def ask(self, question: Question, *, fresh: bool = False, allowance: Allowance | None = None) -> Answer:
        """Answer from memory or from a server; `fresh` asks the server whatever memory says."""
        return await self._asking.ask(question, fresh=fresh, allowance=allowance)

    async def exchanges(self, domain: str) -> ExchangeAnswer:
        """Return the MX hosts of `domain`; the null MX is one with host "" (RFC 7505)."""
        answer = await self.ask(Question(domain, "MX"))
        found = [str(record).partition(" ") for record in answer.records]
        ordered = sorted((int(preference), host) for preference, _, host in found)
        exchanges = tuple(Exchange(preference, host) for preference, host in ordered)
        return ExchangeAnswer(answer.status, exchanges, answer.alias, answer.secure)

    async def hosts(self, name: str, *, families: frozenset[str] = BOTH) -> AddressAnswer:
        """Return the addresses of `name`, IPv4 first, and how sure their absence is. Of `families` ("A", "AAAA") that
        are of use to whoever asks, one left out is asked for only where there is nothing of the other: to know whether
        there is none at all."""
        if len(families) == 1:
            wanted = "A" if "A" in families else "AAAA"
            answer = await self.ask(Question(name, wanted))
            answers = [answer]
            if not answer.records and not answer.failed:
                answers.append(await self.ask(Question(name, "AAAA" if wanted == "A" else "A")))
        else:
            answers = await asyncio.gather(self.ask(Question(name, "A")), self.ask(Question(name, "AAAA")))
        found = tuple(str(record) for answer in answers for record in answer.records)
        if found:
            telling = [answer for answer in answers if answer.records]
            return AddressAnswer("ok", found, telling[0].alias, all(answer.secure for answer in telling))
        failed = [answer.status for answer in answers if answer.failed]
        return AddressAnswer(failed[0] if failed else "nodata", ())

    async def addresses(self, name: str) -> list[str]:
        """Return the addresses of `name`, IPv4 first; none if it has none or cannot be asked."""
        return list((await self.hosts(name)).addresses)

    def at_hand(self, name: str) -> list[str] | None:
        """Return what `addresses` would return without asking anyone, or None if someone must be asked."""
        found: list[str] = []
        for rdtype in ("A", "AAAA"):
            answer = self._asking.known(Question(name, rdtype))
            if answer is None:
                return None
            found += [str(record) for record in answer.records]
        return found

    def forget(self) -> None:
        """Empty the memory."""
        self._asking.forget()

    async def find(self, question: Question, allowance: Allowance | None = None) -> Answer:
        """Ask server after server until one knows, for this caller alone and past any memory; the last failure is the
        answer if none does. The name "", the root's, may be asked here."""
        last = Answer("unreachable")
        silent: set[tuple[str, int]] = set()
        for number in range(self._rounds):
            for address, port in self._servers:
                # Some firewalls drop what they do not know: the last try goes without EDNS.
                edns = number < self._rounds - 1 or (address, port) not in silent
                last = await self._ask_server(question, Line(address, port, self._timeout, self.pace, allowance), edns)
                if not last.failed or last.status == "limit":
                    return last
                if last.status == "timeout":
                    silent.add((address, port))
        return last

    async def _ask_server(self, question: Question, line: Line, edns: bool) -> Answer:
        response = await line.ask(question, edns=edns, trusted=self._trusted)
        if isinstance(response, str):
            return Answer(response, server=line.server)
        if isinstance(response, Answer):
            return response
        return read_message(response, line.server, secure=self._trusted and bool(response.flags & dns.flags.AD))


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it goes out: the message, of which octets 12 to `asks` are the question section."""

    wire: bytes
    asks: int

    def read(self, wire: bytes) -> dns.message.Message | None:
        """Return the response to this in a datagram, cut off or whole; None if it is none: that may be someone who
        guesses at ports and ids, so nothing more of it is read than must be."""
        if not self._is_answered_by(wire):
            return None
        try:
            return dns.message.from_wire(wire, raise_on_truncation=True)
        except dns.message.Truncated as error:
            return error.message()
        except Exception:
            return None

    def read_plain(self, wire: bytes, server: str, *, trusted: bool) -> Answer | None:
        """Return what a plain response to this says, at a fraction of what `read` costs; None if it is none or not
        plain: that is for `read` to say."""
        return plain.read(wire, self.asks, server, trusted=trusted) if self._is_answered_by(wire) else None

    def _is_answered_by(self, wire: bytes) -> bool:
        if len(wire) < 12 or wire[:2] != self.wire[:2] or wire[2] & 0xF8 != 0x80:  # a response, of opcode QUERY
            return False
        return self._is_asked(wire)

    def _is_asked(self, wire: bytes) -> bool:
        if wire[4:6] == b"\0\0":  # who could not even read the question need not repeat it
            return wire[3] & 0xF in _NOT_REPEATED
        name = self.asks - 4
        return (
            wire[4:6] == b"\0\1"
            and wire[12:name].lower() == self.wire[12:name].lower()
            and wire[name : self.asks] == self.wire[name : self.asks]
        )


Reader = Callable[[Query, bytes], R | None]
"""What makes something of a datagram that answers a query, or None if it does not."""


def query(question: Question, *, recursive: bool = True, edns: bool = True, secure: bool = False) -> Query:
    """Return what asks `question`, under a random id; `recursive` is for a resolver, `secure` for one that shall say
    whether it has validated the answer."""
    head, tail = _around_name(question.rdtype, recursive, edns, secure)
    name = cast("bytes", wire_name(question.name).to_wire())
    return Query(os.urandom(2) + head + name + tail, 12 + len(name) + 4)


@functools.lru_cache(maxsize=256)
def _around_name(rdtype: str, recursive: bool, edns: bool, secure: bool) -> tuple[bytes, bytes]:
    """Return what a question's message has between its id and the name, and behind that. It is the same for all names:
    made once, asking costs a third."""
    flags = dns.flags.RD if recursive else 0
    if secure:
        flags |= dns.flags.AD
    if not edns:
        made = dns.message.make_query(dns.name.root, rdtype, flags=flags)
    else:
        # Some resolvers tell of it only those who ask for the signatures too.
        made = dns.message.make_query(
            dns.name.root, rdtype, use_edns=0, payload=_PAYLOAD, flags=flags, want_dnssec=secure
        )
    wire = made.to_wire()
    return wire[2:12], wire[13:]


@dataclass(frozen=True, slots=True)
class Line:
    """One server to talk to: how many seconds an answer may take, and what each packet to it waits for and costs."""

    address: str
    port: int
    timeout: float
    pace: Pace | None
    allowance: Allowance | None

    @property
    def server(self) -> str:
        """Return the server as answers name it."""
        return f"{self.address}:{self.port}"

    async def converse(
        self, question: Question, *, recursive: bool = True, edns: bool = True, secure: bool = False
    ) -> dns.message.Message | str:
        """Return what the server responds to `question`, or the status that says why it does not. One that does not
        understand EDNS is asked again without."""
        return await self._converse(question, Query.read, recursive=recursive, edns=edns, secure=secure)

    async def ask(
        self, question: Question, *, edns: bool = True, trusted: bool = False
    ) -> Answer | dns.message.Message | str:
        """Return what a resolver answers, where that is plain; else as `converse`."""
        server = self.server

        def read(query: Query, wire: bytes) -> Answer | dns.message.Message | None:
            return query.read_plain(wire, server, trusted=trusted) or query.read(wire)

        return await self._converse(question, read, recursive=True, edns=edns, secure=trusted)

    async def _converse(
        self, question: Question, read: Reader[R], *, recursive: bool, edns: bool, secure: bool
    ) -> R | dns.message.Message | str:
        response = await self._exchange(query(question, recursive=recursive, edns=edns, secure=secure), read)
        if edns and isinstance(response, dns.message.Message) and response.rcode() in _NO_EDNS:
            response = await self._exchange(query(question, recursive=recursive, edns=False, secure=secure), read)
        return response

    async def _exchange(self, query: Query, read: Reader[R]) -> R | dns.message.Message | str:
        if not await self._turn():
            return "limit"
        try:
            response = await udp.ask(query.wire, self.address, self.port, self.timeout, functools.partial(read, query))
            if isinstance(response, dns.message.Message) and response.flags & dns.flags.TC:
                if not await self._turn():
                    return "limit"
                return await self._over_tcp(query)
        except (dns.exception.Timeout, TimeoutError):
            return "timeout"
        except (OSError, EOFError):
            return "unreachable"
        except (dns.exception.DNSException, struct.error, ValueError):
            return "malformed"
        return response

    async def _over_tcp(self, query: Query) -> dns.message.Message:
        # Rare, and what it takes is a good part of all of dnspython.
        from dns import asyncbackend, asyncquery

        backend = asyncbackend.get_backend("asyncio")
        message = dns.message.from_wire(query.wire)
        return await asyncquery.tcp(message, self.address, timeout=self.timeout, port=self.port, backend=backend)

    async def _turn(self) -> bool:
        """Wait until a packet may be sent; say whether it may be at all."""
        if self.allowance is not None and not self.allowance.take():
            return False
        if self.pace is not None:
            await self.pace.turn(self.address)
        return True


def read_message(response: dns.message.Message, server: str, *, secure: bool = False) -> Answer:
    """Turn a server's message into an answer; aliases are followed within the message."""
    status = STATUS.get(response.rcode(), "servfail")
    if status not in ("nodata", "nxdomain"):
        return Answer(status, server=server)
    if not isinstance(response, dns.message.QueryMessage):
        return Answer("malformed", server=server)
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException:
        return Answer("malformed", server=server)
    ttl = min(chain.minimum_ttl, LONGEST_TTL)
    alias = host_name(chain.canonical_name) if chain.cnames else ""
    if chain.answer is None:
        # Without an SOA nothing says how long to believe in a negative answer (RFC 2308 section 5).
        negative = ttl if any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority) else 0
        return Answer(status, (), negative, server, alias=alias, secure=secure)
    return Answer("ok", tuple(record_of(rdata) for rdata in chain.answer), ttl, server, alias=alias, secure=secure)


def record_of(rdata: dns.rdata.Rdata) -> str | bytes:
    """Return a record as `Answer` holds it."""
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
    """Return an askable name or the root's, label by label: no escape in it means anything."""
    return dns.name.Name([label.encode("ascii") for label in name.split(".") if name] + [b""])


async def answer_all(
    evaluation: Evaluation[R], asker: Asker, *, fresh: bool = False, allowance: Allowance | None = None
) -> R:
    """Drive `evaluation` with an asker's answers, for all of which `allowance` must suffice; return its result."""
    try:
        question = next(evaluation)
        while True:
            question = evaluation.send(await asker.ask(question, fresh=fresh, allowance=allowance))
    except StopIteration as end:
        return end.value
