"""The traps of one configuration file, for lint and for the doctor's walk.

Standards: none.
Promises: pure; the same file and the same knowledge give the same findings, in the order of their places.
Dangers: findings hold names, never values that may be secret.
Not here: the table of what each trap is called and means (`doctor.traps.rules`), folders (`doctor.traps.tree`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from outgate.doctor.report import Finding
from outgate.doctor.traps import mail as mail_traps
from outgate.doctor.traps import oauth as oauth_traps
from outgate.doctor.traps import placeholders as placeholder_traps
from outgate.doctor.traps.look import Known, Look
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.traps.rules import RULES, Level, Rule, level
from outgate.doctor.traps.unreadable import unreadable
from outgate.mailer.folders import ConfigFile
from outgate.mailer.osgi import Property

MOST = 50  # findings of one file: nobody reads more, and a hostile file could have any number

__all__ = ["RULES", "Known", "Level", "Rule", "level", "of", "unreadable"]


def of(file: ConfigFile, properties: Mapping[str, Property], known: Known) -> list[Finding]:
    """Return what is wrong with a file, by line and column; `properties` are its own, as read.

    Any file is searched for values that are changed and for bad placeholders; those of the mail service and its OAuth
    provider for all else. The level is in a finding's state: BROKEN an error, WARNING a warning, OK a note; `level`
    gives it."""
    look = Look(file, properties, known)
    found = list(islice(_once(_each(file, look)), MOST + 1))
    if len(found) > MOST:
        found[MOST:] = [look.find("more-findings", f"there is more: the first {MOST} findings are told")]
    return sorted(found, key=lambda each: (each.line, each.column, each.rule))


def _once(findings: Iterator[Finding]) -> Iterator[Finding]:
    seen: set[Finding] = set()
    for each in findings:
        if each not in seen:
            seen.add(each)
            yield each


def _each(file: ConfigFile, look: Look) -> Iterator[Finding]:
    for each in look.properties.values():
        if each.changed:
            at = replace(each, value_at=each.changed_at)
            yield look.find("changed-value", f"{each.name}: {each.changed}", at=at)
    yield from placeholder_traps.of(look, every=file.pid in (MAIL, OAUTH))
    if file.pid == MAIL:
        yield from placeholder_traps.tunnel_by_hand(look)
        yield from mail_traps.of(look)
        yield from oauth_traps.of_mail(look)
    elif file.pid == OAUTH:
        yield from oauth_traps.of_provider(look)
