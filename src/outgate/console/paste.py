"""Settings ready to paste: what an application needs to send through this relay, in its own words.

Standards: each client's own documentation (smtplib, Django, AEM, the Event Notifications SDK, swaks).
Promises: every recipe works as it is when pasted (tests run the ones that can be run).
Not here: how they look on the page (`templates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: `name` for the tab, `note` above it, and the text to paste."""

    name: str
    note: str
    text: str


def recipes(dev: dict[str, Any]) -> list[Recipe]:
    """Return the recipes for the tenant that `dev.json` describes."""
    return [_smtplib(dev), _django(dev), _aem(dev), _swaks(dev), _sdk(dev)]


def _host_port(place: str) -> tuple[str, str]:
    host, _, port = place.rpartition(":")
    return host, port


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

context = ssl.create_default_context(cafile="{dev["ca_file"]}")
with smtplib.SMTP("{host}", {port}) as client:
    client.starttls(context=context)
    client.login("{dev["smtp_user"]}", "{dev["smtp_password"]}")
    client.send_message(message)
"""
    return Recipe("smtplib", "Python's standard library, STARTTLS.", text)


def _django(dev: dict[str, Any]) -> Recipe:
    host, port = _host_port(dev["submissions"])
    text = f"""\
# settings.py (start Django with SSL_CERT_FILE={dev["ca_file"]})
EMAIL_HOST = "{host}"
EMAIL_PORT = {port}
EMAIL_USE_SSL = True
EMAIL_HOST_USER = "{dev["smtp_user"]}"
EMAIL_HOST_PASSWORD = "{dev["smtp_password"]}"
DEFAULT_FROM_EMAIL = "hello@{dev["domain"]}"
"""
    return Recipe("Django", "TLS from the first byte.", text)


def _aem(dev: dict[str, Any]) -> Recipe:
    _, port = _host_port(dev["submissions"])
    text = f"""\
# com.day.cq.mailer.DefaultMailService.cfg.json
{{
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "30465",
    "smtp.user": "$[env:EMAIL_USERNAME;default=myApiKey]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@{dev["domain"]}",
    "smtp.ssl": true,
    "smtp.starttls": false,
    "smtp.requiretls": false,
    "debug.email": false,
    "oauth.flow": false
}}

# PATCH {dev["cloud_manager_url"]}/api/program/{dev["program_id"]}/environment/{dev["environment_id"]}/variables
[{{"name": "EMAIL_USERNAME", "value": "{dev["smtp_user"]}"}},
 {{"name": "EMAIL_PASSWORD", "value": "{dev["smtp_password"]}", "type": "secretString"}}]

# PUT {dev["cloud_manager_url"]}/api/program/{dev["program_id"]}/environment/{dev["environment_id"]}/advancedNetworking
{{"portForwards": [{{"name": "{dev["smtp_host_name"]}", "portDest": {port}, "portOrig": 30465}}]}}

# then start the application with what its environment gives it
SSL_CERT_FILE={dev["ca_file"]} outgate environment run {dev["program_id"]} {dev["environment_id"]} -- COMMAND
"""
    return Recipe(
        "AEM", "Configuration, variables and the port forward; PATCH and PUT with the token of dev.json.", text
    )


def _swaks(dev: dict[str, Any]) -> Recipe:
    host, port = _host_port(dev["submission"])
    text = f"""\
swaks --server {host} --port {port} --tls --tls-ca-path {dev["ca_file"]} \\
      --auth PLAIN --auth-user {dev["smtp_user"]} --auth-password {dev["smtp_password"]} \\
      --from hello@{dev["domain"]} --to you@customer.test \\
      --header "Subject: Hello" --body "Sent through Outgate."
"""
    return Recipe("swaks", "From a shell.", text)


def _sdk(dev: dict[str, Any]) -> Recipe:
    text = f"""\
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_eventnotifications import EventNotificationsV1

authenticator = IAMAuthenticator("{dev["api_key"]}", url="{dev["identity_url"]}")
service = EventNotificationsV1(authenticator=authenticator)
service.set_service_url("{dev["event_notifications_url"]}")
print(service.list_smtp_configurations("{dev["instance_id"]}").get_result())
"""
    return Recipe("SDK", "The vendor's Python SDK, unmodified.", text)
