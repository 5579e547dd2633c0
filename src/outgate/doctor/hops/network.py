"""Hops 5 to 7: the tunnel, the target's name and the connection to it, as seen from here and from where traffic leaves.

Standards: RFC 1034 (names), RFC 9293 (connections); the class words of the egress' audit.
Promises: one connection is made as the application makes it; what it came to is judged here, of TLS by
`doctor.hops.tls`.
Dangers: a connection through a tunnel that ends at once has many reasons: without the audit none of them is certain.
Not here: dialling (`doctor.hops.contact`), asking the egress (`doctor.witnesses`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from outgate.doctor.commands import add_client
from outgate.doctor.hops.contact import dial
from outgate.doctor.hops.facts import Facts
from outgate.doctor.hops.reaching import Contact
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.witnesses import LET_THROUGH, Denial, Reach
from outgate.mailer.sending.target import TUNNEL, Target

_HOPS = {"dns": Hop.TARGET_DNS, "guard": Hop.TARGET_DNS, "refused": Hop.TCP, "timeout": Hop.TCP, "unreachable": Hop.TCP,
         "source": Hop.TCP}  # fmt: skip
_REMEDIES = {
    "client-network": "have an operator add the network that this machine dials from to the environment",
    "limit": "look for clients that do not close their connections; the limit cannot be raised at the vendor",
    "closed": "mend what the reason says: the way out of the environment is closed",
    "guard": "let an operator make an exception, if it is meant; or give the forward another name",
    "dns": "correct the name of the forward, or let the name resolve",
    "refused": "look at the mail server: its port, and whether it lets our address in",
    "timeout": "look at the mail server and the way there: something drops what is sent",
    "unreachable": "look at the routes of the gateway's host",
    "source": "give the gateway's host an address to leave from",
    "withdrawn": "try again: the forward was being changed",
    "clear-auth": "switch TLS on, as the reason says",
}


def tunnel(facts: Facts) -> Iterator[Finding]:
    """Connect as the application does, and say what of that is the tunnel's."""
    asked, target, config = facts.asked, facts.target, facts.config
    assert target is not None and config is not None
    asked.tell(f"connecting to {target.label}")
    facts.contact = contact = dial(target.host, target.port, config.tls, _expected(target), asked.trust, asked.patience)
    if not target.through_tunnel:
        yield facts.seen(Hop.TUNNEL, State.OK, "none on the way")
        return
    if contact.stage == "resolve":
        yield from _no_tunnel_here(facts, target)
        return
    if contact.stage == "connect":
        yield _not_listening(facts, target, contact)
        return
    denied = _denied(facts, contact) if contact.closed else None
    if denied is None or denied.hop is not Hop.TUNNEL:
        yield facts.seen(Hop.TUNNEL, State.OK, f"connected to {contact.address} from {contact.local}")
    if denied is not None and denied.hop is Hop.TCP and target.forward is not None:
        yield facts.seen(Hop.TARGET_DNS, State.OK, f"{target.forward.name} resolves where the traffic leaves")
    if denied is not None:
        yield denied


def _expected(target: Target) -> str | None:
    """Return who must be there, None if the tunnel leads nobody knows where."""
    return target.server_name or (None if target.through_tunnel else target.host)


def _no_tunnel_here(facts: Facts, target: Target) -> Iterator[Finding]:
    """The tunnel's name means nothing here: look at the target itself, if anything tells which that is."""
    asked, config = facts.asked, facts.config
    assert config is not None
    if facts.around.environment and target.forward is not None:
        text = f"{target.host} resolves within the environment only: from here the target itself is looked at"
        yield facts.seen(Hop.TUNNEL, State.UNKNOWN, text)
        name, port = target.forward.name, target.forward.destination
        asked.tell(f"connecting to {name}:{port}, not through the tunnel")
        facts.direct = True
        facts.contact = dial(name, port, config.tls, name, asked.trust, asked.patience)
        return
    text = f"{target.host} does not resolve here: {facts.contact.error if facts.contact else ''}"
    remedy = "start the doctor as the application is started, with what its environment gives it"
    if target.host != TUNNEL:
        remedy = "correct smtp.host, or the variable that it reads"
    change = "outgate environment run PROGRAM ENVIRONMENT -- outgate doctor"
    yield facts.broken(Hop.TUNNEL, "tunnel-name", text, remedy, change, at="smtp.host")


def _not_listening(facts: Facts, target: Target, contact: Contact) -> Finding:
    place = f"{contact.address or target.host}"
    if contact.refused:
        text = f"nothing listens at {place}, the tunnel's port {target.port}"
        remedy = "look whether the forward is in force: `outgate egress status` has what is, and why the rest is not"
        change = "outgate egress status" if facts.asked.outgate.local else ""
        return facts.broken(Hop.TUNNEL, "tunnel-refused", text, remedy, change)
    text = f"the tunnel at {place} cannot be reached from here: {contact.error}"
    return facts.broken(Hop.TUNNEL, "tunnel-unreachable", text, "start the doctor where the application runs")


def _denied(facts: Facts, contact: Contact) -> Finding | None:
    """Ask the audit why the connection was closed, if it was the egress that closed it."""
    denial = facts.asked.outgate.refusal(contact.local)
    if isinstance(denial, Denial):
        hop = _HOPS.get(denial.kind, Hop.TUNNEL)
        remedy = _REMEDIES.get(denial.kind, "look at the reason")
        text = f"the egress refused the connection ({denial.kind}): {denial.reason}"
        return facts.broken(hop, f"egress-{denial.kind}", text, remedy, _mending(facts, denial, contact))
    if denial == LET_THROUGH:
        return None
    asked = _tested(facts)
    if isinstance(asked, Reach) and not asked.no_name and not asked.no_port:
        return None
    if isinstance(asked, Reach):
        return _unreached(facts, asked)
    text = f"{contact.address} took the connection and closed it at once ({denial})"
    remedy = (
        "ask who runs the gateway: this client may be in no client network of the environment, the environment may have"
        " all its connections, or the target does not answer"
    )
    return facts.broken(Hop.TUNNEL, "tunnel-closed", text, remedy)


def _mending(facts: Facts, denial: Denial, contact: Contact) -> str:
    """Return the command that mends a refusal of the egress, "" if there is none."""
    environment, target = facts.around.environment, facts.target
    host = contact.local.rpartition(":")[0].strip("[]")
    if denial.kind == "client-network" and environment:
        have = facts.asked.outgate.client_networks(environment)
        return add_client(environment, have, host) if have is not None else ""
    if denial.kind == "guard" and target and target.forward:
        scope = f" --environment {shlex.quote(environment)}" if environment else ""
        return f"outgate egress exceptions add {shlex.quote(target.forward.name)}{scope} --reason 'the mail server'"
    return "outgate egress addresses" if denial.kind == "source" else ""


def _tested(facts: Facts) -> Reach | str:
    target = facts.target
    if target is None or target.forward is None:
        return "where the port leads is not known"
    facts.asked.tell(f"having {target.forward.name}:{target.forward.destination} tested from where the traffic leaves")
    return facts.asked.outgate.reach(target.forward.name, target.forward.destination)


def _unreached(facts: Facts, reach: Reach) -> Finding:
    assert facts.target is not None and facts.target.forward is not None
    found = facts.target.forward
    if reach.no_name:
        text = f"{found.name} does not resolve where the traffic leaves: {reach.no_name}"
        return facts.broken(Hop.TARGET_DNS, "target-name", text, _REMEDIES["dns"])
    where = f"{found.name}:{found.destination} ({', '.join(reach.addresses)})"
    text = f"{where} is not reached from the egress: {reach.no_port}"
    return facts.broken(Hop.TCP, "target-port", text, _REMEDIES["refused"])


# -- the target ------------------------------------------------------------------------------------------------


def target_name(facts: Facts) -> Iterator[Finding]:
    """Say whether the target's name resolves, where the traffic leaves."""
    contact, target = facts.contact, facts.target
    assert contact is not None and target is not None
    if target.through_tunnel and not facts.direct:
        name = target.forward.name if target.forward else "the target"
        answered = _answered(contact)
        if answered or facts.asked.outgate.refusal(contact.local) == LET_THROUGH:
            there = "a server answers" if answered else "its port is open"
            yield facts.seen(Hop.TARGET_DNS, State.OK, f"{name}: the tunnel leads there, and {there}")
            return
        reach = _tested(facts)
        if isinstance(reach, str):
            yield facts.seen(Hop.TARGET_DNS, State.UNKNOWN, reach)
        elif reach.no_name:
            yield _unreached(facts, reach)
        else:
            yield facts.seen(Hop.TARGET_DNS, State.OK, f"{name} is {', '.join(reach.addresses)}")
            if reach.no_port:
                yield _unreached(facts, reach)
        return
    if contact.stage == "resolve":
        text = f"{contact.host} does not resolve here: {contact.error}"
        if facts.direct:
            yield facts.seen(Hop.TARGET_DNS, State.UNKNOWN, f"{text}; where the traffic leaves it may")
            return
        remedy = "correct smtp.host, or let the name resolve"
        yield facts.broken(Hop.TARGET_DNS, "target-name", text, remedy, at="smtp.host")
        return
    aside = " (from here, not through the tunnel)" if facts.direct else ""
    yield facts.seen(Hop.TARGET_DNS, State.OK, f"{contact.host} is {contact.address.rpartition(':')[0]}{aside}")


def connection(facts: Facts) -> Iterator[Finding]:
    """Say whether the target's port takes connections."""
    contact, target = facts.contact, facts.target
    assert contact is not None and target is not None
    if contact.stage in ("resolve", "connect"):
        text = f"{contact.address or contact.host} cannot be reached: {contact.error or 'its name does not resolve'}"
        if facts.direct:
            yield facts.seen(Hop.TCP, State.UNKNOWN, f"{text}; from here only the way itself may be closed")
            return
        remedy = _REMEDIES["refused" if contact.refused else "timeout"]
        yield facts.broken(Hop.TCP, "target-port", text, remedy, at="smtp.port")
        return
    through = target.through_tunnel and not facts.direct
    where = target.label if through else contact.address
    if not _answered(contact) and contact.silent:
        yield facts.seen(Hop.TCP, State.OK, f"{where} is open, and silent so far")
        return
    yield facts.seen(Hop.TCP, State.OK, where)


def _answered(contact: Contact) -> bool:
    """Say whether anything came from the target, so that it must have been reached."""
    return contact.stage in ("hello", "ready") or bool(contact.verify_code or contact.greeting or contact.reason)
