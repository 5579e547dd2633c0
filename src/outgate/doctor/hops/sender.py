"""Hop 11: whether the server takes mail from the configured sender, and how the sender's domain stands.

Standards: RFC 5321 section 3.3 (MAIL, then RSET: no mail comes of it), RFC 7208 section 4.5 (one SPF record).
Promises: no mail is sent. A relay of Outgate is asked by its API which of its three checks fails, and for the record to
    publish; of others' relays only what DNS says for certain is told.
Dangers: a relay may take a sender at MAIL and refuse it once the message is there.
Not here: the question's wire form (`smtp.client`), the API (`doctor.witnesses`).
"""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage

from outgate.doctor.commands import post_domain, post_user, zone_line
from outgate.doctor.hops.facts import Facts
from outgate.doctor.hops.look_up import is_spf, texts_of
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.traps.names import SECRETS, USER
from outgate.doctor.traps.rules import RULES
from outgate.doctor.witnesses import Seen, Standing
from outgate.mailer.sending.errors import MessageError
from outgate.mailer.sending.wire import letter
from outgate.smtp import grammar
from outgate.smtp.errors import LocalProtocolError
from outgate.smtp.reply import Reply

_CHECKS = {"spf": "SPF", "dkim": "DKIM", "en_authorization": "authorization", "a": "A"}


def sender(facts: Facts) -> Iterator[Finding]:
    """Ask the server whether it takes the sender; ask who knows how the domain stands."""
    config, contact = facts.config, facts.contact
    assert config is not None and contact is not None
    trapped = facts.trapped(Hop.SENDER)
    if any(each.state is State.BROKEN for each in trapped):
        yield from trapped
        return
    if not config.from_address or "from.address" in facts.blind:
        yield facts.seen(Hop.SENDER, State.UNKNOWN, "from.address is not known: each message brings its own sender")
        yield from trapped
        return
    try:
        address = _as_sent(config.from_address)
    except MessageError as error:
        yield facts.broken(Hop.SENDER, "from-invalid", str(error), RULES["from-invalid"].remedy, at="from.address")
        return
    domain = _domain(address)
    standing = _standing(facts, domain) if domain else None
    answer = _asked(facts, address)
    if isinstance(answer, Finding):
        yield answer
        return
    if isinstance(answer, Reply) and not answer.ok:
        yield _refused(facts, domain, answer, standing)
        return
    if isinstance(standing, Standing) and (wrong := _unverified(facts, standing, None)) is not None:
        yield wrong
        return
    if isinstance(answer, str):
        yield facts.seen(Hop.SENDER, State.UNKNOWN, answer)
    else:
        verified = f"; {domain} is verified" if isinstance(standing, Standing) else ""
        yield facts.seen(Hop.SENDER, State.OK, f"MAIL FROM:<{address}> gets {answer}{verified}")
    if isinstance(standing, Standing) and standing.standing == "warning":
        yield _warned(facts, standing)
    elif not isinstance(standing, Standing) and domain and not _ours(facts):
        yield from _by_dns(facts, domain)
    yield from trapped


def _as_sent(from_address: str) -> str:
    """Return the address that the mailer gives the server. Raises `MessageError`."""
    message = EmailMessage()
    message["To"] = "nobody@example.com"
    return letter(message, from_address).sender


def _domain(address: str) -> str:
    try:
        return grammar.domain(address.rpartition("@")[2])
    except grammar.BadSyntax:
        return ""


def _asked(facts: Facts, address: str) -> Reply | Finding | str:
    """Return the server's answer to MAIL, or that it gives none; or say why it was not asked."""
    contact, config = facts.contact, facts.config
    assert contact is not None and config is not None
    if contact.connection is None or contact.connection.closed:
        return "there is no session to ask in"
    if facts.blind & {"smtp.user", "smtp.password"} or (facts.nameless and (config.user or config.oauth)):
        return "without a login the server cannot be asked"
    facts.asked.tell("asking whether the server takes the sender")
    try:
        result = contact.connection.ask_sender(address)
    except LocalProtocolError as error:
        return str(error)
    if result.mail is None:
        text = f"the server lets the application in and does not answer MAIL: {result.error}"
        remedy = "look at the server's log, or ask its operator"
        return facts.broken(Hop.SENDER, "sender-no-answer", text, remedy)
    return result.mail


# -- a relay of Outgate ----------------------------------------------------------------------------------------


def _ours(facts: Facts) -> bool:
    """Say whether the server is the relay whose API can be asked: it greets with a name of it."""
    contact = facts.contact
    assert contact is not None
    greeted = contact.greeting.partition(" ")[2].partition(" ")[0].lower()
    return bool(greeted) and greeted in facts.asked.outgate.hosts()


def _standing(facts: Facts, domain: str) -> Standing | str | None:
    if not facts.asked.outgate.local or not _ours(facts):
        return ""
    facts.asked.tell(f"asking the relay how {domain} stands")
    return facts.asked.outgate.standing(domain)


def _refused(facts: Facts, domain: str, answer: Reply, standing: Standing | str | None) -> Finding:
    """Say why the sender is refused, as far as anybody knows."""
    text = f"the server does not take mail from {domain or 'this sender'}: {answer}"
    if facts.config is not None and not facts.config.user and _wants_login(answer):
        remedy = "the server wants a login: set smtp.user and smtp.password"
        wanted = {"smtp.user": USER, "smtp.password": SECRETS["smtp.password"]}
        lines = [facts.line(name, value) for name, value in wanted.items() if not _written(facts, name)]
        return facts.broken(Hop.SENDER, "login-needed", text, remedy, "\n".join(lines), at="smtp.user")
    if isinstance(standing, Standing):
        found = _unverified(facts, standing, answer)
        if found is not None:
            return found
        remedy = f"use a login of {domain}: the one in the configuration belongs to another domain"
        change = post_user(facts.asked.outgate.domains_url, standing.id, domain)
        return facts.broken(Hop.SENDER, "sender-not-of-user", text, remedy, change, at="smtp.user")
    if standing is None and domain:
        remedy = f"send from a domain that the relay has, or add {domain} to it and publish its records"
        change = post_domain(facts.asked.outgate.domains_url, domain)
        return facts.broken(Hop.SENDER, "sender-unknown", text, remedy, change, at="from.address")
    if 400 <= answer.code < 500:
        return facts.broken(Hop.SENDER, "sender-later", text, "try again later; the reply says why")
    remedy = "send from an address that the server lets this user send from (from.address), or have it let in there"
    return facts.broken(Hop.SENDER, "sender-refused", text, remedy, at="from.address")


def _wants_login(answer: Reply) -> bool:
    return answer.code == 530 or answer.enhanced in ("5.7.0", "5.5.1")


def _written(facts: Facts, name: str) -> bool:
    written = facts.property(name)
    return written is not None and written.value.value != ""


def _unverified(facts: Facts, standing: Standing, answer: Reply | None) -> Finding | None:
    """Say which of the three checks is not passed, None if all are."""
    failing = [name for name in _CHECKS if name in standing.checks and standing.checks[name] != "SUCCESSFUL"]
    if standing.standing == "suspended" and not failing:
        failing = [standing.failing] if standing.failing in _CHECKS else []
    grace = standing.standing == "warning"
    if not failing or (grace and (answer is None or answer.ok)):
        return None
    name = failing[0]
    seen = standing.seen.get(name)
    said = f" ({seen.explanation})" if seen and seen.explanation else ""
    text = f"{standing.domain} is not verified at the relay: {_CHECKS[name]} is {standing.checks.get(name, 'missing')}"
    text += f"{said}; it answers {answer}" if answer is not None else said
    if name == "en_authorization":
        remedy = "answer the questions of the authorization, and have it approved"
        return facts.broken(Hop.SENDER, "domain-authorization", text, remedy, f"outgate smtp show {standing.domain}")
    remedy, record = _to_publish(standing, name)
    remedy += f", then have it checked: outgate smtp verify {standing.domain}"
    return facts.broken(Hop.SENDER, f"domain-{name}", text, remedy, record)


def _warned(facts: Facts, standing: Standing) -> Finding:
    until = f", and mail is held from {standing.suspends_at} on" if standing.suspends_at else ""
    text = f"{standing.domain} fails its check of {_CHECKS.get(standing.failing, standing.failing or 'records')}{until}"
    remedy, record = _to_publish(standing, standing.failing)
    return facts.broken(Hop.SENDER, "domain-warned", text, remedy, record, warning=True)


def _to_publish(standing: Standing, name: str) -> tuple[str, str]:
    """Return what a check wants in DNS, as far as the relay has seen what is there, and the record."""
    seen, record = standing.seen.get(name, Seen("", "")), standing.records.get(name)
    if name == "a" or seen.result == "no-address":
        return "add an A record, with the address of any host of yours", f"{standing.domain}. IN A ADDRESS"
    if record is None:
        return f"publish the {_CHECKS.get(name, name)} record", ""
    there = [text for text in seen.published if is_spf(text)] if name == "spf" else []
    if len(there) > 1:
        return "join the SPF records into one: of several none counts", ""
    if there and there[0] != record.value:
        joined = _joined(there[0], record.value)
        return "write this in place of the SPF record that is there: of two none counts", zone_line(record.name, joined)
    return f"publish the {_CHECKS[name]} record", zone_line(record.name, record.value)


def _joined(there: str, ours: str) -> str:
    """Return an SPF record that lets through what another one does too."""
    version, *terms = there.split()
    wanted = [each for each in ours.split()[1:] if each.lower().lstrip("+-?~") != "all"]
    return " ".join([version, *wanted, *(each for each in terms if each not in wanted)])


# -- others' relays --------------------------------------------------------------------------------------------


def _by_dns(facts: Facts, domain: str) -> Iterator[Finding]:
    """Warn of what DNS says for certain: the domain is not there, or its SPF cannot be evaluated by anybody."""
    facts.asked.tell(f"looking at the records of {domain}")
    found = texts_of(domain, facts.asked.patience.answer)
    if found is None:
        return
    if found.missing:
        text = f"{domain} does not exist in DNS: receivers refuse such senders, and no bounce comes back"
        remedy = "send from a domain that exists"
        yield facts.broken(Hop.SENDER, "domain-missing", text, remedy, at="from.address", warning=True)
    elif len(found.spf) > 1:
        text = f"{domain} has {len(found.spf)} SPF records: receivers take that for an error, and none of them counts"
        yield facts.broken(Hop.SENDER, "domain-spf-twice", text, "join them into one", warning=True)
