"""Send through a real `outgate dev` with smtplib, and point names at other servers."""

from __future__ import annotations

import smtplib
import ssl

from support.running import Running


def submit(
    running: Running,
    *recipients: str,
    subject: str = "hello",
    sender: str | None = None,
    mail_options: tuple[str, ...] = (),
    rcpt_options: tuple[str, ...] = (),
    body: str = "Thank you.\r\n",
) -> str:
    """Submit one mail to all `recipients` on 465; return its queue id."""
    dev = running.dev
    sender = f"orders@{dev['domain']}" if sender is None else sender
    host, port = running.address("submissions")
    context = ssl.create_default_context(cafile=dev["ca_file"])
    context.check_hostname = False
    with smtplib.SMTP_SSL(host, port, context=context, timeout=60) as client:
        client.login(dev["smtp_user"], dev["smtp_password"])
        client.mail(sender, mail_options)
        for recipient in recipients:
            code, said = client.rcpt(recipient, rcpt_options)
            assert code == 250, said
        text = f"From: Shop <orders@{dev['domain']}>\r\nTo: {', '.join(recipients)}\r\nSubject: {subject}\r\n\r\n{body}"
        code, said = client.data(text.encode())
        assert code == 250, said
    return said.decode().rpartition(" ")[2]


def zone(running: Running, name: str, rdtype: str, *values: str) -> None:
    """Have the sandbox's DNS answer so from now on."""
    api = running.api
    api.call("PUT", api.sandbox(f"zone/{name}/{rdtype}"), {"values": list(values), "ttl": 1})


def advance(running: Running, seconds: float) -> None:
    """Move the service's clock, and wait until what is newly due has been taken up."""
    running.api.call("POST", running.api.sandbox("clock"), {"advance_s": seconds})
