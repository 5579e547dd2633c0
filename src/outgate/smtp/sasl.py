"""AUTH PLAIN and LOGIN, the server's half of the exchange.

Standards: RFC 4954 (AUTH), RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN, prompts as clients know them).
Promises: any response gives the next prompt, a `Login`, or `BadResponse`; nothing is kept after the end.
Dangers: passwords: a `Login` hides its password in `repr`.
Not here: whether the password is right (`relay.access`).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

MECHANISMS = ("PLAIN", "LOGIN")
_USERNAME = b"VXNlcm5hbWU6"
_PASSWORD = b"UGFzc3dvcmQ6"


class BadResponse(Exception):
    """A response is not base64, not the mechanism's form, or the client gave up (`*`)."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who the client says it is. `authorization` is PLAIN's authzid, "" if not given."""

    username: str
    password: str = field(repr=False)
    authorization: str = ""


class Exchange:
    """One AUTH exchange: call `start`, then `respond` with each line, until a `Login` comes out."""

    __slots__ = ("_username", "mechanism")

    def __init__(self, mechanism: str) -> None:
        self.mechanism = mechanism
        self._username: str | None = None

    def start(self, initial: bytes | None) -> bytes | Login:
        """Return the first prompt (base64, b"" for none) or, given an initial response, what it leads to."""
        if initial is not None:
            return self.respond(b"" if initial == b"=" else initial)
        return _USERNAME if self.mechanism == "LOGIN" else b""

    def respond(self, line: bytes) -> bytes | Login:
        """Take one response line; return the next prompt or the `Login`. Raises `BadResponse`."""
        if line == b"*":
            raise BadResponse("cancelled")
        text = _decode(line)
        if self.mechanism == "PLAIN":
            parts = text.split("\0")
            if len(parts) != 3 or not parts[1]:
                raise BadResponse("not a PLAIN response")
            return Login(parts[1], parts[2], parts[0])
        if "\0" in text:
            raise BadResponse("NUL in a LOGIN response")
        if self._username is None:
            self._username = text
            return _PASSWORD
        return Login(self._username, text)


def _decode(line: bytes) -> str:
    try:
        return base64.b64decode(line, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise BadResponse("not base64") from None
