"""The Django backend with Django's own mail API and a real server."""

from __future__ import annotations

import inspect
import logging
import os
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.mime.image import MIMEImage
from pathlib import Path
from secrets import token_hex
from typing import Any

import django
import pytest
from django.conf import settings

BACKEND = "outgate.mailer.django.EmailBackend"

if not settings.configured:
    settings.configure(EMAIL_BACKEND=BACKEND, SECRET_KEY=token_hex(), LOGGING_CONFIG=None)
    django.setup()

# ruff: noqa: E402
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection
from django.test.utils import override_settings
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from outgate.mailer import MailService
from outgate.mailer import django as backend
from support.mail_server import PASSWORD, TIMEOUTS, MailServer, mail_server


def options(server: MailServer) -> dict[str, Any]:
    return {"path": server.path, "run_modes": "author,dev", "timeouts": TIMEOUTS} | server.options


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    with mail_server(tmp_path) as running, override_settings(EMAIL_BACKEND=BACKEND, OUTGATE_MAILER=options(running)):
        yield running
        backend.close_connections()


def envelope(server: MailServer, number: int = -1) -> tuple[str, list[str]]:
    sender, *recipients = server.peer.envelopes[number]
    return sender.partition("<")[2].partition(">")[0], [each.partition("<")[2].partition(">")[0] for each in recipients]


class TestApi:
    """Django's functions, one by one."""

    def test_send_mail(self, server: MailServer) -> None:
        unset = {"auth_user": settings.EMAIL_HOST_USER, "auth_password": settings.EMAIL_HOST_PASSWORD}
        to = ["A <a@x.test>", "b@x.test"]
        assert mail.send_mail("Grüße", "für dich\n.dot\n", "Shop <shop@shop.test>", to, **unset) == 1
        assert envelope(server) == ("shop@shop.test", ["a@x.test", "b@x.test"])
        (got,) = server.mails
        assert (got["Subject"], got["From"], got["To"]) == ("Grüße", "Shop <shop@shop.test>", "A <a@x.test>, b@x.test")
        assert got.get_content() == "für dich\r\n.dot\r\n"
        assert server.peer.logins == [("user", PASSWORD)] and server.peer.server_names == ["smtp.mymail.com"]

    def test_send_mail_with_html(self, server: MailServer) -> None:
        mail.send_mail("s", "text", None, ["a@x.test"], html_message="<p>html</p>")
        (got,) = server.mails
        assert got.get_content_type() == "multipart/alternative"
        assert [part.get_content().strip() for part in got.iter_parts()] == ["text", "<p>html</p>"]

    def test_send_mass_mail(self, server: MailServer) -> None:
        messages = [("s", f"text {number}", None, [f"a{number}@x.test"]) for number in range(5)]
        assert mail.send_mass_mail(messages) == 5
        assert [envelope(server, number)[1] for number in range(5)] == [[f"a{number}@x.test"] for number in range(5)]
        assert server.peer.connections == 1

    def test_mail_admins_and_managers(self, server: MailServer) -> None:
        with override_settings(ADMINS=[("Ops", "ops@x.test")], MANAGERS=[("Boss", "boss@x.test")]):
            mail.mail_admins("s", "text", html_message="<p>x</p>")
            mail.mail_managers("s", "text")
        assert [envelope(server, number) for number in range(2)] == [
            ("noreply@shop.test", ["ops@x.test"]),
            ("noreply@shop.test", ["boss@x.test"]),
        ]
        assert server.mails[0]["Subject"] == "[Django] s"

    def test_the_handler_of_errors(self, server: MailServer) -> None:
        """`AdminEmailHandler` is what mails a site's errors; it is silent about its own."""
        record = logging.LogRecord("django.request", logging.ERROR, __file__, 1, "Internal\nServer Error", None, None)
        with override_settings(ADMINS=[("Ops", "ops@x.test")]):
            AdminEmailHandler().emit(record)
            assert server.mails[0]["Subject"] == "[Django] ERROR: Internal\\nServer Error"
            with override_settings(OUTGATE_MAILER={"path": "/nowhere"}):
                AdminEmailHandler().emit(record)

    def test_the_handler_of_errors_does_not_mail_its_own(self, server: MailServer) -> None:
        """As the handler of all loggers, of all levels, with a server that refuses everything."""
        server.peer.answers["MAIL"] = b"550 5.7.1 no\r\n"
        server.peer.answers["RCPT"] = server.peer.answers["DATA"] = b"503 x\r\n"
        handler = AdminEmailHandler()
        logging.getLogger().addHandler(handler)
        try:
            with override_settings(ADMINS=[("Ops", "ops@x.test")]):
                logging.getLogger("shop").error("on fire")
                # The error, and that it could not be sent: the server was asked twice.
                assert len([each for each in server.peer.commands if each.startswith("MAIL")]) == 2
                with override_settings(OUTGATE_MAILER={"path": "/nowhere"}):
                    logging.getLogger("shop").error("on fire")
        finally:
            logging.getLogger().removeHandler(handler)

    def test_nobody_to_send_to(self, server: MailServer) -> None:
        assert EmailMessage("s", "text", to=[]).send() == 0
        assert get_connection().send_messages([EmailMessage("s", "x"), EmailMessage("s", "x", to=["a@x.test"])]) == 1
        assert get_connection().send_messages([]) == 0
        assert get_connection().send_messages(None) == 0  # type: ignore[arg-type]

    def test_a_connection_of_ones_own(self, server: MailServer) -> None:
        with get_connection() as connection:
            assert connection.open() is False
            EmailMessage("s", "1", to=["a@x.test"], connection=connection).send()
            mail.send_mail("s", "2", None, ["a@x.test"], connection=connection)
        assert connection.open() is True
        connection.close()
        connection.close()
        assert EmailMessage("s", "3", to=["a@x.test"], connection=connection).send() == 1
        assert server.peer.connections == 1

    def test_one_of_django_6_1s_mailers(self, server: MailServer) -> None:
        """As MAILERS make it: with its alias, and with the names of what is not an option of theirs."""
        made = backend.EmailBackend(alias="orders", _ignore_unknown_kwargs={"fail_silently"}, fail_silently=True)
        assert made.fail_silently and made.send_messages([EmailMessage("s", "x", to=["a@x.test"])]) == 1


class TestMessages:
    def test_everything_at_once(self, server: MailServer) -> None:
        message = EmailMultiAlternatives(
            "An order: Größe ☃ " + "x" * 100,
            "text",
            '"Käse, Shop" <orders@shop.test>',
            ["Jürgen <a@x.test>"],
            bcc=["secret@x.test"],
            cc=["c@x.test"],
            reply_to=["help@shop.test", "Hilfe <hilfe@shop.test>"],
            headers={"X-Order": "7", "Message-ID": "<7@shop.test>", "List-Unsubscribe": "<https://shop.test/u>"},
        )
        message.attach_alternative('<img src="cid:logo"> größer\n', "text/html")
        message.attach("Größe.txt", "für\n" * 3, "text/plain")
        message.attach("a.bin", b"\0\r\n.\r\n\xff", "application/octet-stream")
        image = MIMEImage(b"\x89PNG\r\n\x1a\n", "png")
        image.add_header("Content-ID", "<logo>")
        image.add_header("Content-Disposition", "inline", filename="logo.png")
        message.attach(image)
        message.attach(None, EmailMessage("inner", "in", "i@x.test", ["j@x.test"], bcc=["k@x.test"]), "message/rfc822")
        assert message.send() == 1
        sender, recipients = envelope(server)
        assert (sender, recipients) == ("orders@shop.test", ["a@x.test", "c@x.test", "secret@x.test"])
        (got,) = server.mails
        assert got["From"].addresses[0].display_name == "Käse, Shop" and got["Subject"].strip() == message.subject
        assert got["Reply-To"] == "help@shop.test, Hilfe <hilfe@shop.test>" and got["Bcc"] is None
        assert (got["X-Order"], got["Message-ID"]) == ("7", "<7@shop.test>") and b"secret" not in server.peer.messages[
            0
        ]
        parts = {part.get_filename() or part.get_content_type(): part for part in got.walk()}
        assert parts["text/html"].get_content() == '<img src="cid:logo"> größer\r\n'
        assert parts["Größe.txt"].get_content() == "für\r\n" * 3
        assert parts["a.bin"].get_content() == b"\0\r\n.\r\n\xff"
        assert parts["logo.png"]["Content-ID"] == "<logo>" and parts["logo.png"].get_content() == b"\x89PNG\r\n\x1a\n"
        assert parts["message/rfc822"].get_content()["Subject"] == "inner"

    def test_what_is_sent_is_what_django_writes(self, server: MailServer) -> None:
        """Octet by octet, but for what each writing chooses anew."""
        fixed = {"Message-ID": "<1@shop.test>", "Date": "Thu, 01 Jan 2026 00:00:00 +0000"}
        for body in ("plain\n", "From here\n.x\n\n\n", "für " * 30, "x" * 2000, "a\rb\r\nc\n", "", "☃ = \t\n"):
            message = EmailMessage("Sübject", body, "a@shop.test", ["a@x.test"], headers=fixed)
            expected = message.message().as_bytes(linesep="\r\n")
            assert message.send() == 1
            arrived = server.peer.messages[-1].replace(b"\r\n..", b"\r\n.")
            assert arrived in (expected, expected + b"\r\n"), body

    def test_the_message_of_the_caller_is_not_changed(self, server: MailServer) -> None:
        message = EmailMessage("s", "text", to=["a@x.test"], headers={"Bcc": "x@x.test"})
        before = dict(vars(message))
        message.send()
        result = message.outgate_result  # type: ignore[attr-defined]
        assert vars(message) == before | {"connection": message.connection, "outgate_result": result}
        assert result.queue_id == "Q1"
        assert message.from_email == "webmaster@localhost" and server.mails[0]["Bcc"] is None

    def test_a_server_without_8bitmime(self, tmp_path: Path) -> None:
        with mail_server(tmp_path, offer=("SMTPUTF8",)) as server, override_settings(OUTGATE_MAILER=options(server)):
            assert mail.send_mail("s", "für dich", None, ["a@x.test"]) == 1
            assert server.peer.messages[0].isascii() and server.mails[0].get_content().strip() == "für dich"
            backend.close_connections()


class TestAddresses:
    def test_an_unset_from_is_the_configurations(self, server: MailServer) -> None:
        mail.send_mail("s", "text", None, ["a@x.test"])
        assert envelope(server)[0] == "noreply@shop.test" and server.mails[-1]["From"] == "noreply@shop.test"
        with override_settings(DEFAULT_FROM_EMAIL="Shop <orders@shop.test>"):
            mail.send_mail("s", "text", None, ["a@x.test"])
        assert envelope(server)[0] == "orders@shop.test" and server.mails[-1]["From"] == "Shop <orders@shop.test>"

    def test_a_from_of_its_own_in_the_fields(self, server: MailServer) -> None:
        """Django's way to have bounces go elsewhere: `from_email` is the envelope's, the field is another."""
        EmailMessage("s", "x", "bounces@shop.test", ["a@x.test"], headers={"From": "Shop <shop@shop.test>"}).send()
        assert envelope(server)[0] == "bounces@shop.test" and server.mails[0]["From"] == "Shop <shop@shop.test>"

    def test_recipients_are_those_that_the_message_says(self, server: MailServer) -> None:
        class Redirected(EmailMessage):
            def recipients(self) -> list[str]:
                return ["test@x.test"]

        Redirected("s", "x", to=["real@x.test"], headers={"To": "List <list@x.test>"}).send()
        assert envelope(server)[1] == ["test@x.test"] and server.mails[0]["To"] == "List <list@x.test>"

    def test_a_domain_beyond_ascii(self, server: MailServer) -> None:
        mail.send_mail("s", "x", "k@käse.test", ["A <a@bücher.test>"])
        assert envelope(server) == ("k@xn--kse-qla.test", ["a@xn--bcher-kva.test"])
        assert "SMTPUTF8" not in server.peer.envelopes[0][0] and server.peer.messages[0].isascii()

    def test_a_local_part_beyond_ascii(self, server: MailServer) -> None:
        mail.send_mail("s", "x", '"Käse, AG" <käse@shop.test>', ['"Jürgen \\"K\\"" <jürgen@x.test>', "b@x.test"])
        assert envelope(server) == ("käse@shop.test", ["jürgen@x.test", "b@x.test"])
        assert "SMTPUTF8" in server.peer.envelopes[0][0]
        (got,) = server.mails
        assert got["From"].addresses[0].addr_spec == "käse@shop.test"
        assert got["From"].addresses[0].display_name == "Käse, AG"
        assert [each.addr_spec for each in got["To"].addresses] == ["jürgen@x.test", "b@x.test"]
        assert got["To"].addresses[0].display_name == 'Jürgen "K"'

    @pytest.mark.parametrize(
        "address", ["nobody", "a@x.test, b@x.test", "a@x.test\r\nRCPT TO:<b@x.test>", "a b@x.test", "@", '"' * 60_000]
    )
    def test_what_is_no_address_is_a_value_error(self, server: MailServer, address: str) -> None:
        for silently in (False, True):
            with pytest.raises(ValueError):
                mail.send_mail("s", "x", None, [address], fail_silently=silently)
            with pytest.raises(ValueError):
                mail.send_mail("s", "x", address, ["a@x.test"], fail_silently=silently)
        assert server.peer.messages == []

    def test_a_line_end_in_a_field_is_djangos_error(self, server: MailServer) -> None:
        with pytest.raises(ValueError, match=r"newline|linefeed"):
            mail.send_mail("s\nBcc: x@x.test", "x", None, ["a@x.test"])


class TestFailures:
    @pytest.mark.parametrize(
        ("answers", "kind", "code"),
        [
            ({"RCPT": b"550 5.1.1 nobody\r\n", "DATA": b"554 x\r\n"}, backend.MessageRefused, 550),
            (
                {"MAIL": b"550 5.7.1 not yours\r\n", "RCPT": b"503 x\r\n", "DATA": b"503 x\r\n"},
                backend.MessageRefused,
                550,
            ),
            ({"dot": b"554 5.7.1 attachments\r\n"}, backend.MessageRefused, 554),
            ({"greeting": b"554 5.7.1 stranger\r\n"}, backend.MessageRefused, 554),
            ({"AUTH": b"535 5.7.8 no\r\n"}, backend.LoginRefused, 535),
        ],
    )
    def test_refusals(self, tmp_path: Path, answers: dict[str, bytes], kind: type[Exception], code: int) -> None:
        with mail_server(tmp_path, answers=answers) as server, override_settings(OUTGATE_MAILER=options(server)):
            with pytest.raises(kind) as caught:
                mail.send_mail("s", "x", None, ["a@x.test", "b@x.test"])
            error = caught.value
            assert isinstance(error, smtplib.SMTPException) and isinstance(error, OSError)
            assert isinstance(error, smtplib.SMTPResponseException)
            assert error.smtp_code == code and error.result.reply.code == code  # type: ignore[attr-defined]
            assert str(error).startswith("smtp.mymail.com:465 via 127.0.0.1:") and PASSWORD not in str(error)
            if isinstance(error, backend.MessageRefused):
                assert {address: each[0] for address, each in error.recipients.items()} == {
                    "a@x.test": code,
                    "b@x.test": code,
                }
            assert mail.send_mail("s", "x", None, ["a@x.test"], fail_silently=True) == 0
            backend.close_connections()

    def test_one_that_is_refused_among_others(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async def answer() -> None:
            server.peer.answers["RCPT"] = b"550 5.1.1 nobody\r\n"

        with mail_server(tmp_path) as server, override_settings(OUTGATE_MAILER=options(server)):
            connection = get_connection(fail_silently=True)
            good, bad = (EmailMessage("s", "x", to=[to], connection=connection) for to in ("a@x.test", "b@x.test"))
            assert connection.send_messages([good]) == 1
            server.do(answer())
            server.peer.answers["DATA"] = b"503 x\r\n"
            assert connection.send_messages([bad, bad]) == 0
            server.peer.answers.clear()
            assert connection.send_messages([good, bad]) == 2
            backend.close_connections()
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["a mail was not sent"] * 2

    def test_no_server(self, server: MailServer) -> None:
        wrong = options(server) | {"forwards": [{"name": "other.test", "portDest": 465, "portOrig": server.peer.port}]}
        with override_settings(OUTGATE_MAILER=wrong):
            with pytest.raises(backend.ServerNotReached, match=r"^other\.test:465 via .*certificate") as caught:
                mail.send_mail("s", "x", None, ["a@x.test"])
            assert isinstance(caught.value, smtplib.SMTPException) and not caught.value.may_have_arrived
            two = [EmailMessage("s", "x", to=["a@x.test"]) for _ in range(2)]
            assert get_connection(fail_silently=True).send_messages(two) == 0
            assert server.peer.server_names == ["other.test"] * 2  # the second message was not tried any more

    def test_an_answer_that_was_lost(self, tmp_path: Path) -> None:
        with mail_server(tmp_path, hang_up_at="dot") as server, override_settings(OUTGATE_MAILER=options(server)):
            with pytest.raises(backend.ServerNotReached, match="may have arrived") as caught:
                mail.send_mail("s", "x", None, ["a@x.test"])
            assert caught.value.may_have_arrived and len(server.peer.messages) == 1
            backend.close_connections()

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"path": None}, "OUTGATE_MAILER needs the path of the configuration: OUTGATE_MAILER = "),
            ({"path": "/nowhere"}, "/nowhere does not exist"),
            ({"run_modes": ["publish"]}, "no config folder in"),
            ({"secrets": {}}, r"smtp\.password: nothing is set for \$\[secret:EMAIL_PASSWORD\]"),
            ({"host": "x"}, "OUTGATE_MAILER knows no host: expected path, run_modes"),
            ({"timeouts": {"sometimes": 1}}, "OUTGATE_MAILER: timeouts: expected a dictionary of numbers: connect, "),
            ({"timeouts": 5}, "OUTGATE_MAILER: timeouts: expected a dictionary of numbers"),
            ({"limits": {"connections": "8"}}, "OUTGATE_MAILER: limits: expected a dictionary of numbers"),
            ({"path": 5}, "OUTGATE_MAILER: an option has a value of the wrong type"),
            ({"run_modes": 5}, "OUTGATE_MAILER: an option has a value of the wrong type"),
            ({"env": 5}, "OUTGATE_MAILER: an option has a value of the wrong type"),
            ({"limits": {"connections": 0}}, "OUTGATE_MAILER: limits: at least one connection"),
        ],
    )
    def test_a_wrong_configuration(self, server: MailServer, changes: dict[str, Any], text: str) -> None:
        with override_settings(OUTGATE_MAILER=options(server) | changes):
            with pytest.raises(ImproperlyConfigured, match=text):
                get_connection()
            with pytest.raises(ImproperlyConfigured, match=text):
                mail.send_mail("s", "x", None, ["a@x.test"])

    def test_a_wrong_configuration_in_silence(self, server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
        with override_settings(OUTGATE_MAILER={"path": "/nowhere"}):
            assert mail.send_mail("s", "x", None, ["a@x.test"], fail_silently=True) == 0
            assert get_connection(fail_silently=True).open() is None
        with override_settings(OUTGATE_MAILER=options(server) | {"forwards": []}):
            assert mail.send_mail("s", "x", None, ["a@x.test"], fail_silently=True) == 0
            with pytest.raises(ImproperlyConfigured, match="no port forward is known"):
                mail.send_mail("s", "x", None, ["a@x.test"])
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["no mail can be sent"] * 3
        assert "/nowhere does not exist" in caplog.text

    def test_every_argument_of_load_is_an_option(self) -> None:
        taken = inspect.signature(MailService.load).parameters
        assert sorted(taken) == sorted(backend._OPTIONS)

    def test_wrong_settings_in_silence(self, server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
        """Django mails its errors in silence: a typing mistake in settings must not break that."""
        with override_settings(OUTGATE_MAILER={"pth": "osgiconfig"}):
            assert mail.send_mail("s", "x", None, ["a@x.test"], fail_silently=True) == 0
        with override_settings(EMAIL_TIMEOUT="soon", OUTGATE_MAILER={"path": server.path}):
            assert mail.send_mail("s", "x", None, ["a@x.test"], fail_silently=True) == 0
        for wrong in ("soon", 0, float("nan")):
            with (
                override_settings(EMAIL_TIMEOUT=wrong, OUTGATE_MAILER={"path": server.path}),
                pytest.raises(ImproperlyConfigured, match="EMAIL_TIMEOUT: expected seconds"),
            ):
                get_connection()
        assert ["OUTGATE_MAILER knows no pth" in caplog.messages[0], "EMAIL_TIMEOUT" in caplog.messages[1]] == [
            True
        ] * 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"secrets": {"EMAIL_PASSWRD": "s3cret"}},
            {"forwards": []},
            {"port": 25},
            {"path": 5},
            {"timeouts": 5},
            {"cafile": None, "env": {"SSL_CERT_FILE": __file__, "OTHER": "s3cret"}},
        ],
    )
    def test_a_page_of_an_error_shows_no_secret(
        self, server: MailServer, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
    ) -> None:
        """Django's page shows what the frames of an error hold: neither the environment nor secrets may be there."""
        monkeypatch.setenv("SOMETHING", "s3cret")
        wrong = {"env": None, "secrets": {"EMAIL_PASSWORD": PASSWORD, "OTHER": "s3cret"}} | changes
        with override_settings(OUTGATE_MAILER=options(server) | wrong):
            self.reported(ImproperlyConfigured)

    def test_a_page_of_a_refusal_shows_no_secret(self, tmp_path: Path) -> None:
        for answers in (
            {"AUTH": b"535 no\r\n"},
            {"RCPT": b"550 no\r\n", "DATA": b"503 x\r\n"},
            {"MAIL": b"nonsense\r\n"},
        ):
            with mail_server(tmp_path) as server, override_settings(OUTGATE_MAILER=options(server)):
                server.peer.answers.update(answers)
                self.reported(smtplib.SMTPException)
                backend.close_connections()

    def reported(self, kind: type[Exception]) -> None:
        """Send a mail in vain, and look at what Django would tell of it."""
        try:
            mail.send_mail("s", "x", None, ["a@x.test"])
        except kind as error:
            frames = ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_frames()
            held = repr([(frame["filename"], frame["vars"]) for frame in frames])
            assert "s3cret" not in held and PASSWORD not in held
            assert [frame for frame in frames if frame["filename"] == backend.__file__]
        else:
            pytest.fail("it was sent")

    def test_no_settings_at_all(self) -> None:
        wrong = override_settings(OUTGATE_MAILER="osgiconfig")
        with override_settings(EMAIL_BACKEND=BACKEND):
            with wrong, pytest.raises(ImproperlyConfigured, match="OUTGATE_MAILER must be a dictionary"):
                get_connection()
            with pytest.raises(ImproperlyConfigured, match="OUTGATE_MAILER needs the path"):
                get_connection()
            with pytest.raises(ImproperlyConfigured, match="user and password are smtp"):
                mail.send_mail("s", "x", None, ["a@x.test"], auth_user="me", auth_password=PASSWORD)


class TestConnections:
    def test_they_are_kept_across_messages_backends_and_threads(self, server: MailServer) -> None:
        for _ in range(3):
            mail.send_mail("s", "x", None, ["a@x.test"])
        threads = [threading.Thread(target=mail.send_mail, args=("s", "x", None, ["a@x.test"])) for _ in range(4)]
        for thread in threads:
            thread.start()
            thread.join()
        assert server.peer.connections == 1 and len(server.peer.messages) == 7
        with override_settings(OUTGATE_MAILER=options(server) | {"limits": {"connections": 1}}):
            together = [threading.Thread(target=mail.send_mail, args=("s", "x", None, ["a@x.test"])) for _ in range(8)]
            for thread in together:
                thread.start()
            for thread in together:
                thread.join()
        assert server.peer.connections == 2 and len(server.peer.messages) == 15
        server.hang_up()
        assert mail.send_mail("s", "x", None, ["a@x.test"]) == 1

    def test_options_of_a_backend_come_before_the_settings(self, server: MailServer, tmp_path: Path) -> None:
        with override_settings(OUTGATE_MAILER={"path": "/nowhere"}, EMAIL_TIMEOUT=7):
            connection = get_connection(path=server.path, run_modes=["author"], **server.options)
            assert connection._service._timeouts.reply == 7.0
            assert connection.send_messages([EmailMessage("s", "x", to=["a@x.test"])]) == 1

    def test_services_that_nobody_uses_any_more_are_closed(self, server: MailServer) -> None:
        mail.send_mail("s", "x", None, ["a@x.test"])
        for number in range(backend._MOST):
            get_connection(**options(server) | {"limits": {"connections": number + 1}})
        assert len(backend._services) == backend._MOST and server.peer.commands[-1] == "QUIT"


_PROGRAM = """
import json, os, sys
from django.conf import settings
settings.configure(EMAIL_BACKEND="outgate.mailer.django.EmailBackend", OUTGATE_MAILER=json.loads(sys.argv[1]))
from django.core.mail import send_mail
send_mail("parent", "x", None, ["a@x.test"])
child = os.fork()
send_mail("after" if child else "child", "x", None, ["a@x.test"])
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_that_forks_and_ends(server: MailServer) -> None:
    """As under a server that forks its workers: no connection is shared, all are ended with QUIT."""
    import json

    given = options(server)
    given |= {"path": str(given["path"]), "cafile": str(given["cafile"])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(str(got["Subject"]) for got in server.mails) == ["after", "child", "parent"]
    assert server.peer.connections == 2 and server.peer.commands.count("QUIT") == 2


def test_a_modern_message_goes_too(server: MailServer) -> None:
    """As Django 6 makes them."""

    class Modern(EmailMessage):
        def message(self) -> Any:
            return message_from_bytes(super().message().as_bytes(), policy=policy.default)

    Modern("Grüße", "für\n", to=["jürgen@x.test"], bcc=["b@x.test"]).send()
    assert envelope(server) == ("noreply@shop.test", ["jürgen@x.test", "b@x.test"])
    assert server.mails[0]["Subject"] == "Grüße"
