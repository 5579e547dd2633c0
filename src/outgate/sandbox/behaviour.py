"""How the inbox misbehaves on purpose: refusals, dropped connections and delays, by recipient and moment.

Standards: RFC 5321 (moments of a session), RFC 3463.
Promises: the first behaviour that fits and has turns left is used; turns survive restarts.
Dangers: at `connect` and `mail` no recipient is known yet: a behaviour there meets every session.
Not here: the session that obeys (`inbox`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from outgate.smtp.reply import Reply

MOMENTS = ("connect", "mail", "rcpt", "data", "dot")
_REPLY = re.compile(r"([2-5][0-9]{2})(?: ([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: ([^\r\n\0]{0,400}))?")
_MOST = 1000
_LONGEST_S = 3600.0
_KEYS = {"recipient", "at", "reply", "drop", "delay_s", "times"}


class BadBehaviour(ValueError):
    """A behaviour cannot be read; the text names its place and what is wrong."""


@dataclass(slots=True)
class Behaviour:
    """What happens `at` a moment to recipients that fit `recipient` (a glob): exactly one of `reply`, `drop` and
    `delay_s`. `times` is how often yet, None for always."""

    recipient: str
    at: str
    reply: Reply | None
    drop: bool
    delay_s: float
    times: int | None
    document: dict[str, Any]


class Behaviours:
    """The list in force."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the list of `file`, where it is kept. Raises `BadBehaviour`, `OSError`."""
        self._file = file
        self._list: list[Behaviour] = []
        if file is not None and file.exists():
            self._list = [_read(number, entry) for number, entry in enumerate(json.loads(file.read_text("utf-8")))]

    def put(self, documents: object) -> list[dict[str, Any]]:
        """Replace the list by JSON values and return it as it is in force. Raises `BadBehaviour`."""
        if not isinstance(documents, list):
            raise BadBehaviour("the body is a list of behaviours")
        entries = cast("list[object]", documents)
        if len(entries) > _MOST:
            raise BadBehaviour(f"there are {_MOST} behaviours at most")
        self._list = [_read(number, entry) for number, entry in enumerate(entries)]
        self._save()
        return self.documents()

    def documents(self) -> list[dict[str, Any]]:
        """Return the list as JSON values, with the turns that are left."""
        return [
            entry.document if entry.times is None else {**entry.document, "times": entry.times} for entry in self._list
        ]

    def take(self, at: str, recipients: Iterable[str]) -> Behaviour | None:
        """Return the behaviour for this moment and use up one of its turns; None: behave well."""
        lower = [recipient.lower() for recipient in recipients]
        for entry in self._list:
            if entry.at != at or entry.times == 0:
                continue
            if at in ("connect", "mail") or any(fnmatchcase(one, entry.recipient.lower()) for one in lower):
                if entry.times is not None:
                    entry.times -= 1
                    self._save()
                return entry
        return None

    def _save(self) -> None:
        if self._file is not None:
            temporary = self._file.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.documents()), "utf-8")
            os.replace(temporary, self._file)


def _read(number: int, entry: object) -> Behaviour:
    place = f"behaviour {number}"
    if not isinstance(entry, dict):
        raise BadBehaviour(f"{place} is not an object")
    document = cast("dict[str, Any]", entry)
    unknown = sorted(set(document) - _KEYS)
    if unknown:
        raise BadBehaviour(f"{place}: there is no {unknown[0]!r}, only {', '.join(sorted(_KEYS))}")
    recipient, at = document.get("recipient", "*"), document.get("at")
    if not isinstance(recipient, str) or not recipient:
        raise BadBehaviour(f"{place}: 'recipient' is a pattern such as *@slow.test")
    if at not in MOMENTS:
        raise BadBehaviour(f"{place}: 'at' is one of {', '.join(MOMENTS)}")
    if len({"reply", "drop", "delay_s"} & set(document)) != 1:
        raise BadBehaviour(f"{place} needs exactly one of 'reply', 'drop' and 'delay_s'")
    times = document.get("times")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 0):
        raise BadBehaviour(f"{place}: 'times' is a number of turns")
    drop = document.get("drop", False)
    if "drop" in document and drop is not True:
        raise BadBehaviour(f"{place}: 'drop' is true")
    return Behaviour(recipient, at, _reply(place, document), drop, _delay(place, document), times, document)


def _reply(place: str, document: dict[str, Any]) -> Reply | None:
    if "reply" not in document:
        return None
    text = document["reply"]
    match = _REPLY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadBehaviour(f"{place}: 'reply' is a line such as '451 4.7.1 later'")
    return Reply(int(match[1]), match[2] or "", (match[3] or "",))


def _delay(place: str, document: dict[str, Any]) -> float:
    delay = document.get("delay_s", 0)
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= _LONGEST_S:
        raise BadBehaviour(f"{place}: 'delay_s' is 0 to {_LONGEST_S:.0f} seconds")
    return float(delay)
