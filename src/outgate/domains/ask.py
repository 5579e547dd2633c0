"""Questions to DNS that suspend what asks them: an evaluation yields a `Question` and is sent an `Answer`.

Standards: RFC 1035, RFC 2308 (no data against no name).
Promises: an evaluation does no I/O; given the same answers it gives the same result.
Dangers: records are what a stranger published: text is bytes, at any length, in any encoding.
Not here: asking a server and caching (`net.dns`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Question:
    """What to look up: `name` without a final dot, `rdtype` "A", "AAAA", "MX", "TXT", "PTR" …"""

    name: str
    rdtype: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said, aliases followed.

    `status` is "ok", "nodata" or "nxdomain", or says why there is no answer: "servfail", "refused", "timeout",
    "unreachable", "malformed" (the server's answer) or "badname" (ours cannot be asked). `records` holds
    addresses, TXT as bytes with its strings joined, MX as "preference host", PTR and CNAME as host names, other
    types in presentation form; names are in lower case without a final dot. `ttl` is in seconds, `server` is
    "address:port", or "cache"."""

    status: str
    records: tuple[str | bytes, ...] = ()
    ttl: int = 0
    server: str = ""

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
    """One question with its answer, kept as evidence."""

    question: Question
    answer: Answer

    def document(self) -> dict[str, object]:
        """Return it as JSON values; bytes that are not ASCII are escaped."""
        return {
            "name": self.question.name,
            "type": self.question.rdtype,
            "status": self.answer.status,
            "records": [
                record if isinstance(record, str) else record.decode("ascii", "backslashreplace")
                for record in self.answer.records
            ],
            "ttl": self.answer.ttl,
            "server": self.answer.server,
        }


def witnessed(evaluation: Evaluation[R]) -> Evaluation[tuple[R, tuple[Asked, ...]]]:
    """Run `evaluation` as it is and return its result together with everything it asked, in order."""
    asked: list[Asked] = []
    try:
        question = next(evaluation)
        while True:
            answer = yield question
            asked.append(Asked(question, answer))
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
