"""From an `EmailMessage` to an envelope and the bytes that go on the wire.

Standards: RFC 5322 (fields), RFC 5321 section 4.5.2 (dot-stuffing), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8).
Promises: Bcc never leaves; every line ends in CR LF; the caller's message object is not changed.
Dangers: the message is the caller's own, made by the `email` package; a message that came from elsewhere must
not be sent this way, for that package rewrites it.
Not here: sending (`mailer.client`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from email import policy
from email.errors import MessageError as EmailError
from email.message import EmailMessage
from email.utils import getaddresses, localtime, make_msgid

from outgate.smtp import grammar
from outgate.smtp.buffer import has_bare_line_ends


class MessageError(Exception):
    """The message cannot be sent as it is; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends to whom; `utf8` if an address needs SMTPUTF8."""

    sender: str
    recipients: tuple[str, ...]
    utf8: bool


def prepare(message: EmailMessage, from_address: str) -> EmailMessage:
    """Return a copy with From (`from_address` if it has none), Date and Message-ID. Raises `MessageError`."""
    ready = copy.copy(message)
    # Return-Path is the receiver's to write. Deleting also gives the copy a list of fields of its own: one
    # that is only added to would still be the original's.
    del ready["Return-Path"]
    if not ready.get("From"):
        if not from_address:
            raise MessageError("From address required: set it in the message or as from.address")
        del ready["From"]
        ready["From"] = from_address
    if ready.get("Date") is None:
        ready["Date"] = localtime()
    if ready.get("Message-ID") is None:
        domain = _addresses(ready, "From")[0].rpartition("@")[2]
        ready["Message-ID"] = make_msgid(domain=domain if domain.isascii() else "localhost")
    return ready


def envelope(message: EmailMessage) -> Envelope:
    """Return the envelope that the fields ask for: Sender or From; To, Cc and Bcc. Raises `MessageError`."""
    sender = (_addresses(message, "Sender") or _addresses(message, "From"))[0]
    recipients = tuple(dict.fromkeys(address for name in ("To", "Cc", "Bcc") for address in _addresses(message, name)))
    if not recipients:
        raise MessageError("At least one receiver address required")
    everybody = (sender, *recipients)
    return Envelope(sender, recipients, not all(address.isascii() for address in everybody))


def _addresses(message: EmailMessage, name: str) -> list[str]:
    values: list[str] = [str(value) for value in message.get_all(name, [])]
    found: list[str] = []
    for _, address in getaddresses(values):
        try:
            grammar.mailbox(address.encode("utf-8"))
        except (grammar.BadSyntax, UnicodeEncodeError) as error:
            raise MessageError(f"an address in {name} is not valid: {error}") from None
        if not address:
            raise MessageError(f"{name} holds something that is no address")
        found.append(address)
    if not found and name == "From":
        raise MessageError("From address required: set it in the message or as from.address")
    return found


def serialise(message: EmailMessage, *, utf8: bool, eight_bit: bool) -> bytes:
    """Return the message in wire form (dot-stuffed, CR LF, without the final dot) and without Bcc.

    `eight_bit` False encodes bodies down to ASCII. Raises `MessageError`."""
    public = copy.copy(message)
    del public["Bcc"]
    rules = policy.SMTPUTF8 if utf8 else policy.SMTP
    try:
        data = public.as_bytes(policy=rules.clone(cte_type="8bit" if eight_bit else "7bit"))
    except (EmailError, ValueError, LookupError, TypeError) as error:
        raise MessageError(f"the message cannot be written: {error}") from None
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    if has_bare_line_ends(data):
        raise MessageError("the message holds a lone CR or LF")
    if data.startswith(b"."):
        data = b"." + data
    return data.replace(b"\r\n.", b"\r\n..")
