"""The logging handler with a real server: who logs does not wait, storms are one mail, nothing goes round in circles."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import math
import os
import subprocess
import sys
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest

from outgate.mailer import ConfigError
from outgate.mailer.digest import Digest
from outgate.mailer.logging_handler import MailHandler
from support.mail_server import PASSWORD, MailServer, mail_server
from support.running import wait_for

TO = ["Ops <ops@shop.test>", "dev@shop.test"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    with mail_server(tmp_path) as running:
        yield running


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("shop.orders")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class Clock:
    """A clock of tests; `passed` tells a handler's thread that it moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passed(self, handler: MailHandler, seconds: float) -> None:
        with handler._changed:
            self.now += seconds
            handler._changed.notify_all()


def until(server: MailServer, count: int) -> None:
    """Wait until so many mails are there."""
    wait_for(lambda: len(server.peer.messages), lambda came: came >= count)


def handler_of(server: MailServer, **options: object) -> MailHandler:
    """Give a handler that waits as long as a busy machine needs, unless a test is about that time."""
    more = {"shutdown_timeout": 60, **options}
    return MailHandler(server.path, ["author"], to=TO, options=server.options, **more)  # type: ignore[arg-type]


def test_the_first_record_goes_at_once_and_the_next_wait(server: MailServer, logger: logging.Logger) -> None:
    clock = Clock()
    handler = handler_of(server, subject="[shop]", interval=60, clock=clock)
    logger.addHandler(handler)
    try:
        raise KeyError("basket")
    except KeyError:
        logger.exception("order %d failed", 7)
    until(server, 1)
    (mail,) = server.mails
    assert mail["Subject"] == "[shop] ERROR: order 7 failed" and mail["Auto-Submitted"] == "auto-generated"
    assert mail["To"] == "Ops <ops@shop.test>, dev@shop.test" and mail["From"] == "noreply@shop.test"
    assert "KeyError: 'basket'" in mail.get_content() and "test_logging_handler.py" in mail.get_content()
    for number in range(500):
        logger.error("order %d failed", number)
    logger.info("not at this level")
    clock.passed(handler, 59)
    assert len(server.peer.messages) == 1
    clock.passed(handler, 1)
    until(server, 2)
    assert server.mails[1]["Subject"] == "[shop] ERROR: order 0 failed (and 499 more)"
    assert "500 times until" in server.mails[1].get_content()
    assert server.peer.connections == 1


def test_what_waits_goes_when_the_handler_is_closed(server: MailServer, logger: logging.Logger) -> None:
    handler = handler_of(server, interval=math.inf, shutdown_timeout=math.inf)
    logger.addHandler(handler)
    logger.error("one")
    until(server, 1)
    logger.error("two")
    wait_for(lambda: handler._changed._waiters, bool)
    assert handler._worker is not None and handler._worker.is_alive()
    logger.critical("three")
    logging.shutdown([lambda: handler])  # type: ignore[list-item]
    assert [mail["Subject"] for mail in server.mails] == ["ERROR: one", "ERROR: two (and 1 more)"]
    logger.error("after the end")
    handler.flush()
    handler.close()
    assert len(server.peer.messages) == 2 and server.peer.commands[-1] == "QUIT"


def test_who_logs_does_not_wait_for_a_server_that_is_silent(tmp_path: Path, logger: logging.Logger) -> None:
    with mail_server(tmp_path, silent_at="greeting") as server:
        handler = handler_of(server, interval=0, shutdown_timeout=0.05)
        logger.addHandler(handler)
        for number in range(2000):
            logger.error("order %d failed", number)
        assert handler._sending and handler._digest.kinds  # a mail is under way, and the rest is one kind
        handler.close()  # waits no longer than it shall


_ALONE = """
import logging, sys
from outgate.mailer.logging_handler import MailHandler
options = {"env": {"AEM_PROXY_HOST": "127.66.0.9"}}
logging.getLogger().addHandler(MailHandler(sys.argv[1], to=["a@x.test"], options=options, shutdown_timeout=60))
if sys.argv[2:]:
    logging.getLogger("outgate").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("shop").error("order failed")
"""


_CHILD = """
import json, logging, multiprocessing, sys
from outgate.mailer.logging_handler import MailHandler

def work():
    logging.getLogger("shop").error("of a child")
    logging.getLogger("shop").error("its last one")

if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    handler = MailHandler(sys.argv[1], ["author"], to=["a@x.test"], options=options, shutdown_timeout=60)
    logging.getLogger().addHandler(handler)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
"""


def test_what_a_child_of_multiprocessing_logs_is_mailed(server: MailServer) -> None:
    """It ends with `os._exit`, so that nobody else would send what waits."""
    options = json.dumps(server.options | {"cafile": str(server.options["cafile"])})
    subprocess.run([sys.executable, "-c", _CHILD, str(server.path), options], timeout=60, check=True)
    told = "".join(mail.get_content() for mail in server.mails)
    assert "of a child" in told and "its last one" in told


def test_a_mail_that_fails_is_told_also_where_nobody_else_listens(tmp_path: Path) -> None:
    """The handler takes no record of its own, and as the only one it keeps Python from printing them."""
    config = tmp_path / "com.day.cq.mailer.DefaultMailService.cfg.json"
    config.write_text('{"smtp.host": "127.66.0.9", "smtp.port": "30465", "from.address": "a@x.test"}')
    for more in ((), ("listens",)):
        command = [sys.executable, "-c", _ALONE, str(config), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        told, other = (done.stdout, done.stderr) if more else (done.stderr, done.stdout)
        assert told.startswith("1 log records could not be mailed, they are lost: smtp.port: no port forward is known")
        assert (told.count("\n"), other) == (1, "")


def test_who_has_waited_for_a_silent_server_does_not_wait_again(
    tmp_path: Path, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """`logging.shutdown` flushes, then closes: the time that is promised is that of both."""
    with mail_server(tmp_path, silent_at="greeting") as server:
        handler = handler_of(server, interval=0, shutdown_timeout=0.05)
        logger.addHandler(handler)
        logger.error("order failed")
        handler.flush()
        worker = handler._worker
        assert worker is not None
        waits: list[float | None] = []
        worker.join = waits.append  # type: ignore[method-assign]
        handler.close()
        assert waits == [0]
        del worker.join
    assert "the last log records may not have been mailed" in caplog.text


def test_a_handler_that_could_not_be_made_is_none_for_the_shutdown(server: MailServer) -> None:
    """The interpreter's end flushes each handler that has begun to be one, as long as its error is kept."""
    with pytest.raises(ConfigError) as kept:
        handler_of(server, sender="a@x.test\r\nBcc: b@x.test")
    assert kept.value.name == "to, sender"
    assert not [each for each in (ref() for ref in logging._handlerList) if isinstance(each, MailHandler)]


def test_no_mail_is_without_its_traceback(server: MailServer, logger: logging.Logger) -> None:
    """Also if the mail before is taken at the moment when a record of the same kind comes."""
    handler = handler_of(server, interval=3600)
    logger.addHandler(handler)

    class Hasty(Digest):
        def wants(self, key: Hashable) -> bool:
            wanted = super().wants(key)
            if not wanted and not handler._changed._is_owned():  # type: ignore[attr-defined]
                handler.flush()  # the other thread is that fast
            return wanted

    handler._digest = Hasty(3600)
    for number in range(4):
        try:
            raise LookupError("no such order")
        except LookupError:
            logger.exception("order failed")
        if number == 0:
            until(server, 1)
    handler.close()
    assert [mail.get_content() for mail in server.mails if "Traceback" not in mail.get_content()] == []


class Chatty(logging.Filter):
    """Something in the way of a mail that logs by itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        logging.getLogger("shop.driver").error("driver: %s", record.name)
        return True


def test_nothing_goes_round_in_circles(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the mailer's own lines nor those that others write while it sends make a mail."""
    server.config["debug.email"] = True
    server.write()
    root = logging.getLogger()
    mailer = logging.getLogger("outgate.mailer")
    chatty = Chatty()
    handler = handler_of(server, interval=0, level="DEBUG")
    root.addHandler(handler)
    mailer.addFilter(chatty)
    before = mailer.level
    mailer.setLevel("DEBUG")
    try:
        root.error("one")
        until(server, 1)
        logging.shutdown([lambda: handler])  # type: ignore[list-item]
    finally:
        root.removeHandler(handler)
        mailer.removeFilter(chatty)
        mailer.setLevel(before)
    assert [mail["Subject"] for mail in server.mails] == ["ERROR: one"]
    assert any(record.name == "shop.driver" for record in caplog.records)
    assert any(record.name == "outgate.mailer" and "MAIL FROM" in record.getMessage() for record in caplog.records)
    assert PASSWORD not in caplog.text


class TestFailures:
    @pytest.mark.parametrize("at", ["greeting", "dot", "MAIL"])
    def test_a_mail_that_failed_is_told_by_the_next(
        self, tmp_path: Path, logger: logging.Logger, caplog: pytest.LogCaptureFixture, at: str
    ) -> None:
        with mail_server(tmp_path, answers={at: b"451 4.3.0 later\r\n"}) as server:
            clock = Clock()
            handler = handler_of(server, interval=60, clock=clock)
            logger.addHandler(handler)
            logger.error("one")
            handler.flush()
            failed = len(server.peer.messages)
            del server.peer.answers[at]
            logger.error("two")
            clock.passed(handler, 60)
            until(server, failed + 1)
            assert server.mails[-1]["Subject"] == "ERROR: one (and 1 more)"
            (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("outgate")]
            assert told.startswith("1 log records could not be mailed, they are tried again: ") and "451" in told

    def test_a_mail_that_is_refused_for_good_is_counted(self, tmp_path: Path, logger: logging.Logger) -> None:
        with mail_server(tmp_path, answers={"dot": b"554 5.7.1 no\r\n"}) as server:
            handler = handler_of(server, interval=0)
            logger.addHandler(handler)
            logger.error("one")
            handler.flush()
            server.peer.answers.clear()
            logger.error("two")
            handler.flush()
            assert server.mails[-1]["Subject"] == "ERROR: two"
            assert "1 earlier records were in mails that could not be sent." in server.mails[-1].get_content()

    def test_a_record_that_cannot_be_formatted_is_told_as_logging_does(
        self, server: MailServer, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handler = handler_of(server)
        logger.addHandler(handler)
        logger.propagate = False  # pytest's own handler raises
        try:
            logger.error("%d orders", "many")
        finally:
            logger.propagate = True
        handler.close()
        assert "--- Logging error ---" in capsys.readouterr().err and server.peer.messages == []

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"to": []}, "to: expected somebody to mail to"),
            ({"to": ["nobody"]}, "to, sender: an address in To is not valid"),
            ({"to": ["a@x.test\r\nBcc: b@x.test"]}, "to, sender: expected addresses without line ends"),
            ({"sender": "me"}, "to, sender: an address in From is not valid"),
            ({"service": object()}, "give the path of the configuration, or a service"),
            ({"interval": math.nan}, "interval, shutdown_timeout: expected seconds"),
            ({"run_modes": ["publish"]}, "no config folder in"),
        ],
    )
    def test_what_is_wrong_is_told_at_once(self, server: MailServer, options: dict[str, object], text: str) -> None:
        given = {"run_modes": ["author"], "to": TO, "options": server.options} | options
        with pytest.raises(ConfigError, match=text):
            MailHandler(server.path, **given)  # type: ignore[arg-type]


def test_dict_config(server: MailServer) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"short": {"format": "%(name)s: %(message)s"}},
            "handlers": {
                "mail": {
                    "class": "outgate.mailer.logging_handler.MailHandler",
                    "path": str(server.path),
                    "run_modes": "author",
                    "to": TO,
                    "subject": "[shop]",
                    "formatter": "short",
                    "level": "ERROR",
                    "options": server.options,
                }
            },
            "loggers": {"shop.configured": {"handlers": ["mail"]}},
        }
    )
    logger = logging.getLogger("shop.configured")
    try:
        logger.error("disk full\nreally")
        until(server, 1)
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    assert server.mails[0]["Subject"] == "[shop] ERROR: shop.configured: disk full"
    assert server.mails[0].get_content().endswith("shop.configured: disk full\r\nreally\r\n")


def test_a_service_of_the_application_stays_open(server: MailServer, logger: logging.Logger) -> None:
    with server.service() as service:
        handler = MailHandler(service=service, to="ops@shop.test")
        logger.addHandler(handler)
        logger.error("one")
        handler.close()
        assert server.peer.commands[-1] != "QUIT"
    assert server.peer.commands[-1] == "QUIT" and len(server.peer.messages) == 1


def test_many_threads(server: MailServer, logger: logging.Logger) -> None:
    handler = handler_of(server, interval=3600)
    logger.addHandler(handler)

    def work() -> None:
        for _ in range(200):
            logger.error("x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    counts = [mail.get_content() for mail in server.mails]
    assert len(counts) <= 2
    told = sum(int(text.split(" records of ")[0]) if " records of " in text else 1 for text in counts)
    assert told == 1600


_PROGRAM = """
import logging, os, sys
from outgate.mailer.digest import Digest
from outgate.mailer.logging_handler import MailHandler
import json
options = json.loads(sys.argv[2])
handler = MailHandler(
    sys.argv[1], ["author"], to="ops@shop.test", interval=3600, options=options, shutdown_timeout=60
)
logging.getLogger().addHandler(handler)
logging.error("one")
handler.flush()
logging.error("of the parent")
child = os.fork()
if child:
    os.waitpid(child, 0)
    logging.error("at the end")
else:
    logging.error("of the child")
    logging.shutdown()
    os._exit(0)
"""


def test_a_process_that_ends_and_one_that_forks(server: MailServer) -> None:
    import json

    options = server.options | {"cafile": str(server.options["cafile"])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, str(server.path), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert sorted(str(mail["Subject"]) for mail in server.mails) == [
        "ERROR: of the child",
        "ERROR: of the parent (and 1 more)",
        "ERROR: one",
    ]
