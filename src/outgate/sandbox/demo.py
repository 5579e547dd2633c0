"""The demonstration: one mail from an application's configuration to a receiving server, and three refusals.

Standards: none of its own; it uses what any user has: the command line, the HTTP APIs, SMTP.
Promises: every line of the trail is read back from the forwarder's audit, the relay's record or the inbox;
the exit code is 0 only if all of it happened as told.
Dangers: none beyond loopback; its data directory is temporary unless kept.
Not here: the parts it shows.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from email.message import EmailMessage
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

from outgate import cloud_manager
from outgate.connection import Api, read_dev_json
from outgate.trail import Hop, hops, line

DOMAIN = "wknd.site"
SERVER = "smtp.mymail.com"
PORT_ORIG = 30465
RECIPIENT = "guest@customer.test"
_WAIT = 60.0


class DemoFailed(Exception):
    """Something did not happen as told."""


@dataclass
class Demo:
    """One run. `say` prints a line."""

    data: Path
    config: Path
    service: subprocess.Popen[str] | None = None

    # -- the stages -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do all of it. Raises `DemoFailed` (or what the parts raise)."""
        heading("Outgate: one mail, the whole way")
        self._start()
        dev = read_dev_json(self.data)
        api = Api(dev)
        username, password = self._tenant(api)
        self._environment(api, username, password)
        queue_id = self._send(dev)
        self._trail(api, queue_id)
        self._refusals(api, username, password)

    def _start(self) -> None:
        command = [sys.executable, "-m", "outgate.cli", "dev", "--data", str(self.data)]
        # An address of its own: another laptop mode may have the same portOrig in use on the usual one.
        settings = self.data / "demo.toml"
        settings.write_text(f'[dev]\ntunnel_address = "127.2.{os.getpid() % 200 + 1}.1"\n', "utf-8")
        command += ["--config", str(settings)]
        for part in ("http", "submission", "submissions", "dns", "inbox", "proxy"):
            command += [f"--{part}-port", "0"]
        log: IO[str] = (self.data / "outgate.log").open("w")
        self.service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.service.stdout is not None
        line = self.service.stdout.readline()
        if not line.startswith("ready"):
            raise DemoFailed(f"`outgate dev` did not start; see {self.data / 'outgate.log'}")
        step("1", "everything runs on loopback", line.strip())

    def _tenant(self, api: Api) -> tuple[str, str]:
        """Have the domain verified by real look-ups and make a user for it."""
        api.call("PUT", api.sandbox(f"zone/{SERVER}/A"), {"values": ["127.0.0.1"]})
        api.call("PUT", api.sandbox(f"zone/{DOMAIN}/A"), {"values": ["127.0.0.1"]})
        made = api.call("POST", api.configurations(), {"name": "WKND", "domain": DOMAIN})
        config = made["id"]
        for record in (made["config"]["spf"], made["config"]["dkim"]):
            quoted = " ".join(f'"{part}"' for part in pieces(record["txt_value"]))
            api.call("PUT", api.sandbox(f"zone/{record['txt_name']}/TXT"), {"values": [quoted]})
        answer = api.call("PATCH", api.configurations(f"{config}/verify?type=spf,dkim,en_authorization"))
        states = {item["type"]: item["verification"] for item in answer["status"]}
        if set(states.values()) != {"SUCCESSFUL"}:
            raise DemoFailed(f"{DOMAIN} is not verified: {states}")
        step("2", f"{DOMAIN} verified over DNS", ", ".join(f"{name} {state}" for name, state in states.items()))
        user = api.call("POST", api.configurations(f"{config}/users"), {"description": "WKND author"})
        step("3", "SMTP user made", f"{user['username']} (password shown once, {len(user['password'])} signs)")
        return user["username"], user["password"]

    def _environment(self, api: Api, username: str, password: str) -> None:
        port = int(api.dev["submissions"].rpartition(":")[2])
        place = cloud_manager.from_dev_json(api.dev)
        variables = [
            {"name": "EMAIL_USERNAME", "value": username, "type": "string"},
            {"name": "EMAIL_PASSWORD", "value": password, "type": "secretString"},
        ]
        place.api.set_variables(place.program, place.environment, variables)
        step("4", "PATCH …/variables", "EMAIL_USERNAME (string), EMAIL_PASSWORD (secretString)")
        forward = {"name": SERVER, "portDest": port, "portOrig": PORT_ORIG}
        api.call("PUT", api.environment("advancedNetworking"), {"portForwards": [forward]})
        environment = place.api.environment
        status = wait_for(
            lambda: str(environment(place.program, place.environment)["status"]), ("ready", "failed").__contains__
        )
        if status != "ready":
            shown = api.call("GET", api.environment("advancedNetworking"))
            raise DemoFailed(f"the environment is {status} after PUT …/advancedNetworking: {reason_in(shown)}")
        step("5", "PUT …/advancedNetworking", f"{PORT_ORIG} → {SERVER}:{port}, environment {status}")

    def _send(self, dev: dict[str, Any]) -> str:
        """Start the application with what its environment gives it; it sends one mail."""
        command = [
            *(sys.executable, "-m", "outgate.cli", "environment", "run"),
            *(dev["program_id"], dev["environment_id"], "--data", str(self.data), "--service", "author", "--"),
            *(sys.executable, "-m", "outgate.mailer", "send", "--config", str(self.config)),
            *("--to", RECIPIENT, "--subject", "Your trip to Western Australia", "--json"),
        ]
        environment = dict(os.environ, SSL_CERT_FILE=dev["ca_file"])
        body = "Dear guest,\n\nyour booking is confirmed.\n\nWKND Adventures\n"
        done = subprocess.run(command, input=body, capture_output=True, text=True, env=environment, timeout=60)
        if done.returncode != 0:
            raise DemoFailed(f"the application could not send: {done.stderr.strip() or done.stdout.strip()}")
        sent = cast("dict[str, Any]", json.loads(done.stdout))
        step("6", "the application sent its mail", f"{sent['reply']}")
        return str(sent["queue_id"])

    # -- what became of it ----------------------------------------------------------------------------------

    def _trail(self, api: Api, queue_id: str) -> None:
        message = wait_for(
            lambda: api.call("GET", api.messages(queue_id)),
            _settled,
        )
        heading(f"The trail of {queue_id}, as the audit, the record and the inbox tell it")
        told = hops(message)
        received = self._received(api, queue_id)
        at = received["received_at"]
        told.append(Hop(at, "inbox", "received", f"{received['tls']}, from {received['client_address']}"))
        for check, judge in (("spf", "pyspf"), ("dkim", "dkimpy")):
            verdict = received[check]
            told.append(
                Hop(at, "inbox", f"{check}={verdict['result']}", f"{verdict.get('domain', '')}, judged by {judge}")
            )
        for hop in told:
            print(f"  {line(hop, 200)}")
        status = message["recipients"][0]["status"]
        print(f"  {'':<12}  {'status':<10} {status:<10} {message['recipients'][0]['mailbox']}")
        missing = {"forwarder", "relay", "delivery"} - {hop.hop for hop in told}
        if missing:
            raise DemoFailed(f"the trail has no hop {sorted(missing)}")
        if not any("PROXY" in hop.detail for hop in told if hop.hop == "forwarder"):
            raise DemoFailed("the forwarder's audit does not speak of a PROXY header")
        if status != "delivered" or received["spf"]["result"] != "pass" or received["dkim"]["result"] != "pass":
            raise DemoFailed("the mail did not arrive with SPF and DKIM passed")
        if not received["tls"]:
            raise DemoFailed("the mail came to the inbox in the clear")

    def _received(self, api: Api, queue_id: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            for item in reversed(api.call("GET", api.sandbox("inbox"))):
                raw = str(api.call("GET", api.sandbox(f"inbox/{item['id']}")))
                if queue_id in raw and item["dkim"]["result"] != "pending":
                    return cast("dict[str, Any]", item)
            return None

        found = wait_for(find, bool)
        assert found is not None
        return found

    def _refusals(self, api: Api, username: str, password: str) -> None:
        heading("Three refusals, and what they say")
        submission = api.dev["submission"]
        context = ssl.create_default_context(cafile=api.dev["ca_file"])
        stranger = refused_by(lambda: talk(submission, context, None, source="127.66.0.1"))
        show_refusal("a stranger's address (127.66.0.1)", stranger, 554)
        foreign = letter(sender="ceo@elsewhere.example")
        outside = refused_by(lambda: talk(submission, context, foreign, (username, password), f"noreply@{DOMAIN}"))
        show_refusal("a From outside the domain", outside, 550)
        attached = letter(sender=f"noreply@{DOMAIN}")
        attached.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="invoice.pdf")
        attachment = refused_by(lambda: talk(submission, context, attached, (username, password)))
        show_refusal("an attachment", attachment, 554)

    def stop(self) -> None:
        """End the service and wait until it has ended."""
        if self.service is not None and self.service.poll() is None:
            self.service.send_signal(signal.SIGTERM)
            try:
                self.service.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.service.kill()
        if self.service is not None and self.service.stdout is not None:
            self.service.stdout.close()


def reason_in(networking: dict[str, Any]) -> str:
    """Return why an environment's networking failed, as GET …/advancedNetworking tells it."""
    listed = networking.get("_embedded", {}).get("networkingConfigurations", [])
    details = [item["statusDetails"]["message"] for item in listed if "statusDetails" in item]
    return "; ".join(details) or "no reason is given"


def _settled(message: dict[str, Any]) -> bool:
    return all(recipient["status"] in ("delivered", "bounced") for recipient in message["recipients"])


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'─' * len(text)}", flush=True)


def step(number: str, what: str, result: str) -> None:
    """Print one step and its result."""
    print(f"  {number}. {what:<38} {result}", flush=True)


def pieces(text: str, size: int = 255) -> list[str]:
    """Cut a TXT value into strings of at most 255 octets."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def wait_for(ask: Any, enough: Any) -> Any:
    """Ask until `enough` says yes; at most a minute. Raises `DemoFailed`."""
    deadline = time.monotonic() + _WAIT
    while True:
        got = ask()
        if enough(got):
            return got
        if time.monotonic() > deadline:
            raise DemoFailed(f"this did not happen within {_WAIT:.0f} s; last seen: {str(got)[:300]}")
        time.sleep(0.1)


def letter(sender: str) -> EmailMessage:
    """Return a small message."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = RECIPIENT
    message["Subject"] = "Refused"
    message.set_content("This must not go out.\n")
    return message


def talk(
    submission: str,
    context: ssl.SSLContext,
    message: EmailMessage | None,
    login: tuple[str, str] | None = None,
    reverse_path: str | None = None,
    source: str = "127.0.0.1",
) -> None:
    """Submit a message with Python's own client over STARTTLS."""
    host, _, port = submission.rpartition(":")
    with smtplib.SMTP(host, int(port), timeout=30, source_address=(source, 0)) as client:
        client.starttls(context=context)
        if login is not None:
            client.login(*login)
        if message is not None:
            client.send_message(message, from_addr=reverse_path)


def refused_by(attempt: Any) -> tuple[int, str]:
    """Run `attempt`; return code and text of the refusal. Raises `DemoFailed` if there was none."""
    try:
        attempt()
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
    except smtplib.SMTPResponseException as error:
        code, text = error.smtp_code, error.smtp_error
    else:
        raise DemoFailed("this should have been refused and was not")
    return code, text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def show_refusal(what: str, refusal: tuple[int, str], expected: int) -> None:
    """Print a refusal. Raises `DemoFailed` if it has another code than the one expected."""
    print(f"  {what:<38} {refusal[0]} {refusal[1]}", flush=True)
    if refusal[0] != expected:
        raise DemoFailed(f"{what}: expected {expected}")


def example_config() -> Path:
    """Return the example application's mail configuration: from the checkout, else from the package."""
    name = "com.day.cq.mailer.DefaultMailService.cfg.json"
    inside = "ui.config/src/jcr_root/apps/wknd-examples/osgiconfig/config"
    checkout = Path(__file__).parents[3] / "examples" / "wknd" / inside / name
    if checkout.exists():
        return checkout
    return Path(str(resources.files("outgate.sandbox") / "wknd" / name))


def main(*, keep: Path | None = None) -> int:
    """Run the demonstration; return the exit code. With `keep` its data stays in that directory."""
    with tempfile.TemporaryDirectory(prefix="outgate-demo-") as temporary:
        data = keep or Path(temporary)
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"outgate: {data} cannot be used: {error.strerror}; choose another with --keep DIR", file=sys.stderr)
            return 2
        demo = Demo(data, example_config())
        try:
            demo.run()
        except DemoFailed as error:
            print(f"\nNot as told: {error}", file=sys.stderr)
            log = data / "outgate.log"
            if log.exists():
                print("The service's last lines:\n" + "\n".join(log.read_text().splitlines()[-15:]), file=sys.stderr)
            return 1
        finally:
            demo.stop()
    print("\nAll of it happened as told.")
    return 0
