"""Network rules of a real `outgate dev`: what changes counts within two seconds, in open sessions too, unasked."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outgate.base.clock import rfc3339
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
STRANGER = "127.66.0.1"
WITHDRAWN = "421 4.7.0 Access withdrawn, closing"


class Session:
    """One client: what it hears is waited for, for a generous time."""

    def __init__(self, running: Running, listener: str, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(running.address(listener), timeout=30, source_address=(source, 0))
        if listener == "submissions":
            self.secure(running)
        else:
            self.file = self.socket.makefile("rb")

    def secure(self, running: Running) -> None:
        context = ssl.create_default_context(cafile=running.dev["ca_file"])
        self.socket = context.wrap_socket(self.socket, server_hostname=running.dev["smtp_host_name"])
        self.file = self.socket.makefile("rb")

    def heard(self) -> str:
        """Return the last line of the next reply; "" at the end."""
        while True:
            line = self.file.readline().decode()
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    def say(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.heard()

    def login(self, running: Running, password: str = "") -> Session:
        assert self.heard().startswith("220 ")
        self.say("EHLO client.test")
        text = f"\0{running.dev['smtp_user']}\0{password or running.dev['smtp_password']}"
        assert self.say("AUTH PLAIN " + base64.b64encode(text.encode()).decode()).startswith("235 ")
        return self

    def envelope(self, running: Running) -> Session:
        assert self.say(f"MAIL FROM:<a@{running.dev['domain']}>").startswith("250 ")
        assert self.say("RCPT TO:<you@receiver.test>").startswith("250 ")
        assert self.say("DATA").startswith("354 ")
        return self

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def greeting(running: Running, source: str) -> str:
    """Return what a new client hears first on 587."""
    session = Session(running, "submission", source)
    try:
        return session.heard()
    finally:
        session.close()


def rule(running: Running) -> dict[str, Any]:
    found = running.api.call("GET", running.api.restrictions(f"v1/rules?account_id={running.dev['account_id']}"))
    return found["rules"][0]


@contextmanager
def without_the_rule(running: Running) -> Iterator[None]:
    """Delete the tenant's rule, and make it again."""
    api, kept = running.api, rule(running)
    api.call("DELETE", api.restrictions(f"v1/rules/{kept['id']}"))
    try:
        yield
    finally:
        names = ("description", "contexts", "resources", "operations", "enforcement_mode")
        api.call("POST", api.restrictions("v1/rules"), {name: kept[name] for name in names if name in kept})
        wait_for(lambda: greeting(running, "127.0.0.1"), lambda said: said.startswith("220 "))


@contextmanager
def allow_list(running: Running, *networks: str, ends_in: float) -> Iterator[None]:
    api = running.api
    url = api.restrictions(f"v1/allow_lists/{running.dev['instance_id']}")
    now = time.time() + float((running.data / "clock").read_text() if (running.data / "clock").exists() else 0)
    api.call("PUT", url, {"networks": list(networks), "ends_at": rfc3339(now + ends_in)})
    try:
        yield
    finally:
        api.call("DELETE", url)


def test_a_rule_that_goes_ends_sessions_that_say_nothing(running: Running) -> None:
    idle = Session(running, "submissions").login(running)
    writing = Session(running, "submissions").login(running).envelope(running)
    writing.socket.sendall(b"From: a@" + running.dev["domain"].encode() + b"\r\n\r\nhalf a letter")
    before_login = Session(running, "submission")
    assert before_login.heard().startswith("220 ")
    with without_the_rule(running):
        for session in (idle, writing, before_login):
            assert session.heard() == WITHDRAWN
            assert session.heard() == ""
            session.close()
        assert greeting(running, "127.0.0.1") == "554 5.7.1 Access denied"
        refused = Session(running, "submission")
        assert refused.heard().startswith("554 ") and refused.heard() == ""
        refused.close()
        with pytest.raises((ssl.SSLError, OSError)):
            Session(running, "submissions")
    assert not running.inbox()


def test_a_zone_that_grows_lets_a_stranger_in(running: Running) -> None:
    api = running.api
    assert greeting(running, STRANGER).startswith("554 ")
    zone_id = next(
        attribute["value"]
        for context in rule(running)["contexts"]
        for attribute in context["attributes"]
        if attribute["name"] == "networkZoneId"
    )
    url = api.restrictions(f"v1/zones/{zone_id}")
    kept, tag = api.tagged("GET", url)
    _, tag = api.tagged("PUT", url, {**kept, "excluded": []}, tag)
    try:
        wait_for(lambda: greeting(running, STRANGER), lambda said: said.startswith("220 "))
        inside = Session(running, "submissions", STRANGER).login(running)
    finally:
        api.tagged("PUT", url, kept, tag)
    assert inside.heard() == WITHDRAWN and inside.heard() == ""
    inside.close()
    assert greeting(running, STRANGER).startswith("554 ")


def test_an_allow_list_lets_in_beside_the_rules_until_it_ends(running: Running) -> None:
    dev, api = running.dev, running.api
    with allow_list(running, "127.66.0.0/16", ends_in=5 * 86_400):
        wait_for(lambda: greeting(running, STRANGER), lambda said: said.startswith("220 "))
        assert '"access.allow_list_ends"' in running.log.read_text()
        listed = Session(running, "submissions", STRANGER).login(running)
        writing = Session(running, "submissions", STRANGER).login(running).envelope(running)
        by_rule = Session(running, "submissions").login(running)
        allowed = f"smtp/config/{dev['smtp_config_id']}/allowed_ips"
        url = f"{dev['event_notifications_url']}/v1/instances/{dev['instance_id']}/{allowed}"
        assert "127.0.0.0/8" in api.call("GET", url)["subnets"]
        # No row changes: the clock alone ends it, and the call that moves the clock answers when that is done.
        api.call("POST", api.sandbox("clock"), {"advance_s": 5 * 86_400})
        assert greeting(running, STRANGER) == "554 5.7.1 Access denied"
        for session in (listed, writing):
            assert session.heard() == WITHDRAWN and session.heard() == ""
            session.close()
        assert "127.0.0.0/8" not in api.call("GET", url)["subnets"]
        assert by_rule.say("NOOP").startswith("250 ")
        by_rule.close()
        assert '"access.allow_list_ended"' in running.log.read_text()


def test_a_key_ends_at_its_date_in_sessions_that_say_nothing(running: Running) -> None:
    """The call that moves the clock answers when that is done."""
    made = running.outgate("key", "create", "mailer", "--role", "smtp", "--expires", "20d")
    assert made.returncode == 0, made.stderr
    idle = Session(running, "submissions").login(running, made.stdout.strip())
    stays = Session(running, "submissions").login(running)
    offset = float((running.data / "clock").read_text() if (running.data / "clock").exists() else 0)
    for seconds in (20 * 86_400 - offset - 300, 301):  # the first has other work to do, the second none
        running.api.call("POST", running.api.sandbox("clock"), {"advance_s": seconds})
    idle.socket.setblocking(False)
    assert idle.heard() == WITHDRAWN
    idle.close()
    assert stays.say("NOOP").startswith("250 ")
    stays.close()


def test_a_list_ended_by_hand_ends_sessions(running: Running) -> None:
    made = running.outgate("access", "allow-list", "set", STRANGER, "--until", "300d")
    assert made.returncode == 0, made.stderr
    wait_for(lambda: greeting(running, STRANGER), lambda said: said.startswith("220 "))
    assert running.outgate("access", "explain", STRANGER).returncode == 0
    inside = Session(running, "submissions", STRANGER).login(running)
    assert running.outgate("access", "allow-list", "end").returncode == 0
    assert inside.heard() == WITHDRAWN and inside.heard() == ""
    inside.close()
    assert running.outgate("access", "explain", STRANGER).returncode == 1
