"""Hops 9 and 10: what the server says of itself and offers, and whether it lets the application in.

Standards: RFC 5321 (greeting, EHLO), RFC 1870 (SIZE), RFC 4954 (AUTH and its replies), XOAUTH2.
Promises: a password or token goes to the server inside TLS, whose certificate was accepted and is for the name of the
    forward or host, once, and into no text.
Dangers: a failed login may count against the user at the server: it is tried once. A refresh token is used as by the
    mailer; a server that gives a new one with each access token has given one then.
Not here: how the connection came about (`doctor.hops.contact`), fetching tokens (`mailer.oauth`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from outgate.doctor import traps
from outgate.doctor.commands import set_variable
from outgate.doctor.hops.facts import Facts
from outgate.doctor.report import Finding, Hop, State
from outgate.mailer import oauth
from outgate.mailer.config import MailConfig
from outgate.mailer.interpolate import Lookup
from outgate.mailer.values import ConfigError
from outgate.smtp.connecting import ConnectFailed
from outgate.smtp.reply import Reply

_SHOWN = ("SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "DSN", "REQUIRETLS")


# -- EHLO ------------------------------------------------------------------------------------------------------


def hello(facts: Facts) -> Iterator[Finding]:
    """Say how the server greets and what it offers."""
    contact, config = facts.contact, facts.config
    assert contact is not None and config is not None
    trapped = facts.trapped(Hop.EHLO)
    if contact.stage in ("resolve", "connect"):
        yield facts.seen(Hop.EHLO, State.UNKNOWN, "there is no connection from here to look at")
    elif contact.connection is None:
        yield _no_hello(facts)
    else:
        offers = contact.connection.extensions
        told = [f"AUTH {offers['AUTH']}"] if "AUTH" in offers else []
        told += [f"{name} {offers[name]}".strip() for name in _SHOWN if name in offers]
        name = contact.greeting.partition(" ")[2].partition(" ")[0] or "the server"
        yield facts.seen(Hop.EHLO, State.OK, f"{name} offers {', '.join(told) or 'nothing'}")
        if config.user and not facts.blind & {"smtp.user"} and "AUTH" not in offers:
            text = "the server offers no login (AUTH), and the configuration has a user"
            remedy = f"{facts.lead} for submission (465 or 587); 25 is for other servers"
            yield facts.broken(Hop.EHLO, "auth-not-offered", text, remedy, at="smtp.user")
    yield from trapped


def _no_hello(facts: Facts) -> Finding:
    """Say why the conversation did not come about, though the connection did."""
    contact = facts.contact
    assert contact is not None
    if contact.reply is not None:
        return _refused(facts, contact.reply)
    if contact.stage == "hello":
        text = f"the server does not answer EHLO: {contact.error}"
        return facts.broken(Hop.EHLO, "hello-failed", text, "look at the server's log, or ask its operator")
    if contact.silent:
        text = f"the server takes the connection and says nothing, in clear text or in TLS{facts.noticed()}"
        remedy = f"look whether {facts.place} are those of a mail server"
        return facts.broken(Hop.EHLO, "no-greeting", text, remedy)
    if contact.closed:
        text = f"the server closed the connection before it greeted: {contact.error}{facts.noticed()}"
        return facts.broken(Hop.EHLO, "closed", text, *_who_may(facts))
    text = f"what answers is no mail server: {contact.error}{facts.noticed()}"
    remedy = f"look whether {facts.place} are those of a mail server (465 or 587)"
    return facts.broken(Hop.EHLO, "not-smtp", text, remedy)


def _refused(facts: Facts, reply: Reply) -> Finding:
    assert facts.contact is not None
    what = "greets with a refusal" if facts.contact.stage == "greeting" else "refuses EHLO"
    text = f"the server {what}: {reply}"
    if 400 <= reply.code < 500:
        remedy = "try again later; it is busy, or holds back those it does not know"
        return facts.broken(Hop.EHLO, "greeting-refused", text, remedy)
    return facts.broken(Hop.EHLO, "greeting-refused", text, *_who_may(facts))


def _who_may(facts: Facts) -> tuple[str, str]:
    """Return what to do about a server that lets this address in not at all, and the command that tells why."""
    contact = facts.contact
    assert contact is not None
    if facts.asked.outgate.local:
        host = contact.local.rpartition(":")[0].strip("[]")
        return "see who would let this address in, and add a rule or an allow-list", f"outgate access explain {host}"
    return "ask the server's operator to let in the address that the connection leaves from", ""


# -- AUTH ------------------------------------------------------------------------------------------------------


def login(facts: Facts) -> Iterator[Finding]:
    """Log in as the mailer does, and say what a refusal means."""
    contact, config = facts.contact, facts.config
    assert contact is not None and config is not None
    trapped = facts.trapped(Hop.AUTH)
    if any(each.state is State.BROKEN for each in trapped):
        yield from trapped
        return
    if contact.connection is None:
        yield facts.seen(Hop.AUTH, State.UNKNOWN, "there is no session to log in to")
        return
    unseen = facts.blind & {"smtp.user", "smtp.password"} if not config.oauth else facts.blind & {"smtp.user"}
    if unseen:
        why = facts.around.secrets_unknown or "the values are not known here"
        yield facts.seen(Hop.AUTH, State.UNKNOWN, f"{' and '.join(sorted(unseen))}: {why}")
    elif not config.user and not config.oauth:
        yield facts.seen(Hop.AUTH, State.OK, "no login is configured")
    elif facts.nameless:
        text = "no login was tried: a secret is for the right server only, and its name could not be checked"
        yield facts.seen(Hop.AUTH, State.UNKNOWN, text)
    elif config.oauth:
        yield from _with_token(facts, config)
    else:
        yield from _with_password(facts, config)
    yield from trapped


def _with_password(facts: Facts, config: MailConfig) -> Iterator[Finding]:
    contact = facts.contact
    assert contact is not None and contact.connection is not None
    facts.asked.tell("logging in")
    try:
        answer = contact.connection.login(config.user, config.password)
    except ConnectFailed as error:
        yield facts.broken(Hop.AUTH, "login-failed", f"no login came about: {error}", "look at the server's log")
        return
    if answer.ok:
        yield facts.seen(Hop.AUTH, State.OK, str(answer))
        yield from _trimmed(facts)
        return
    yield _meaning(facts, config, answer)


def _trimmed(facts: Facts) -> Iterator[Finding]:
    """Warn of a secret whose ends are cut off when it is read, although the login went well."""
    for name in ("smtp.user", "smtp.password"):
        if cut := _cut_secret(facts, name):
            text = f"the secret {cut} begins or ends with spaces or line ends: they are cut off when it is read"
            remedy = "store it without them, so that it is the same wherever it is read"
            yield facts.broken(Hop.AUTH, "secret-trimmed", text, remedy, at=name, warning=True)


def _cut_secret(facts: Facts, name: str) -> str:
    """Return the secret that a property reads and whose ends were cut off, "" if there is none."""
    explained = facts.explained.get(name)
    for each in explained.lookups if explained else ():
        if each.source == "secret" and each.found and each.written in facts.around.trimmed:
            return each.written
    return ""


def _meaning(facts: Facts, config: MailConfig, answer: Reply) -> Finding:
    """Say what a refusal means, and what is most likely the reason."""
    text = f"the server refused the login: {answer}"
    if answer.code in (421, 432, 454) or 400 <= answer.code < 500:
        return facts.broken(Hop.AUTH, "login-later", text, "try again later: the server cannot check logins just now")
    if answer.code == 534 or "application-specific" in answer.text.lower():
        remedy = "the server wants another kind of login: an application password, or OAuth (oauth.flow)"
        return facts.broken(Hop.AUTH, "login-mechanism", text, remedy, at="smtp.password")
    if config.password.strip().lower() == "apikey" or config.user.startswith("SG."):
        remedy = "smtp.user and smtp.password are exchanged: the user is the word, the password is the key"
        return facts.broken(Hop.AUTH, "login-swapped", text, remedy, at="smtp.user")
    if user := _default_of(facts, "smtp.user"):
        return _of_default(facts, text, user)
    for name in ("smtp.password", "smtp.user"):
        if cut := _cut_secret(facts, name):
            remedy = (
                f"look at the secret {cut}: what it begins or ends with (spaces, line ends) is cut off when it is read"
            )
            return facts.broken(Hop.AUTH, "login-trimmed", text, remedy, at=name)
    if config.user != config.user.strip() or config.password != config.password.strip():
        remedy = "take the space at its beginning or end away: nothing is trimmed but secrets"
        return facts.broken(Hop.AUTH, "login-spaces", text, remedy, at="smtp.user")
    nested = any(each.nested for each in _lookups(facts, "smtp.password"))
    if nested:
        remedy = (
            "the secret's content holds $[…], which is replaced again: choose another, or write a backslash before it"
        )
        return facts.broken(Hop.AUTH, "login-expanded", text, remedy, at="smtp.password")
    read = next((each.written for each in _lookups(facts, "smtp.password") if each.source == "secret"), "")
    remedy = "user or password are wrong: set the password anew, as the server's operator gave it"
    return facts.broken(Hop.AUTH, "login-refused", text, remedy, _setting(facts, read, True), at="smtp.password")


def _lookups(facts: Facts, name: str) -> tuple[Lookup, ...]:
    explained = facts.explained.get(name)
    return explained.lookups if explained else ()


def _default_of(facts: Facts, name: str) -> Lookup | None:
    lookups = _lookups(facts, name)
    return next((each for each in lookups if each.defaulted and not each.nested and "$[" not in each.written), None)


def _of_default(facts: Facts, text: str, user: Lookup) -> Finding:
    """Say that the user was the file's default, for its variable is not set, or is misspelt."""
    said = f"nothing is set for {user.written}, so the default in the file was sent as the user"
    like = facts.around.like(user.written, secret=user.source == "secret")
    if like is not None and (line := facts.reading("smtp.user", user, like)):
        remedy = f"read {like.name}, if that is meant: {said}"
        return facts.broken(Hop.AUTH, "login-default-user", text, remedy, line, at="smtp.user")
    remedy = f"set {user.written}: {said.replace(user.written, 'it')}"
    return facts.broken(Hop.AUTH, "login-default-user", text, remedy, _setting(facts, user.written), at="smtp.user")


def _setting(facts: Facts, name: str, secret: bool = False) -> str:
    return set_variable(facts.around, name, secret=secret) if name and facts.around.environment else ""


# -- OAuth -----------------------------------------------------------------------------------------------------


def _with_token(facts: Facts, config: MailConfig) -> Iterator[Finding]:
    """Fetch an access token as the mailer does, and log in with it."""
    contact, asked = facts.contact, facts.asked
    assert contact is not None and contact.connection is not None and facts.configurations is not None
    if facts.around.secrets_unknown:
        yield facts.seen(Hop.AUTH, State.UNKNOWN, facts.around.secrets_unknown)
        return
    asked.tell("fetching an access token")
    try:
        settings = oauth.load(facts.configurations, asked.run_modes, env=facts.around.env, secrets=facts.around.secrets)
        seconds, cafile = asked.patience.answer, asked.trust.file or None
        facts.tokens = oauth.Tokens(settings, env=facts.around.env, cafile=cafile, seconds=seconds)
        token = facts.tokens.token()
    except ConfigError as error:
        yield _provider(facts, error)
        return
    except oauth.TokenError as error:
        yield facts.broken(
            Hop.AUTH, f"oauth-{error.reason}", str(error), _TOKEN_REMEDIES.get(error.reason, "try again")
        )
        return
    asked.tell("logging in")
    try:
        answer = contact.connection.login_with_token(config.user, token)
    except ConnectFailed as error:
        remedy = "use a server that takes XOAUTH2, or set oauth.flow to false"
        yield facts.broken(Hop.AUTH, "login-failed", f"no login came about: {error}", remedy, at="oauth.flow")
        return
    if answer.ok:
        yield facts.seen(Hop.AUTH, State.OK, f"{answer} (XOAUTH2)")
        return
    remedy = "the token is of another mailbox, lacks the scope for SMTP, or the mailbox may not log in by SMTP"
    yield facts.broken(Hop.AUTH, "oauth-refused", f"the server refused the token: {answer}", remedy, at="smtp.user")


def _provider(facts: Facts, error: ConfigError) -> Finding:
    """Say what is wrong with the provider's file, as the rules on files do if they know it."""
    assert facts.configurations is not None
    found = facts.configurations.candidates(oauth.PID, facts.asked.run_modes)
    if not found and not error.file:
        remedy = (
            f"add {oauth.PID}.cfg.json with the provider beside the mail service's file, or set oauth.flow to false"
        )
        line = facts.line("oauth.flow", False)
        return facts.broken(Hop.AUTH, "oauth-configuration", error.text, remedy, line, at="oauth.flow")
    try:
        told = [each for file in found[:1] for each in traps.of(file, file.parse(), facts.around.known)]
    except ConfigError:
        told = []
    # Of all that the rules have found, what the error is about: the others may be less.
    place = (error.line, error.column)
    wrong = next(
        (
            each
            for each in told
            if each.state is State.BROKEN
            and ((each.line, each.column) == place if error.line else error.name in each.text)
        ),
        None,
    )
    if wrong is not None:
        return replace(wrong, hop=Hop.AUTH)
    text = f"{error.name}: {error.text}" if error.name else error.text
    remedy = "correct the OAuth provider's file, or the variable that it reads"
    return Finding(Hop.AUTH, State.BROKEN, text, "oauth-configuration", remedy, "", error.file, *place)


_TOKEN_REMEDIES = {
    "refresh-token": "obtain a new refresh token by hand, and store it as the secret that refreshToken reads",
    "client": "correct clientId and clientSecret: a secret of an application has an end, and may be over",
    "request": "correct scopes and tenant",
    "server": "try again later",
    "answer": "look whether tokenUrl is the server's address for tokens",
    "network": "look at the way to tokenUrl, by the HTTP proxy of the environment if there is one",
}
