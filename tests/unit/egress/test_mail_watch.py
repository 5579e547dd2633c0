"""What the watch notices in dialogues, and what it lets through."""

from __future__ import annotations

import ssl

import pytest

from outgate.egress.mail_watch import NOTICES, MailWatch, Verdict

Dialogue = list[tuple[str, bytes]]


def client_hello(name: str = "smtp.example.com") -> bytes:
    """Return what a real TLS client sends first."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


HELLO = client_hello()
SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76"
GREETING = ("S", b"220 mx.example ESMTP\r\n")
EHLO = ("C", b"EHLO app\r\n")
OFFERED = ("S", b"250-mx.example\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 HELP\r\n")
BARE = ("S", b"250-mx.example\r\n250 HELP\r\n")
LETTER = b"Subject: AUTH\r\n\r\nAUTH PLAIN AGEAYg==\r\n..\r\nend"


class Between:
    """A watch, what got through it to either side, and what it told."""

    def __init__(self, *, implicit: bool = False, refuse: bool = False) -> None:
        self.told: list[str] = []
        self.up, self.down, self.end, self.done = b"", b"", "", False
        self.watch = MailWatch(
            implicit_tls=implicit, refuse_auth=refuse, noticed=lambda code, words: self._tell(code, words)
        )

    def _tell(self, code: str, words: str) -> None:
        assert NOTICES[code] == words
        self.told.append(code)

    def hold(self, dialogue: Dialogue, step: int = 1 << 20) -> Between:
        """Let the two speak, in pieces of `step` octets; "…" is silence."""
        for side, data in dialogue:
            if side == "…":
                self._judge("C", self.watch.silent())
            for at in range(0, len(data) or (side != "…"), step):
                if self.end:
                    break
                piece = data[at : at + step]
                self._judge(side, self.watch.client(piece) if side == "C" else self.watch.target(piece))
        return self

    def _judge(self, side: str, verdict: Verdict) -> None:
        if side == "C":
            self.up, self.down = self.up + verdict.on, self.down + verdict.back
        else:
            self.down, self.up = self.down + verdict.on, self.up + verdict.back
        self.end, self.done = verdict.end, verdict.done


CORRECT: dict[str, tuple[bool, Dialogue]] = {
    "starttls": (
        False,
        [GREETING, EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", HELLO), ("S", SERVER_HELLO),
         ("C", b"\x17\x03\x03\0\1x" * 40)],
    ),
    "implicit TLS": (True, [("C", HELLO), ("S", SERVER_HELLO), ("C", b"\x17\x03\x03AUTH PLAIN x\r\n")]),
    "TLS at once on another port, not listed": (False, [("C", HELLO), ("S", SERVER_HELLO), ("C", b"\x17\x03\x03")]),
    "a warning before the server's hello": (
        True, [("C", HELLO), ("S", b"\x15\x03\x03\0\2\1\x70" + SERVER_HELLO), ("C", b"\x17\x03\x03")],
    ),
    "no TLS, no login": (
        False,
        [GREETING, EHLO, OFFERED, ("C", b"MAIL FROM:<a@b.example> AUTH=<>\r\nRCPT TO:<auth@c.example>\r\nDATA\r\n"),
         ("S", b"250 ok\r\n250 ok\r\n354 go\r\n"), ("C", LETTER + b"\r\n.\r\n"), ("S", b"250 taken\r\n"),
         ("C", b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y>\r\nDATA\r\n"), ("S", b"250 ok\r\n550 no\r\n554 none\r\n"),
         ("C", b"RSET\r\nQUIT\r\n"), ("S", b"250 ok\r\n221 bye\r\n")],
    ),
    "BDAT": (
        False,
        [GREETING, EHLO, OFFERED, ("C", b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"),
         ("C", b"BDAT %d\r\n" % len(LETTER) + LETTER + b"BDAT 13 LAST\r\nAUTH PLAIN x\n"),
         ("S", b"250 ok\r\n" * 4), ("C", b"QUIT\r\n"), ("S", b"221-bye\r\n221 now\r\n")],
    ),
    "an empty message": (
        False,
        [GREETING, EHLO, OFFERED, ("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", b".\r\n"), ("S", b"250 ok\r\n"),
         ("C", b"QUIT\r\n"), ("S", b"221 bye\r\n")],
    ),
    "a server that says good-bye by itself": (False, [GREETING, EHLO, OFFERED, ("S", b"421 too long\r\n")]),
    "a refusal for a greeting": (False, [("S", b"554-no\r\n554 service\r\n"), ("C", b"QUIT\r\n"), ("S", b"221\r\n")]),
}  # fmt: skip


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("step", [1 << 20, 1, 2, 7])
@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_session_passes_octet_for_octet(name: str, step: int, refuse: bool) -> None:
    implicit, dialogue = CORRECT[name]
    if refuse and "not listed" in name:
        implicit = True  # where logins are refused, such a port has to be in egress.implicit_tls_ports
    between = Between(implicit=implicit, refuse=refuse).hold(dialogue, step)
    assert between.up == b"".join(data for side, data in dialogue if side == "C")
    assert between.down == b"".join(data for side, data in dialogue if side == "S")
    assert (between.told, between.end) == ([], "")


def test_a_correct_session_is_never_kept_waiting() -> None:
    """Each thing that a correct client says has wholly passed before anything else happens."""
    for implicit, dialogue in CORRECT.values():
        between = Between(implicit=implicit or dialogue[0][1] == HELLO, refuse=True)
        said = b""
        for side, data in dialogue:
            between.hold([(side, data)])
            said += data if side == "C" else b""
            # Of a message that goes on, the last line end waits for what follows it.
            assert said.removeprefix(between.up) in (b"", b"\r\n")


@pytest.mark.parametrize("name", ["starttls", "implicit TLS"])
@pytest.mark.parametrize("refuse", [False, True])
def test_once_tls_has_begun_nothing_is_looked_at(name: str, refuse: bool) -> None:
    implicit, dialogue = CORRECT[name]
    between = Between(implicit=implicit, refuse=refuse).hold(dialogue)
    assert between.done
    assert between.watch.client(b"AUTH\r\n") == Verdict(b"AUTH\r\n", done=True)
    assert between.watch.target(b"\0") == Verdict(b"\0", done=True)


ALERT = b"\x15\x03\x03\0\2\2\x46"
NOTICED: dict[str, tuple[bool, Dialogue, list[str]]] = {
    "clear text to 465": (True, [EHLO], ["mail.clear-to-implicit-tls"]),
    "clear text to 465, and its alert": (True, [EHLO, ("S", ALERT)], ["mail.clear-to-implicit-tls"]),
    "clear text to a TLS server on 587": (False, [EHLO, ("S", ALERT)], ["mail.clear-to-implicit-tls"]),
    "waiting for a greeting from 465": (True, [("…", b"")], ["mail.waits-for-greeting"]),
    "TLS to 587": (False, [GREETING, ("C", HELLO)], ["mail.tls-to-starttls"]),
    "TLS to 587 before its greeting": (False, [("C", HELLO), GREETING], ["mail.tls-to-starttls"]),
    "TLS to 587, and no answer": (False, [("C", HELLO), ("C", b"")], ["mail.tls-to-starttls"]),
    "465 greets in clear text": (True, [GREETING], ["mail.clear-greeting"]),
    "465 greets in clear text, after a hello": (True, [("C", HELLO), GREETING], ["mail.clear-greeting"]),
    "no greeting": (False, [("…", b"")], ["mail.no-greeting"]),
    "a web server": (False, [("S", b"HTTP/1.1 400 Bad Request\r\n")], ["mail.not-smtp"]),
    "a number without an end": (False, [("S", b"220" + b"x" * 5000)], ["mail.not-smtp"]),
    "no STARTTLS": (False, [GREETING, EHLO, BARE], ["mail.starttls-not-offered"]),
    "no STARTTLS, asked for": (
        False, [GREETING, EHLO, BARE, ("C", b"STARTTLS\r\n"), ("S", b"502 what\r\n")],
        ["mail.starttls-not-offered", "mail.starttls-refused"],
    ),
    "STARTTLS refused": (
        False, [GREETING, EHLO, OFFERED, ("C", b"starttls\r\n"), ("S", b"454 later\r\n")], ["mail.starttls-refused"],
    ),
    "STARTTLS, and then clear text": (
        False, [GREETING, EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", HELLO), ("S", b"454 no\r\n")],
        ["mail.starttls-refused"],
    ),
    "a login in the clear": (False, [GREETING, EHLO, OFFERED, ("C", b"auth plain x\r\n")], ["mail.clear-auth"]),
}  # fmt: skip


@pytest.mark.parametrize("step", [1 << 20, 1])
@pytest.mark.parametrize("name", NOTICED)
def test_what_is_wrong_is_noticed_and_everything_passes(name: str, step: int) -> None:
    implicit, dialogue, told = NOTICED[name]
    between = Between(implicit=implicit).hold(dialogue, step)
    assert between.told == told and between.end == ""
    assert between.up == b"".join(data for side, data in dialogue if side == "C")
    assert between.down == b"".join(data for side, data in dialogue if side == "S")


def test_every_notice_names_its_remedy_and_can_happen() -> None:
    codes = {code for _, _, told in NOTICED.values() for code in told}
    assert codes | {"mail.unreadable"} == set(NOTICES)
    for words in NOTICES.values():
        assert "smtp." in words or "portDest" in words


LOGINS: dict[str, Dialogue] = {
    "plain": [("C", b"AUTH PLAIN AGEAYg==\r\n")],
    "any case": [("C", b"aUtH login\r\n")],
    "behind EHLO": [("C", b"EHLO app\r\nAUTH PLAIN AGEAYg==\r\n"), OFFERED],
    "a bare LF": [("C", b"AUTH PLAIN AGEAYg==\n")],
    "behind a bare LF": [("C", b"NOOP\nAUTH PLAIN AGEAYg==\r\n")],
    "behind a bare CR": [("C", b"NOOP\rAUTH PLAIN AGEAYg==\r\n")],
    "a NUL before": [("C", b"\0AUTH PLAIN AGEAYg==\r\n")],
    "a NUL within": [("C", b"AU\0TH PLAIN AGEAYg==\r\n")],
    "blanks before": [("C", b" \t AUTH PLAIN AGEAYg==\r\n")],
    "an endless line": [("C", b"AUTH " + b"A" * 30_000)],
    "behind an endless line": [("C", b"NOOP " + b"A" * 30_000 + b"\r\nAUTH PLAIN AGEAYg==\r\n")],
    "behind DATA that is refused": [("C", b"DATA\r\nAUTH PLAIN AGEAYg==\r\n.\r\n"), ("S", b"503 no\r\n")],
    "behind DATA, endlessly": [("C", b"DATA\r\n" + b"AUTH PLAIN AGEAYg==\r\n" * 2000)],
    "in BDAT that is not known": [EHLO, BARE, ("C", b"BDAT 21\r\nAUTH PLAIN AGEAYg==\r\n")],
    "in BDAT of a strange size": [EHLO, OFFERED, ("C", b"BDAT 021\r\nAUTH PLAIN AGEAYg==\r\n")],
    "behind a dot between bare LFs": [("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", b"x\n.\nAUTH PLAIN AGEAYg==\r\n")],
    "behind a dot and a NUL": [("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", b"x\r\n\0.\r\nAUTH PLAIN AGEAYg==\r\n")],
    "behind STARTTLS": [EHLO, OFFERED, ("C", b"STARTTLS\r\nAUTH PLAIN AGEAYg==\r\n"), ("S", b"220 go\r\n")],
    "after STARTTLS, in the clear": [EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", b"AUTH PLAIN AGEAYg==\r\n")],
    "in a hello": [("C", HELLO[:60] + b"\r\nAUTH PLAIN AGEAYg==\r\n" + HELLO[83:])],
    "in a hello after STARTTLS": [
        EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", HELLO[:60] + b"\r\nAUTH PLAIN AGEAYg==\r\n" + HELLO[83:]),
    ],
    "after a hello that is answered in the clear": [
        EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", HELLO + b"\r\nAUTH PLAIN AGEAYg==\r\n"), ("S", b"454 no\r\n"),
    ],
    "after TLS that failed": [
        EHLO, OFFERED, ("C", b"STARTTLS\r\n"), ("S", b"220 go\r\n"), ("C", HELLO), ("S", ALERT), ("C", b"AUTH PLAIN AGEAYg==\r\n"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("step", [1 << 20, 1, 5])
@pytest.mark.parametrize("name", LOGINS)
def test_no_login_in_the_clear_reaches_the_target(name: str, step: int) -> None:
    between = Between(refuse=True).hold([GREETING, *LOGINS[name]], step)
    assert between.end.startswith("mail."), "the connection ends"
    assert b"AUTH" not in between.up.upper().replace(b"\0", b"")
    assert between.told[-1:] == [between.end] or between.end == "mail.tls-failed"
    assert between.watch.client(b"NOOP\r\n") == Verdict(end=between.end) == between.watch.target(b"250 ok\r\n")


@pytest.mark.parametrize("step", [1 << 20, 1])
def test_whoever_logs_in_in_the_clear_is_told_so_in_order(step: int) -> None:
    dialogue = [GREETING, ("C", b"EHLO app\r\nAUTH PLAIN x\r\n"), OFFERED]
    between = Between(refuse=True).hold(dialogue, step)
    assert between.up == b"EHLO app\r\n"
    assert between.down.startswith(GREETING[1] + OFFERED[1] + b"538 5.7.11 ") and between.down.endswith(b"\r\n")
    assert between.end == "mail.clear-auth"


def test_where_logins_are_refused_clear_text_to_465_ends_at_once() -> None:
    between = Between(implicit=True, refuse=True).hold([EHLO])
    assert (between.end, between.up) == ("mail.clear-to-implicit-tls", b"")
    assert between.down.startswith(b"554 ")


def test_a_hello_in_several_records_and_segments_passes() -> None:
    body = HELLO[5:]
    parts = [body[at : at + 100] for at in range(0, len(body), 100)]
    records = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)
    for step in (1, 50, 1 << 20):
        between = Between(implicit=True, refuse=True).hold([("C", records), ("S", SERVER_HELLO)], step)
        assert between.up == records and between.done


def test_a_hello_that_never_ends_is_not_kept() -> None:
    for endless in (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(30_000), b"\x16\x03\x01\0\1\x01" * 5000):
        between = Between(implicit=True, refuse=True).hold([("C", endless)], 1000)
        assert (between.end, between.up) == ("mail.unreadable", b"")


def test_a_name_with_auth_in_it_is_no_login() -> None:
    for name in ("auth.example", "auth.smtp.example.com", "a.auth"):
        hello = client_hello(name)
        assert Between(implicit=True, refuse=True).hold([("C", hello)]).up == hello


def test_a_client_that_ends_in_the_middle_has_said_what_it_said() -> None:
    data = [GREETING, EHLO, OFFERED, ("C", b"DATA\r\n"), ("S", b"354 go\r\n"), ("C", b"Subject: x\r\n"), ("C", b"")]
    assert Between(refuse=True).hold(data).up.endswith(b"Subject: x\r\n")
    login = Between(refuse=True).hold([GREETING, ("C", b"AUTH PLAIN AGEAYg=="), ("C", b"")])
    assert (login.up, login.end) == (b"", "")
