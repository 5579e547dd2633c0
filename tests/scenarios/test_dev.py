"""The laptop mode's contract: dev.json, addresses, doors, clock, restart."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
KEYS = {
    "pid", "console_url", "event_notifications_url", "restrictions_url", "cloud_manager_url", "identity_url", "vpc_url", "operations_url",
    "sandbox_url", "api_key", "token", "account_id", "instance_id", "org_id", "program_id", "environment_id", "submission",
    "submissions", "dns", "inbox", "tunnel_address", "http_proxy", "ca_file", "domain", "smtp_config_id", "smtp_user",
    "smtp_password", "smtp_host_name", "vpc_id", "vpc_crn", "subnet_id",
}  # fmt: skip


def submit(running: Running, recipient: str, *, sender: str = "", source: str = "127.0.0.1") -> str:
    """Send a small mail over STARTTLS; return the queue id."""
    message = EmailMessage()
    message["From"] = sender or f"shop@{running.dev['domain']}"
    message["To"] = recipient
    message["Subject"] = f"for {recipient}"
    message.set_content("Hello.\n")
    host, port = running.address("submission")
    context = ssl.create_default_context(cafile=running.dev["ca_file"])
    with smtplib.SMTP(host, port, timeout=30, source_address=(source, 0)) as client:
        client.starttls(context=context)
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        client.mail(f"shop@{running.dev['domain']}")
        client.rcpt(recipient)
        code, text = client.data(message.as_string())
    assert code == 250, text
    return text.decode().rpartition(" ")[2]


def closed_without_a_byte(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_dev_json_has_every_key_and_is_private(running: Running) -> None:
    assert set(running.dev) == KEYS
    assert all(running.dev[key] for key in KEYS)
    assert stat.S_IMODE((running.data / "dev.json").stat().st_mode) == 0o600
    assert running.process is not None and running.dev["pid"] == running.process.pid
    assert running.dev["tunnel_address"] == "127.0.0.1"
    assert running.dev["vpc_crn"].startswith("crn:v1:") and running.dev["vpc_id"] in running.dev["vpc_crn"]


def test_only_the_authoritys_certificate_is_for_others_to_read(running: Running) -> None:
    submit(running, "reader@private.test")
    wait_for(running.inbox, bool)
    open_to_others = {
        str(path.relative_to(running.data)) for path in running.data.rglob("*") if path.stat().st_mode & 0o077
    }
    assert open_to_others == {"ca.pem"}


def test_identity_answers_at_the_root_too(running: Running) -> None:
    form = urlencode(
        {
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
            "apikey": running.dev["api_key"],
            "response_type": "cloud_iam",
        }
    ).encode()
    root = running.dev["console_url"].rstrip("/")
    for base in (root, running.dev["identity_url"]):
        status, body = running.status(
            "POST", f"{base}/identity/token", form, {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert status == 200, body
        assert json.loads(body)["access_token"].count(".") == 2


def test_strangers_pages_are_refused(running: Running) -> None:
    url = running.dev["console_url"]
    assert running.status("GET", url)[0] == 200
    assert running.status("GET", url, headers={"Host": "evil.example"})[0] == 403
    assert running.status("GET", url, headers={"Origin": "https://evil.example"})[0] == 403
    assert running.status("GET", running.api.sandbox("inbox"))[0] == 401


def test_a_second_process_on_the_same_data_is_refused(running: Running) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "outgate.cli", "dev", "--data", str(running.data), "--http-port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 2
    assert "another process" in second.stderr and "Traceback" not in second.stderr
    assert running.inbox() is not None


def test_a_taken_port_is_named(running: Running, tmp_path: Path) -> None:
    port = running.address("dns")[1]
    second = subprocess.run(
        [sys.executable, "-m", "outgate.cli", "dev", "--data", str(tmp_path / "other"), "--dns-port", str(port)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 2
    assert str(port) in second.stderr and "--dns-port" in second.stderr and "Traceback" not in second.stderr


def test_strangers_addresses_are_nobodys(running: Running) -> None:
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        submit(running, "you@customer.test", source="127.66.0.1")
    assert refused.value.smtp_code == 554
    host, port = running.address("submissions")
    with socket.create_connection((host, port), timeout=30, source_address=("127.66.0.1", 0)) as stranger:
        assert closed_without_a_byte(stranger)  # 465 closes before the handshake
    with socket.create_connection((host, port), timeout=30, source_address=("127.0.0.2", 0)) as forwarder:
        forwarder.sendall(b"\x16\x03\x01 no PROXY header")
        assert closed_without_a_byte(forwarder)


def test_the_clock_moves_retries(running: Running) -> None:
    api = running.api
    api.call(
        "PUT",
        api.sandbox("inbox/behaviour"),
        [{"recipient": "later@*", "at": "rcpt", "reply": "451 4.7.1 later", "times": 1}],
    )
    queue_id = submit(running, "later@customer.test")
    deferred = running.settled(queue_id, "deferred")
    assert deferred["recipients"][0]["reply"].startswith("451 4.7.1")
    before = float(api.call("POST", api.sandbox("clock"), {"advance_s": 1})["epoch"])
    after = float(api.call("POST", api.sandbox("clock"), {"advance_s": 3600})["epoch"])
    assert after - before >= 3600
    assert running.settled(queue_id)["recipients"][0]["status"] == "delivered"


def test_the_clock_moves_expiry(running: Running) -> None:
    api = running.api
    api.call("PUT", api.sandbox("zone/never.test/MX"), {"rcode": "SERVFAIL"})
    queue_id = submit(running, "you@never.test")
    running.settled(queue_id, "deferred")
    wait_for(
        lambda: (
            api.call("POST", api.sandbox("clock"), {"advance_s": 8000}),
            running.settled(queue_id, "deferred", "expired")["recipients"][0]["status"],
        )[1],
        lambda status: status == "expired",
    )


def test_a_zone_change_ends_open_sessions(running: Running, tmp_path: Path) -> None:
    """A second enabled rule that does not hold the client withdraws the permission, also of a session that is open."""
    own = Running(tmp_path / "data").start()
    try:
        host, port = own.address("submission")
        context = ssl.create_default_context(cafile=own.dev["ca_file"])
        client = smtplib.SMTP(host, port, timeout=30)
        client.starttls(context=context)
        client.login(own.dev["smtp_user"], own.dev["smtp_password"])
        dev, api = own.dev, own.api
        zone = api.call(
            "POST",
            f"{dev['restrictions_url']}/v1/zones",
            {
                "name": "Elsewhere",
                "account_id": dev["account_id"],
                "addresses": [{"type": "ipAddress", "value": "192.0.2.1"}],
            },
        )
        rule = {
            "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone["id"]}]}],
            "resources": [
                {
                    "attributes": [
                        {"name": "accountId", "value": dev["account_id"]},
                        {"name": "serviceName", "value": "event-notifications"},
                    ]
                }
            ],
            "operations": {
                "api_types": [
                    {"api_type_id": "crn:v1:bluemix:public:event-notifications::::api-type:smtp-configuration"}
                ]
            },
        }
        api.call("POST", f"{dev['restrictions_url']}/v1/rules", rule)
        assert client.sock is not None
        client.sock.settimeout(30)
        answer = client.file.readline() if client.file else b""
        if not answer:
            answer = client.getreply()[1]
        assert b"421" in answer or b"4.7.0" in answer or b"4.3.2" in answer
        client.close()
        with pytest.raises(smtplib.SMTPConnectError):
            submit(own, "you@customer.test")
    finally:
        assert own.stop() == 0


def test_state_survives_a_restart(tmp_path: Path) -> None:
    own = Running(tmp_path / "data").start()
    first = dict(own.dev)
    api = own.api
    api.call("PUT", api.sandbox("zone/kept.example/A"), {"values": ["127.0.0.9"], "ttl": 7})
    queue_id = submit(own, "you@customer.test")
    own.settled(queue_id)
    wait_for(own.inbox, lambda items: len(items) == 1)
    api.call(
        "PUT",
        api.sandbox("inbox/behaviour"),
        [{"recipient": "*", "at": "connect", "reply": "421 4.3.2 no", "times": 1000}],
    )
    waiting = submit(own, "patience@customer.test")
    own.settled(waiting, "deferred", "queued")
    api.call("POST", api.sandbox("clock"), {"advance_s": 10})
    assert own.stop() == 0
    assert not (own.data / "dev.json").exists()
    own.start()
    try:
        for key in (
            "account_id",
            "instance_id",
            "environment_id",
            "smtp_user",
            "smtp_password",
            "smtp_config_id",
            "vpc_id",
            "api_key",
        ):
            assert own.dev[key] == first[key]
        assert own.api.call("GET", own.api.messages(queue_id))["recipients"][0]["status"] == "delivered"
        assert len([item for item in own.inbox() if "you@customer.test" in item["envelope"]["rcpt_to"]]) == 1
        own.api.call("PUT", own.api.sandbox("inbox/behaviour"), [])
        own.api.call("POST", own.api.sandbox("clock"), {"advance_s": 7200})
        assert own.settled(waiting)["recipients"][0]["status"] == "delivered"
        own.outgate("message", "list")
    finally:
        assert own.stop() == 0


def test_sigint_ends_cleanly(tmp_path: Path) -> None:
    own = Running(tmp_path / "data").start()
    assert own.process is not None
    os.kill(own.process.pid, signal.SIGINT)
    assert own.process.wait(timeout=60) == 0
    assert own.process.stdout is not None
    own.process.stdout.close()


def test_no_secret_is_logged(running: Running) -> None:
    log = running.log.read_text()
    for secret in (running.dev["smtp_password"], running.dev["token"], running.dev["api_key"], "PRIVATE KEY"):
        assert secret not in log
