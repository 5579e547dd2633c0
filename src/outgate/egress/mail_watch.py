"""Watch the beginning of an SMTP connection that passes through: wrong TLS modes, and passwords in the clear.

Standards: RFC 5321, 3207 (STARTTLS), 8314 (implicit TLS), 4954 (AUTH), 3030 (BDAT), 2920 (pipelining), 8446 (records).
Promises: pure; what is told depends on the octets only, not on how they are cut; memory has a bound. Without
    `refuse_auth` every octet passes at once and unchanged, and whatever cannot be read ends the watch. With it no login
    outside TLS reaches the target: a line waits for its end, what must not be pipelined waits for the reply before it
    (no correct client sends it earlier), and what cannot be read ends the connection.
Dangers: a client that does not wait for the reply to EHLO and ends its sending meanwhile loses what it said early, if
    logins are refused. What follows DATA or BDAT is content only if the target says so: where it refused DATA or does
    not know BDAT, the same octets are commands. A ClientHello is binary to TLS, but lines to a server without it.
Not here: moving octets (`pump`), which forwards carry mail (`plan`), where notices go (`ledger`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

SILENT_S = 8.0
"""After how many seconds of the client's silence `silent` is asked: longer than servers delay a greeting on purpose."""

_IMPLICIT = "smtp.ssl=true and smtp.starttls=false"
_UPGRADE = "smtp.ssl=false, smtp.starttls=true"
NOTICES = MappingProxyType(
    {
        "mail.clear-to-implicit-tls": "the client speaks in clear text to a port where TLS begins with the first octet:"
        f" set {_IMPLICIT} for portDest 465, or lead the forward to portDest 587 with {_UPGRADE}",
        "mail.waits-for-greeting": "the client waits for a greeting on a port where TLS begins with the first octet"
        f" (smtp.ssl=false against 465): set {_IMPLICIT}, or lead the forward to portDest 587 with {_UPGRADE}",
        "mail.tls-to-starttls": "the client begins TLS on a port that speaks in clear text until STARTTLS"
        f" (smtp.ssl=true against 587): set {_UPGRADE}, or lead the forward to portDest 465 with {_IMPLICIT}",
        "mail.clear-greeting": "the target greets in clear text on a port where TLS should begin with the first octet:"
        f" set {_UPGRADE} if it offers STARTTLS there, or ask its operator which portDest is for TLS",
        "mail.no-greeting": "the target does not greet: if TLS begins with the first octet there (as on 465), set"
        f" {_IMPLICIT}; else look whether portDest is that of its mail service",
        "mail.not-smtp": "the target does not answer as a mail server does: look whether name and portDest are those of"
        " its mail service (465 with smtp.ssl=true, 587 with smtp.starttls=true)",
        "mail.starttls-not-offered": "the target does not offer STARTTLS: smtp.starttls=true cannot work there; lead"
        f" the forward to portDest 465 with {_IMPLICIT}, or to a server that offers it on 587",
        "mail.starttls-refused": "the target refuses STARTTLS although it may offer it: try again later, ask its"
        f" operator, or lead the forward to portDest 465 with {_IMPLICIT}",
        "mail.clear-auth": "the client sends a login in the clear: set smtp.starttls=true for portDest 587, or"
        " smtp.ssl=true for portDest 465",
        "mail.unreadable": "the connection is not plain SMTP, so a login could pass unseen, and"
        " egress.refuse_clear_auth is set: use TLS (smtp.starttls=true with portDest 587,"
        " smtp.ssl=true with portDest 465)",
    }
)
"""Everything that can be noticed: class word and remedy, in the words of the vendor's mail configuration."""

_LINE = 4096
_HELD = 20_000  # a ClientHello may fill a record of 16 KiB
_AUTH_ANSWER = (
    b"538 5.7.11 Encryption is required to log in: set smtp.starttls=true (port 587) or smtp.ssl=true (port 465)\r\n"
)
_UNREADABLE_ANSWER = b"554 5.5.0 This is not plain SMTP, which is needed here outside TLS\r\n"

_VERB = re.compile(rb"[^A-Za-z]*([A-Za-z]*)")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BDAT = re.compile(rb"BDAT (0|[1-9][0-9]{0,17})(?: LAST)?\r\n", re.IGNORECASE)
_REPLY = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
# The end of a message, and all that some server somewhere takes for one.
_END_OF_DATA = re.compile(
    rb"(\r\n\.\r\n)|[\r\n]\0|\r\n\.[\n\0]|\r\n\.\r[^\n]|(?<!\r)\n\.[\r\n\0]|\r\.[\r\n\0]", re.DOTALL
)
_UNDECIDED = re.compile(rb"(?:\r\n\.\r|\r\n\.|\r\n|\n\.|\r\.|\r|\n)\Z")
_HIDDEN_AUTH = re.compile(rb"[\r\n][\x00-\x20]*auth[\x00-\x20]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with octets that came: pass `on` to the other side, answer `back` to the side they came from.

    `done`: from now on copy without asking. `end`: after that end the connection, for this reason (a class word)."""

    on: bytes = b""
    back: bytes = b""
    done: bool = False
    end: str = ""


class _Phase(Enum):
    FIRST = auto()  # nothing has come from the client, or nothing since STARTTLS
    HELLO = auto()  # it begins TLS; whether the target does is to be seen
    COMMANDS = auto()
    CONTENT = auto()  # of DATA
    CHUNK = auto()  # of BDAT
    DONE = auto()


class MailWatch:
    """Watch one connection. `noticed` is told class word and words, each once at most."""

    __slots__ = (
        "_answer", "_awaited", "_chunking", "_end", "_ghost", "_greeted", "_hello", "_implicit", "_left", "_noticed",
        "_offered", "_phase", "_plain", "_refuse", "_released", "_said", "_sent", "_told", "_upgraded",
    )  # fmt: skip

    def __init__(self, *, implicit_tls: bool, refuse_auth: bool, noticed: Callable[[str, str], None]) -> None:
        """`implicit_tls`: TLS is expected from the first octet on."""
        self._implicit = implicit_tls
        self._refuse = refuse_auth
        self._noticed = noticed
        self._told: set[str] = set()
        self._phase = _Phase.FIRST
        self._sent = bytearray()  # by the client, not understood yet; held back if logins are refused
        self._said = bytearray()  # by the target, not a whole line yet
        self._released = bytearray()
        self._answer = b""
        self._end = ""
        # Replies to come: `_plain` ordinary ones, then that to `_awaited`, before which no further command is read.
        self._plain = 0
        self._awaited = "greeting"
        self._greeted = self._upgraded = self._chunking = self._offered = False
        self._hello = False  # the whole ClientHello has passed
        self._left = 0
        self._ghost = 0  # octets in front of `_sent` that were never sent

    @property
    def deadline_s(self) -> float:
        """Return after how many seconds of the client's silence `silent` is to be asked."""
        return SILENT_S

    @property
    def kept(self) -> int:
        """Return how many octets are kept, of both sides."""
        return len(self._sent) + len(self._released) + len(self._said)

    @property
    def _done(self) -> bool:
        return self._phase is _Phase.DONE

    def client(self, data: bytes) -> Verdict:
        """Judge octets from the client; b"" is its end."""
        if self._end:
            return Verdict(end=self._end)
        if self._done:
            return Verdict(data, done=True)
        if not data:
            self._client_ends()
        self._sent += data
        self._advance()
        if not self._done and len(self._sent) > _HELD:
            self._give_up()
        on = self._take() if self._refuse else data
        return Verdict(on, self._answer, self._done and not self._end, self._end)

    def target(self, data: bytes) -> Verdict:
        """Judge octets from the target; they always pass. What was held for them comes `back`. b"" is its end."""
        if self._end:
            return Verdict(end=self._end)
        if self._done:
            return Verdict(data, done=True)
        self._said += data
        self._hear()
        back = self._take() if self._refuse else b""
        return Verdict(data + self._answer, back, self._done and not self._end, self._end)

    def silent(self) -> Verdict:
        """Say what it means that the client has said nothing for `deadline_s`."""
        if self._phase is _Phase.FIRST and not self._greeted and not self._sent and not self._said:
            self._notice("mail.waits-for-greeting" if self._implicit else "mail.no-greeting")
        return Verdict(done=self._done and not self._end, end=self._end)

    def _client_ends(self) -> None:
        if self._phase in (_Phase.CONTENT, _Phase.CHUNK):
            self._release(len(self._sent))  # no command comes behind it any more
        elif self._phase is _Phase.HELLO and not self._implicit and not self._upgraded and not self._said:
            self._notice("mail.tls-to-starttls")

    # -- the client's side ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Understand as much as can be of what the client has sent."""
        steps = {
            _Phase.FIRST: self._first,
            _Phase.HELLO: self._client_hello,
            _Phase.COMMANDS: self._command,
            _Phase.CONTENT: self._content,
            _Phase.CHUNK: self._chunk,
        }
        while not self._end and not self._done and self._sent:
            if not steps[self._phase]():
                break

    def _first(self) -> bool:
        """Tell TLS from clear text."""
        if self._sent[0] == 0x16 and len(self._sent) == 1:
            return False
        if not self._sent.startswith(b"\x16\x03"):
            self._phase = _Phase.COMMANDS
            if self._upgraded:
                self._give_up()
            elif self._implicit and not self._greeted:
                self._notice("mail.clear-to-implicit-tls")
                if self._refuse:
                    self._stop("mail.clear-to-implicit-tls", _UNREADABLE_ANSWER)
            return True
        mistaken = not self._upgraded and (self._greeted or (self._refuse and not self._implicit))
        if mistaken:
            # A server that has greeted waits for commands, and would find some in a ClientHello made for that.
            code = "mail.clear-greeting" if self._implicit else "mail.tls-to-starttls"
            self._notice(code)
            self._finish(code)
            return False
        self._phase = _Phase.HELLO
        return True

    def _client_hello(self) -> bool:
        """Let the whole ClientHello through; what follows waits for the target to speak TLS too."""
        if not self._refuse or self._hello:
            return False
        length = _hello_length(self._sent)
        if length is None:
            self._give_up()
        elif length and len(self._sent) >= length:
            if _HIDDEN_AUTH.search(self._sent, 0, length):
                self._notice("mail.clear-auth")
                self._stop("mail.clear-auth", b"")
                return False
            self._hello = True
            self._release(length)
        return False

    def _command(self) -> bool:
        """Read one line."""
        if self._awaited:
            return False
        end = self._sent.find(b"\n", 0, _LINE) + 1
        if not end and len(self._sent) < _LINE:
            return False
        line = bytes(self._sent[: end or _LINE])
        found = _VERB.match(line)
        verb = b"" if found is None else found[1].upper()
        if verb.startswith(b"AUTH"):
            self._notice("mail.clear-auth")
            self._finish("mail.clear-auth", _AUTH_ANSWER)
            return False
        # To some servers a bare CR or LF ends a line and to others it does not, and a NUL ends or is nothing.
        odd = not end or not line.endswith(b"\r\n") or _CONTROL.search(line, 0, len(line) - 2) is not None
        if odd and (self._refuse or not end):
            self._give_up()
            return False
        return self._ordinary(verb, line)

    def _ordinary(self, verb: bytes, line: bytes) -> bool:
        if not self._refuse and verb in (b"MAIL", b"DATA", b"BDAT"):
            self._phase = _Phase.DONE  # what comes now is mail, and nothing more is to be learned
            return False
        if verb == b"BDAT":
            size = _BDAT.fullmatch(line)
            if size is None or not self._chunking:
                self._give_up()
                return False
            self._left = int(size[1])
            self._phase = _Phase.CHUNK if self._left else _Phase.COMMANDS
            self._plain += 1
        elif verb in (b"EHLO", b"STARTTLS", b"DATA"):
            self._awaited = verb.decode("ascii")
            if verb == b"EHLO":
                self._offered = self._chunking = False
        else:
            self._plain += 1
        self._release(len(line))
        return True

    def _content(self) -> bool:
        """Let a message through up to its end, which all servers must agree about."""
        found = _END_OF_DATA.search(self._sent)
        if found is None:
            tail = _UNDECIDED.search(self._sent, max(0, len(self._sent) - 4))
            self._release(len(self._sent) if tail is None else tail.start())
            return False
        if found[1] is None:
            self._release(found.start())
            self._give_up()
            return False
        self._release(found.end())
        self._plain += 1
        self._phase = _Phase.COMMANDS
        return True

    def _chunk(self) -> bool:
        passing = min(self._left, len(self._sent))
        self._left -= passing
        self._release(passing)
        if not self._left:
            self._phase = _Phase.COMMANDS
        return True

    def _release(self, length: int) -> None:
        ghost = min(self._ghost, length)
        self._ghost -= ghost
        if self._refuse:
            self._released += self._sent[ghost:length]
        del self._sent[:length]

    def _take(self) -> bytes:
        if self._done and not self._end:
            self._release(len(self._sent))
        taken = bytes(self._released)
        self._released.clear()
        return taken

    # -- the target's side ---------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Understand what the target has said, reply by reply."""
        if self._phase is _Phase.HELLO:
            self._answer_to_hello()
            return
        while not self._end and not self._done and self._said:
            if not 0x32 <= self._said[0] <= 0x35:
                self._not_smtp()
                return
            end = self._said.find(b"\n", 0, _LINE) + 1
            if not end:
                if len(self._said) >= _LINE:
                    self._not_smtp()
                return
            line = bytes(self._said[:end]).rstrip(b"\r\n")
            del self._said[:end]
            found = _REPLY.fullmatch(line)
            if found is None:
                self._not_smtp()
            else:
                self._reply_line(int(found[1]), found[2] == b"-", found[3] or b"")

    def _answer_to_hello(self) -> None:
        while self._said and b"\x15\x03".startswith(bytes(self._said[:2])):
            if len(self._said) < 7:
                return
            if self._said[5] != 1 and self._refuse:  # a fatal alert; what follows could be clear text again
                self._stop("mail.tls-failed", b"")
                return
            del self._said[:7]
        if b"\x16".startswith(bytes(self._said)):
            return
        if self._said.startswith(b"\x16\x03"):
            self._phase = _Phase.DONE
            return
        if self._upgraded:
            code = "mail.starttls-refused"
        else:
            code = "mail.clear-greeting" if self._implicit else "mail.tls-to-starttls"
        self._notice(code)
        self._finish(code)

    def _not_smtp(self) -> None:
        if self._said[0] in (0x15, 0x16):
            # An alert, if anything: the target expects TLS from the first octet on, whatever its port.
            self._notice("mail.clear-to-implicit-tls")
        elif self._awaited == "greeting":
            self._notice("mail.not-smtp")
        self._give_up()

    def _reply_line(self, code: int, more: bool, text: bytes) -> None:
        if not self._plain and self._awaited == "EHLO" and code == 250:
            keyword = text.split(b" ", 1)[0].upper()
            self._offered = self._offered or keyword == b"STARTTLS"
            self._chunking = self._chunking or keyword == b"CHUNKING"
        if more:
            return
        if self._plain:
            self._plain -= 1
            if code // 100 == 3:  # only DATA and AUTH are answered so: we have lost count
                self._give_up()
            return
        awaited, self._awaited = self._awaited, ""
        if not awaited:
            if code != 421:  # a server may say good-bye unasked
                self._give_up()
            return
        self._replied(awaited, code)
        self._advance()

    def _replied(self, awaited: str, code: int) -> None:
        if awaited == "greeting":
            self._greeted = True
            if self._implicit:
                self._notice("mail.clear-greeting")
        elif awaited == "EHLO":
            if code == 250 and not self._offered:
                self._notice("mail.starttls-not-offered")
        elif awaited == "DATA":
            if code == 354:
                self._phase = _Phase.CONTENT
                # The line end of DATA is the one before the first line: a dot alone there is an end already.
                self._sent[:0] = b"\r\n"
                self._ghost = 2
        elif code == 220:
            self._upgraded = True
            self._phase = _Phase.FIRST
            if self._sent:
                self._give_up()  # said before TLS, to be taken as if said in it
        else:
            self._notice("mail.starttls-refused")

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _notice(self, code: str) -> None:
        if code not in self._told:
            self._told.add(code)
            self._noticed(code, NOTICES[code])

    def _finish(self, code: str, answer: bytes = b"") -> None:
        """Nothing more is to be learned: end the watch, or the connection if logins are refused."""
        if self._refuse:
            self._stop(code, answer)
        else:
            self._phase = _Phase.DONE

    def _give_up(self) -> None:
        """What has come cannot be read."""
        if self._refuse:
            self._notice("mail.unreadable")
        in_clear = not self._upgraded and self._phase is not _Phase.HELLO
        self._finish("mail.unreadable", _UNREADABLE_ANSWER if in_clear else b"")

    def _stop(self, code: str, answer: bytes) -> None:
        self._end, self._answer = code, answer


def _hello_length(data: bytearray) -> int | None:
    """Return how many octets the records of a ClientHello take, 0 if more are needed to know; None if it is none."""
    at, head, have = 0, b"", 0
    while len(head) < 4 or have < 4 + int.from_bytes(head[1:], "big"):
        if at > _HELD:
            return None
        if len(data) < at + 5:
            return 0
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != 0x16 or data[at + 1] != 0x03 or not 0 < size <= 16_384:
            return None
        head += data[at + 5 : at + 5 + min(size, 4 - len(head))]
        if not b"\x01".startswith(bytes(head[:1])):
            return None
        have += size
        at += 5 + size
    return at
