"""Settings ready to paste: what an application needs to send through this relay, in its own words.

Standards: each client's own documentation (smtplib, Django, AEM, the Event Notifications SDK, swaks).
Promises: every block works as it is when pasted where it says (tests run those that can be run), whatever
signs the data directory's name has.
Not here: how they look on the page (`templates`).
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.connection import client_id_of

CONFIG_NAME = "com.day.cq.mailer.DefaultMailService.cfg.json"
_PORT_ORIG = 30465


@dataclass(frozen=True, slots=True)
class Block:
    """One text to paste, and where: a file's name, or a shell."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: `name` to choose it by, `note` above it, and what to paste, in order."""

    name: str
    note: str
    blocks: tuple[Block, ...]


def recipes(dev: dict[str, Any]) -> list[Recipe]:
    """Return the recipes for the tenant that `dev.json` describes."""
    return [_smtplib(dev), _swaks(dev), _django(dev), _django_backend(dev), _aem(dev), _sdk(dev)]


def _host_port(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


def _literal(text: str) -> str:
    """Return a string as Python source: JSON's spelling is Python's too."""
    return json.dumps(text)


def _smtplib(dev: dict[str, Any]) -> Recipe:
    host, port = _host_port(dev["submission"])
    text = f"""\
import smtplib, ssl
from email.message import EmailMessage

message = EmailMessage()
message["From"] = "hello@{dev["domain"]}"
message["To"] = "you@customer.test"
message["Subject"] = "Hello"
message.set_content("Sent through Outgate.")

context = ssl.create_default_context(cafile={_literal(dev["ca_file"])})
with smtplib.SMTP({_literal(host)}, {port}) as client:
    client.starttls(context=context)
    client.login({_literal(dev["smtp_user"])}, {_literal(dev["smtp_password"])})
    client.send_message(message)
"""
    return Recipe("Python", "Standard library (smtplib), STARTTLS.", (Block("hello.py", text),))


def _swaks(dev: dict[str, Any]) -> Recipe:
    text = f"""\
swaks --server {dev["submission"]} --tls --tls-verify \\
  --tls-ca-path {shlex.quote(dev["ca_file"])} \\
  --auth PLAIN --auth-user {shlex.quote(dev["smtp_user"])} \\
  --auth-password {shlex.quote(dev["smtp_password"])} \\
  --from hello@{dev["domain"]} --to you@customer.test \\
  --header "Subject: Hello" --body "Sent through Outgate."
"""
    return Recipe("swaks", "One mail from a shell, with the whole dialogue shown; STARTTLS.", (Block("Shell", text),))


def _django(dev: dict[str, Any]) -> Recipe:
    host, port = _host_port(dev["submissions"])
    text = f"""\
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = {_literal(host)}
EMAIL_PORT = {port}
EMAIL_USE_SSL = True
EMAIL_HOST_USER = {_literal(dev["smtp_user"])}
EMAIL_HOST_PASSWORD = {_literal(dev["smtp_password"])}
DEFAULT_FROM_EMAIL = "hello@{dev["domain"]}"
SERVER_EMAIL = DEFAULT_FROM_EMAIL
"""
    shell = f"SSL_CERT_FILE={shlex.quote(dev['ca_file'])} python manage.py sendtestemail you@customer.test\n"
    return Recipe(
        "Django",
        "TLS from the first byte. Start Django with SSL_CERT_FILE, so that it knows our certificate authority.",
        (Block("settings.py", text), Block("Shell", shell)),
    )


def _django_backend(dev: dict[str, Any]) -> Recipe:
    host, port = _host_port(dev["submissions"])
    config = f"""\
{{
    "smtp.host": {_literal(host)},
    "smtp.port": "{port}",
    "smtp.user": "$[env:EMAIL_USERNAME]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "hello@{dev["domain"]}",
    "smtp.ssl": true
}}
"""
    settings = f"""\
EMAIL_BACKEND = "outgate.mailer.django.EmailBackend"
OUTGATE_MAILER = {{
    "path": {_literal(CONFIG_NAME)},
    "env": {{"EMAIL_USERNAME": {_literal(dev["smtp_user"])}}},
    "secrets": {{"EMAIL_PASSWORD": {_literal(dev["smtp_password"])}}},
    "cafile": {_literal(dev["ca_file"])},
}}
"""
    return Recipe(
        "Django, as configured",
        "The mailer as Django's backend (pip install outgate), with the application's own kind of configuration.",
        (Block(CONFIG_NAME, config), Block("settings.py", settings)),
    )


def _aem(dev: dict[str, Any]) -> Recipe:
    _, port = _host_port(dev["submissions"])
    config = f"""\
{{
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "{_PORT_ORIG}",
    "smtp.user": "$[env:EMAIL_USERNAME;default=myApiKey]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@{dev["domain"]}",
    "smtp.ssl": true,
    "smtp.starttls": false,
    "smtp.requiretls": false,
    "debug.email": false,
    "oauth.flow": false
}}
"""
    data = shlex.quote(str(Path(dev["ca_file"]).parent))
    variables = f"""\
{_outgate()} cloudmanager:set-environment-variables --data {data} \\
  --programId={dev["program_id"]} {dev["environment_id"]} \\
  --variable EMAIL_USERNAME {shlex.quote(dev["smtp_user"])} \\
  --secret EMAIL_PASSWORD {shlex.quote(dev["smtp_password"])}
"""
    forward = {"name": dev["smtp_host_name"], "portDest": port, "portOrig": _PORT_ORIG}
    calls = f"{variables}\n{_put(dev, {'portForwards': [forward]})}"
    run = f"""\
SSL_CERT_FILE={shlex.quote(dev["ca_file"])} \\
{_outgate()} environment run --data {data} \\
  {dev["program_id"]} {dev["environment_id"]} -- \\
  {shlex.quote(sys.executable)} -m outgate.mailer send --config {CONFIG_NAME} \\
  --to you@customer.test --subject Hello --body "Sent through Outgate."
"""
    return Recipe(
        "AEM",
        "The application's configuration, then the environment's variables and port forward, then a mail sent as the "
        "application would: through its tunnel. If it does not arrive, outgate doctor names the step that is broken, "
        "and the one thing to change.",
        (Block(CONFIG_NAME, config), Block("Shell: variables and port forward", calls), Block("Shell: send", run)),
    )


def _put(dev: dict[str, Any], networking: dict[str, Any]) -> str:
    """Return a call that takes the token from `dev.json`, so that the page need not show it."""
    place = shlex.quote(str(Path(dev["ca_file"]).parent / "dev.json"))
    read = """'import json, sys; print(json.load(open(sys.argv[1]))["token"])'"""
    return f"""\
curl -sS --fail-with-body -X PUT \\
  {dev["cloud_manager_url"]}/api/program/{dev["program_id"]}/environment/{dev["environment_id"]}/advancedNetworking \\
  -H "Authorization: Bearer $({shlex.quote(sys.executable)} -c {read} {place})" \\
  -H 'x-gw-ims-org-id: {dev["org_id"]}' -H 'x-api-key: {client_id_of(str(dev["token"]))}' \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(json.dumps(networking))}
"""


def _outgate() -> str:
    """Return how a shell finds this very `outgate`, whether or not its environment is active there."""
    beside = Path(sys.executable).with_name("outgate")
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m outgate.cli"


def _sdk(dev: dict[str, Any]) -> Recipe:
    text = f"""\
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_eventnotifications.event_notifications_v1 import EventNotificationsV1

authenticator = IAMAuthenticator({_literal(dev["api_key"])}, url={_literal(dev["identity_url"])})
service = EventNotificationsV1(authenticator=authenticator)
service.set_service_url({_literal(dev["event_notifications_url"])})

found = service.list_smtp_configurations({_literal(dev["instance_id"])}).get_result()
for configuration in found["smtp_configurations"]:
    print(configuration["id"], configuration["domain"])
"""
    return Recipe(
        "SDK",
        "The vendor's Python SDK, unmodified (pip install ibm-eventnotifications): lists the SMTP configurations.",
        (Block("list.py", text),),
    )
