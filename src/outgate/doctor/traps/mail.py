"""Traps in the configuration of the mail service: host, port, TLS, login, sender, names of properties.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService` and its rules for egress ports.
Promises: pure; one function for each trap; where a value depends on the environment nothing is guessed.
Dangers: messages show ports and names, never a user, a password or what is behind a placeholder.
Not here: placeholders (`doctor.traps.placeholders`), OAuth (`doctor.traps.oauth`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches

from outgate.doctor.report import Finding
from outgate.doctor.traps.look import MAIL_PORTS, TUNNEL_PORTS, Look
from outgate.doctor.traps.names import HOST, MAIL_PROPERTIES, MAIL_SWITCHES, SECRETS, TUNNEL_VARIABLE
from outgate.doctor.traps.written import SOURCES, near, scan
from outgate.mailer.config import Forward, is_line
from outgate.mailer.osgi import Property
from outgate.mailer.sending.target import TUNNEL
from outgate.mailer.values import Scalar

_FRAMEWORKS = re.compile(r"[.:]|service\.|component\.|felix\.|sling\.|jcr:|webconsole\.", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\"\\]{1,64}@(?:[^\s@<>()\[\],;:\"\\.]{1,63}\.)*[^\s@<>()\[\],;:\"\\.]{1,63}")
_OF_A_BUILD = re.compile(r"\$[\[({][A-Za-z][\w.\-]*[\])}]")  # ${smtp.password}: a build puts something in its place
_UNUSED = "value not used"  # the vendor's sample for OAuth
# What guides call them: the property of the OAuth provider, or of the mail service, that is meant.
_INVENTED = {
    "oauth.client.id": "clientId",
    "oauth.client.secret": "clientSecret",
    "oauth.refresh.token": "refreshToken",
    "oauth.token.url": "tokenUrl",
    "oauth.auth.url": "authUrl",
    "oauth.scopes": "scopes",
    "smtp.username": "smtp.user",
    "smtp.server": "smtp.host",
    "smtp.hostname": "smtp.host",
    "smtp.auth.user": "smtp.user",
    "smtp.auth.password": "smtp.password",
    "smtp.from": "from.address",
    "smtp.tls": "smtp.starttls",
    "smtp.starttls.enable": "smtp.starttls",
    "smtp.starttls.required": "smtp.requiretls",
    "smtp.debug": "debug.email",
    "smtp.oauth": "oauth.flow",
}


def of(look: Look) -> Iterator[Finding]:
    """Give the traps of the mail service's file."""
    for trap in TRAPS:
        yield from trap(look)


# -- the server -------------------------------------------------------------------------------------------------


def host(look: Look) -> Iterator[Finding]:
    setting = look.setting("smtp.host")
    if setting is None or (setting.text is not None and not setting.text.strip()):
        at = setting.written if setting else None
        change = look.line(at, HOST) if at else f'"smtp.host": "{HOST}",'
        yield look.find("host-missing", "smtp.host is not there, or empty", at=at, change=change)
        return
    at = setting.written
    change = look.line(at, HOST)
    value = at.value.value
    if isinstance(value, tuple):
        yield look.find("host-not-tunnel", "smtp.host is a list, and one server is needed", at=at, change=change)
    elif setting.literal:
        misspelt = isinstance(value, str) and next(near(value, every=True), None) is not None
        blank = setting.text is not None and is_blank(setting.text)
        if setting.text is not None and not look.is_tunnel(setting.text) and not misspelt and not blank:
            said = "smtp.host names a server, and only the tunnel gets out"
            yield look.find("host-not-tunnel", said, at=at, change=change)
    elif isinstance(value, str):
        outer = [each for each in scan(value) if each.depth == 0 and each.closed and not each.escaped]
        if not any(each.source in ("env", "secret", "prop", "conf") for each in outer):
            return  # no placeholder at all: told elsewhere
        if f"env:{TUNNEL_VARIABLE}" not in value:
            said = f"smtp.host is not read from {TUNNEL_VARIABLE}"
            yield look.find("host-variable", said, at=at, change=change)
        elsewhere = look.by_default("smtp.host")
        if elsewhere is None and f"$[env:{TUNNEL_VARIABLE}]" in value:
            yield look.find("host-no-default", f"{TUNNEL_VARIABLE} has no default", at=at, change=change)
        if elsewhere is not None and not look.is_tunnel(elsewhere) and elsewhere.strip() == elsewhere:
            yield look.find("host-default", f"smtp.host has another default than {TUNNEL}", at=at, change=change)


def port_is_a_number(look: Look) -> Iterator[Finding]:
    setting = look.setting("smtp.port")
    if setting is None:
        if look.through_tunnel:
            # What smtp.ssl says now is kept.
            change = f'"smtp.port": {_suggested(look, 465 if look.flag("smtp.ssl") else 587)},'
            yield look.find("port-missing", "smtp.port is not there: it is 25 then", change=change)
        return
    at, text = setting.written, setting.text
    wrong = isinstance(at.value.value, tuple)
    if text is not None and not (look.port is not None and 25 <= look.port <= 65535):
        wrong = True
    if wrong:
        digits = " ".join(map(str, value) if isinstance(value := at.value.value, tuple) else (text or "",)).strip()
        number = int(digits) if re.fullmatch(r"[0-9]{1,5}", digits) else 0
        change = _port_line(look, at, number) if 25 <= number <= 65535 else ""
        yield look.find("port-not-number", "smtp.port is no number from 25 to 65535", at=at, change=change)


def port_of_the_tunnel(look: Look) -> Iterator[Finding]:
    setting, port = look.setting("smtp.port"), look.port
    if setting is None or port is None or not look.through_tunnel or not 25 <= port <= 65535:
        return
    at, forwards = setting.written, look.known.forwards
    if look.forward is not None:
        if look.forward.destination in (80, 443):
            said = f"the forward of {port} leads to port {look.forward.destination}"
            yield look.find("forward-not-mail", said, at=at)
    elif port in MAIL_PORTS:
        suggested = _suggested(look, port)
        said = (
            f"smtp.port is {port}, a mail server's port: the tunnel's port that leads there is needed, as {suggested}"
        )
        yield look.find("port-real", said, at=at, change=_port_line(look, at, suggested))
    elif port not in TUNNEL_PORTS:
        known = _best(look, port)
        change = _port_line(look, at, known.port) if known else ""
        yield look.find(
            "port-range", f"smtp.port is {port}, and ports of the tunnel are 30000 to 31000", at=at, change=change
        )
    elif forwards is not None:
        yield _without_forward(look, at, port)


def _without_forward(look: Look, at: Property, port: int) -> Finding:
    known = _best(look, port)
    if known:
        said = f"no forward has the port {port}; {known.port} leads to {known.name}:{known.destination}"
        return look.find("port-no-forward", said, at=at, change=_port_line(look, at, known.port))
    destination = _echo(port) or 465
    said = f"no forward has the port {port}, and none leads to a mail server"
    change = f'{{"name": "SERVER", "portDest": {destination}, "portOrig": {port}}}'
    return look.find(
        "port-no-forward", said, at=at, change=change, remedy="Add the forward, beside those that there are."
    )


def _best(look: Look, port: int) -> Forward | None:
    """Return the forward that is most likely meant: it leads to that port, or to the one that its digits echo, or to
    mail at all and is the only one."""
    forwards = look.known.forwards
    mail = [each for each in forwards.by_port.values() if each.destination in MAIL_PORTS] if forwards else []
    wanted = port if port in MAIL_PORTS else _echo(port)
    exact = [each for each in mail if each.destination == wanted]
    choice = exact or mail
    return choice[0] if len(choice) == 1 else None


def _suggested(look: Look, destination: int) -> int:
    """Return the port of the tunnel that leads to a mail server's, as the forwards say, else as the vendor advises."""
    known = _best(look, destination)
    return known.port if known else 30000 + destination % 1000


def _echo(port: int) -> int | None:
    """Return the server's port that the last digits of a port of the tunnel echo."""
    if port not in TUNNEL_PORTS:
        return None
    return {465: 465, 587: 587, 25: 25, 525: 2525}.get(port - 30000)


def _port_line(look: Look, at: Property, port: int) -> str:
    was_text = isinstance(at.value.value, str)
    return look.line(at, str(port) if was_text and not at.written_type.startswith(("I", "i", "L", "l")) else port)


# -- TLS --------------------------------------------------------------------------------------------------------


def tls(look: Look) -> Iterator[Finding]:
    ssl, port = look.flag("smtp.ssl"), look.port
    if ssl is None or port is None:
        return
    rule, destination, leads = "tls-mismatch", None, ""
    if look.forward is not None:
        destination = look.forward.destination
        leads = f"the forward of {port} leads to {look.forward.name}:{destination}"
    elif port in MAIL_PORTS:
        destination, leads = port, f"smtp.port is {port}"
    elif look.known.forwards is None:
        rule, destination = "tls-echo", _echo(port)
        leads = f"{port} looks like a way to {destination}"
    if destination not in MAIL_PORTS or ssl is (destination == 465):
        return
    wanted = destination == 465
    if wanted and look.flag("oauth.flow"):
        yield _port_of_oauth(look, rule, leads)
        return
    at = look.properties.get("smtp.ssl")
    change = look.line(at, wanted) if at else f'"smtp.ssl": {str(wanted).lower()},'
    said = f"{leads}, which wants smtp.ssl {str(wanted).lower()}"
    yield look.find(rule, said, at=at or look.properties.get("smtp.port"), change=change)


def _port_of_oauth(look: Look, rule: str, leads: str) -> Finding:
    """Tell of port 465 with smtp.ssl false: with OAuth it is the port that is to be changed (`oauth-tls`)."""
    at, port = look.properties["smtp.port"], _suggested(look, 587)
    known = look.known.forwards is None or look.known.forwards.by_port.get(port) is not None
    change = _port_line(look, at, port) if known else ""
    remedy = "Use a port of the tunnel that leads to 587: with OAuth smtp.ssl is false."
    said = f"{leads}, which wants smtp.ssl true, and OAuth wants it false"
    return look.find(rule, said, at=at, change=change, remedy=remedy)


def both_kinds_of_tls(look: Look) -> Iterator[Finding]:
    at = look.properties.get("smtp.starttls")
    if at and look.flag("smtp.ssl") and look.flag("smtp.starttls") and not look.flag("oauth.flow"):
        said = "smtp.ssl is true as well: smtp.starttls has no effect"
        yield look.find("ssl-and-starttls", said, at=at, change=look.line(at, False))


def optional_tls(look: Look) -> Iterator[Finding]:
    logs_in = "smtp.password" in look.properties and not look.flag("oauth.flow")
    if logs_in and look.flag("smtp.ssl") is False and look.flag("smtp.requiretls") is False:
        at = look.properties.get("smtp.requiretls")
        change = look.line(at, True) if at else '"smtp.requiretls": true,'
        said = "TLS is used if the server offers it, and the login goes in clear text if not"
        yield look.find("starttls-optional", said, at=at or look.properties["smtp.password"], change=change)


_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def switches(look: Look) -> Iterator[Finding]:
    for name in MAIL_SWITCHES:
        setting = look.setting(name)
        if setting is None:
            continue
        known = isinstance(setting.written.value.value, tuple) or (setting.text is not None and look.flag(name) is None)
        if known:
            change = ""
            if setting.literal and setting.text is not None:
                meant = setting.text.strip().lower()
                change = look.line(setting.written, meant in _YES) if meant in (*_YES, *_NO) else ""
            yield look.find("flag-not-boolean", f"{name} is neither true nor false", at=setting.written, change=change)


# -- login and sender -------------------------------------------------------------------------------------------


def password_in_clear(look: Look) -> Iterator[Finding]:
    at = look.properties.get("smtp.password")
    if at and is_clear(at.value.value) and not (look.flag("oauth.flow") and at.value.value == _UNUSED):
        yield look.find(
            "password-in-clear", "smtp.password is in clear text", at=at, change=look.line(at, SECRETS["smtp.password"])
        )


def is_blank(text: str) -> bool:
    """Say whether a value is, or has in it, what the vendor's samples leave to be filled in."""
    return re.search(r"<[A-Za-z][A-Za-z _\-]*>", text) is not None or re.fullmatch(r"scope[0-9]", text) is not None


def is_clear(value: Scalar | tuple[Scalar, ...]) -> bool:
    """Say whether a value that shall be a secret stands in the file itself."""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if not text.strip() or is_blank(text) or _OF_A_BUILD.fullmatch(text):
        return False
    scanned = scan(text)
    if any(each.closed and each.source in SOURCES for each in scanned):
        return False
    return not any(each.certain for each in near(text, every=True, scanned=scanned))


def login(look: Look) -> Iterator[Finding]:
    if look.flag("oauth.flow") is not False:
        return
    user, password = look.setting("smtp.user"), look.setting("smtp.password")
    has_user, has_password = not look.empty("smtp.user"), not look.empty("smtp.password")
    if user and has_user and not has_password:
        at = password.written if password else user.written
        change = (
            look.line(at, SECRETS["smtp.password"]) if password else f'"smtp.password": "{SECRETS["smtp.password"]}",'
        )
        yield look.find("password-missing", "smtp.user is there, smtp.password is not", at=at, change=change)
    elif password and has_password and not has_user:
        yield look.find("user-missing", "smtp.password is there, smtp.user is not", at=password.written)


def login_is_text(look: Look) -> Iterator[Finding]:
    for name in ("smtp.user", "smtp.password"):
        setting = look.setting(name)
        if setting is not None and isinstance(setting.written.value.value, tuple):
            yield look.find("login-invalid", f"{name} is a list", at=setting.written)
    user = look.setting("smtp.user")
    if user is not None and user.text and not is_line(user.text):
        yield look.find("login-invalid", "smtp.user has a line end or another control character", at=user.written)


def sender(look: Look) -> Iterator[Finding]:
    setting = look.setting("from.address")
    if setting is None or look.empty("from.address"):
        yield look.find("from-missing", "from.address is not there, or empty", at=setting.written if setting else None)
        return
    at, text = setting.written, setting.text
    if isinstance(at.value.value, tuple):
        yield look.find("from-invalid", "from.address is a list", at=at)
        return
    if not text or "$[" in text or is_blank(text):
        return
    text = text.strip()
    inside = re.fullmatch(r"[^<>]+<([^<>\s]+)>", text)
    if inside and _ADDRESS.fullmatch(inside[1]):
        change = look.line(at, inside[1]) if setting.literal else ""
        yield look.find("from-display-name", "from.address has a display name", at=at, change=change)
    elif not _ADDRESS.fullmatch(text):
        yield look.find("from-invalid", "from.address is not of the form local-part@domain", at=at)


def spaces(look: Look) -> Iterator[Finding]:
    for name in ("smtp.host", "smtp.user", "smtp.password", "from.address"):
        setting = look.setting(name)
        if setting is None or setting.text is None or not setting.text.strip() or setting.text == setting.text.strip():
            continue
        value = setting.written.value.value
        shown = setting.literal and name != "smtp.password" and isinstance(value, str)
        change = look.line(setting.written, str(value).strip()) if shown else ""
        if name == "smtp.host":
            change = look.line(setting.written, HOST)
        yield look.find("stray-space", f"{name} has a space at its beginning or end", at=setting.written, change=change)


def debugging(look: Look) -> Iterator[Finding]:
    """In a folder that holds for production too; whether it counts there, only the tree tells."""
    at = look.properties.get("debug.email")
    elsewhere = {"dev", "rde", "stage"} & set(look.file.run_modes)
    if at and look.flag("debug.email") and not elsewhere:
        said = "debug.email is true in a file that counts for production"
        yield look.find("debug-in-production", said, at=at, change=look.line(at, False))


# -- names ------------------------------------------------------------------------------------------------------


def blanks(look: Look) -> Iterator[Finding]:
    for each in look.properties.values():
        values = each.value.value if isinstance(each.value.value, tuple) else (each.value.value,)
        if any(isinstance(value, str) and is_blank(value) for value in values):
            yield look.find("sample-left", f"{each.name} still has the sample's text", at=each)


def names(look: Look) -> Iterator[Finding]:
    yield from unknown_names(look, MAIL_PROPERTIES, _INVENTED)


def unknown_names(look: Look, known: tuple[str, ...], invented: dict[str, str]) -> Iterator[Finding]:
    """Give the properties that are none of `known`."""
    lower = {name.lower(): name for name in known}
    for each in look.properties.values():
        if each.name in known or _FRAMEWORKS.match(each.name) or "$[" in each.name or each.name.lower() in look.conf:
            continue
        plain = re.sub(r"[^a-z]", "", each.name.lower())
        meant = lower.get(each.name.lower()) or invented.get(each.name.lower(), "")
        meant = meant or next(
            (name for name in known if re.sub(r"[^a-z]", "", name.lower()) in (plain, plain.removeprefix("oauth"))), ""
        )
        meant = meant or next(iter(get_close_matches(each.name[:40].lower(), lower, 1, 0.8)), "")
        meant = lower.get(meant, meant)
        change = ""
        if not meant:
            said = f"{_shown(each.name)} is no property of this service: it is ignored"
        elif meant in known:
            said = f"{_shown(each.name)} is no property of this service; {meant} is"
            if meant.lower() not in look.properties or meant.lower() == each.name.lower():
                change = look.renamed(each, meant)
        else:
            said = f"{_shown(each.name)} is no property of this service; the OAuth provider has {meant}"
        yield look.find("unknown-property", said, at=each, change=change)


def _shown(name: str) -> str:
    """Return a property's name, if it looks like one."""
    return name if re.fullmatch(r"[\w.\-]{1,60}", name) else "a name"


TRAPS: tuple[Callable[[Look], Iterator[Finding]], ...] = (
    host,
    port_is_a_number,
    port_of_the_tunnel,
    tls,
    both_kinds_of_tls,
    optional_tls,
    switches,
    password_in_clear,
    login,
    login_is_text,
    sender,
    spaces,
    debugging,
    blanks,
    names,
)
