"""Questions to DNS that suspend what asks them: an evaluation yields a `Question` and is sent an `Answer`.

Standards: RFC 1035, RFC 2308 (no data against no name).
Promises: an evaluation does no I/O; given the same answers it gives the same result.
Dangers: records are what a stranger published: text is bytes, at any length, in any encoding.
Not here: asking a server and caching (`net.dns`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

from outgate.base.clock import rfc3339

R = TypeVar("R")

_MOST_RECORDS = 10
_LONGEST_RECORD = 500
_LONGEST_EVIDENCE = 65_536


@dataclass(frozen=True, slots=True)
class Question:
    """What to look up: `name` without a final dot, `rdtype` "A", "AAAA", "MX", "TXT", "PTR" …"""

    name: str
    rdtype: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What one of the servers that speak for a name said.

    `server` is "address:port"; `status` and `records` are as in `Answer`, or "alias" and where it leads. `name` is
    what was asked for where that is not the question's own name (an alias was followed), `serial` the version of
    the zone, asked for where servers contradict each other."""

    server: str
    status: str
    records: tuple[str | bytes, ...] = ()
    name: str = ""
    serial: int | None = None

    def document(self) -> dict[str, object]:
        """Return it as JSON values."""
        document: dict[str, object] = {"server": self.server, "status": self.status, "records": _texts(self.records)}
        if self.name:
            document["name"] = self.name
        if self.serial is not None:
            document["serial"] = self.serial
        return document


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said, aliases followed.

    `status` is "ok", "nodata" or "nxdomain", or says why there is no answer: "servfail", "refused", "timeout",
    "unreachable", "malformed" (the server's answer), "lame" (the server does not speak for the name), "split" (those
    that do contradict each other), "limit" (it would take too many packets, or aliases go in a circle) or
    "badname" (ours cannot be asked). `records` holds addresses, TXT as bytes with its strings joined, MX as
    "preference host", PTR and CNAME as host names, other types in presentation form; names are in lower case
    without a final dot. `ttl` is in seconds, `server` is "address:port", or "cache"; `alias` is the name that the
    question's name stands for, "" for itself; `heard` is what each server said if more than one was asked; `secure`
    says that a resolver which may be believed has validated it (DNSSEC)."""

    status: str
    records: tuple[str | bytes, ...] = ()
    ttl: int = 0
    server: str = ""
    alias: str = ""
    heard: tuple[Heard, ...] = ()
    secure: bool = False

    @property
    def failed(self) -> bool:
        """Say whether nothing is known: the look-up itself failed, for now."""
        return self.status not in _KNOWN

    @property
    def void(self) -> bool:
        """Say whether DNS answered that there is no such record (RFC 7208 section 4.6.4)."""
        return self.status in ("nodata", "nxdomain")


_KNOWN = frozenset({"ok", "nodata", "nxdomain"})

Evaluation = Generator[Question, Answer, R]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its answer, kept as evidence; `at` is when it was answered (epoch seconds)."""

    question: Question
    answer: Answer
    at: float

    def document(self) -> dict[str, object]:
        """Return it as JSON values; bytes that are not ASCII are escaped, what is very long is cut."""
        document: dict[str, object] = {
            "name": self.question.name,
            "type": self.question.rdtype,
            "status": self.answer.status,
            "records": _texts(self.answer.records),
            "ttl": self.answer.ttl,
            "server": self.answer.server,
            "at": rfc3339(self.at, milliseconds=True),
        }
        if self.answer.alias:
            document["alias"] = self.answer.alias
        if self.answer.heard:
            document["servers"] = self._servers()
        return document

    def _servers(self) -> list[dict[str, object]]:
        """Return what each server said. Records are written once: not if they are those of the answer; if they are
        those of another server, "like" names it."""
        told: dict[tuple[str, str, frozenset[str | bytes]], str] = {}
        documents: list[dict[str, object]] = []
        for heard in self.answer.heard:
            document = heard.document()
            said = (heard.name, heard.status, frozenset(heard.records))
            if heard.status == self.answer.status and said[2] == frozenset(self.answer.records):
                del document["records"]
            elif heard.records and said in told:
                del document["records"]
                document["like"] = told[said]
            told.setdefault(said, heard.server)
            documents.append(document)
        return documents

    def brief(self) -> dict[str, object]:
        """Return it as JSON values without any records."""
        document = {key: value for key, value in self.document().items() if key not in ("records", "servers")}
        return {**document, "cut": True}


def documents(asked: Iterable[Asked]) -> tuple[dict[str, object], ...]:
    """Return look-ups as evidence keeps them: some 100 KiB at most, the later ones without records if it is more."""
    found: list[dict[str, object]] = []
    spent = 0
    for one in asked:
        document = one.document()
        length = len(json.dumps(document))
        if spent + length > _LONGEST_EVIDENCE:
            document = one.brief()
            length = 0
        spent += length
        found.append(document)
    return tuple(found)


def _texts(records: tuple[str | bytes, ...]) -> list[str]:
    """Return records as evidence keeps them: a stranger may publish more than is worth keeping, so it is cut."""
    texts = [_short(record) for record in records[:_MOST_RECORDS]]
    return [*texts, f"… {len(records) - _MOST_RECORDS} more"] if len(records) > _MOST_RECORDS else texts


def _short(record: str | bytes) -> str:
    text = record if isinstance(record, str) else record.decode("ascii", "backslashreplace")
    return text if len(text) <= _LONGEST_RECORD else text[:_LONGEST_RECORD] + "…"


def witnessed(evaluation: Evaluation[R], now: Callable[[], float]) -> Evaluation[tuple[R, tuple[Asked, ...]]]:
    """Run `evaluation` as it is and return its result together with everything it asked, in order; `now` tells the
    time at which an answer came."""
    asked: list[Asked] = []
    try:
        question = next(evaluation)
        while True:
            answer = yield question
            asked.append(Asked(question, answer, now()))
            question = evaluation.send(answer)
    except StopIteration as end:
        return end.value, tuple(asked)


def answer_from(evaluation: Evaluation[R], answers: Callable[[Question], Answer]) -> R:
    """Drive `evaluation` to its end with a plain function (tests, tools) and return its result."""
    try:
        question = next(evaluation)
        while True:
            question = evaluation.send(answers(question))
    except StopIteration as end:
        return end.value


def is_askable(name: str) -> bool:
    """Say whether `name` can be put on the wire: ASCII labels of 1 to 63 octets, 253 in all."""
    return name.isascii() and 0 < len(name) <= 253 and all(0 < len(label) <= 63 for label in name.split("."))
