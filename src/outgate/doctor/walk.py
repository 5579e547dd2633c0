"""The doctor's walk: hop by hop from the file to the recipient, until one is broken.

Standards: none.
Promises: each hop is looked at once, in the order of `Hop`; behind a broken one nothing is done any more; whatever
    happens, the connection is closed in the end; no finding holds a secret, whoever repeated one.
Not here: the hops, printing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from outgate.doctor.hops import configuration, delivery, forwarding, network, sender, session, tls
from outgate.doctor.hops.facts import Asked, Facts
from outgate.doctor.report import Finding, Hop, Report, State
from outgate.smtp.masks import HIDDEN, Masks

_SHORTEST = 4
"""Signs: shorter secrets are in any text."""

HOPS: dict[Hop, Callable[[Facts], Iterator[Finding]]] = {
    Hop.FILE: configuration.file,
    Hop.PLACEHOLDERS: configuration.placeholders,
    Hop.VARIABLES: configuration.variables,
    Hop.FORWARD: forwarding.forward,
    Hop.TUNNEL: network.tunnel,
    Hop.TARGET_DNS: network.target_name,
    Hop.TCP: network.connection,
    Hop.TLS: tls.tls,
    Hop.EHLO: session.hello,
    Hop.AUTH: session.login,
    Hop.SENDER: sender.sender,
    Hop.DELIVERY: delivery.delivery,
}


def walk(asked: Asked) -> Report:
    """Look at every hop until one is broken, and return all that was seen."""
    facts, report = Facts(asked), Report()
    try:
        for hop, look in HOPS.items():
            if hop is not Hop.FILE and _at_an_end(hop, facts):
                report.findings.append(Finding(hop, State.UNKNOWN, "it cannot be looked at: see above"))
                continue
            report.findings += look(facts)
            if report.broken is not None:
                break
    finally:
        if facts.contact is not None:
            facts.contact.close()
    # A server, or an API, may have repeated what it was told.
    secrets = [each for each in facts.secrets() if len(each) >= _SHORTEST]
    masks = Masks(facts.config.user if facts.config is not None else "", *secrets)
    return Report([_masked(each, masks, secrets) for each in report.findings])


def _masked(finding: Finding, masks: Masks, secrets: list[str]) -> Finding:
    # What to do is in our own words: of a secret in a name that an API gave, only the whole can be known again.
    said = [finding.remedy, finding.change]
    for secret in secrets:
        said = [each.replace(secret, HIDDEN) for each in said]
    return replace(finding, text=masks.text(finding.text), remedy=said[0], change=said[1])


def _at_an_end(hop: Hop, facts: Facts) -> bool:
    """Say whether what a hop needs is not known."""
    return facts.config is None and hop not in (Hop.PLACEHOLDERS, Hop.VARIABLES)
