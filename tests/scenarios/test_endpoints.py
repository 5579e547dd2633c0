"""Two endpoints in one laptop mode: an instance in Frankfurt, its mail, and certificates that are replaced."""

from __future__ import annotations

import json
import os
import secrets
import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from outgate.base.clock import OffsetClock
from outgate.model.tenancy import Verification
from outgate.relay.passwords import password_hasher
from outgate.store.control import open_control
from outgate.store.keys import new_dkim_key
from outgate.store.secrets import open_box
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
FRANKFURT = "127.0.0.5"


@dataclass
class Abroad:
    """A tenant in Frankfurt, whose domain's SPF record names Frankfurt's outgoing address only."""

    url: str
    user: str
    password: str
    verified: dict[str, str]


@pytest.fixture(scope="module")
def abroad(running: Running) -> Iterator[Abroad]:
    api, account = running.api, running.dev["account_id"]
    control = open_control(running.data / "control.db", open_box(running.data / "master.key"), OffsetClock())
    try:
        instance = control.tenancy.create_instance(account, "eu-es", "Madrid")
        made = control.tenancy.create_configuration(
            instance.id, name="", domain="fra.test", description="", key=new_dkim_key(), authorization=Verification.SUCCESSFUL
        )  # fmt: skip
        password = secrets.token_urlsafe(12)
        verifier = password_hasher().hash(password)
        user = control.tenancy.create_user(instance.id, made.id, description="", verifier=verifier).username
    finally:
        control.close()
    for name, rdtype, value in (
        ("fra.test", "A", FRANKFURT),
        ("fra.test", "TXT", f"v=spf1 ip4:{FRANKFURT} -all"),
        (f"{made.key.selector}._domainkey.fra.test", "TXT", f"v=DKIM1; k=rsa; p={made.key.public}"),
    ):
        api.call("PUT", api.sandbox(f"zone/{name}/{rdtype}"), {"values": [value]})
    zone = api.call("GET", api.restrictions(f"v1/zones?account_id={account}"))["zones"][0]
    attributes = {"accountId": account, "serviceName": "event-notifications", "serviceInstance": instance.id}
    rule = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone["id"]}]}],
        "resources": [{"attributes": [{"name": name, "value": value} for name, value in attributes.items()]}],
        "enforcement_mode": "enabled",
    }
    api.call("POST", api.restrictions("v1/rules"), rule)
    url = f"{running.dev['event_notifications_url']}/v1/instances/{instance.id}/smtp"
    status = api.call("PATCH", f"{url}/config/{made.id}/verify?type=spf,dkim")["status"]
    abroad = Abroad(url, user, password, {each["type"]: each["verification"] for each in status})
    wait_for(lambda: logged_in(running, FRANKFURT, user, password), bool)  # a rule is noticed within a second
    yield abroad


def logged_in(running: Running, host: str, user: str, password: str) -> bool:
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    with smtplib.SMTP(host, running.address("submission")[1], timeout=30) as client:
        client.starttls(context=context)
        try:
            client.login(user, password)
        except smtplib.SMTPAuthenticationError:
            return False
    return True


def submit(running: Running, host: str, user: str, password: str, domain: str) -> dict[str, Any]:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"a@{domain}", f"{domain}@there.test", domain
    message.set_content("Hello.\n")
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    with smtplib.SMTP(host, running.address("submission")[1], timeout=30) as client:
        client.starttls(context=context)
        client.login(user, password)
        client.send_message(message)

    def arrived() -> list[dict[str, Any]]:
        return [each for each in running.inbox() if each["envelope"]["mail_from"] == f"a@{domain}"]

    return wait_for(arrived, bool)[0]


def test_mail_of_frankfurt_goes_in_and_out_at_frankfurt(running: Running, abroad: Abroad) -> None:
    assert abroad.verified == {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL"}
    found = submit(running, FRANKFURT, abroad.user, abroad.password, "fra.test")
    assert found["client_address"] == FRANKFURT and found["spf"]["result"] == "pass", found
    raw = running.raw(found["id"]).decode()
    assert "by smtp.eu-de.outgate.test" in raw
    # The tenant of Dallas goes on as ever, from elsewhere.
    home = running.dev
    found = submit(running, "127.0.0.1", home["smtp_user"], home["smtp_password"], home["domain"])
    assert found["client_address"] == "127.0.0.1" and found["spf"]["result"] == "pass", found


def test_dallas_takes_no_mail_of_frankfurt(running: Running, abroad: Abroad) -> None:
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        submit(running, "127.0.0.1", abroad.user, abroad.password, "fra.test")
    assert caught.value.smtp_code == 550 and b"5.7.1 Not authorised" in caught.value.smtp_error
    lines = [json.loads(line) for line in running.log.read_text().splitlines() if "login.endpoint" in line]
    assert lines[-1]["remedy"] == "connect to smtp.eu-de.outgate.test instead"


def test_spf_is_asked_for_the_addresses_of_the_instances_endpoint(running: Running, abroad: Abroad) -> None:
    api = running.api
    domain = {"name": "only", "domain": "fra-only.test", "description": ""}
    for name, rdtype, value in (
        ("fra-only.test", "A", FRANKFURT),
        ("fra-only.test", "TXT", f"v=spf1 ip4:{FRANKFURT} -all"),
    ):
        api.call("PUT", api.sandbox(f"zone/{name}/{rdtype}"), {"values": [value]})
    states = []
    for url in (f"{abroad.url}/config", api.configurations()):
        made = api.call("POST", url, domain)
        states += api.call("PATCH", f"{url}/{made['id']}/verify?type=spf")["status"]
    assert [each["verification"] for each in states] == ["SUCCESSFUL", "FAILED"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", FRANKFURT])
def test_every_name_is_certified_at_every_address(running: Running, address: str) -> None:
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    port = running.address("submissions")[1]
    for name in ("smtp.outgate.test", "private.smtp.eu-de.outgate.test", "private.smtp.outgate.test", "smtp.eu-de.outgate.test", address):  # fmt: skip
        plain = socket.create_connection((address, port), timeout=30)
        with context.wrap_socket(plain, server_hostname=name) as tls:
            assert tls.recv(100).startswith(b"220 ")


def test_the_command_shows_both(running: Running) -> None:
    found = json.loads(running.outgate("smtp", "endpoints", "--json").stdout)["endpoints"]
    assert [(each["id"], each["addresses"], each["submission_port"]) for each in found] == [
        ("us-south", ["127.0.0.1", "::1"], running.address("submission")[1]),
        ("eu-de", [FRANKFURT], running.address("submission")[1]),
    ]


def put(authority: trustme.CA, directory: Path) -> dict[str, Any]:
    """Write a new certificate and key, each by rename."""
    leaf = authority.issue_cert("mail.example.com", "private.mail.example.com")
    files = {"key.pem": leaf.private_key_pem.bytes(), "chain.pem": leaf.cert_chain_pems[0].bytes()}
    for name, data in files.items():
        (directory / "new").write_bytes(data)
        (directory / "new").chmod(0o600)
        os.replace(directory / "new", directory / name)
    return {"serial": ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())}


def test_certificates_of_an_installation_are_read_again(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    put(authority, tmp_path)
    config = f"""
[relay.endpoints.own]
public_name = "mail.example.com"
listen = ["127.0.0.1"]
outgoing_addresses = ["127.0.0.1"]
certificate_file = "{tmp_path}/chain.pem"
key_file = "{tmp_path}/key.pem"
"""
    running = Running(tmp_path / "data", config).start()
    try:
        assert running.dev["smtp_host_name"] == "mail.example.com"

        def shown() -> bytes | None:
            plain = socket.create_connection(running.address("submissions"), timeout=30)
            with context.wrap_socket(plain, server_hostname="mail.example.com") as tls:
                assert tls.recv(100) == b"220 mail.example.com ESMTP Outgate\r\n"
                return tls.getpeercert(True)

        second = put(authority, tmp_path)["serial"]
        wait_for(shown, lambda serial: serial == second)  # by itself

        def taken() -> int:
            return running.log.read_text().count("certificate.taken")

        before = taken()
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)  # although the files are the same
        wait_for(taken, lambda count: count == before + 1)
        assert shown() == second
    finally:
        assert running.stop() == 0
