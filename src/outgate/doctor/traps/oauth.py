"""Traps of OAuth: the mail service's settings for it, and the file of the provider.

Standards: the vendor's `OAuthConfigurationProviderImpl` and its page about OAuth for mail; RFC 6749.
Promises: pure; one function for each trap.
Dangers: clientSecret and refreshToken are secrets: messages name the property only.
Not here: whether a provider is there for the run modes (`doctor.traps.tree`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from outgate.doctor.report import Finding
from outgate.doctor.traps.look import Look
from outgate.doctor.traps.mail import blanks, is_clear, unknown_names
from outgate.doctor.traps.names import OAUTH_PROPERTIES, SECRETS, USER

_NEEDED = ("tokenUrl", "clientId", "clientSecret", "refreshToken")
_HTTPS = "Write the provider's token address, with https: the client's secret is sent there."
_INVENTED = {f"oauth.{name.lower()}": name for name in OAUTH_PROPERTIES} | {
    "auth.url": "authUrl",
    "token.url": "tokenUrl",
    "client.id": "clientId",
    "client.secret": "clientSecret",
    "refresh.token": "refreshToken",
    "scope": "scopes",
}


def of_mail(look: Look) -> Iterator[Finding]:
    """Give what is wrong with the mail service's settings for OAuth, if it has any."""
    if not look.flag("oauth.flow"):
        return
    yield from _tls(look)
    yield from _login(look)


def of_provider(look: Look) -> Iterator[Finding]:
    """Give the traps of the provider's file."""
    for trap in PROVIDER:
        yield from trap(look)


def _tls(look: Look) -> Iterator[Finding]:
    for name, wanted in (("smtp.ssl", False), ("smtp.requiretls", True)):
        at = look.properties.get(name)
        if look.flag(name) is (not wanted):
            change = look.line(at, wanted) if at else f'"{name}": {str(wanted).lower()},'
            said = f"with OAuth {name} is {str(wanted).lower()}"
            yield look.find("oauth-tls", said, at=at or look.properties["oauth.flow"], change=change)


def _login(look: Look) -> Iterator[Finding]:
    at = look.properties.get("smtp.password")
    setting = look.setting("smtp.password")
    if at and setting and setting.text != "":
        yield look.find("oauth-password", "smtp.password is not used with OAuth", at=at)
    user = look.setting("smtp.user")
    if look.empty("smtp.user"):
        said = "smtp.user is not there, or empty: the token is for its mailbox"
        change = look.line(user.written, USER) if user else f'"smtp.user": "{USER}",'
        yield look.find("oauth-user", said, at=user.written if user else look.properties["oauth.flow"], change=change)


def complete(look: Look) -> Iterator[Finding]:
    for name in _NEEDED:
        setting = look.setting(name.lower())
        at = setting.written if setting else None
        if look.empty(name):
            value = SECRETS.get(name, "")
            change = (look.line(at, value) if at else f'"{name}": "{value}",') if value else ""
            yield look.find("oauth-incomplete", f"{name} is not there, or empty", at=at, change=change)
        elif name == "tokenUrl" and setting and setting.text and not _blank_or_https(setting.text):
            yield look.find("oauth-incomplete", "tokenUrl is no https:// address", at=at, remedy=_HTTPS)


def _blank_or_https(text: str) -> bool:
    return text.startswith(("https://", "<"))


def secrets_in_clear(look: Look) -> Iterator[Finding]:
    for name in ("clientSecret", "refreshToken"):
        at = look.properties.get(name.lower())
        if at and is_clear(at.value.value):
            yield look.find("password-in-clear", f"{name} is in clear text", at=at, change=look.line(at, SECRETS[name]))


def names(look: Look) -> Iterator[Finding]:
    yield from unknown_names(look, OAUTH_PROPERTIES, _INVENTED)


PROVIDER: tuple[Callable[[Look], Iterator[Finding]], ...] = (complete, secrets_in_clear, blanks, names)
