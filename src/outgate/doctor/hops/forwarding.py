"""Hop 4: whether the port that the configuration names leads anywhere, and the whole PUT that mends it.

Standards: the vendor's advanced networking: a PUT replaces everything; portOrig is 30000 to 31000.
Promises: no network but the question which forward was there before.
Dangers: what a forward led to before is the audit's word: the command is to be read before it is run.
Not here: dialling (`doctor.hops.network`), the rules on ports (`doctor.traps`), the commands (`doctor.commands`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from outgate.doctor.commands import UNKNOWN_SERVER, post_infrastructure, put_networking
from outgate.doctor.hops.facts import Facts
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.surroundings import Infrastructure, Networking
from outgate.mailer.config import Forward, Forwards
from outgate.mailer.sending.target import target_of

_MAIL_PORTS = (465, 587, 25)
_PORTS = range(30000, 31001)
_MOVING = ("creating", "updating", "deleting")


def forward(facts: Facts) -> Iterator[Finding]:
    """Say where the port leads, and whether that is in force."""
    around, config = facts.around, facts.config
    assert config is not None
    names = (around.env.get("AEM_PROXY_HOST") or "",)
    facts.target = target = target_of(config, around.forwards or Forwards("", {}), names)
    trapped = facts.trapped(Hop.FORWARD)
    if not target.through_tunnel:
        yield facts.seen(Hop.FORWARD, State.OK, f"no tunnel: {target.label} is dialled directly")
        if around.environment:
            text = f"{target.host} is not the tunnel: from the cloud service mail gets out by the tunnel only"
            remedy = "name the tunnel as smtp.host, and a portOrig as smtp.port"
            change = facts.line("smtp.host", "$[env:AEM_PROXY_HOST;default=proxy.tunnel]")
            yield facts.broken(Hop.FORWARD, "host-not-tunnel", text, remedy, change, at="smtp.host", warning=True)
        yield from trapped
        return
    if around.networking is not None:
        closed = _closed(facts, around.networking)
        if closed is not None:
            yield closed
            return
    if around.forwards is None:
        why = around.unknown.get("advanced networking") or around.unknown.get("forwards") or "they were not asked for"
        yield facts.seen(Hop.FORWARD, State.UNKNOWN, f"where port {config.port} leads is not known: {why}")
        yield from trapped
        return
    if target.forward is None:
        yield _missing(facts, trapped)
        return
    yield facts.seen(
        Hop.FORWARD, State.OK, f"{config.port} leads to {target.forward.name}:{target.forward.destination}"
    )
    yield from trapped
    if around.status in _MOVING:
        text = f"the environment is {around.status}: what was changed last is not in force yet"
        yield facts.broken(Hop.FORWARD, "environment-moving", text, "wait until it is ready", warning=True)


def _closed(facts: Facts, networking: Networking) -> Finding | None:
    """Say why nothing gets out of the environment at all, None if something does."""
    around = facts.around
    if not networking.enabled:
        if around.infrastructures == ():
            text = "advanced networking is off, and the program has no network infrastructure"
            remedy = "make a network infrastructure; once it is ready, enable advanced networking for the environment"
            return facts.broken(Hop.FORWARD, "no-infrastructure", text, remedy, post_infrastructure(around))
        text = "advanced networking is off for this environment: its tunnel is closed"
        remedy = "enable it, with the forward that the configuration needs"
        return facts.broken(Hop.FORWARD, "networking-off", text, remedy, _put(facts))
    ready = [each for each in around.infrastructures or () if each.status == "ready"]
    if around.infrastructures and not ready:
        return _not_ready(facts, around.infrastructures[0])
    if networking.status in ("failed", "error") or (networking.reason and networking.status not in _MOVING):
        text = f"what the environment wants is not in force: {networking.reason or networking.status}"
        remedy = "mend what it says; the environment takes it up by itself, or by the same PUT once more"
        return facts.broken(Hop.FORWARD, "networking-failed", text, remedy)
    return None


def _not_ready(facts: Facts, found: Infrastructure) -> Finding:
    because = f": {found.reason}" if found.reason else ""
    text = f"the network infrastructure {found.id} ({found.kind}) is {found.status or 'not ready'}{because}"
    remedy = "mend what it says" if found.reason else "wait until it is ready: that takes a quarter of an hour or more"
    if found.status in ("failed", "error") and not found.reason:
        remedy = "delete it and make it anew"
    return facts.broken(Hop.FORWARD, "infrastructure-not-ready", text, remedy)


def _missing(facts: Facts, trapped: list[Finding]) -> Finding:
    """Say that the port has no forward: it is the real port, or a PUT has replaced it."""
    around, config = facts.around, facts.config
    assert config is not None and around.forwards is not None
    meant = [each for each in around.forwards.by_port.values() if each.destination == config.port]
    static = next((each for each in trapped if each.state is State.BROKEN), None)
    there = ", ".join(
        f"{each.port} → {each.name}:{each.destination}" for each in list(around.forwards.by_port.values())[:5]
    )
    if static is not None and static.rule in ("port-missing", "port-real", "port-range") and not meant:
        return replace(static, text=f"{static.text} (there are: {there or 'none'})")
    if meant:
        first = min(meant, key=lambda each: each.port)
        text = f"smtp.port {config.port} is {first.name}'s own port; the tunnel's port that leads there is {first.port}"
        remedy = f"write the portOrig, {first.port}"
        finding = facts.broken(Hop.FORWARD, "port-real", text, remedy, _port_line(facts, first.port), at="smtp.port")
    else:
        text = f"no forward of the environment has port {config.port} (there are: {there or 'none'})"
        remedy = "add the forward; a PUT replaces all forwards, so this one names all the others too"
        change = _put(facts) if around.environment else ""
        finding = facts.broken(Hop.FORWARD, "port-no-forward", text, remedy, change, at="smtp.port")
    if static is not None and static.rule == finding.rule and not finding.change:
        return replace(finding, change=static.change)
    return finding


def _port_line(facts: Facts, port: int) -> str:
    """Return the line with another port, in the way the old one is written; a placeholder must be seen as such."""
    written = facts.property("smtp.port")
    as_text = written is None or isinstance(written.value.value, str)
    return facts.line("smtp.port", str(port) if as_text else port)


def _put(facts: Facts) -> str:
    """Return the PUT with the forward that the configuration needs, as far as anything tells where it is to lead."""
    around, config, outgate = facts.around, facts.config, facts.asked.outgate
    assert config is not None
    before = outgate.led_to(config.port)
    if before is not None:
        return put_networking(around, [Forward(config.port, *before)])
    usual = 465 if config.ssl else 587
    if config.port in _PORTS:
        port, destination = config.port, config.port - _PORTS.start
    else:
        # It is the server's own, and no PUT may name it: the next walk tells of it.
        port, destination = _PORTS.start + (config.port if config.port in _MAIL_PORTS else usual), config.port
    relay = outgate.relay(ssl=config.ssl)
    if relay is not None:
        note = "it leads to the relay of outgate dev: write your own mail server there, if that is meant"
        return put_networking(around, [Forward(port, *relay)], note)
    destination = destination if destination in _MAIL_PORTS else usual
    return put_networking(around, [Forward(port, UNKNOWN_SERVER, destination)])
