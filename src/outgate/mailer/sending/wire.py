"""From a message to its envelope, and to the octets that go on the wire.

Standards: RFC 5322 (fields), RFC 5321 sections 4.5.2 (dot-stuffing) and 4.5.3.1.6 (lines), RFC 6409 section 8 (what a
submitter adds), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 1870 (SIZE).
Promises: Bcc never leaves; every line ends in CR LF and has 998 octets at most; the caller's message is not changed;
what would arrive as something else is a `MessageError` before anything is sent.
Dangers: a message object is written anew, which breaks a signature in it: octets are sent as they are.
Not here: writing (`mailer.sending.writing`), sending (`mailer.sending.steps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import format_datetime, localtime, make_msgid

from outgate.mailer.sending import writing
from outgate.mailer.sending.errors import MessageError
from outgate.smtp import grammar
from outgate.smtp.buffer import examine, stuffed

__all__ = ["Letter", "MessageError", "letter"]

_LONGEST_LINE = 998  # octets, without CR LF
_TO = ("to", "cc", "bcc")
_RESENT_TO = frozenset({"resent-to", "resent-cc", "resent-bcc"})
_NO_FROM = "From address required: set it in the message or as from.address"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message and its envelope. `utf8`: an address needs SMTPUTF8. `added` are fields that the message lacks."""

    message: Message | bytes
    sender: str
    recipients: tuple[str, ...]
    utf8: bool
    added: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Return about how many octets it has, without writing it."""
        return len(self.message) if isinstance(self.message, bytes) else writing.size(self.message)

    def wire(self, extensions: Mapping[str, str]) -> bytes:
        """Return the content in wire form (dot-stuffed, CR LF, without the final dot) for a server with `extensions`.

        Raises `MessageError` for what that server cannot be given."""
        if self.utf8 and "SMTPUTF8" not in extensions:
            beyond = next((each for each in (self.sender, *self.recipients) if not each.isascii()), "an address in it")
            raise MessageError(f"the server does not offer SMTPUTF8, which {beyond} needs")
        data = stuffed(self._octets(eight_bit="8BITMIME" in extensions))
        most = extensions.get("SIZE", "")
        if most.isdecimal() and 0 < int(most[:20]) < len(data):
            raise MessageError(f"the message has {len(data)} octets, and the server takes {most} at most")
        return data

    def _octets(self, *, eight_bit: bool) -> bytes:
        if isinstance(self.message, bytes):
            if not eight_bit and not self.message.isascii():
                raise MessageError("the server does not offer 8BITMIME, which octets beyond ASCII need")
            return _checked(self.message)
        try:
            as_signed = not eight_bit and any(
                part.get_content_type() == "multipart/signed" for part in self.message.walk()
            )
            data = writing.octets(self.message, self.added, utf8=self.utf8, eight_bit=eight_bit or as_signed)
        except writing.CANNOT as error:
            raise MessageError(f"the message cannot be written: {error}") from None
        if not eight_bit and not self.utf8 and not data.isascii():
            hint = ": encode what is signed, as encoding it now would break the signature" if as_signed else ""
            raise MessageError(f"the message has octets beyond ASCII, and the server does not offer 8BITMIME{hint}")
        return _checked(data)


def letter(
    message: Message | bytes,
    from_address: str,
    *,
    sender: str | None = None,
    recipients: Iterable[str] | None = None,
) -> Letter:
    """Return what is to be sent: From is `from_address` if the message has none, Date and Message-ID are added.

    The envelope is `sender` ("": the null sender) and `recipients` as given, else Sender or From, and To, Cc and Bcc.
    Octets need both; so do recipients of a message that was sent before and says so (Resent-To). Raises
    `MessageError`."""
    if not isinstance(message, (Message, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MessageError(f"expected an EmailMessage, or octets, not {type(message).__name__}")
    known = _addresses_of(message, recipients is None) if isinstance(message, Message) else {}
    added: list[tuple[str, str]] = []
    if isinstance(message, Message):
        if not known.get("from"):
            if not from_address:
                raise MessageError(_NO_FROM)
            added.append(("From", from_address))
            known["from"] = _parsed("from.address", [from_address])
        added += _missing(message, known["from"][0])
    elif sender is None or recipients is None:
        raise MessageError("octets are sent as they are, so sender and recipients must be given")
    else:
        _refuse_bcc(message)
    if sender is None:
        sender = (known.get("sender") or known["from"])[0]
    elif sender:
        sender = _address("sender", sender)
    if recipients is None:
        to = [address for name in _TO for address in known.get(name, ())]
    else:
        to = [_address("recipients", each) for each in ([recipients] if isinstance(recipients, str) else recipients)]
    if not to:
        raise MessageError("At least one receiver address required")
    everybody = [sender, *to, *(address for addresses in known.values() for address in addresses)]
    return Letter(message, sender, tuple(dict.fromkeys(to)), not all(map(str.isascii, everybody)), tuple(added))


def _addresses_of(message: Message, envelope: bool) -> dict[str, list[str]]:
    """Return the addresses in a message's fields, by the field's name in small letters; none for what is empty.

    `envelope`: they say who gets the message, so that none may be overlooked."""
    found: dict[str, list[object]] = {}
    for name, value in message.raw_items():
        lower = name.lower()
        if envelope and lower in _RESENT_TO:
            # It may be for those, or they had it before, and it is for To now: one guess doubles it, one loses it.
            raise MessageError(f"the message has a {name} field: say in recipients whom it is for now")
        if (
            (lower in writing.ADDRESS_FIELDS or lower == "bcc")
            and not lower.startswith("resent-")
            and str(value).strip()
        ):
            found.setdefault(lower, []).append(value)
    return {name: _parsed(name, values, envelope and name in _TO) for name, values in found.items()}


def _parsed(name: str, values: Iterable[object], whole: bool = False) -> list[str]:
    shown = name.title() if "." not in name else name
    addresses: list[str] = []
    for value in values:
        header = writing.address_field("To" if "." in name else name, value)
        for address in header.addresses:
            if not address.addr_spec.strip("<>"):
                raise MessageError(f"{shown} holds something that is no address")
            addresses.append(_address(shown, address.addr_spec))
        if whole and writing.faulty(header):
            raise MessageError(
                f"{shown} is no list of addresses: they are written name@domain or Name <name@domain>, with commas"
                " between them"
            )
    if not addresses and name in ("from", "from.address"):
        raise MessageError(_NO_FROM)
    return addresses


def _address(name: str, text: str) -> str:
    try:
        grammar.mailbox(text.encode("utf-8"))
    except (grammar.BadSyntax, UnicodeEncodeError) as error:
        what = "it holds half a surrogate pair" if isinstance(error, UnicodeError) else str(error)
        raise MessageError(f"an address in {name} is not valid: {what}") from None
    if not text:
        raise MessageError(f"{name} holds something that is no address")
    return writing.plain_address(text)


def _missing(message: Message, author: str) -> list[tuple[str, str]]:
    added: list[tuple[str, str]] = []
    names = {name.lower() for name in message.keys()}  # noqa: SIM118  # `message[…]` would read a value, and may fail
    if "date" not in names:
        added.append(("Date", format_datetime(localtime())))
    if "message-id" not in names:
        domain = author.rpartition("@")[2]
        added.append(("Message-ID", make_msgid(domain=domain if domain.isascii() else "localhost")))
    return added


def _refuse_bcc(message: bytes) -> None:
    head = message.partition(b"\r\n\r\n")[0]
    if any(line.partition(b":")[0].strip().lower() in (b"bcc", b"resent-bcc") for line in head.splitlines()):
        raise MessageError("the octets have a Bcc field, which everybody would read: take it out")


def _checked(data: bytes) -> bytes:
    bare, long = examine(data, _LONGEST_LINE)
    if bare:
        raise MessageError("the message holds a lone CR or LF")
    if long:
        raise MessageError(f"a line of the message is longer than {_LONGEST_LINE} octets: let set_content encode it")
    if b"\0" in data:
        raise MessageError("the message holds a NUL")
    return data
