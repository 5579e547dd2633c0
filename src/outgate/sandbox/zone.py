"""The sandbox's DNS data: records of any name, put and taken by scripts, and the answers they make.

Standards: RFC 1034 section 4.3.2 (aliases), 2308 (negative answers), 6891 (EDNS).
Promises: what is put is validated first and kept in a file (replaced as a whole); a name below `.test` without
MX records of its own is served by the inbox; what nobody put is not remembered by askers (TTL 0); the root and each
top-level domain that exists are zones that this server speaks for, and so is every name with NS or SOA records of its
own; a negative answer shows the SOA of the zone it is from.
Dangers: it answers for the whole Internet: only the sandbox may ask it. It refers nobody on: asked for a name in a
zone that was given to another server, it says what was put here.
Not here: sockets (`nameserver`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
import dns.tokenizer

RCODES = ("SERVFAIL", "NXDOMAIN", "REFUSED", "DROP")
_MOST_VALUES = 100
_LONGEST_TTL = 604_800
_HOPS = 16
_IN = dns.rdataclass.IN
_SERVER = "ns.outgate.test"
_SOA = "ns.outgate.test. hostmaster.outgate.test. 1 3600 600 86400 {ttl}"


class ZoneError(ValueError):
    """A record cannot be put; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a name and type: `values` in presentation form (none: no such data), or an `rcode`; whether they
    are the addresses of endpoint gateways, which nobody put."""

    values: tuple[str, ...]
    ttl: int
    rcode: str = ""
    gateways: bool = False


class Zone:
    """Records by name and type. Belongs to one event loop."""

    def __init__(
        self, file: Path | None = None, *, exchange: str = "mx.outgate.test", address: str = "127.0.0.1"
    ) -> None:
        """`exchange` is the host name of the inbox, and `address` where it and the zone's own name server listen.
        Raises `ZoneError`, `OSError`."""
        self._file = file
        self._implicit = _text(_name("test"))
        self._entries: dict[tuple[str, str], Entry] = {}
        self._rdatas: dict[tuple[str, str], tuple[dns.rdata.Rdata, ...]] = {}
        self._exchange = (_rdata("MX", f"10 {exchange}"),)
        self._server = (_rdata("NS", _SERVER),)
        self._authority = (_rdata("SOA", _SOA.format(ttl=0)),)
        self._own = {(_text(_name(host)), "A"): (_rdata("A", address),) for host in (exchange, _SERVER)}
        if file is not None and file.exists():
            self._load(file)

    # -- records --------------------------------------------------------------------------------------------

    def put(self, name: str, rdtype: str, values: Sequence[str], ttl: int = 5, *, gateways: bool = False) -> None:
        """Set the records of `name` and `rdtype`; none means that the name exists without them. Raises `ZoneError`.

        `gateways` marks them as those of gateways. TXT text may be given unquoted; strings longer than 255 octets are
        cut into several."""
        key = _key(name, rdtype)
        if not 0 <= ttl <= _LONGEST_TTL:
            raise ZoneError(f"ttl is 0 to {_LONGEST_TTL} seconds")
        if len(values) > _MOST_VALUES:
            raise ZoneError(f"a name has {_MOST_VALUES} records of a type at most")
        if key[1] == "CNAME" and len(values) > 1:
            raise ZoneError("a name has one CNAME at most")
        self._rdatas[key] = tuple(_rdata(key[1], value) for value in values)
        self._entries[key] = Entry(tuple(values), ttl, gateways=gateways)
        self._save()

    def put_failure(self, name: str, rdtype: str, rcode: str) -> None:
        """Answer every question for `name` and `rdtype` with `rcode` (SERVFAIL, NXDOMAIN, REFUSED, or DROP: not at
        all). Raises `ZoneError`."""
        key = _key(name, rdtype)
        if rcode not in RCODES:
            raise ZoneError(f"rcode is one of {', '.join(RCODES)}")
        self._rdatas.pop(key, None)
        self._entries[key] = Entry((), 0, rcode)
        self._save()

    def delete(self, name: str, rdtype: str) -> bool:
        """Forget what was put for `name` and `rdtype`; say whether there was anything. Raises `ZoneError`."""
        key = _key(name, rdtype)
        self._rdatas.pop(key, None)
        found = self._entries.pop(key, None) is not None
        if found:
            self._save()
        return found

    def get(self, name: str, rdtype: str) -> Entry | None:
        """Return what was put for `name` and `rdtype`, or None. Raises `ZoneError`."""
        return self._entries.get(_key(name, rdtype))

    def gateway_names(self) -> list[str]:
        """Return the names that have records which are marked as those of gateways."""
        return [name for (name, _), entry in self._entries.items() if entry.gateways]

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 and IPv6 addresses that `name` has here, aliases followed; none for what is no name."""
        found: list[str] = []
        for rdtype in ("A", "AAAA"):
            try:
                response = self.answer(dns.message.make_query(_name(name), rdtype))
            except ZoneError:
                return []
            for rrset in response.answer if response is not None else ():
                if rrset.rdtype == dns.rdatatype.from_text(rdtype):
                    found.extend(rdata.to_text() for rdata in rrset)
        return found

    # -- answers --------------------------------------------------------------------------------------------

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """Return the response to a query, or None for a name that is to be dropped."""
        response = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        response.flags |= dns.flags.AA
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
            return response
        if len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return response
        question = query.question[0]
        if question.rdclass != _IN or dns.rdatatype.is_metatype(question.rdtype):
            response.set_rcode(dns.rcode.REFUSED)
            return response
        return self._follow(response, question.name, dns.rdatatype.to_text(question.rdtype))

    def _follow(self, response: dns.message.Message, name: dns.name.Name, rdtype: str) -> dns.message.Message | None:
        for _ in range(_HOPS):
            text = _text(name)
            entry = self._entries.get((text, rdtype))
            if entry is not None:
                return self._explicit(response, name, rdtype, entry)
            alias = self._rdatas.get((text, "CNAME"))
            if alias:
                ttl = self._entries[text, "CNAME"].ttl
                response.answer.append(dns.rrset.from_rdata_list(name, ttl, alias))
                name = alias[0].target  # pyright: ignore[reportAttributeAccessIssue]
                continue
            own = self._implied(name, rdtype)
            if own:
                response.answer.append(dns.rrset.from_rdata_list(name, 0, own))
            else:
                self._negative(response, name, 0)
                if not self._exists(name):
                    response.set_rcode(dns.rcode.NXDOMAIN)
            return response
        response.answer.clear()
        response.set_rcode(dns.rcode.SERVFAIL)
        return response

    def _implied(self, name: dns.name.Name, rdtype: str) -> tuple[dns.rdata.Rdata, ...]:
        """Return the records that nobody put."""
        text = _text(name)
        if rdtype == "MX" and self._below_test(name):
            return self._exchange
        if rdtype == "NS" and self._on_top(name):
            return self._server
        if rdtype == "SOA" and self._begins_zone(name):
            return self._authority
        return self._own.get((text, rdtype), ())

    def _explicit(
        self, response: dns.message.Message, name: dns.name.Name, rdtype: str, entry: Entry
    ) -> dns.message.Message | None:
        if entry.rcode == "DROP":
            return None
        if entry.rcode:
            response.set_rcode(dns.rcode.from_text(entry.rcode))
            if entry.rcode == "NXDOMAIN":
                self._negative(response, name, entry.ttl)
        elif entry.values:
            rdatas = self._rdatas[_text(name), rdtype]
            response.answer.append(dns.rrset.from_rdata_list(name, entry.ttl, rdatas))
        else:
            self._negative(response, name, entry.ttl)
        return response

    def _negative(self, response: dns.message.Message, name: dns.name.Name, ttl: int) -> None:
        while not self._begins_zone(name):
            name = name.parent()
        soa = (self._rdatas.get((_text(name), "SOA")) or self._authority)[0].replace(minimum=ttl)
        response.authority.append(dns.rrset.from_rdata_list(name, ttl, [soa]))

    def _begins_zone(self, name: dns.name.Name) -> bool:
        text = _text(name)
        return self._on_top(name) or any(self._rdatas.get((text, rdtype)) for rdtype in ("NS", "SOA"))

    def _on_top(self, name: dns.name.Name) -> bool:
        """Say whether the name is the root, or a top-level domain that exists."""
        return len(name) <= 2 and self._exists(name)  # the empty label of the root counts

    def _below_test(self, name: dns.name.Name) -> bool:
        return _text(name).endswith("." + self._implicit)

    def _exists(self, name: dns.name.Name) -> bool:
        """Say whether the name is there, be it only because another one below it is."""
        text = _text(name)
        if self._below_test(name) or text in (self._implicit, "."):
            return True
        return any(
            owner == text or owner.endswith("." + text)
            for owner, rdtype in (*self._entries, *self._own)
            if (found := self._entries.get((owner, rdtype))) is None or found.rcode != "NXDOMAIN"
        )

    # -- the file -------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self._file is None:
            return
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"records": list(self._documents())}, indent=1), "utf-8")
        os.replace(temporary, self._file)

    def _documents(self) -> Iterator[dict[str, Any]]:
        for (name, rdtype), entry in sorted(self._entries.items()):
            if entry.rcode:
                yield {"name": name, "type": rdtype, "rcode": entry.rcode}
            else:
                marked = {"gateways": True} if entry.gateways else {}
                yield {"name": name, "type": rdtype, "values": list(entry.values), "ttl": entry.ttl} | marked

    def _load(self, file: Path) -> None:
        read: dict[str, Any] = json.loads(file.read_text("utf-8"))
        self._file = None  # what is read need not be written at once
        for record in read["records"]:
            if "rcode" in record:
                self.put_failure(record["name"], record["type"], record["rcode"])
            else:
                marked = record.get("gateways", False)
                self.put(record["name"], record["type"], record["values"], record["ttl"], gateways=marked)
        self._file = file


def _name(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name.strip(), idna_codec=dns.name.IDNA_2008_Practical)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ZoneError(f"{name!r} is not a domain name: {error}") from None


def _text(name: dns.name.Name) -> str:
    return name.to_text().lower()


def _key(name: str, rdtype: str) -> tuple[str, str]:
    try:
        number = dns.rdatatype.from_text(rdtype)
    except (dns.exception.DNSException, ValueError):
        raise ZoneError(f"{rdtype!r} is not a record type") from None
    if dns.rdatatype.is_metatype(number):
        raise ZoneError(f"{rdtype} records are not stored")
    return _text(_name(name)), dns.rdatatype.to_text(number)


def _rdata(rdtype: str, value: str) -> dns.rdata.Rdata:
    try:
        if rdtype in ("TXT", "SPF"):
            return _txt(rdtype, value)
        return dns.rdata.from_text(_IN, rdtype, value, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError, OverflowError) as error:
        raise ZoneError(f"{value!r} is not a {rdtype} record: {error}") from None


def _txt(rdtype: str, value: str) -> dns.rdata.Rdata:
    """Read TXT: quoted strings; or plain text, where a space or semicolon is meant as it stands."""
    if '"' in value or "\\" in value:
        tokens = dns.tokenizer.Tokenizer(value)
        strings = [bytes(token.unescape_to_bytes().value) for token in tokens]
    else:
        strings = [value.encode("utf-8")]
    cut = [text[at : at + 255] for text in strings for at in range(0, max(len(text), 1), 255)]
    return dns.rdtypes.ANY.TXT.TXT(_IN, dns.rdatatype.from_text(rdtype), cut)
