"""Both mail services against a real SMTP server with real TLS."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import threading
import traceback
import warnings
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from outgate.mailer import ConfigError, Limits, MailService, MessageError, SendFailed, SendRefused
from outgate.mailer.oauth import PID, TokenError
from outgate.mailer.sending import steps as sending
from outgate.mailer.sending.wire import Letter
from outgate.smtp.connecting import ClientTimeouts
from support.mail_service import BOTH, PASSWORD, TIMEOUTS, Place, Twin, mail, place
from support.scripted_peer import OFFER, Peer
from support.token_server import CLIENT, CLIENT_SECRET, TokenServer

IMPATIENT = ClientTimeouts(connect=5, handshake=5, reply=0.05, final=0.05, content=5, quit=0.05)
FORWARD = {"name": "smtp.mymail.com", "portDest": 465}
CLOSING = b"421 4.3.2 going down\r\n"


@pytest.fixture(params=BOTH, ids=["threads", "tasks"])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    yield request.param


class TestSending:
    @pytest.mark.parametrize("implicit", [True, False])
    async def test_the_whole_way(self, tmp_path, twin: Twin, implicit: bool) -> None:
        async with place(tmp_path, implicit=implicit) as there:
            (result,) = await twin.send(there.service(twin))
            peer = there.peer
            assert result.accepted and result.queue_id == "Q1" and not result.refused
            assert str(result.reply) == "250 2.0.0 Ok: queued as Q1"
            assert set(result.recipients) == {"a@x.test", "b@x.test"}
            assert result.server == f"smtp.mymail.com:465 via 127.0.0.1:{peer.port}"
            assert result.conversation == ()
            result.raise_for_refusal()
            assert peer.logins == [("user", PASSWORD)]
            assert peer.server_names == ["smtp.mymail.com"]
            assert peer.commands[-1] == "QUIT"
            envelope = peer.envelopes[0]
            assert envelope[0].startswith("MAIL FROM:<noreply@wknd.site> SIZE=")
            assert envelope[1:] == ["RCPT TO:<a@x.test>", "RCPT TO:<b@x.test>"]
            assert b"\r\n..dot\r\n" in peer.messages[0] and b"b@x.test" not in peer.messages[0]

    async def test_the_envelope_may_be_given(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            octets = b"From: a@x.test\r\nSubject: signed\r\n\r\nbody\r\n"
            await twin.send(there.service(twin), octets, mail(), sender="", recipients=["z@x.test"])
            assert [each[0].split(" SIZE")[0] for each in there.peer.envelopes] == ["MAIL FROM:<>"] * 2
            assert [each[1:] for each in there.peer.envelopes] == [["RCPT TO:<z@x.test>"]] * 2
            assert there.peer.messages[0] == octets and b"z@x.test" not in there.peer.messages[1]

    async def test_the_from_of_the_message_counts(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            await twin.send(there.service(twin), mail(From="Ann <ann@x.test>"))
            assert there.peer.envelopes[0][0].startswith("MAIL FROM:<ann@x.test>")
            assert b"From: Ann <ann@x.test>" in there.peer.messages[0]

    async def test_without_a_user_there_is_no_login(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, auth="") as there:
            there.config["smtp.user"] = ""
            (result,) = await twin.send(there.service(twin))
            assert result.accepted and there.peer.logins == []

    async def test_auth_login_where_plain_is_not_offered(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, auth="LOGIN") as there:
            await twin.send(there.service(twin))
            assert there.peer.logins == [("user", PASSWORD)]

    async def test_what_cannot_be_sent_is_said_at_once(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            message = mail()
            del message["To"], message["Bcc"]
            with pytest.raises(MessageError, match="receiver"):
                await twin.send(there.service(twin), message)
            assert there.peer.connections == 0

    async def test_what_this_server_cannot_be_given_costs_no_connection(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, offer=("PIPELINING", "SIZE 2000")) as there:
            service = there.service(twin)
            large = mail()
            large.set_content("line\n" * 1000)
            for message, why in ((large, "2000 at most"), (mail(To="jürgen@x.test"), "SMTPUTF8")):
                with pytest.raises(MessageError, match=why):
                    await twin.keep(service, message)
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 1
            assert not any(command.startswith("MAIL") for command in there.peer.commands[:-5])

    async def test_octets_beyond_ascii_are_encoded_for_an_old_server(self, tmp_path, twin: Twin) -> None:
        message = mail()
        message.set_content("grüße\n", cte="8bit")
        for offer, octets, body in ((OFFER, "grüße".encode(), " BODY=8BITMIME"), ((), b"base64", "")):
            async with place(tmp_path, offer=offer) as there:
                await twin.send(there.service(twin), message)
                assert octets in there.peer.messages[0] and there.peer.envelopes[0][0].endswith(body or ">")

    async def test_a_service_says_who_is_served(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            assert service.through_tunnel and service.forward.name == "smtp.mymail.com"
            assert PASSWORD not in repr(service) + repr(service.__dict__)
            with pytest.raises(ConfigError, match="tls_names"):
                there.service(twin, tls_names="none")
            for wrong in ({"connections": 0}, {"messages": 0}, {"idle": -1}, {"send": 0}):
                with pytest.raises(ValueError, match="limits"):
                    Limits(**wrong)


class TestConnections:
    async def test_are_kept(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            results = await twin.send(there.service(twin), mail(), mail(), mail())
            assert [result.queue_id for result in results] == ["Q1", "Q2", "Q3"]
            assert there.peer.connections == 1 and len(there.peer.logins) == 1

    async def test_one_that_closed_meanwhile_is_made_again(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.keep(service)
            for writer in there.peer._writers:
                writer.transport.abort()
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 2 and len(there.peer.messages) == 2

    async def test_one_whose_server_died_unnoticed_is_made_again(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.keep(service)
            there.peer.hang_up_at = "MAIL"  # to whoever has been here before
            there.peer.forgiving = True
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 2 and len(there.peer.messages) == 2

    async def test_one_whose_server_fell_silent_is_made_again(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            patience = ClientTimeouts(connect=5, handshake=5, reply=0.5, final=5, content=5, quit=1)
            service = there.service(twin, timeouts=patience)
            await twin.keep(service)
            there.peer.silent_at = "MAIL"
            there.peer.forgiving = True
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 2 and len(there.peer.messages) == 2

    @pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
    async def test_a_421_between_messages_is_no_refusal(self, tmp_path, twin: Twin, at: str) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.keep(service)
            there.peer.answers[at] = CLOSING
            there.peer.forgiving = True
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 2 and len(there.peer.messages) == 2

    async def test_a_login_that_has_ended_is_made_again(self, tmp_path, twin: Twin) -> None:
        """The token it was made with has expired, or somebody has changed the password."""
        async with place(tmp_path, forgiving=True) as there:
            service = there.service(twin)
            await twin.keep(service)
            there.peer.answers = {"MAIL": b"530 5.7.0 log in\r\n", "RCPT": b"503 no\r\n", "DATA": b"503 no\r\n"}
            (result,) = await twin.send(service)
            assert result.accepted and there.peer.connections == 2 and len(there.peer.messages) == 2

    async def test_a_421_to_a_new_connection_is_one(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, answers={"MAIL": CLOSING}) as there:
            (result,) = await twin.send(there.service(twin))
            assert result.reply.code == 421 and there.peer.connections == 1

    async def test_nothing_is_sent_twice(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.keep(service)
            there.peer.hang_up_at = "dot"
            with pytest.raises(SendFailed) as caught:
                await twin.send(service)
            assert caught.value.may_have_arrived and caught.value.stage == "answer"
            assert there.peer.connections == 1 and len(there.peer.messages) == 2

    async def test_a_server_that_takes_few_messages_in_a_session(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, most_messages=2) as there:
            results = await twin.send(there.service(twin), *[mail() for _ in range(5)])
            assert all(result.accepted for result in results)
            assert there.peer.connections == 3 and len(there.peer.messages) == 5

    async def test_a_limit_of_our_own_says_goodbye(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            await twin.send(there.service(twin, limits=Limits(messages=2)), *[mail() for _ in range(4)])
            assert there.peer.connections == 2 and there.peer.commands.count("QUIT") == 2

    async def test_nobody_waits_long_for_a_farewell(self, tmp_path, twin: Twin, monkeypatch) -> None:
        monkeypatch.setattr(sending, "_GOODBYE", 0.05)
        monkeypatch.setattr(sending, "_GOODBYES", 0.05)
        patient = replace(TIMEOUTS, quit=3600)
        async with place(tmp_path, silent_at="QUIT") as there:
            (result,) = await twin.keep(there.service(twin, timeouts=patient, limits=Limits(messages=1)))
            assert result.accepted
            service = there.service(twin, timeouts=patient)
            await twin.together(service, mail(), mail(), mail())
            await twin.close(service)
            assert "QUIT" in there.peer.commands

    async def test_one_that_was_idle_too_long_is_not_used(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            await twin.send(there.service(twin, limits=Limits(idle=0)), mail(), mail())
            assert there.peer.connections == 2

    async def test_many_at_once_share_a_few(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin, limits=Limits(connections=3))
            results = await twin.together(service, *[mail(Subject=f"number {number}") for number in range(20)])
            assert all(result.accepted for result in results)
            assert 1 <= there.peer.connections <= 3
            assert len({result.queue_id for result in results}) == 20
            assert len(there.peer.messages) == 20
            await twin.close(service)
            assert there.peer.commands.count("QUIT") == there.peer.connections

    async def test_who_has_no_turn_in_time_is_told(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin, limits=Limits(connections=1, send=0.05))
            sender = service._here() if twin is BOTH[1] else service._sender
            assert await sender._io.turn(1)
            with pytest.raises(SendFailed, match=r"in use for 0\.05 s") as caught:
                await twin.keep(service)
            assert caught.value.stage == "waiting" and there.peer.connections == 0
            sender._io.free()
            service = there.service(twin)
            assert (await twin.send(service))[0].accepted

    async def test_close_is_no_end(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.send(service)
            await twin.send(service)
            await twin.close(service)
            assert there.peer.connections == 2 and there.peer.commands.count("QUIT") == 2

    async def test_nothing_is_left_open_by_a_send_behind_close(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            service = there.service(twin)
            await twin.close(service)
            for number in (1, 2):
                assert (await twin.keep(service))[0].accepted
                assert there.peer.connections == there.peer.commands.count("QUIT") == number
            await service.__aenter__() if twin is BOTH[1] else service.__enter__()  # here they are kept again
            await twin.send(service, mail(), mail())
            assert there.peer.connections == there.peer.commands.count("QUIT") == 3

    async def test_what_is_in_use_at_close_is_closed_when_it_comes_back(self, tmp_path, twin: Twin) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            reached.set()
            await go_on.wait()

        async with place(tmp_path, chunk=slow) as there:
            service = there.service(twin)
            sending = asyncio.ensure_future(twin.keep(service))
            await reached.wait()
            await twin.close(service)
            go_on.set()
            (result,) = await sending
            assert result.accepted and there.peer.commands[-1] == "QUIT"


def child(service: MailService, told: multiprocessing.connection.Connection) -> None:
    result = service.send(mail(Subject="child"))
    service.close()
    told.send((os.getpid(), result.queue_id))


class TestForks:
    async def test_a_forked_worker_has_connections_of_its_own(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            service = there.service()
            await asyncio.to_thread(service.send, mail())
            mine, its = multiprocessing.Pipe()
            # Held as if another thread were in the middle of something: it will not be there in the child.
            with service._idle._lock:
                worker = multiprocessing.get_context("fork").Process(target=child, args=(service, its))
                worker.start()
            assert await asyncio.to_thread(mine.poll, 20)
            pid, queue_id = mine.recv()
            await asyncio.to_thread(worker.join)
            assert (pid, queue_id, worker.exitcode) == (worker.pid, "Q2", 0)
            result = await asyncio.to_thread(service.send, mail())
            assert result.queue_id == "Q3" and there.peer.connections == 2
            await asyncio.to_thread(service.close)
            mine.close(), its.close()

    async def test_tasks_in_a_forked_process_begin_anew(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            service = there.service(BOTH[1])
            await service.send(mail())
            mine, its = multiprocessing.Pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    asyncio.set_event_loop_policy(None)
                    asyncio.events._set_running_loop(None)

                    async def work() -> str:
                        async with service:
                            return (await service.send(mail())).queue_id

                    its.send(asyncio.run(work()))
                finally:
                    os._exit(0)
            assert await asyncio.to_thread(mine.poll, 20)
            assert mine.recv() == "Q2"
            await asyncio.to_thread(os.waitpid, pid, 0)
            assert (await service.send(mail())).queue_id == "Q3" and there.peer.connections == 2
            await service.close()
            mine.close(), its.close()


class TestLoops:
    async def test_another_loop_has_connections_of_its_own(self, tmp_path) -> None:
        async with place(tmp_path) as there:
            service = there.service(BOTH[1])

            async def work() -> bool:
                async with service:
                    return (await service.send(mail())).accepted

            assert [await asyncio.to_thread(asyncio.run, work()) for _ in range(2)] == [True, True]
            assert there.peer.connections == 2

    async def test_nothing_is_left_open_when_a_loop_ends(self, tmp_path) -> None:
        """`asyncio.run` turns the loop a few times more; here it ends at once, as on a busy machine."""
        async with place(tmp_path, implicit=False) as there:
            service = there.service(BOTH[1], limits=Limits(connections=2))

            async def work() -> None:
                async with service:
                    await asyncio.gather(*[service.send(mail()) for _ in range(2)])
                    there.peer.answers["MAIL"] = CLOSING
                    await service.send(mail())

            def whole() -> None:
                loop = asyncio.new_event_loop()
                try:
                    loop.run_until_complete(work())
                finally:
                    loop.close()

            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                for _ in range(3):
                    await asyncio.to_thread(whole)
                gc.collect()
            assert not [str(each.message) for each in seen if "unclosed" in str(each.message)]

    async def test_a_send_that_is_cancelled_while_it_connects_is_not_told_as_an_error(self, tmp_path) -> None:
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        async with place(tmp_path) as there, there.service(BOTH[1], limits=Limits(connections=1)) as service:
            for turns in range(4, 12):
                sending = asyncio.ensure_future(service.send(mail()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
            assert (await service.send(mail())).accepted
        gc.collect()
        assert told == []

    async def test_a_large_message_is_written_beside_the_loop(self, tmp_path, monkeypatch) -> None:
        """Meanwhile its connection may end."""
        threads, lines = [], []
        written, loop = Letter.wire, asyncio.get_running_loop()

        async def hang_up() -> None:
            for writer in there.peer._writers:
                writer.transport.abort()
            while not all(line.session.closed for line in lines):
                await asyncio.sleep(0)

        def wire(*given) -> bytes:
            threads.append(threading.current_thread())
            if threads[-1] is not threading.main_thread() and lines:
                asyncio.run_coroutine_threadsafe(hang_up(), loop).result()
                lines.clear()
            return written(*given)

        monkeypatch.setattr(Letter, "wire", wire)
        large = mail()
        large.add_attachment(bytes(300_000), maintype="application", subtype="pdf")
        async with place(tmp_path) as there, there.service(BOTH[1]) as service:
            assert (await service.send(mail())).accepted
            lines += [held.line for held in service._idle._held]
            assert (await service.send(large)).accepted
            assert there.peer.connections == 2 and len(there.peer.messages) == 2
        assert [thread is threading.main_thread() for thread in threads] == [True, False, False]

    async def test_a_cancelled_send_leaves_no_connection(self, tmp_path) -> None:
        async with place(tmp_path, silent_at="dot") as there:
            async with there.service(BOTH[1]) as service:
                sending = asyncio.ensure_future(service.send(mail()))
                while not there.peer.messages:
                    await asyncio.sleep(0)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
                there.peer.silent_at = ""
                assert (await service.send(mail())).accepted
            assert there.peer.connections == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("answers", "code", "stage"),
        [
            ({"MAIL": b"550 5.7.1 not your domain\r\n", "RCPT": b"503 x\r\n", "DATA": b"503 x\r\n"}, 550, "envelope"),
            ({"RCPT": b"450 4.2.1 later\r\n", "DATA": b"554 x\r\n"}, 450, "envelope"),
            ({"dot": b"554 5.7.1 attachments are not allowed\r\n"}, 554, "content"),
            ({"AUTH": b"535 5.7.8 no\r\n"}, 535, "auth"),
            ({"AUTH": b"454 4.7.0 not now\r\n"}, 454, "auth"),
            ({"greeting": b"554 5.7.1 stranger\r\n"}, 554, "greeting"),
        ],
    )
    async def test_are_results(self, tmp_path, twin: Twin, answers: dict[str, bytes], code: int, stage: str) -> None:
        async with place(tmp_path, answers=answers) as there:
            (result,) = await twin.send(there.service(twin))
            assert not result.accepted and result.reply.code == code and result.queue_id == ""
            assert {reply.code for reply in result.recipients.values()} == {code}
            assert result.stage == stage and result.refused == result.recipients
            with pytest.raises(SendRefused, match=f"^smtp.mymail.com:465 via .*{code}") as caught:
                result.raise_for_refusal()
            assert caught.value.result is result
            assert ("smtp.password" in str(caught.value)) == (code == 535)
            assert ("tried again later" in str(caught.value)) == (code < 500)

    async def test_of_some_recipients(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, answers={"RCPT TO:<b@x.test>": b"550 5.1.1 nobody here\r\n"}) as there:
            (result,) = await twin.send(there.service(twin))
            assert result.reply.ok and result.queue_id == "Q1" and not result.accepted
            assert {who: str(reply) for who, reply in result.refused.items()} == {"b@x.test": "550 5.1.1 nobody here"}
            with pytest.raises(SendRefused, match=r"taken for 1 of 2 recipients; b@x\.test: 550 5\.1\.1 nobody here"):
                result.raise_for_refusal()


class TestFailures:
    async def fails(
        self, there: Place, twin: Twin, expected: type[Exception] = SendFailed, stage: str = "", **options: object
    ) -> str:
        with pytest.raises(expected) as caught:
            await twin.send(there.service(twin, **options))
        if isinstance(caught.value, SendFailed):
            assert caught.value.stage == (stage or caught.value.stage)
            assert caught.value.server.startswith(("smtp.mymail.com:", "127.0.0.1:", "localhost:"))
        return str(caught.value)

    async def test_the_error_names_the_real_server(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, name="other.test") as there:
            text = await self.fails(there, twin, stage="tls")
            assert text.startswith(f"smtp.mymail.com:465 via 127.0.0.1:{there.peer.port}: TLS: the certificate")
            assert "must be for the forward's name (smtp.mymail.com)" in text
            assert there.peer.logins == []

    async def test_an_unknown_authority(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            trustme.CA().cert_pem.write_to_path(there.cafile)
            text = await self.fails(there, twin, stage="tls")
            assert "certificate was not accepted" in text and "SSL_CERT_FILE" in text

    async def test_an_expired_certificate(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            expired = there.ca.issue_cert("smtp.mymail.com", not_after=datetime.now(UTC) - timedelta(days=1))
            expired.configure_cert(there.peer.context)
            text = await self.fails(there, twin, stage="tls")
            assert "has expired" in text and "renew it" in text and "cafile" not in text

    @pytest.mark.parametrize("implicit", [True, False])
    async def test_a_tunnel_port_without_a_forward_lists_the_names(self, tmp_path, twin: Twin, implicit: bool) -> None:
        async with place(tmp_path, implicit=implicit, name="smtp.real.test") as there:
            there.forwards = []
            text = await self.fails(there, twin, ConfigError)
            assert f"port {there.peer.port}" in text and text.endswith("is for: smtp.real.test")
            assert there.peer.logins == [] and there.peer.messages == []

    async def test_the_look_checks_the_chain(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, name="smtp.real.test") as there:
            there.forwards = []
            trustme.CA().cert_pem.write_to_path(there.cafile)
            assert "look at the server behind it failed" in await self.fails(there, twin, ConfigError)

    async def test_the_look_at_a_server_without_tls(self, tmp_path, twin: Twin) -> None:
        async with Peer() as peer:
            there = Place(tmp_path, peer, trustme.CA())
            there.forwards = []
            assert "showed no certificate" in await self.fails(there, twin, ConfigError)

    async def test_chain_only_is_laxer_by_choice(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, name="whatever.test") as there:
            there.forwards = []
            (result,) = await twin.send(there.service(twin, tls_names="chain-only"))
            assert result.accepted
            trustme.CA().cert_pem.write_to_path(there.cafile)
            await self.fails(there, twin, stage="tls", tls_names="chain-only")

    async def test_proxy_tunnel_is_the_forwards_address(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            there.env = {}
            there.forwards = {"tunnelAddress": "127.0.0.1", "portForwards": there.forwards}
            (result,) = await twin.send(there.service(twin))
            assert result.accepted

    async def test_a_name_is_resolved_and_checked(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, name="localhost") as there:
            there.config["smtp.host"] = "localhost"
            (result,) = await twin.send(there.service(twin))
            assert result.accepted and there.peer.server_names == ["localhost"]

    async def test_no_password_in_the_clear(self, tmp_path, twin: Twin) -> None:
        async with Peer(auth="PLAIN") as peer:
            there = Place(tmp_path, peer, trustme.CA())
            text = await self.fails(there, twin, stage="auth")
            assert "login: there is no TLS, so the password was not sent" in text and "STARTTLS" in text
            assert not any(command.startswith("AUTH") for command in peer.commands)

    async def test_nobody_listens(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            pass
        text = await self.fails(there, twin, stage="connect")
        assert "Connection refused" in text and f"port {there.peer.port} is the portOrig of a forward" in text
        there.config["smtp.host"], there.env = "127.0.0.1", {}
        assert "Check smtp.host and smtp.port" in await self.fails(there, twin, stage="connect")

    async def test_a_lost_answer_may_mean_arrival(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, hang_up_at="dot") as there:
            with pytest.raises(SendFailed, match="may have arrived") as caught:
                await twin.send(there.service(twin))
            assert caught.value.may_have_arrived and caught.value.stage == "answer"

    @pytest.mark.parametrize(("at", "stage"), [("EHLO", "hello"), ("MAIL", "envelope"), ("RCPT", "envelope")])
    async def test_a_server_that_dies_before_the_content(self, tmp_path, twin: Twin, at: str, stage: str) -> None:
        async with place(tmp_path, hang_up_at=at) as there:
            with pytest.raises(SendFailed) as caught:
                await twin.send(there.service(twin))
            assert not caught.value.may_have_arrived and caught.value.stage == stage

    @pytest.mark.parametrize("implicit", [True, False])
    @pytest.mark.parametrize("said", [b"", b"552 5.3.4 too big\r\n", b"421 4.3.2 going down\r\n"])
    async def test_a_server_that_dies_within_the_content(
        self, tmp_path, twin: Twin, said: bytes, implicit: bool
    ) -> None:
        """It cannot have the message, and what it said before counts."""
        letter = mail()
        letter.set_content(("x" * 70 + "\n") * 230_000)

        async def leave() -> None:
            for writer in there.peer._writers:
                writer.write(said)
                writer.transport.pause_reading()
            raise ConnectionResetError

        async with place(tmp_path, chunk=leave, implicit=implicit, offer=("PIPELINING",)) as there:
            service = there.service(twin, forwards=[FORWARD | {"portOrig": there.peer.port}])
            if said:
                (result,) = await twin.send(service, letter)
                assert f"{result.reply}\r\n".encode() == said and not result.accepted
                return
            with pytest.raises(SendFailed) as caught:
                await twin.send(service, letter)
            assert caught.value.stage == "content" and not caught.value.may_have_arrived
            assert "may have arrived" not in str(caught.value) and there.peer.messages == []

    @pytest.mark.parametrize("silent_at", ["greeting", "EHLO", "AUTH", "dot"])
    async def test_a_silent_server(self, tmp_path, twin: Twin, silent_at: str) -> None:
        async with place(tmp_path, silent_at=silent_at) as there:
            assert "timeout" in await self.fails(there, twin, timeouts=IMPATIENT)

    @pytest.mark.parametrize(("silent_at", "stage", "seconds"), [("dot", "answer", 1.0), ("greeting", "", 0.1)])
    async def test_a_whole_send_has_an_end(
        self, tmp_path, twin: Twin, silent_at: str, stage: str, seconds: float
    ) -> None:
        async with place(tmp_path, silent_at=silent_at) as there:
            text = await self.fails(there, twin, stage=stage, limits=Limits(send=seconds))
            assert "timeout" in text and "before the time for the whole was over" in text

    async def test_bytes_behind_the_220_never_pass_as_encrypted(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, after_tls_reply=b"250 forged\r\n") as there:
            await self.fails(there, twin)
            assert there.peer.logins == []

    async def test_a_name_beyond_ascii_is_nobody_elses(self, tmp_path, twin: Twin) -> None:
        """IDNA 2003, as the standard library has it, reads "straße" as "strasse", which may be a stranger's."""
        for name, made in (("xn--strae-oqa.example", True), ("strasse.example", False)):
            async with place(tmp_path, name=name) as there:
                there.forwards = [{"name": "straße.example", "portDest": 465, "portOrig": there.peer.port}]
                if made:
                    (result,) = await twin.send(there.service(twin))
                    assert result.accepted and there.peer.server_names == [name]
                else:
                    await self.fails_at_tls(there, twin)
                    assert there.peer.logins == []

    @pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "SMTP.MyMail.com."), ("LocalHost.", "smtp.mymail.com")])
    async def test_names_are_the_same_in_any_spelling(self, tmp_path, twin: Twin, host: str, name: str) -> None:
        async with place(tmp_path) as there:
            there.config["smtp.host"] = "proxy.Tunnel."
            there.env = {"AEM_PROXY_HOST": host}
            forward = {"name": name, "portDest": 465, "portOrig": there.peer.port}
            there.forwards = {"tunnelAddress": "127.0.0.1", "portForwards": [forward]}
            (result,) = await twin.send(there.service(twin))
            assert result.accepted and there.peer.server_names == ["smtp.mymail.com"]

    async def fails_at_tls(self, there: Place, twin: Twin) -> None:
        with pytest.raises(SendFailed, match="ostname mismatch") as caught:
            await twin.send(there.service(twin))
        assert caught.value.stage == "tls" and ".." not in str(caught.value)

    async def test_a_bad_ca_file(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            there.cafile.write_text("no certificate")
            await self.fails(there, twin, ConfigError)

    async def test_a_line_that_is_no_reply(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, answers={"MAIL": b"what?\r\n"}) as there:
            assert "not a reply" in await self.fails(there, twin, stage="envelope")


class TestTlsTable:
    """smtp.ssl, smtp.starttls, smtp.requiretls against what a server offers; with the cloud's rule and without."""

    # (starttls, requiretls, classic) → what happens where STARTTLS is offered, and where it is not
    ROWS = (
        ((False, False, False), "TLS", "clear"),
        ((True, False, False), "TLS", "clear"),
        ((False, True, False), "TLS", "does not offer STARTTLS"),
        ((True, True, True), "TLS", "does not offer STARTTLS"),
        ((False, False, True), "clear", "clear"),
        ((True, False, True), "TLS", "clear"),
        ((False, True, True), "TLS", "does not offer STARTTLS"),
    )

    async def outcome(self, there: Place, twin: Twin, flags: tuple[bool, bool, bool]) -> str:
        starttls, requiretls, classic = flags
        there.config |= {"smtp.user": "", "smtp.starttls": starttls, "smtp.requiretls": requiretls}
        try:
            (result,) = await twin.send(there.service(twin, classic=classic))
        except SendFailed as error:
            assert error.stage == "tls" and there.peer.messages == []
            return str(error)
        assert result.accepted
        return "TLS" if "STARTTLS" in there.peer.commands else "clear"

    @pytest.mark.parametrize(("flags", "offered", "missing"), ROWS)
    async def test_without_ssl(self, tmp_path, twin: Twin, flags, offered: str, missing: str) -> None:
        async with place(tmp_path, implicit=False) as there:
            assert await self.outcome(there, twin, flags) == offered
        async with Peer() as peer:
            assert missing in await self.outcome(Place(tmp_path, peer, trustme.CA()), twin, flags)
        async with place(tmp_path, implicit=False, answers={"STARTTLS": b"454 4.7.0 not now\r\n"}) as there:
            if not flags[1]:
                assert (await self.outcome(there, twin, flags)) == offered and there.peer.messages
            else:
                there.config |= {"smtp.user": "", "smtp.requiretls": True}
                (result,) = await twin.send(there.service(twin))
                assert (result.reply.code, result.stage) == (454, "tls") and not there.peer.messages

    async def test_with_ssl_nothing_else_counts(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path) as there:
            there.config |= {"smtp.starttls": True, "smtp.requiretls": True}
            (result,) = await twin.send(there.service(twin))
            assert result.accepted and "STARTTLS" not in there.peer.commands

    async def test_the_wrong_mode_is_named(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False) as there:
            there.config["smtp.ssl"] = True
            there.forwards = [{"name": "smtp.mymail.com", "portDest": 587, "portOrig": there.peer.port}]
            with pytest.raises(SendFailed, match=r"set smtp\.ssl to false") as caught:
                await twin.send(there.service(twin))
            assert caught.value.stage == "tls"
        async with place(tmp_path) as there:
            there.config["smtp.ssl"] = False
            with pytest.raises(SendFailed, match=r"set smtp\.ssl to true") as caught:
                await twin.send(there.service(twin, timeouts=IMPATIENT))
            assert caught.value.stage == "greeting"


class TestTokens:
    def provider(self, there: Place, server: TokenServer) -> None:
        there.config |= {"oauth.flow": True, "smtp.user": server.user, "smtp.requiretls": True}
        del there.config["smtp.password"]
        (there.folder / f"{PID}.cfg.json").write_text(
            json.dumps(
                {
                    "tokenUrl": server.url,
                    "clientId": CLIENT,
                    "clientSecret": "$[secret:CLIENT_SECRET]",
                    "refreshToken": "$[secret:REFRESH]",
                }
            )
        )
        there.secrets |= {"CLIENT_SECRET": CLIENT_SECRET, "REFRESH": server.refresh_token}

    def trust(self, there: Place, server: TokenServer) -> None:
        there.peer.tokens = {}

        class Issued(dict):
            def get(self, user, default=None):
                valid = [token for token, (owner, _) in server.issued.items() if owner == user]
                return valid[-1] if valid else default

        there.peer.tokens = Issued()

    async def test_a_login_with_a_token(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, auth="PLAIN XOAUTH2") as there:
            with TokenServer() as server:
                self.provider(there, server)
                self.trust(there, server)
                results = await twin.send(there.service(twin, limits=Limits(messages=1)), mail(), mail())
                assert all(result.accepted for result in results)
                (token,) = server.issued
                assert there.peer.logins == [(server.user, token)] * 2 and len(server.forms) == 1

    async def test_a_token_that_was_withdrawn_is_replaced_once(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            with TokenServer() as server:
                self.provider(there, server)
                self.trust(there, server)
                service = there.service(twin, limits=Limits(messages=1))
                await twin.keep(service)
                server.issued.clear()
                (result,) = await twin.keep(service)
                assert result.accepted and len(server.forms) == 2 and len(there.peer.messages) == 2
                there.peer.tokens = {}
                (result,) = await twin.send(service)
                assert (result.reply.code, result.stage) == (535, "auth") and len(server.forms) == 3

    async def test_a_silent_token_server_takes_no_more_than_a_send_may(self, tmp_path, twin: Twin) -> None:
        """And of the loop's threads it takes one, whoever waits."""
        silent = threading.Event()
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            with TokenServer(answer=lambda _: silent.wait() and None) as server:
                self.provider(there, server)
                service = there.service(twin, limits=Limits(connections=30, send=0.5))
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(30 if twin is BOTH[0] else 2))
                sends = [asyncio.ensure_future(twin.keep(service)) for _ in range(20)]
                while not server.forms:
                    await asyncio.sleep(0)
                if twin is BOTH[1]:
                    await asyncio.to_thread(lambda: None)
                    assert not any(send.done() for send in sends)
                ended = await asyncio.gather(*sends, return_exceptions=True)
                assert all(isinstance(each, SendFailed) and each.stage == "token" for each in ended), ended
                assert len(server.forms) == 1 or twin is BOTH[0]  # a thread may begin when the first has given up
                silent.set()
                await twin.close(service)

    async def test_who_has_no_time_left_cuts_nobody_elses_fetch(self, tmp_path) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            with TokenServer() as server:
                self.provider(there, server)
                io = there.service(BOTH[1])._here()._io
                hasty, patient = await asyncio.gather(io.token(0.0), io.token(20), return_exceptions=True)
                assert isinstance(hasty, SendFailed) and patient in server.issued

    async def test_a_forked_process_waits_for_nobody_elses_token(self, tmp_path) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            with TokenServer() as server:
                self.provider(there, server)
                self.trust(there, server)
                service = there.service()
                await asyncio.to_thread(service.send, mail())
                mine, its = multiprocessing.Pipe()
                with service._tokens._lock:
                    worker = multiprocessing.get_context("fork").Process(target=child, args=(service, its))
                    worker.start()
                assert await asyncio.to_thread(mine.poll, 20)
                assert mine.recv() == (worker.pid, "Q2") and len(server.forms) == 1
                await asyncio.to_thread(worker.join)
                await asyncio.to_thread(service.close)
                mine.close(), its.close()

    async def test_no_token(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            with TokenServer() as server:
                self.provider(there, server)
                server.revoke()
                with pytest.raises(SendFailed, match="the refresh token is no longer valid") as caught:
                    await twin.send(there.service(twin))
                assert caught.value.stage == "token" and there.peer.connections == 0

    async def test_no_provider(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2") as there:
            there.config["oauth.flow"] = True
            with pytest.raises(ConfigError, match="OAuthConfigurationProviderImpl"):
                there.service(twin)
            there.config["smtp.user"] = ""
            with pytest.raises(ConfigError, match=r"smtp\.user"):
                there.service(twin)


class TestDebug:
    async def test_both_sides_are_told_without_the_password(
        self, tmp_path, twin: Twin, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with place(tmp_path, implicit=False, echo=True) as there:
            there.config["debug.email"] = True
            with caplog.at_level(logging.INFO, logger="outgate.mailer"):
                (result,) = await twin.send(there.service(twin))
            assert result.accepted
            text = caplog.text
            for said in (
                "C: EHLO", "S: 220 2.0.0 go", "C: STARTTLS", "C: TLS handshake", "C: AUTH",
                "C: MAIL FROM:<noreply@wknd.site>", "C: RCPT TO:<b@x.test>", "C: DATA", "S: 354 go on", "octets of content", "S: 250 2.0.0 Ok: queued",
            ):  # fmt: skip
                assert said in text, (said, text)
            assert "Subject" not in text and PASSWORD not in text and "(secret)" in text
            assert "AUTH PLAIN A" not in text
            assert [step.did for step in result.conversation if "MAIL" in step.did]

    async def test_a_failure_is_told_too(self, tmp_path, twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
        for options in ({"hang_up_at": "EHLO"}, {"answers": {"AUTH": b"535 5.7.8 no\r\n"}}, {"hang_up_at": "dot"}):
            async with place(tmp_path, **options) as there:
                there.config["debug.email"] = True
                caplog.clear()
                with caplog.at_level(logging.INFO, logger="outgate.mailer"):
                    await asyncio.gather(twin.send(there.service(twin)), return_exceptions=True)
                assert "C: EHLO" in caplog.text or "wait for the peer" in caplog.text

    async def test_nothing_is_told_unasked(self, tmp_path, twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
        async with place(tmp_path) as there:
            with caplog.at_level(logging.DEBUG):
                await twin.send(there.service(twin))
            assert not [record for record in caplog.records if record.name.startswith("outgate.mailer")]


def held_by(error: BaseException) -> Iterator[str]:
    """Everything that an error and those before it show, and the variables of our calls that they remember."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield f"{each!r} {vars(each)!r}"
        waiting += [before for before in (each.__cause__, each.__context__) if before is not None]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("outgate."):
                yield repr(frame.f_locals)


class TestWhatErrorsRemember:
    """Those who watch errors write down the variables of each call."""

    @pytest.mark.parametrize("at", ["AUTH", "MAIL", "dot"])
    @pytest.mark.parametrize("kind", ["hang_up_at", "silent_at"])
    async def test_no_password(self, tmp_path, twin: Twin, kind: str, at: str) -> None:
        async with place(tmp_path, **{kind: at}) as there:
            with pytest.raises(SendFailed) as caught:
                await twin.send(there.service(twin, timeouts=IMPATIENT))
            for text in held_by(caught.value):
                assert PASSWORD not in text and b64encode(f"\0user\0{PASSWORD}".encode()).decode() not in text

    async def test_no_token_and_no_secret_of_a_client(self, tmp_path, twin: Twin) -> None:
        async with place(tmp_path, implicit=False, auth="XOAUTH2", hang_up_at="AUTH") as there:
            with TokenServer() as server:
                TestTokens().provider(there, server)
                service = there.service(twin)
                with pytest.raises(SendFailed) as at_auth:
                    await twin.send(service)
                (token,) = server.issued
                secrets = (token, CLIENT_SECRET, server.refresh_token)
            with pytest.raises(SendFailed) as at_server:
                await twin.send(there.service(twin))
            assert (at_auth.value.stage, at_server.value.stage) == ("auth", "token")
            with pytest.raises(TokenError) as direct:
                there.service(twin)._tokens.token()
            for caught in (at_auth, at_server, direct):
                assert not [text for text in held_by(caught.value) for secret in secrets if secret in text]


def test_nothing_of_the_password_in_repr() -> None:
    from outgate.mailer.config import MailConfig
    from outgate.mailer.sending.steps import Login

    config = MailConfig("h", 25, "user", PASSWORD, "", True, False, False, False, False)
    assert PASSWORD not in repr(config) + repr(Login("password", "user", PASSWORD))
    assert TIMEOUTS.shortest == 1
