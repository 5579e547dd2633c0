"""A receiving domain that asks for TLS by MTA-STS: what is refused, what is let pass with a note, and what may be waived."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.policies import PolicyServer, document, policy
from support.running import Running, wait_for
from support.scripted_peer import OFFER, Peer

pytestmark = pytest.mark.scenario
STRICT, GOOD = "strict.test", "good.test"


@contextmanager
def on_a_loop(server: Any) -> Iterator[None]:
    """Run a server of the tests on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def served(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


def publish(running: Running, policies: PolicyServer, domain: str, id: str, text: str) -> None:
    def put(name: str, rdtype: str, *values: str) -> None:
        running.api.call("PUT", running.api.sandbox(f"zone/{name}/{rdtype}"), {"values": list(values), "ttl": 1})

    put(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={id};")
    put(f"mta-sts.{domain}", "A", "127.0.0.1")
    policies.answers[f"mta-sts.{domain}"] = document(text)


def send(running: Running, domain: str, *, options: tuple[str, ...] = (), **fields: str) -> str:
    """Send a mail to you@`domain`; return its queue id."""
    dev = running.dev
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@shop.test", f"you@{domain}", "a letter"
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content("Hello.\n")
    host, port = running.address("submission")
    with smtplib.SMTP(host, port, timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=dev["ca_file"]))
        client.login(dev["smtp_user"], dev["smtp_password"])
        assert client.has_extn("requiretls")
        client.mail("shop@shop.test", options)
        client.rcpt(f"you@{domain}")
        code, text = client.data(message.as_string())
    assert code == 250, text
    return text.decode().rsplit(" ", 1)[-1]


def test_a_domain_asks_for_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "trust.pem")
    policies = PolicyServer(served(ca, f"mta-sts.{STRICT}", f"mta-sts.{GOOD}"))
    with on_a_loop(policies):
        running = Running(
            tmp_path / "data",
            f'[relay]\nauthorities_file = "{tmp_path}/trust.pem"\nmta_sts_port = {policies.port}\nretry_first_s = 3600.0\n',
        ).start()
        try:
            story(running, policies, ca)
        finally:
            assert running.stop() == 0


def story(running: Running, policies: PolicyServer, ca: trustme.CA) -> None:
    # The inbox has a certificate of the laptop's own authority, which is not among those in the file: mail waits.
    publish(running, policies, STRICT, "1", policy("enforce", "mx.outgate.test"))
    waiting = send(running, STRICT)
    found = running.settled(waiting, "deferred")
    assert f"MTA-STS enforce of {STRICT} demands TLS with a verified certificate" in str(found)
    assert not running.inbox()

    # The sender may say that it does not matter.
    running.settled(send(running, STRICT, TLS_Required="No"), "delivered")
    assert len(running.inbox()) == 1

    # Who requires TLS gets a bounce where nobody vouches for the host, or its certificate is none.
    bounced = running.settled(send(running, STRICT, options=("REQUIRETLS",)), "bounced")
    assert "5.7.10" in str(bounced)

    # Another version of the policy asks to be told only: the next attempt is let pass, with a note.
    publish(running, policies, STRICT, "2", policy("testing", "mx.outgate.test"))
    for attempts in range(2, 6):  # a name server that is slow once is no reason to fail here
        running.api.call("POST", running.api.sandbox("clock"), {"advance_s": 4000 * (attempts - 1)})
        delivered = wait_for(
            lambda: running.api.call("GET", running.api.messages(waiting)),
            lambda told, least=attempts: told["recipients"][0]["attempts"] >= least,
        )
        if delivered["recipients"][0]["status"] == "delivered":
            break
    assert f"MTA-STS testing of {STRICT} only asks to be told" in str(delivered)
    assert policies.asked.count(f"mta-sts.{STRICT}") == 2

    # A host with a good certificate gets its mail under "enforce", and with REQUIRETLS if it offers that.
    _, port = running.address("inbox")
    peer = Peer(served(ca, f"mx.{GOOD}"), offer=(*OFFER, "REQUIRETLS"), address="127.0.0.9", port=port)
    with on_a_loop(peer):
        publish(running, policies, GOOD, "1", policy("enforce", f"*.{GOOD}"))
        for name, rdtype, value in ((GOOD, "MX", f"10 mx.{GOOD}."), (f"mx.{GOOD}", "A", "127.0.0.9")):
            running.api.call("PUT", running.api.sandbox(f"zone/{name}/{rdtype}"), {"values": [value], "ttl": 1})
        running.settled(send(running, GOOD), "delivered")
        running.settled(send(running, GOOD, options=("REQUIRETLS",)), "delivered")
        assert [command.endswith(" REQUIRETLS") for command in peer.commands if command.startswith("MAIL")] == [
            False,
            True,
        ]
    stored = (running.log).read_text()
    assert "sts.kept" in stored and "tls.testing_failed" in stored
