"""swaks, the mail tester's tool: both ports, both families, pipelining, large messages, PROXY headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.clients import arrived, check_trail, logged, queued_as, run
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
SIZE = 31_457_280
TRUSTED = "127.0.0.2"


def swaks(running: Running, listener: str, *options: str, server: str = "") -> subprocess.CompletedProcess[str]:
    """Send a mail to you@customer.test over verified TLS; `options` may say otherwise."""
    host, port = running.address(listener)
    dev = running.dev
    command = [
        "swaks",
        "--server",
        server or host,
        "--port",
        str(port),
        "--tls-verify",
        "--tls-ca-path",
        dev["ca_file"],
    ]
    command += ["--tls" if listener == "submission" else "--tls-on-connect"]
    command += ["--auth", "PLAIN", "--auth-user", dev["smtp_user"], "--auth-password", dev["smtp_password"]]
    command += ["--from", f"swaks@{dev['domain']}", "--to", "you@customer.test", "--h-Subject", "swaks"]
    return run([*command, *options])


def client_of(running: Running, done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return who the relay takes the sender of an accepted mail for."""
    assert done.returncode == 0, done.stdout + done.stderr
    return running.api.call("GET", running.api.messages(queued_as(done.stdout)))["client"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_sends(running: Running, listener: str, mechanism: str) -> None:
    done = swaks(running, listener, "--auth", mechanism)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" ~> AUTH {mechanism}" in done.stdout
    check_trail(running, queued_as(done.stdout))


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_over_ipv6(running: Running, listener: str) -> None:
    done = swaks(running, listener, "-6", server="::1")
    assert client_of(running, done)["address"] == "::1"
    _, raw = arrived(running, queued_as(done.stdout))
    assert b"([IPv6:::1])\r\n\tby smtp.outgate.test" in raw


def test_pipelining(running: Running) -> None:
    done = swaks(running, "submission", "--pipeline", "--to", "you@customer.test,root@[192.168.0.1],two@customer.test")
    assert done.returncode == 0, done.stdout + done.stderr
    after = done.stdout.partition(" ~> MAIL FROM")[2].splitlines()
    assert [line[:12] for line in after[1:5]] == [" ~> RCPT TO:"] * 3 + [" ~> DATA"], "swaks waited for replies"
    assert "553 5.1.2 That address is not delivered to" in done.stdout
    item, _ = arrived(running, queued_as(done.stdout))
    assert item["envelope"]["rcpt_to"] == ["you@customer.test", "two@customer.test"]


def test_a_file_is_refused(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "bill.pdf"
    file.write_bytes(b"%PDF-1.7\n")
    done = swaks(running, "submission", "--attach", f"@{file}")
    assert done.returncode == 26  # an error at the final dot
    assert "<~* 554 5.7.1 Attachments are not allowed" in done.stdout
    text = swaks(
        running,
        "submission",
        "--attach-type",
        "text/plain",
        "--attach-body",
        "plain",
        "--attach-type",
        "text/html",
        "--attach-body",
        "<p>rich</p>",
    )
    assert text.returncode == 0, text.stdout
    arrived(running, queued_as(text.stdout))


# The inbox has the same limit, and we add our fields: hence the distance.
@pytest.mark.parametrize(("octets", "code"), [(SIZE - 20_000, 0), (SIZE + 1, 26)])
def test_a_message_around_the_size_we_announce(running: Running, tmp_path: Path, octets: int, code: int) -> None:
    header = b"From: swaks@shop.test\r\nTo: you@customer.test\r\nSubject: swaks\r\n\r\n"
    file = tmp_path / "large.eml"
    file.write_bytes(header + (b"x" * 898 + b"\r\n") * (octets // 900) + b"y" * (octets % 900 - len(header) - 2))
    assert file.stat().st_size == octets - 2  # swaks puts the line end before the dot
    done = swaks(running, "submissions", "--data", f"@{file}", "--suppress-data")
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    if code:
        assert "552 5.3.4 Message size exceeds the limit" in done.stdout
    else:
        item, raw = arrived(running, queued_as(done.stdout))
        assert item["size"] > octets and raw.endswith(file.read_bytes() + b"\r\n")
        running.api.call("DELETE", running.api.sandbox("inbox"))


# -- PROXY headers: 127.0.0.2 is trusted with them in the laptop mode, and must send them ------------------------


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize("family", ["4", "6"])
def test_a_trusted_proxy_names_its_client(running: Running, listener: str, version: str, family: str) -> None:
    source, target = ("127.0.9.9", "127.0.0.1") if family == "4" else ("::1", "::1")
    kind = f"TCP{family}" if version == "1" else ("AF_INET" if family == "4" else "AF_INET6")
    done = swaks(running, listener, *proxied(version, kind, source, target), "--local-interface", TRUSTED)
    client = client_of(running, done)
    assert (client["address"], client["port"], client["via"]) == (source, 4321, TRUSTED)


def test_the_rules_go_by_the_client_and_not_by_the_proxy(running: Running) -> None:
    header = proxied("1", "TCP4", "127.66.0.1", "127.0.0.1")
    done = swaks(running, "submission", *header, "--local-interface", TRUSTED)
    assert done.returncode != 0 and "554 5.7.1 Access denied" in done.stdout, done.stdout
    done = swaks(running, "submissions", *header, "--local-interface", TRUSTED)
    assert done.returncode != 0 and "220 " not in done.stdout, done.stdout


def test_a_trusted_proxy_without_a_header_is_not_heard(running: Running) -> None:
    """On the port where the client speaks first: what comes instead of a header ends the connection."""
    before = len(logged(running, "listener.proxy_header"))
    done = swaks(running, "submissions", "--local-interface", TRUSTED)
    assert done.returncode != 0 and "220 " not in done.stdout, done.stdout
    line = wait_for(lambda: logged(running, "listener.proxy_header")[before:], bool)[0]
    assert line["client"] == TRUSTED and "neither a version 1 nor a version 2 header" in line["error"]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_a_header_from_anybody_else_ends_the_session(running: Running, listener: str, version: str) -> None:
    """Nobody can claim to come from somewhere else."""
    kind = "TCP4" if version == "1" else "AF_INET"
    done = swaks(running, listener, *proxied(version, kind, "127.0.9.9", "127.0.0.1"))
    assert done.returncode != 0 and "queued as" not in done.stdout, done.stdout
    assert "250-" not in done.stdout, done.stdout  # not even an answer to EHLO
    if (listener, version) == (
        "submission",
        "1",
    ):  # of version 2 swaks reads the answer to its first line, an empty one
        assert "closed connection" in done.stderr, done.stderr


def proxied(version: str, family: str, source: str, target: str) -> list[str]:
    """Return the options for a header that says: from `source`:4321 to `target`:25."""
    options = ["--proxy-version", version, "--proxy-family", family, "--proxy-source", source]
    return [*options, "--proxy-source-port", "4321", "--proxy-dest", target, "--proxy-dest-port", "25"]
