"""The client machine, as dialogues."""

import base64

import pytest

from outgate.smtp.client import (
    TRANSITIONS,
    Authenticated,
    ClientLimits,
    ClientMachine,
    Closing,
    Done,
    Greeting,
    Hello,
    State,
    TlsReady,
    TlsRefused,
    Transaction,
    TransactionResult,
)
from outgate.smtp.errors import LocalProtocolError, RemoteProtocolError
from outgate.smtp.reply import Reply
from support.client_transcript import play

OFFERED = "PIPELINING"
MAIL = Transaction("a@x.test", ("b@y.test",), (b"Subject: hi\r\n\r\n", b"text\r\n"))
TWO = Transaction("a@x.test", ("b@y.test", "c@y.test"), (b"two\r\n",))


def ready(*extensions: str, tls: bool = False, pipelining: bool = True) -> ClientMachine:
    """Return a machine that has said EHLO."""
    machine = ClientMachine(ehlo_name="me.test", tls=tls, pipelining=pipelining)
    play(machine, "S: 220 peer.test")
    machine.ehlo()
    machine.outgoing()
    lines = ["peer.test", *extensions]
    play(
        machine,
        "\n".join(f"S: 250{' ' if n == len(lines) - 1 else '-'}{text}" for n, text in enumerate(lines)),
    )
    return machine


def results(events: list[object]) -> list[TransactionResult]:
    return [event.result for event in events if isinstance(event, Done)]


class TestBeginning:
    def test_hello(self) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        greeting = play(machine, "S: 220-peer.test\nS: 220 ESMTP")
        assert greeting == [Greeting(Reply(220, "", ("peer.test", "ESMTP")))]
        machine.ehlo()
        events = play(
            machine,
            """
            C: EHLO me.test
            S: 250-peer.test
            S: 250-size 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250 auth=LOGIN
            """,
        )
        assert isinstance(events[0], Hello)
        assert events[0].extensions == {"SIZE": "1000", "AUTH": "PLAIN LOGIN"} == machine.extensions
        assert machine.state is State.READY

    def test_hello_keeps_what_looks_like_an_enhanced_code(self) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        play(machine, "S: 220 peer")
        machine.ehlo()
        (event,) = play(machine, "C: EHLO me.test\nS: 250 2.1.0 peer")
        assert event == Hello(Reply(250, "", ("2.1.0 peer",)), {})

    def test_a_peer_that_only_knows_helo(self) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        play(machine, "S: 220 old")
        machine.ehlo()
        (event,) = play(machine, "C: EHLO me.test\nS: 502 what\nC: HELO me.test\nS: 250 old PIPELINING")
        assert event == Hello(Reply(250, "", ("old PIPELINING",)), {})

    @pytest.mark.parametrize("greeting", ["554 5.7.1 no", "450 busy"])
    def test_a_refusing_greeting_leaves_only_quit(self, greeting: str) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        (event,) = play(machine, f"S: {greeting}")
        assert isinstance(event, Greeting) and not event.reply.ok
        with pytest.raises(LocalProtocolError):
            machine.ehlo()
        machine.quit()
        (end,) = play(machine, "C: QUIT\nS: 221 bye")
        assert end == Closing(Reply(221, "", ("bye",)))

    def test_421_as_greeting(self) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        events = play(machine, "S: 421 4.3.2 later")
        assert [type(event) for event in events] == [Greeting, Closing]
        assert machine.state is State.CLOSED


class TestTransaction:
    def test_pipelined(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        events = play(
            machine,
            """
            C: MAIL FROM:<a@x.test>
            C: RCPT TO:<b@y.test>
            C: DATA
            S: 250 2.1.0 Ok
            S: 250 2.1.5 Ok
            S: 354 go on
            C: Subject: hi
            C:
            C: text
            C: .
            S: 250 2.0.0 Ok: queued as 1
            """,
        )
        (result,) = results(events)
        assert result.transaction is MAIL
        assert result.mail == Reply(250, "2.1.0", ("Ok",))
        assert result.recipients == (Reply(250, "2.1.5", ("Ok",)),)
        assert result.final == result.reply_for(0) == Reply(250, "2.0.0", ("Ok: queued as 1",))
        assert result.sent_all and not result.error
        assert [step.did for step in result.steps] == [
            "MAIL FROM:<a@x.test> + RCPT TO:<b@y.test> + DATA",
            "21 octets of content and the final dot",
        ]
        assert result.steps[0].reply == "250 2.1.0 Ok | 250 2.1.5 Ok | 354 go on"
        assert result.steps[1].reply == "250 2.0.0 Ok: queued as 1"
        assert result.steps[0].at < result.steps[1].at

    def test_step_by_step(self) -> None:
        machine = ready()
        machine.send(TWO)
        events = play(
            machine,
            """
            C: MAIL FROM:<a@x.test>
            S: 250 ok
            C: RCPT TO:<b@y.test>
            S: 550 5.1.1 unknown
            C: RCPT TO:<c@y.test>
            S: 251 will forward
            C: DATA
            S: 354 go
            C: two
            C: .
            S: 250 ok 2
            """,
        )
        (result,) = results(events)
        assert [result.reply_for(0).code, result.reply_for(1).text] == [550, "ok 2"]

    def test_pipelining_may_be_forbidden(self) -> None:
        machine = ready("PIPELINING", pipelining=False)
        machine.send(MAIL)
        play(machine, "C: MAIL FROM:<a@x.test>")

    def test_content_buffers_are_the_callers_own(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.outgoing()
        machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        assert machine.next_event() is None
        out = machine.outgoing()
        assert out[0] is MAIL.content[0] and out[1] is MAIL.content[1]

    def test_the_next_envelope_goes_out_behind_the_dot(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.outgoing()
        machine.send(TWO)
        assert not machine.ready
        events = play(
            machine,
            """
            S: 250 ok
            S: 250 ok
            S: 354 go
            C: Subject: hi
            C:
            C: text
            C: .
            C: MAIL FROM:<a@x.test>
            C: RCPT TO:<b@y.test>
            C: RCPT TO:<c@y.test>
            C: DATA
            S: 451 4.3.0 first is deferred
            S: 250 ok
            S: 250 ok
            S: 250 ok
            S: 354 go
            C: two
            C: .
            S: 250 second
            """,
        )
        first, second = results(events)
        assert (first.transaction, first.final.code) == (MAIL, 451)
        assert (second.transaction, second.final.text) == (TWO, "second")
        assert machine.state is State.READY

    def test_a_transaction_handed_over_after_the_dot_starts_at_once(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.outgoing()
        machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        machine.next_event()
        machine.outgoing()
        machine.send(TWO)
        assert machine.outgoing()[0].startswith(b"MAIL FROM:<a@x.test>\r\nRCPT")

    def test_without_pipelining_the_next_waits(self) -> None:
        machine = ready()
        machine.send(MAIL)
        machine.send(TWO)
        events = play(
            machine,
            """
            C: MAIL FROM:<a@x.test>
            S: 550 no
            C: MAIL FROM:<a@x.test>
            S: 250 ok
            C: RCPT TO:<b@y.test>
            """,
        )
        assert [result.transaction for result in results(events)] == [MAIL]

    def test_parameters_only_where_offered(self) -> None:
        transaction = Transaction("ä@x.test", ("b@y.test",), (b"\r\n",), body_8bit=True, smtputf8=True, size=2)
        machine = ready("SIZE 100", "8BITMIME", "SMTPUTF8")
        machine.send(transaction)
        play(machine, "C: MAIL FROM:<ä@x.test> SIZE=2 BODY=8BITMIME SMTPUTF8")
        plain = Transaction("a@x.test", ("b@y.test",), (b"\r\n",), body_8bit=True, size=2)
        machine = ready()
        machine.send(plain)
        play(machine, "C: MAIL FROM:<a@x.test>")

    @pytest.mark.parametrize(
        "transaction",
        [
            Transaction("a@x.test", ("ü@y.test",), (b"\r\n",)),
            Transaction("a@x.test", ("b@y.test",), (b"\r\n",), smtputf8=True),
        ],
    )
    def test_smtputf8_not_offered(self, transaction: Transaction) -> None:
        machine = ready("PIPELINING")
        machine.send(transaction)
        (result,) = results(play(machine, ""))
        assert result.error == "smtputf8 not offered"
        assert result.reply_for(0).code == 553 and not result.sent_all
        assert "SMTPUTF8" in result.steps[0].did
        assert machine.ready

    def test_requiretls_goes_only_where_it_is_offered_in_tls(self) -> None:
        transaction = Transaction("a@x.test", ("b@y.test",), (b"\r\n",), requiretls=True)
        machine = ready("PIPELINING", "REQUIRETLS")  # without TLS
        machine.send(transaction)
        (result,) = results(play(machine, ""))
        assert result.error == "requiretls not offered" and not result.sent_all
        reply = result.reply_for(0)
        assert reply is not None and (reply.code, reply.enhanced) == (550, "5.7.30")
        assert "REQUIRETLS" in result.steps[0].did
        assert machine.ready
        machine.tls = True
        machine.send(transaction)
        play(machine, "C: MAIL FROM:<a@x.test> REQUIRETLS\nC: RCPT TO:<b@y.test>\nC: DATA")

    def test_a_report_is_not_lost_where_requiretls_is_not_offered(self) -> None:
        transaction = Transaction("", ("b@y.test",), (b"\r\n",), requiretls=True)
        for offered, said in (((), ""), (("REQUIRETLS",), " REQUIRETLS")):
            machine = ready("PIPELINING", *offered)
            machine.tls = True
            machine.send(transaction)
            play(machine, f"C: MAIL FROM:<>{said}\nC: RCPT TO:<b@y.test>\nC: DATA")

    def test_null_sender_and_quoted_local_part(self) -> None:
        machine = ready("PIPELINING")
        machine.send(Transaction("", ('"a > b"@y.test',), (b"\r\n",)))
        play(machine, 'C: MAIL FROM:<>\nC: RCPT TO:<"a > b"@y.test>\nC: DATA')


class TestRefusals:
    def test_everything_refused(self) -> None:
        machine = ready("PIPELINING")
        machine.send(TWO)
        machine.outgoing()
        events = play(machine, "S: 550 5.7.1 no\nS: 503 first MAIL\nS: 503 first MAIL\nS: 503 no")
        (result,) = results(events)
        assert result.reply_for(0) == result.reply_for(1) == Reply(550, "5.7.1", ("no",))
        assert result.final is None and not result.sent_all and not result.error
        assert machine.state is State.READY  # nothing is open at the peer: no RSET

    def test_no_recipient_taken_and_data_refused_resets(self) -> None:
        machine = ready("PIPELINING")
        machine.send(TWO)
        machine.send(MAIL)
        machine.outgoing()
        events = play(
            machine,
            """
            S: 250 ok
            S: 550 5.1.1 one
            S: 450 4.2.1 two
            S: 554 5.5.1 none
            C: RSET
            C: MAIL FROM:<a@x.test>
            C: RCPT TO:<b@y.test>
            C: DATA
            S: 250 reset
            S: 250 ok
            S: 250 ok
            S: 354 go
            C: Subject: hi
            C:
            C: text
            C: .
            S: 250 done
            """,
        )
        first, second = results(events)
        assert [reply.code for reply in first.recipients] == [550, 450]
        assert second.final.text == "done"

    def test_no_recipient_taken_but_354_gets_a_lone_dot(self) -> None:
        machine = ready("PIPELINING")
        machine.send(TWO)
        machine.outgoing()
        events = play(
            machine,
            "S: 250 ok\nS: 550 a\nS: 550 b\nS: 354 go\nC: .\nS: 250 queued nothing",
        )
        (result,) = results(events)
        assert result.final is None and not result.sent_all
        assert [result.reply_for(index).text for index in (0, 1)] == ["a", "b"]

    def test_step_by_step_without_recipients_resets(self) -> None:
        machine = ready()
        machine.send(MAIL)
        events = play(machine, "C: MAIL FROM:<a@x.test>\nS: 250 ok\nC: RCPT TO:<b@y.test>\nS: 550 no\nC: RSET")
        assert results(events) == [] and machine.in_flight == 1  # it ends when RSET is answered
        machine.send(TWO)  # waits for the answer to RSET
        events = play(machine, "S: 250 reset\nC: MAIL FROM:<a@x.test>")
        assert results(events)[0].reply_for(0).code == 550 and machine.in_flight == 1

    @pytest.mark.parametrize("pipelining", [True, False])
    def test_a_reply_too_many_shifts_no_refusal_to_another_recipient(self, pipelining: bool) -> None:
        machine = ready(*["PIPELINING"] * pipelining)
        machine.send(Transaction("a@x.test", ("a@y.test", "gone@y.test", "c@y.test", "later@y.test"), (b"x\r\n",)))
        # The first is to nothing that was asked: each that follows is taken for the answer to the next command.
        said = b"250 again\r\n250 mail\r\n250 a\r\n550 gone\r\n250 c\r\n450 later\r\n354 go\r\n"
        ended: list[object] = []
        with pytest.raises(RemoteProtocolError):  # 354 in the place of the answer to RSET
            for line in said.splitlines(keepends=True):
                machine.receive(line)
                while event := machine.next_event():
                    ended.append(event)
                assert results(ended) == []
        (result,) = results(play(machine, ""))
        assert result.broken and not result.sent_all and b"x\r\n" not in machine.outgoing()

    def test_mail_refused_but_message_wanted_ends_the_connection(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.outgoing()
        machine.receive(b"550 no\r\n250 ok\r\n354 go\r\n")
        with pytest.raises(RemoteProtocolError):
            machine.next_event()
        assert machine.outgoing() == []
        assert isinstance(machine.next_event(), Done) and isinstance(machine.next_event(), Closing)

    def test_421_within_a_transaction(self) -> None:
        machine = ready("PIPELINING")
        machine.send(TWO)
        machine.send(MAIL)
        machine.outgoing()
        events = play(machine, "S: 250 ok\nS: 421 4.7.0 enough")
        first, second = results(events)
        assert first.recipients[0].code == 421 and first.recipients[1] is None
        assert "enough" in first.error and not first.sent_all
        assert second.mail is None and "enough" in second.error
        assert events[-1] == Closing(Reply(421, "4.7.0", ("enough",)))

    def test_421_to_the_dot_is_an_answer(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.outgoing()
        machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        machine.next_event()
        machine.outgoing()
        events = play(machine, "S: 421 4.3.0 not now")
        (result,) = results(events)
        assert result.reply_for(0).code == 421 and not result.error
        assert isinstance(events[-1], Closing)

    def test_421_between_transactions(self) -> None:
        events = play(ready(), "S: 421 4.4.2 idle too long")
        assert events == [Closing(Reply(421, "4.4.2", ("idle too long",)))]

    def test_a_lost_answer_to_the_dot_is_unknown(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        machine.next_event()
        machine.receive_eof("gone")
        (result,) = results(play(machine, ""))
        assert result.sent_all and result.final is None and result.error == "gone"
        assert result.reply_for(0) is None
        assert result.steps[1].reply == "gone"

    def test_what_has_not_left_has_not_arrived(self) -> None:
        for follows in (False, True):
            machine = ready("PIPELINING")
            machine.send(MAIL)
            machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
            machine.next_event()
            if follows:  # then what has not left may be of that one
                machine.send(MAIL)
            machine.receive_eof("gone", unsent=True)
            assert [result.sent_all for result in results(play(machine, ""))] == ([True, False] if follows else [False])

    def test_end_before_any_answer(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.receive_eof()
        events = play(machine, "")
        (result,) = results(events)
        assert result.mail is None and result.recipients == (None,) and "closed" in result.error
        assert events[-1] == Closing(None)


class TestTls:
    def test_starttls(self) -> None:
        machine = ready("STARTTLS", "PIPELINING")
        machine.starttls()
        (event,) = play(machine, "C: STARTTLS\nS: 220 go")
        assert isinstance(event, TlsReady) and machine.deadline == "handshake"
        machine.tls_started()
        assert machine.extensions == {} and machine.tls
        machine.ehlo()
        (event,) = play(machine, "C: EHLO me.test\nS: 250-peer\nS: 250 AUTH PLAIN")
        assert event.extensions == {"AUTH": "PLAIN"}

    def test_refused(self) -> None:
        machine = ready("STARTTLS")
        machine.starttls()
        (event,) = play(machine, "C: STARTTLS\nS: 454 4.7.0 no")
        assert isinstance(event, TlsRefused) and machine.state is State.READY

    def test_bytes_with_the_220_are_a_forgery(self) -> None:
        machine = ready("STARTTLS")
        machine.starttls()
        machine.receive(b"220 go\r\n250 forged\r\n")
        with pytest.raises(RemoteProtocolError):
            machine.next_event()
        assert machine.next_event() == Closing(None)

    def test_bytes_after_the_220_are_a_forgery(self) -> None:
        machine = ready("STARTTLS")
        machine.starttls()
        play(machine, "C: STARTTLS\nS: 220 go")
        with pytest.raises(RemoteProtocolError):
            machine.receive(b"2")
        assert machine.state is State.CLOSED


class TestAuth:
    def test_plain(self) -> None:
        machine = ready("AUTH PLAIN", tls=True)
        machine.auth("PLAIN", "test", "1234")
        (event,) = play(machine, "C: AUTH PLAIN AHRlc3QAMTIzNA==\nS: 235 2.7.0 Authentication successful")
        assert event == Authenticated(Reply(235, "2.7.0", ("Authentication successful",)))

    def test_login(self) -> None:
        machine = ready("AUTH LOGIN", tls=True)
        machine.auth("LOGIN", "user", "pass")
        (event,) = play(
            machine,
            """
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: dXNlcg==
            S: 334 UGFzc3dvcmQ6
            C: cGFzcw==
            S: 535 5.7.8 no
            """,
        )
        assert isinstance(event, Authenticated) and event.reply.code == 535
        assert machine.state is State.READY

    def test_a_peer_that_asks_for_more(self) -> None:
        machine = ready("AUTH PLAIN", tls=True)
        machine.auth("PLAIN", "user", "pass")
        machine.receive(b"334 more\r\n")
        with pytest.raises(RemoteProtocolError):
            machine.next_event()

    def test_never_in_the_clear(self) -> None:
        machine = ready("AUTH PLAIN")
        with pytest.raises(LocalProtocolError):
            machine.auth("PLAIN", "user", "pass")
        assert machine.outgoing() == []


class TestToken:
    """XOAUTH2. The response is Google's own example."""

    USER, TOKEN = "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    RESPONSE = "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="

    def test_taken(self) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", self.USER, self.TOKEN)
        (event,) = play(machine, f"C: AUTH XOAUTH2 {self.RESPONSE}\nS: 235 2.7.0 Accepted")
        assert event == Authenticated(Reply(235, "2.7.0", ("Accepted",)))

    def test_refused_with_a_status(self) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", self.USER, self.TOKEN)
        (event,) = play(
            machine,
            f"""
            C: AUTH XOAUTH2 {self.RESPONSE}
            S: 334 eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIG1hYyIsInNjb3BlIjoiaHR0cHM6Ly9tYWlsLmdvb2dsZS5jb20vIn0K
            C:
            S: 535-5.7.1 Username and Password not accepted. Learn more at
            S: 535 5.7.1 http://support.google.com/mail/bin/answer.py?answer=14257
            """,
        )
        assert isinstance(event, Authenticated) and event.reply.code == 535
        assert event.reply.lines[-1] == "(status 401, scope https://mail.google.com/)"
        assert machine.state is State.READY

    @pytest.mark.parametrize("verdict", ["535 5.7.3 no", "421 4.7.0 no, and goodbye"])
    def test_refused_at_once(self, verdict: str) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", self.USER, self.TOKEN)
        event, *_ = play(machine, f"C: AUTH XOAUTH2 {self.RESPONSE}\nS: {verdict}")
        assert isinstance(event, Authenticated) and str(event.reply) == verdict

    @pytest.mark.parametrize(
        "challenge",
        [
            "",
            "nonsense",
            "bm90IEpTT04=",
            "WzFd",
            "eyJzdGF0dXMiOiB7fX0=",
            "eyJzdGF0dXMiOiAiPHNjcmlwdD4ifQ==",
            "W1tb" * 900,
        ],
    )
    def test_a_challenge_that_tells_nothing(self, challenge: str) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", self.USER, self.TOKEN)
        (event,) = play(machine, f"C: AUTH XOAUTH2 {self.RESPONSE}\nS: 334 {challenge}\nC:\nS: 535 5.7.8 no")
        assert event == Authenticated(Reply(535, "5.7.8", ("no",)))

    def test_a_long_token_is_no_part_of_the_command(self) -> None:
        token = "t" * 2000
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", "u", token)
        response = base64.b64encode(f"user=u\1auth=Bearer {token}\1\1".encode()).decode()
        events = play(
            machine,
            f"""
            C: AUTH XOAUTH2
            S: 334
            C: {response}
            S: 334 eyJzdGF0dXMiOiI0MDAifQ==
            C:
            S: 535 5.7.8 no
            """,
        )
        assert events == [Authenticated(Reply(535, "5.7.8", ("no", "(status 400)")))]

    def test_a_long_password_is_no_part_of_the_command(self) -> None:
        machine = ready("AUTH PLAIN", tls=True)
        machine.auth("PLAIN", "u", "p" * 400)
        response = base64.b64encode(b"\0u\0" + b"p" * 400).decode()
        (event,) = play(machine, f"C: AUTH PLAIN\nS: 334\nC: {response}\nS: 235 2.7.0 in")
        assert isinstance(event, Authenticated) and event.reply.ok

    def test_a_peer_that_asks_for_more(self) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        machine.auth("XOAUTH2", "u", "t")
        play(machine, "C: AUTH XOAUTH2 dXNlcj11AWF1dGg9QmVhcmVyIHQBAQ==\nS: 334 e30=\nC:")
        machine.receive(b"334 e30=\r\n")
        with pytest.raises(RemoteProtocolError, match="asks for more"):
            machine.next_event()

    def test_never_in_the_clear(self) -> None:
        machine = ready("AUTH XOAUTH2")
        with pytest.raises(LocalProtocolError, match="inside TLS only"):
            machine.auth("XOAUTH2", "u", "t")
        assert machine.outgoing() == []

    @pytest.mark.parametrize(
        ("user", "token"), [("u\1auth=Bearer other", "t"), ("u", "t\1"), ("u", ""), ("u", "two words"), ("u\r\n", "t")]
    )
    def test_what_would_change_the_form(self, user: str, token: str) -> None:
        machine = ready("AUTH XOAUTH2", tls=True)
        with pytest.raises(LocalProtocolError, match=r"^not a login we can send$"):
            machine.auth("XOAUTH2", user, token)
        assert machine.outgoing() == [] and machine.state is State.READY


class TestOwnMistakes:
    @pytest.mark.parametrize(
        "transaction",
        [
            Transaction("a@x.test\r\nRCPT TO:<evil@z.test>", ("b@y.test",), (b"\r\n",)),
            Transaction("a@x.test> SIZE=1", ("b@y.test",), (b"\r\n",)),
            Transaction("a@x.test", ("b@y.test\nDATA",), (b"\r\n",)),
            Transaction("a@x.test", ("",), (b"\r\n",)),
            Transaction("a@x.test", (), (b"\r\n",)),
            Transaction("a@x.test", ("b@y.test",), (b"no line end", b"")),
            Transaction("\ud800@x.test", ("b@y.test",), (b"\r\n",)),
        ],
    )
    def test_what_cannot_go_on_the_wire(self, transaction: Transaction) -> None:
        machine = ready("PIPELINING", "SMTPUTF8")
        with pytest.raises(LocalProtocolError):
            machine.send(transaction)
        assert machine.outgoing() == [] and machine.state is State.READY

    def test_out_of_order(self) -> None:
        machine = ClientMachine(ehlo_name="me.test")
        for verb in (machine.ehlo, machine.starttls, machine.quit, machine.tls_started):
            with pytest.raises(LocalProtocolError):
                verb()
        with pytest.raises(LocalProtocolError):
            machine.send(MAIL)

    @pytest.mark.parametrize("name", ["", "two words", "a\r\nb", "ä.test"])
    def test_ehlo_name(self, name: str) -> None:
        with pytest.raises(LocalProtocolError):
            ClientMachine(ehlo_name=name)

    def test_at_most_one_behind_the_one_under_way(self) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.send(MAIL)
        assert machine.in_flight == 2
        with pytest.raises(LocalProtocolError):
            machine.send(MAIL)


class TestBadPeers:
    @pytest.mark.parametrize(
        "garbage",
        [
            b"hello\r\n",
            b"25 ok\r\n",
            b"650 ok\r\n",
            b"150 ok\r\n",
            b"250ok\r\n",
            b"250 ok\n",
            b"\n",
            b"\r\n",
            b"250 o\rk\r\n",
            b"250 o\0k\r\n",
            b"250-a\r\n251 b\r\n",
            b"250-a\r\nfoo\r\n",
            b"\xb2\xb5\xb0 ok\r\n",
            b"250 " + b"x" * 5000,
            b"250 " + b"x" * 5000 + b"\r\n",
            b"250-x\r\n" * 200,
            b"354 go\r\n",
        ],
    )
    def test_garbage_ends_the_connection(self, garbage: bytes) -> None:
        machine = ready("PIPELINING")
        machine.send(MAIL)
        machine.receive(garbage)
        with pytest.raises(RemoteProtocolError):
            machine.next_event()
        (result,) = results(play(machine, ""))
        assert result.error and not result.sent_all
        machine.receive(b"250 still talking\r\n")
        assert machine.next_event() is None

    def test_an_answer_nobody_asked_for(self) -> None:
        machine = ready()
        machine.receive(b"250 ok\r\n")
        with pytest.raises(RemoteProtocolError):
            machine.next_event()

    @pytest.mark.parametrize(
        ("line", "enhanced", "text"),
        [
            ("550 5.1.1 no", "5.1.1", "no"),
            ("550 5.1.1", "5.1.1", ""),
            ("550 5.1 short", "", "5.1 short"),
            ("550 4.1.1 other class", "", "4.1.1 other class"),
            ("550 5.1.1111 long", "", "5.1.1111 long"),
            ("550 5.1.١ digits", "", "5.1.١ digits"),
            ("550 5..1 odd", "", "5..1 odd"),
            ("550", "", ""),
            ("550 \x1b[31mred", "", "?[31mred"),
        ],
    )
    def test_enhanced_codes(self, line: str, enhanced: str, text: str) -> None:
        machine = ready()
        machine.send(MAIL)
        machine.outgoing()
        (result,) = results(play(machine, f"S: {line}"))
        assert result.mail == Reply(550, enhanced, (text,))

    def test_enhanced_code_on_every_line(self) -> None:
        machine = ready()
        machine.send(MAIL)
        machine.outgoing()
        (result,) = results(play(machine, "S: 550-5.7.1 one\nS: 550-5.7.1\nS: 550 5.7.1 two"))
        assert result.mail == Reply(550, "5.7.1", ("one", "", "two"))

    def test_limits_are_arguments(self) -> None:
        machine = ClientMachine(ehlo_name="me.test", limits=ClientLimits(line=10))
        machine.receive(b"220 too long\r\n")
        with pytest.raises(RemoteProtocolError):
            machine.next_event()


def test_every_state_is_in_the_table_and_can_be_left() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == set(State) - {State.GREETING}
    assert all(row for state, row in TRANSITIONS.items() if state is not State.CLOSED)


def test_deadlines() -> None:
    machine = ClientMachine(ehlo_name="me.test")
    assert machine.deadline == "greeting"
    machine = ready("PIPELINING")
    assert machine.deadline is None
    machine.send(MAIL)
    assert machine.deadline == "mail"
    machine.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    machine.next_event()
    assert machine.deadline == "final"
