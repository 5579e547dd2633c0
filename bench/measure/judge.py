"""Verify the signatures of sampled messages with an independent library.

Standards: RFC 6376.
Promises: only the key that the server was given, at the selector and domain it was given, is answered for.
Dangers: a verified signature covers what the server sent, whose body the sample is also compared by id.
Not here: signing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from pathlib import Path

import dkim

_ID = re.compile(rb"^X-Bench-Message: (\S+)\r$", re.MULTILINE)


class Judge:
    """Verify messages against one published key."""

    def __init__(self, public_key_der: bytes, selector: str, domain: str) -> None:
        self._name = f"{selector}._domainkey.{domain}.".encode()
        self._record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public_key_der)

    def _look_up(self, name: bytes, timeout: float = 5) -> bytes | None:
        return self._record if name.lower() == self._name.lower() else None

    def is_good(self, message: bytes) -> bool:
        """Tell whether `message` carries a valid signature and the body that belongs to its id."""
        header, _, body = message.partition(b"\r\n\r\n")
        found = _ID.search(header + b"\r\n")
        if found is None or not body.startswith(b"Order " + found[1] + b"\r\n"):
            return False
        try:
            return bool(dkim.verify(message, dnsfunc=self._look_up))
        except dkim.DKIMException:
            return False

    def count(self, files: Iterable[Path]) -> tuple[int, int]:
        """Return how many of `files` are good and how many are not."""
        verdicts = [self.is_good(file.read_bytes()) for file in files]
        return verdicts.count(True), verdicts.count(False)
