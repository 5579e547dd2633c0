"""A reply: code, enhanced code, text; and the catalogue of every reply the server side gives.

Standards: RFC 5321 section 4.2, RFC 3463 and 2034 (enhanced codes), RFC 4954 (AUTH).
Promises: no reply contains a path, an address we know in private or a rule's name; the texts the vendor's
transcript shows are word for word here.
Dangers: text that comes from outside must not enter a reply: `Reply` refuses CR, LF and NUL.
Not here: when a reply is given (`smtp.server`, `relay.policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `enhanced` is "" where RFC 2034 has none (greeting, EHLO, 354); `lines` are its texts."""

    code: int
    enhanced: str
    lines: tuple[str, ...]
    wire: bytes = field(init=False, repr=False, compare=False)
    """The reply as it is sent. Made once: most replies are constants."""

    def __post_init__(self) -> None:
        prefix = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        texts = [f"{self.code}{' ' if number == last else '-'}{prefix}{line}" for number, line in enumerate(self.lines)]
        whole = "".join(texts)
        if "\r" in whole or "\n" in whole or "\0" in whole:
            raise ValueError("a reply's line holds a control character")
        object.__setattr__(self, "wire", ("\r\n".join(texts) + "\r\n").encode("utf-8"))

    @property
    def text(self) -> str:
        """Return the texts of all lines as one, without codes."""
        return " ".join(self.lines)

    @property
    def ok(self) -> bool:
        """Say whether the code is 2xx."""
        return 200 <= self.code < 300

    def __bytes__(self) -> bytes:
        return self.wire

    def __str__(self) -> str:
        return self.wire.decode("utf-8").rstrip("\r\n").replace("\r\n", " / ")


def reply(code: int, enhanced: str, *lines: str) -> Reply:
    """Make a reply: `reply(250, "2.1.0", "Ok")`."""
    return Reply(code, enhanced, lines)


OK = reply(250, "2.0.0", "Ok")
GO_AHEAD = reply(354, "", "End data with <CR><LF>.<CR><LF>")
BYE = reply(221, "2.0.0", "Bye")
READY_FOR_TLS = reply(220, "2.0.0", "Ready to start TLS")
NO_ROOM = reply(452, "4.3.1", "Insufficient system storage, please try again")
NOT_KNOWN = reply(500, "5.5.2", "Command not recognised")
NO_COMMAND = reply(502, "5.5.1", "Command not implemented")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
BARE_COMMAND = reply(500, "5.5.2", "A command ends in CR LF")
BARE_DATA = reply(550, "5.6.11", "A lone CR or LF is not allowed in a message")
NUL_DATA = reply(550, "5.6.11", "A NUL is not allowed in a message")
OUT_OF_ORDER = reply(503, "5.5.1", "Bad sequence of commands")
HELLO_FIRST = reply(503, "5.5.1", "Say EHLO first")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
TLS_FIRST = reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "Encryption required for authentication")
AUTH_FIRST = reply(530, "5.7.0", "Authentication required")
BAD_MECHANISM = reply(504, "5.5.4", "Authentication mechanism not supported")
BAD_AUTH = reply(501, "5.5.2", "Authentication response not understood")
TOO_LARGE = reply(552, "5.3.4", "Message size exceeds the limit")
TEXT_LINE_TOO_LONG = reply(554, "5.6.0", "A line of the message is too long")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")
UTF8_NEEDED = reply(553, "5.6.7", "An address with non-ASCII signs needs SMTPUTF8")
LOST = reply(421, "4.5.2", "Cannot tell where the next command begins, closing")
BAD_PARAMETER = reply(555, "5.5.4", "Parameter not recognised")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors, closing")
NOT_VERIFIED = reply(252, "2.5.0", "Cannot verify, send and see")
HELP = reply(214, "2.0.0", "See RFC 5321")
