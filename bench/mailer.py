#!/usr/bin/env python3
"""What a mail costs the application that sends it, and what importing the mailer costs its start.

    .venv/bin/python bench/mailer.py [--messages 2000] [--repetitions 5]

A sink in another process takes mail over TLS on one connection that is kept. `MailService`, `AsyncMailService` and,
beside them, `smtplib.SMTP.send_message` send 4 KiB messages, in turns; the figure is this process's own CPU time
for each (user and system), the message object being made before. Imports are counted in processes of their own, without
site-packages, above a bare interpreter. Exit status 1 if the best repetition of a figure is above its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import smtplib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

from outgate.mailer import AsyncMailService, Limits, MailService

SEND_MS = 1.0
IMPORT_MS = 60.0
_HELLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000000\r\n"
_LIMITS = Limits(connections=1, messages=10**9)


def sink(listener: socket.socket, certificate: str, key: str) -> None:
    """Take mail, one connection after the other, for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    while True:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with context.wrap_socket(plain, server_side=True) as client:
                _converse(client)
        except OSError:
            continue


def _converse(client: ssl.SSLSocket) -> None:
    client.sendall(b"220 sink\r\n")
    waiting, content = b"", False
    while data := client.recv(65536):
        waiting += data
        answers = b""
        while True:
            if content:
                end = waiting.find(b"\r\n.\r\n")
                if end < 0:
                    break
                waiting, content = waiting[end + 5 :], False
                answers += b"250 2.0.0 Ok: queued as 4bXyZ1234\r\n"
                continue
            line, found, rest = waiting.partition(b"\r\n")
            if not found:
                break
            waiting = rest
            verb = line[:4].upper()
            content = verb == b"DATA"
            answers += _HELLO if verb == b"EHLO" else b"354 go on\r\n" if content else b"250 2.1.0 Ok\r\n"
            if verb == b"QUIT":
                return
        if answers:
            client.sendall(answers)


def message(number: int) -> EmailMessage:
    """Return a plain message of 4 KiB."""
    made = EmailMessage()
    made["From"] = "Shop <shop@shop.test>"
    made["To"] = "Ann <ann@customer.test>"
    made["Subject"] = f"Your order {number}"
    made.set_content(("It has been sent today, and you will get it soon enough." + " " * 7 + "\n") * 60)
    return made


def cpu_ms(send: Callable[[EmailMessage], object], messages: list[EmailMessage]) -> float:
    """Return the CPU milliseconds of one `send`."""
    began = time.process_time()
    for each in messages:
        send(each)
    return (time.process_time() - began) * 1000 / len(messages)


async def cpu_ms_of_tasks(service: AsyncMailService, messages: list[EmailMessage]) -> float:
    """Return the CPU milliseconds of one awaited `send`, the loop's included."""
    began = time.process_time()
    for each in messages:
        await service.send(each)
    return (time.process_time() - began) * 1000 / len(messages)


def import_ms(statement: str, repetitions: int) -> tuple[float, float]:
    """Return the least CPU and the least wall-clock milliseconds of a fresh interpreter that runs a statement."""
    cpu: list[float] = []
    wall: list[float] = []
    environment = os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    for _ in range(repetitions):
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-S", "-c", statement], env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((used.ru_utime + used.ru_stime) * 1000)
    return min(cpu), min(wall)


def told(name: str, figures: list[float], limit: float = 0.0) -> bool:
    """Print a figure; say whether its best repetition holds."""
    best = min(figures)
    holds = not limit or best < limit
    verdict = f"   less than {limit:g}: {'holds' if holds else 'DOES NOT HOLD'}" if limit else ""
    print(f"{name:<44} {best:7.3f} ms (median {statistics.median(figures):.3f}){verdict}")
    return holds


def measure_sending(given: argparse.Namespace, folder: Path) -> bool:
    """Send with all three, in turns; say whether the limits hold."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=sink", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    sinking = multiprocessing.get_context("fork").Process(target=sink, args=(listener, certificate, key), daemon=True)
    sinking.start()
    config = folder / "mail.cfg.json"
    config.write_text(f'{{"smtp.host": "127.0.0.1", "smtp.port": {port}, "smtp.ssl": true}}')
    figures: dict[str, list[float]] = {"MailService": [], "AsyncMailService": [], "smtplib": []}

    async def tasks(messages: list[EmailMessage]) -> float:
        async with AsyncMailService.load(config, cafile=certificate, env={}, limits=_LIMITS) as service:
            await cpu_ms_of_tasks(service, messages[:50])
            return await cpu_ms_of_tasks(service, messages)

    try:
        for _ in range(given.repetitions):
            messages = [message(number) for number in range(given.messages)]
            with MailService.load(config, cafile=certificate, env={}, limits=_LIMITS) as service:
                cpu_ms(service.send, messages[:50])
                figures["MailService"].append(cpu_ms(service.send, messages))
            figures["AsyncMailService"].append(asyncio.run(tasks(messages)))
            context = ssl.create_default_context(cafile=certificate)
            with smtplib.SMTP_SSL("127.0.0.1", port, context=context) as client:
                cpu_ms(client.send_message, messages[:50])
                figures["smtplib"].append(cpu_ms(client.send_message, messages))
    finally:
        sinking.terminate()
        sinking.join()
        listener.close()
    holds = told("MailService.send, 4 KiB, kept connection", figures["MailService"], SEND_MS)
    holds &= told("AsyncMailService.send, likewise", figures["AsyncMailService"], SEND_MS)
    told("smtplib's send_message, likewise", figures["smtplib"])
    print(f"MailService takes {min(figures['MailService']) / min(figures['smtplib']):.2f} of smtplib's CPU")
    return holds


def measure_importing(repetitions: int) -> bool:
    """Say whether importing takes no longer than it may; both by the clock and above a bare interpreter."""
    bare_cpu, bare = import_ms("pass", repetitions)
    cpu, wall = import_ms("import outgate.mailer", repetitions)
    _, asynchronous = import_ms("from outgate.mailer import AsyncMailService", repetitions)
    _, whole = import_ms("import outgate.mailer.sending.blocking, outgate.mailer.sending.steps", repetitions)
    print(f"a bare interpreter takes {bare:.1f} ms; above that:")
    holds = told("import outgate.mailer", [wall - bare], IMPORT_MS)
    told("import outgate.mailer, CPU", [cpu - bare_cpu])
    told("all that MailService imports when made", [whole - bare])
    told("import of AsyncMailService, with asyncio", [asynchronous - bare])
    return holds


def main() -> int:
    """Measure and print; 0 if all holds."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    options.add_argument("--messages", type=int, default=2000)
    options.add_argument("--repetitions", type=int, default=5)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="outgate-bench-") as name:
        sends = measure_sending(given, Path(name))
    imports = measure_importing(max(5, 3 * given.repetitions))
    return 0 if sends and imports else 1


if __name__ == "__main__":
    sys.exit(main())
