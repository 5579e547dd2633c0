"""The client's half of AUTH: which mechanism, what a login sends line by line, what a refusal says.

Standards: RFC 4954 (AUTH), RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN), XOAUTH2 as Google and Microsoft
document it, RFC 6750 section 2.1 (what a token is made of).
Promises: an AUTH command is no longer than RFC 4954 section 4 lets it be (Dovecot takes no longer one, and no token of
Microsoft's is shorter); what cannot be sent is refused before anything is.
Dangers: passwords and tokens: an `Answers` is for the machine alone and has no `repr` that shows one.
Not here: when a login may be sent (`smtp.client`: in TLS only), the server's half (`smtp.sasl`), servers that repeat
what they were told (`smtp.masks`).
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, cast

from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.reply import Reply

_LONGEST_COMMAND = 512  # octets with CR LF (RFC 5321 section 4.5.3.1.4): a longer response waits for the 334
_TOKEN = re.compile(r"[!-~]{1,65536}")
_STATUS = re.compile(r"[A-Za-z0-9 ._/:\-]{1,100}")


def choose(wanted: tuple[str, ...], extensions: Mapping[str, str], *, tls: bool) -> str:
    """Return the first of the mechanisms `wanted` that a server offers. Raises `LocalProtocolError`, which says what it
    offers instead, or that there is no TLS."""
    secret = "token" if wanted == ("XOAUTH2",) else "password"
    if not tls:
        raise LocalProtocolError(f"there is no TLS, so the {secret} was not sent")
    offered = extensions.get("AUTH", "").upper().split()
    found = next((name for name in wanted if name in offered), None)
    if found is None:
        names = " nor ".join(f"AUTH {name}" for name in wanted)
        neither = f"the server offers {'neither ' if len(wanted) > 1 else 'no '}{names}"
        instead = " ".join(offered)[:200]
        raise LocalProtocolError(f"{neither}; it offers {f'AUTH {instead}' if instead else 'no AUTH at all'}")
    return found


class Answers:
    """What is said in one AUTH exchange: `command`, then `next` to each 334."""

    __slots__ = ("_challenge", "_lines", "_mechanism", "command")

    def __init__(self, mechanism: str, user: str, secret: str) -> None:
        """`mechanism` is "PLAIN", "LOGIN" or "XOAUTH2"; `secret` a password, or the access token.

        Raises `LocalProtocolError` for what no mechanism can carry; its text shows none of it."""
        self._mechanism = mechanism
        self._challenge = ""
        if mechanism == "LOGIN" and _sendable(user, secret):
            self.command = b"AUTH LOGIN\r\n"
            self._lines = [b64encode(_octets(text)) + b"\r\n" for text in (secret, user)]
            return
        if mechanism == "PLAIN" and _sendable(user, secret):
            response = _plain(user, secret)
            self._lines = []
        elif mechanism == "XOAUTH2" and user.isprintable() and _TOKEN.fullmatch(secret):
            # The empty line answers a challenge that holds an error: the server may refuse only then.
            response = _xoauth2(user, secret)
            self._lines = [b"\r\n"]
        else:
            raise LocalProtocolError("not a login we can send")
        self.command = b"AUTH %s %s\r\n" % (mechanism.encode("ascii"), response)
        if len(self.command) > _LONGEST_COMMAND:
            self.command = b"AUTH %s\r\n" % mechanism.encode("ascii")
            self._lines.append(response + b"\r\n")

    def next(self, challenge: Reply) -> bytes | None:
        """Return the line that answers a 334, None if this login has no more to say."""
        if not self._lines:
            return None
        if self._mechanism == "XOAUTH2" and len(self._lines) == 1:
            self._challenge = challenge.text
        return self._lines.pop()

    def judged(self, reply: Reply) -> Reply:
        """Return the server's verdict; a refusal with what its challenge had said is wrong, if it had."""
        said = "" if reply.ok else _explained(self._challenge)
        return Reply(reply.code, reply.enhanced, (*reply.lines, f"({said})")) if said else reply


def _sendable(user: str, password: str) -> bool:
    return "\0" not in user and "\0" not in password


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _plain(user: str, password: str) -> bytes:
    return b64encode(b"\0" + _octets(user) + b"\0" + _octets(password))


def _xoauth2(user: str, token: str) -> bytes:
    return b64encode(b"user=%s\x01auth=Bearer %s\x01\x01" % (_octets(user), _octets(token)))


def _explained(challenge: str) -> str:
    """Say what the JSON of an error challenge tells: its status and the scope it asks for, nothing else of it."""
    try:
        document: object = json.loads(b64decode(challenge, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    fields = cast("dict[str, Any]", document)
    told = [(name, str(fields.get(name) or "")) for name in ("status", "scope")]
    return ", ".join(f"{name} {value}" for name, value in told if _STATUS.fullmatch(value))
