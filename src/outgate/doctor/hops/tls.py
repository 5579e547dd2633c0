"""Hop 8: whether TLS begins as the server wants it, and whether its certificate proves who it is.

Standards: RFC 8314 and 3207 (how TLS begins), RFC 9525 (names), RFC 5280 (chains).
Promises: what is told of a certificate is what the server showed; a mismatch is named only if it was seen: the server
    spoke in clear where TLS was begun, or began TLS where it should have greeted.
Dangers: a name in a certificate is a stranger's word until the chain is trusted.
Not here: dialling (`doctor.hops.contact`), looking closer (`doctor.hops.looking`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from outgate.doctor.commands import put_networking
from outgate.doctor.hops.facts import Facts
from outgate.doctor.hops.looking import Certificate, begins_tls, chains_to, glance, look_at_certificate
from outgate.doctor.hops.reaching import Contact
from outgate.doctor.report import Finding, Hop, State

_EXPIRED, _NOT_YET = 10, 9
_NAMES = (62, 64)
_SELF_SIGNED = (18,)
_UNKNOWN_ISSUER = (2, 19, 20, 21)
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
)
_TOO_OLD = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "NO_PROTOCOLS_AVAILABLE")


def tls(facts: Facts) -> Iterator[Finding]:
    """Judge how TLS came about, or why it did not."""
    contact, config = facts.contact, facts.config
    assert contact is not None and config is not None
    trapped = facts.trapped(Hop.TLS)
    notes = [each for each in trapped if each.state is State.WARNING]
    if contact.stage in ("resolve", "connect"):
        yield facts.seen(Hop.TLS, State.UNKNOWN, "there is no connection from here to look at")
        yield from trapped
        return
    found = _judge(facts, contact)
    if found.state is State.BROKEN and not found.change:
        static = next((each for each in trapped if each.state is State.BROKEN and each.change), None)
        found = replace(found, change=static.change) if static and found.rule in _MODES else found
    yield found
    if found.state is State.OK and contact.tls and facts.nameless:
        yield _unchecked(facts, contact)
    yield from notes


_MODES = ("tls-to-starttls", "clear-to-implicit-tls")


def _judge(facts: Facts, contact: Contact) -> Finding:
    config = facts.config
    assert config is not None
    if contact.verify_code:
        return _certificate(facts, contact)
    if contact.stage == "tls":
        return _handshake(facts, contact)
    if contact.early_tls or (contact.stage == "greeting" and contact.silent and not contact.tls and _tls_there(facts)):
        return _clear_to_implicit(facts, contact)
    if contact.tls:
        how = "from the first octet" if config.ssl else "by STARTTLS"
        named = "" if facts.nameless else f" is for {_server_name(facts)}, its chain"
        return facts.seen(Hop.TLS, State.OK, f"{contact.tls} {how}; the certificate{named} is trusted")
    if contact.stage != "ready":
        return facts.seen(Hop.TLS, State.UNKNOWN, "the server did not get so far")
    return _in_clear(facts)


def _unchecked(facts: Facts, contact: Contact) -> Finding:
    """Warn that the name in the certificate could not be compared with anything."""
    names = contact.connection.certificate_names if contact.connection else ()
    listed = ", ".join(names[:5])
    text = f"where the port leads is not known, so no name was checked: the certificate is for {listed}"
    remedy = "give the environment's forwards, as outgate environment run does: the mailer refuses without them"
    return facts.broken(Hop.TLS, "name-not-checked", text, remedy, warning=True)


def _server_name(facts: Facts) -> str:
    contact, target = facts.contact, facts.target
    assert contact is not None and target is not None
    return (target.server_name if not facts.direct else "") or contact.host


def _tls_there(facts: Facts) -> bool:
    contact = facts.contact
    assert contact is not None
    facts.asked.tell("listening whether TLS begins at once there")
    contact.early_tls = begins_tls(contact.host, contact.port, facts.asked.patience)
    return bool(contact.early_tls)


# -- how TLS begins --------------------------------------------------------------------------------------------


def _flags(facts: Facts, *, ssl: bool) -> str:
    """Return the lines that make TLS begin so."""
    lines = [facts.line("smtp.ssl", ssl)]
    config = facts.config
    if config is not None and (facts.property("smtp.starttls") is not None or not ssl):
        lines.append(facts.line("smtp.starttls", not ssl))
    return "\n".join(lines)


def _clear_to_implicit(facts: Facts, contact: Contact) -> Finding:
    text = (
        "smtp.ssl is false, and the server begins TLS with the first octet"
        f" ({contact.early_tls}): both wait for the other"
    )
    remedy = f"set smtp.ssl to true and smtp.starttls to false, or {facts.lead} for STARTTLS (587)"
    change = _flags(facts, ssl=True)
    return facts.broken(Hop.TLS, "clear-to-implicit-tls", text, remedy, change, at="smtp.ssl")


def _handshake(facts: Facts, contact: Contact) -> Finding:
    """Say why there is no TLS though it was wanted."""
    config = facts.config
    assert config is not None
    if any(word in contact.reason.upper() for word in _TOO_OLD):
        text = f"the server speaks no TLS that is new enough (1.2 at least): {contact.reason}"
        remedy = "have its operator switch TLS 1.2 or 1.3 on"
        return facts.broken(Hop.TLS, "tls-too-old", text, remedy)
    if config.ssl:
        facts.asked.tell("listening whether the server speaks in clear text there")
        heard = glance(contact.host, contact.port, facts.asked.patience)
        if heard.greets:
            return _implicit_to_clear(facts, "STARTTLS" in heard.extensions)
        if contact.closed:
            return _closed(facts, contact)
    elif "does not offer STARTTLS" in contact.error:
        return _not_offered(facts)
    elif "refused STARTTLS" in contact.error:
        remedy = f"try again later, or {facts.lead} for implicit TLS (465) with smtp.ssl true"
        return facts.broken(Hop.TLS, "starttls-refused", contact.error, remedy)
    if config.ssl and contact.silent:
        text = f"the server takes the connection and says nothing, in TLS or in clear text{facts.noticed()}"
        remedy = f"look whether {facts.place} are those of a mail server (465)"
        return facts.broken(Hop.TLS, "tls-silent", text, remedy)
    if contact.reason in _NO_TLS:
        text = f"what answers does not speak TLS{facts.noticed()}"
        remedy = f"look whether {facts.place} are those of a mail server"
        return facts.broken(Hop.TLS, "not-tls", text, remedy)
    text = f"the TLS handshake failed: {contact.error}{facts.noticed()}"
    return facts.broken(Hop.TLS, "handshake-failed", text, "ask the server's operator what it expects of TLS")


def _implicit_to_clear(facts: Facts, offered: bool) -> Finding:
    text = "smtp.ssl is true, and the server greets in clear text: TLS cannot begin with the first octet there"
    if offered:
        remedy = f"set smtp.ssl to false and smtp.starttls to true, or {facts.lead} 465"
        change = _flags(facts, ssl=False)
        return facts.broken(Hop.TLS, "tls-to-starttls", f"{text}; it offers STARTTLS", remedy, change, at="smtp.ssl")
    remedy = f"{facts.lead} that speaks TLS: 465, or 587 with STARTTLS"
    return facts.broken(Hop.TLS, "no-tls-there", f"{text}; it does not offer STARTTLS either", remedy, at="smtp.ssl")


def _closed(facts: Facts, contact: Contact) -> Finding:
    text = "the server closed the connection in the TLS handshake, before a word was said"
    remedy = "ask its operator whether it lets this address in"
    change = ""
    if facts.asked.outgate.local:
        host = contact.local.rpartition(":")[0].strip("[]")
        remedy = "see who would let this address in: an Outgate relay closes on strangers before TLS"
        change = f"outgate access explain {shlex.quote(host)}"
    return facts.broken(Hop.TLS, "tls-closed", text, remedy, change)


def _not_offered(facts: Facts) -> Finding:
    text = "the server does not offer STARTTLS there"
    remedy = f"{facts.lead} for implicit TLS (465) and set smtp.ssl to true"
    return facts.broken(Hop.TLS, "starttls-not-offered", text, remedy, at="smtp.requiretls")


def _in_clear(facts: Facts) -> Finding:
    """TLS was not required, and there is none."""
    config = facts.config
    assert config is not None
    if not config.user:
        text = "the server does not offer STARTTLS: mail passes in clear text"
        remedy = "set smtp.requiretls to true, so that mail never does"
        return facts.broken(
            Hop.TLS,
            "mail-in-clear",
            text,
            remedy,
            facts.line("smtp.requiretls", True),
            at="smtp.requiretls",
            warning=True,
        )
    found = _not_offered(facts)
    return replace(found, text=f"{found.text}, and a password must not pass in clear text")


# -- certificates ----------------------------------------------------------------------------------------------


def _certificate(facts: Facts, contact: Contact) -> Finding:
    """Say why the certificate was not accepted, with what it says itself."""
    asked, config = facts.asked, facts.config
    assert config is not None
    name, code = _server_name(facts), contact.verify_code
    asked.tell("looking at the server's certificate")
    shown = look_at_certificate(contact.host, contact.port, name, config.tls, asked.patience)
    if code in _NAMES:
        return _wrong_name(facts, name, shown)
    if code == _EXPIRED:
        since = f" on {_day(shown.not_after)}" if shown else ""
        text = f"the certificate of {name}, or one above it, has expired{since}"
        return facts.broken(Hop.TLS, "certificate-expired", text, "have the server's operator renew it")
    if code == _NOT_YET:
        since = f" (from {_day(shown.not_before)} on)" if shown else ""
        text = f"the certificate of {name} is not valid yet{since}"
        remedy = "look at this machine's clock, else have the server's operator look at the certificate"
        return facts.broken(Hop.TLS, "certificate-not-yet-valid", text, remedy)
    if code in _SELF_SIGNED or (code in _UNKNOWN_ISSUER):
        return _unknown_issuer(facts, contact, name, shown)
    text = f"the certificate of {name} was not accepted: {contact.error.rpartition(': ')[2]}"
    return facts.broken(Hop.TLS, "certificate-refused", text, "have the server's operator mend it")


def _wrong_name(facts: Facts, name: str, shown: Certificate | None) -> Finding:
    target = facts.target
    names = [each for each in (shown.names if shown else ()) if each][:10]
    listed = ", ".join(names) if names else "no name at all"
    text = f"the certificate is not for {name}: it is for {listed}"
    plain = [each for each in names if "*" not in each]
    if target is not None and target.forward is not None:
        remedy = "give the forward the server's own name (the names of the certificate), if that is the server you mean"
        change = (
            put_networking(facts.around, [replace(target.forward, name=plain[0])])
            if len(plain) == 1 and facts.around.environment
            else ""
        )
        return facts.broken(Hop.TLS, "certificate-name", text, remedy, change)
    remedy = "give the server by a name of its certificate, if that is the server you mean"
    change = facts.line("smtp.host", plain[0]) if len(plain) == 1 else ""
    return facts.broken(Hop.TLS, "certificate-name", text, remedy, change, at="smtp.host")


def _unknown_issuer(facts: Facts, contact: Contact, name: str, shown: Certificate | None) -> Finding:
    asked, config = facts.asked, facts.config
    assert config is not None
    if asked.sandbox_ca and chains_to(asked.sandbox_ca, contact.host, contact.port, name, config.tls, asked.patience):
        text = f"the certificate of {name} is of the authority of `outgate dev`, which the application does not trust"
        change = f"export SSL_CERT_FILE={shlex.quote(asked.sandbox_ca)}"
        return facts.broken(Hop.TLS, "certificate-issuer", text, "have the application trust it", change)
    if contact.verify_code in _SELF_SIGNED or (shown is not None and shown.self_signed):
        text = f"the certificate of {name} is signed by itself: it proves nothing to whoever does not have it already"
        remedy = "use one of a public authority; or give the application this certificate as its trust (SSL_CERT_FILE)"
        return facts.broken(Hop.TLS, "certificate-self-signed", text, remedy)
    issuer = f" ({shown.issuer})" if shown and shown.issuer else ""
    text = (
        f"the certificate of {name} comes from an authority that is not trusted here{issuer}, or its chain is not whole"
    )
    remedy = "have the server send its whole chain; of an authority of your own, give its certificate by SSL_CERT_FILE"
    return facts.broken(Hop.TLS, "certificate-issuer", text, remedy)


def _day(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "a day out of all calendars"
