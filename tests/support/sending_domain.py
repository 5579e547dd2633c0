"""A verified domain of its own in a running laptop mode: its records, its checks, its mail."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

from support.running import Running

HOUR = 3600
DAY = 24 * HOUR


class Tenant:
    """One verified domain of its own, with a user, in a running laptop mode."""

    def __init__(self, running: Running, domain: str) -> None:
        self.running, self.domain = running, domain
        api = running.api
        made = api.call("POST", api.configurations(), {"name": domain, "domain": domain})
        self.url = f"{api.configurations()}/{made['id']}"
        self.records = {
            (domain, "A"): "127.0.0.1",
            (made["config"]["spf"]["txt_name"], "TXT"): made["config"]["spf"]["txt_value"],
            (made["config"]["dkim"]["txt_name"], "TXT"): made["config"]["dkim"]["txt_value"],
        }
        self.dkim = (made["config"]["dkim"]["txt_name"], "TXT")
        self.spf = (domain, "TXT")
        self.a = (domain, "A")
        for record in self.records:
            self.publish(record)
        assert self.verify() == {"spf": "SUCCESSFUL", "dkim": "SUCCESSFUL", "en_authorization": "SUCCESSFUL"}
        self.user = api.call("POST", f"{self.url}/users", {})

    def publish(self, record: tuple[str, str]) -> None:
        self.zone(record, {"values": [self.records[record]], "ttl": 5})

    def remove(self, record: tuple[str, str]) -> None:
        self.zone(record, {"values": [], "ttl": 5})

    def zone(self, record: tuple[str, str], body: dict[str, Any]) -> None:
        name, rdtype = record
        self.running.api.call("PUT", self.running.api.sandbox(f"zone/{name}/{rdtype}"), body)

    def verify(self, types: str = "spf,dkim,en_authorization") -> dict[str, str]:
        answer = self.running.api.call("PATCH", f"{self.url}/verify?type={types}")
        return {each["type"]: each["verification"] for each in answer["status"]}

    def checks(self) -> dict[str, Any]:
        return self.running.api.call("GET", f"{self.url}/checks?limit=100")

    def standing(self) -> tuple[str, str]:
        found = self.checks()
        return found["standing"], found["failing"]

    def send(self, recipient: str = "you@customer.test") -> tuple[int, str]:
        """Send a mail; return code and text of the answer to its content."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = f"shop@{self.domain}", recipient, "a letter"
        message.set_content("Hello.\n")
        host, port = self.running.address("submission")
        context = ssl.create_default_context(cafile=self.running.dev["ca_file"])
        with smtplib.SMTP(host, port, timeout=30) as client:
            client.starttls(context=context)
            client.login(self.user["username"], self.user["password"])
            client.mail(f"shop@{self.domain}")
            client.rcpt(recipient)
            code, text = client.data(message.as_string())
        return code, text.decode()

    def sent(self, recipient: str = "you@customer.test") -> str:
        """Send a mail that is accepted; return its queue id."""
        code, text = self.send(recipient)
        assert code == 250, text
        return text.rpartition(" ")[2]

    def status(self, queue_id: str) -> str:
        found = self.running.api.call("GET", self.running.api.messages(queue_id))
        return found["recipients"][0]["status"]


def advance(running: Running, seconds: float) -> None:
    """Move the clock on."""
    running.api.call("POST", running.api.sandbox("clock"), {"advance_s": seconds})
