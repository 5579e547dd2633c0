"""dkimpy as the judge of what we sign: a message as its receiver sees it, and the records that its senders publish."""

from __future__ import annotations

import re
from collections.abc import Mapping

import dkim

from outgate.model.flow import Prepared
from outgate.sandbox.judges import complete_dkimpy

complete_dkimpy()


def received(prepared: Prepared) -> bytes:
    """Return what the receiver of a prepared message reads: the dots that were stuffed are taken out."""
    return re.sub(rb"(\A|\r\n)\.", rb"\1", prepared.fields + prepared.content)


def verdicts(message: bytes, records: Mapping[str, str]) -> list[bool]:
    """Return what dkimpy says of each signature, the first at the top first; `records` are TXT records by name."""

    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        found = records.get(name.decode().removesuffix("."))
        return None if found is None else found.encode()

    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.rfc822_parse(message)[0])
    found: list[bool] = []
    for number in range(count):
        try:
            found.append(bool(dkim.DKIM(message).verify(idx=number, dnsfunc=txt)))
        except dkim.DKIMException:
            found.append(False)
    return found
