"""Hops 1 to 3: which file counts and what it says, what its placeholders become, and where their values come from.

Standards: Apache Sling's folders, Apache Felix's interpolation, the vendor's rules for variables.
Promises: no network; what is told of a placeholder is its name and where its value came from, never the value.
Not here: the rules on files (`doctor.traps`), asking for variables (`doctor.asking`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePath

from outgate.doctor import traps
from outgate.doctor.commands import delete_variable, look_again, remove, set_variable, write_configuration
from outgate.doctor.hops.facts import Facts
from outgate.doctor.report import Finding, Hop, State
from outgate.doctor.surroundings import PROXY_HOST, Variable
from outgate.doctor.traps import tree as tree_traps
from outgate.doctor.traps.look import Look
from outgate.doctor.traps.rules import RULES
from outgate.mailer import oauth
from outgate.mailer.config import FILE_NAME, NAMES, PID, settle
from outgate.mailer.configuration.properties import settled
from outgate.mailer.configuration.run_modes import FOLDER
from outgate.mailer.folders import Configurations, open_configurations
from outgate.mailer.interpolate import Explained, Lookup
from outgate.mailer.osgi import OsgiError
from outgate.mailer.values import ConfigError, Value

_NEEDED = ("smtp.host", "smtp.port", "smtp.ssl", "smtp.starttls", "smtp.requiretls")
_KINDS = {"env": False, "secret": True}


# -- file ------------------------------------------------------------------------------------------------------


def file(facts: Facts) -> Iterator[Finding]:
    """Find the file that counts, and read it."""
    asked = facts.asked
    modes = ", ".join(asked.run_modes) or "none"
    try:
        facts.configurations = found = open_configurations(asked.where, PID)
    except ConfigError as error:
        remedy = "name the folder with the config folders, or the file, with --config"
        if "Permission denied" in error.text:
            remedy = "let this user read it, or name another with --config"
        yield _of_error(Hop.FILE, "no-file", error, remedy, f"find . -name {shlex.quote(FILE_NAME)}")
        return
    try:
        chosen = found.resolve(PID, asked.run_modes)
    except ConfigError as error:
        yield _not_chosen(facts, found, error)
        return
    try:
        properties = chosen.parse()
    except OsgiError as error:
        yield traps.unreadable(chosen, error)
        return
    facts.look = Look(chosen, properties, facts.around.known)
    facts.traps = [_weighed(facts, each) for each in traps.of(chosen, properties, facts.around.known)]
    yield facts.seen(Hop.FILE, State.OK, f"{chosen.where} counts for the run modes {modes}")
    provider = _provider(facts, found)
    yield from _trapped(facts, Hop.FILE)
    if provider is not None:
        yield provider


def _weighed(facts: Facts, found: Finding) -> Finding:
    """Return a rule's finding; outside an environment a server may well be dialled itself, as in a data centre."""
    if found.rule == "host-not-tunnel" and not facts.around.environment and facts.around.forwards is None:
        return replace(found, state=State.WARNING)
    return found


def _provider(facts: Facts, found: Configurations) -> Finding | None:
    """Say what is wrong with the OAuth provider's file, if the mail service needs it and it cannot be read."""
    assert facts.look is not None
    files = found.candidates(oauth.PID, facts.asked.run_modes) if facts.look.flag("oauth.flow") else []
    try:
        for each in files[:1]:
            each.parse()
    except OsgiError as error:
        return traps.unreadable(files[0], error)
    return None


def _not_chosen(facts: Facts, found: Configurations, error: ConfigError) -> Finding:
    """Say why no file counts: there is none, none for these run modes, one in another format, or two that tie."""
    run_modes = facts.asked.run_modes
    matching = found.candidates(PID, run_modes)
    trapped = list(tree_traps.of(tree_traps.Tree(found.files, found.old, found.oddities)))
    if old := next((each for each in found.old if each.where in error.text), None):
        remedy = f"write what it says as {FILE_NAME}, and remove it"
        remedy = "keep the .cfg.json only, with what the other one says" if matching else remedy
        return _of_error(Hop.FILE, "other-format", error, remedy, remove(old.where) if matching else "")
    if matching:
        tied = {each.where for each in matching if len(each.run_modes) == len(matching[0].run_modes)}
        told = next((each for each in trapped if each.rule == "folders-tie" and each.file in tied), None)
        return told or _of_error(Hop.FILE, "folders-tie", error, RULES["folders-tie"].remedy)
    others = [each for each in found.files if each.pid == PID]
    names = {each.where for each in others}
    for each in trapped:
        if each.rule == "wrong-pid" or (each.rule == "folder-order" and each.file in names):
            return each
        if each.rule in ("file-name", "folder-none") and PurePath(each.file).name.startswith(PID):
            return replace(each, state=State.BROKEN)
    if not others:
        folder = _usual_folder(found)
        if folder is None:
            remedy = "add the mail service's file to the package, in an osgiconfig/config folder"
            return _of_error(Hop.FILE, "no-file", error, remedy)
        remedy = "add the mail service's file, with your own sender as from.address"
        command = write_configuration(folder / FILE_NAME, facts.around.forwards)
        return _of_error(Hop.FILE, "no-file", error, remedy, command)
    ever = next((each for each in others if each in found.candidates(PID, each.run_modes)), None)
    if ever is None:
        told = next((each for each in trapped if each.rule == "folder-unsupported" and each.file in names), None)
        return replace(told, state=State.BROKEN) if told else _of_error(Hop.FILE, "no-file", error, "rename the folder")
    have = "; ".join(f"{each.where} is for {', '.join(each.run_modes) or 'all'}" for each in others[:4])
    remedy = f"look with the run modes that the service has, or add a file for these ({have})"
    return _of_error(Hop.FILE, "no-file", error, remedy, look_again(facts.around, found.where, ever.run_modes))


def _usual_folder(found: Configurations) -> PurePath | None:
    """Return the folder where a file for all run modes goes: beside those that there are; None in a package."""
    here = PurePath(found.where)
    beside = [PurePath(each.where).parent for each in (*found.files, *found.old)]
    if here in beside or here.name.partition(".")[0] == FOLDER:
        return here
    if any("!" in str(each) for each in beside):
        return None
    named = [each.parent for each in beside if each.name.partition(".")[0] == FOLDER]
    return (max(named, key=named.count) if named else here) / FOLDER


# -- placeholders ----------------------------------------------------------------------------------------------


def placeholders(facts: Facts) -> Iterator[Finding]:
    """Replace every placeholder of the file; say what came of each."""
    assert facts.look is not None
    raw = {each.name: each.value for each in facts.look.properties.values()}
    try:
        properties = settled(raw, env=facts.around.env, secrets=facts.around.secrets, pid=PID)
    except ConfigError as error:
        remedy = "correct the value that is set, or the type: the whole configuration is left out like this"
        text = f"{error.name}: {error.text}"
        yield facts.broken(Hop.PLACEHOLDERS, "does-not-convert", text, remedy, at=error.name.lower())
        return
    explained = {each.name.lower(): each.explained for each in properties}
    facts.explained = explained
    found = list(_trapped(facts, Hop.PLACEHOLDERS))
    literal = [(name, each) for name in NAMES for each in _literal(explained.get(name)) if each.source not in _KINDS]
    if not any(each.state is State.BROKEN for each in found):
        for name, each in literal[:1]:
            text = f"{name} stays as it is written: $[{each.source}:{each.written}] has no value from here"
            remedy = "read it from a variable of the environment: $[env:NAME] or $[secret:NAME]"
            found.append(facts.broken(Hop.PLACEHOLDERS, "placeholder-literal", text, remedy, at=name))
    lookups = [each for name in NAMES for each in _lookups(explained.get(name))]
    count = len({(each.source, each.written) for each in lookups})
    defaults = sorted({each.written for each in lookups if each.defaulted})
    said = f"{count} placeholder{'' if count == 1 else 's'}" if count else "no placeholders"
    said += f"; by their defaults: {', '.join(defaults)}" if defaults else ""
    yield facts.seen(Hop.PLACEHOLDERS, State.OK, said)
    yield from found


def _lookups(explained: Explained | None) -> tuple[Lookup, ...]:
    return explained.lookups if explained else ()


def _literal(explained: Explained | None) -> Iterable[Lookup]:
    return [each for each in _lookups(explained) if not (each.found or each.defaulted or each.nested)]


# -- variables -------------------------------------------------------------------------------------------------


def variables(facts: Facts) -> Iterator[Finding]:
    """Say of each variable that is read whether it is there, of the right kind, for this service, and in force."""
    around = facts.around
    facts.blind = _blind(facts)
    trapped = list(_trapped(facts, Hop.VARIABLES))
    judged = list[Finding]()
    for name, each in _read(facts):
        judged += _judge(facts, name, each)
    broken = [each for each in judged if each.state is State.BROKEN]
    # What is known of the environment says more than the rule: it goes first.
    rules = {each.rule for each in broken}
    yield _overview(facts)
    yield from (each for each in judged if each.state is not State.BROKEN)
    yield from (each for each in trapped if each.state is not State.BROKEN)
    if any(each.state is State.BROKEN for each in (*broken, *trapped)):
        yield from broken
        yield from (
            _with_command(facts, each) for each in trapped if each.state is State.BROKEN and each.rule not in rules
        )
        return
    if around.environment and around.variables is None:
        yield facts.seen(Hop.VARIABLES, State.UNKNOWN, around.unknown.get("variables", "they could not be asked for"))
    if around.secrets_unknown and any(each.source == "secret" for _, each in _read(facts)):
        yield facts.seen(Hop.VARIABLES, State.UNKNOWN, around.secrets_unknown)
    yield from _settled(facts)


def _with_command(facts: Facts, found: Finding) -> Finding:
    """Return what a rule has found with the command that mends it, which needs to know the environment."""
    around = facts.around
    if found.change:
        return found
    if found.rule == "tunnel-variable-set":
        change = delete_variable(around, PROXY_HOST) or f"unset {PROXY_HOST}"
        return replace(found, change=change, file="", line=0, column=0)  # the file has nothing to do with it
    if found.rule == "secret-reads-variable" and around.environment:
        read = next(
            (e for _, e in _read(facts) if e.source == "secret" and not e.found and around.named(e.written)), None
        )
        if read is not None and (delete := delete_variable(around, read.written)):
            return replace(found, change=f"{delete}\n{set_variable(around, read.written, secret=True)}")
    return found


def _read(facts: Facts) -> list[tuple[str, Lookup]]:
    """Return each variable that a property of the mail service reads, once, with that property."""
    found: dict[tuple[str, str], tuple[str, Lookup]] = {}
    for name in NAMES:
        for each in _lookups(facts.explained.get(name)):
            if each.source in _KINDS and not each.nested and "$[" not in each.written:
                found.setdefault((each.source, each.written), (name, each))
    return list(found.values())


def _judge(facts: Facts, name: str, lookup: Lookup) -> Iterator[Finding]:
    """Judge one variable that a property reads."""
    around, secret = facts.around, _KINDS[lookup.source]
    if lookup.written == PROXY_HOST:
        return
    entries = [each for each in around.named(lookup.written) if each.secret == secret]
    effective = [each for each in entries if each.serves(around.service)]
    shown = f"{lookup.written} ({'secret' if secret else 'variable'})"
    if around.variables is None and around.environment:
        return
    if not effective and entries:
        services = " and ".join(sorted(each.service for each in entries))
        text = f"{name} reads {shown}, which is set for {services} only, not for {around.service}"
        remedy = f"set it for {around.service} too, or for all services"
        yield facts.broken(
            Hop.VARIABLES,
            "variable-service",
            text,
            remedy,
            set_variable(around, lookup.written, secret=secret, service=around.service),
            at=name,
        )
    elif effective and not any(each.in_force for each in effective):
        yield _not_in_force(facts, name, lookup, effective[0])
    elif effective and any(each.status in ("creating", "updating") for each in effective):
        text = f"{shown} is {effective[0].status}: applications have it once that is over"
        yield facts.broken(
            Hop.VARIABLES, "variable-moving", text, "wait until its status is ready", at=name, warning=True
        )
    elif not effective and not lookup.found and not lookup.defaulted and not around.named(lookup.written):
        yield _not_set(facts, name, lookup)


def _not_set(facts: Facts, name: str, lookup: Lookup) -> Finding:
    around, secret = facts.around, _KINDS[lookup.source]
    text = f"nothing is set for $[{lookup.source}:{lookup.written}], which {name} reads: it stays as it is written"
    remedy = "set it in the environment" if secret else "set it in the environment, or give the placeholder a default"
    change = set_variable(around, lookup.written, secret=secret)
    if not around.environment and around.variables is None:
        remedy = "start the doctor with what the environment gives (outgate environment run), or name the environment"
        change = "outgate environment run PROGRAM ENVIRONMENT -- outgate doctor"
    elif like := around.like(lookup.written, secret=secret):
        text += f"; {like.name} is set"
        remedy = f"read {like.name}, if that is meant; else set {lookup.written} too"
        change = facts.reading(name, lookup, like) or change
    return facts.broken(Hop.VARIABLES, "variable-missing", text, remedy, change, at=name)


def _not_in_force(facts: Facts, name: str, lookup: Lookup, found: Variable) -> Finding:
    text = f"{name} reads {lookup.written}, whose status is {found.status}: applications do not have it"
    remedy = "set it once more, when no pipeline and no update runs"
    if found.status == "ignored":
        remedy = "give it another name: INTERNAL_, ADOBE_ and CONST_ are not yours"
    return facts.broken(
        Hop.VARIABLES,
        "variable-failed",
        text,
        remedy,
        set_variable(facts.around, lookup.written, secret=found.secret, service=found.service),
        at=name,
    )


def _overview(facts: Facts) -> Finding:
    """Say which variables are read, and that no more is wrong with them."""
    told = list[str]()
    read = [each for _, each in _read(facts)]
    for source, what in (("env", ""), ("secret", "secrets: ")):
        names = [each.written for each in read if each.source == source and not each.defaulted]
        told += [f"{what}{', '.join(names)}"] if names else []
    return facts.seen(Hop.VARIABLES, State.OK, "; ".join(told) or ("none is set" if read else "none is read"))


def _blind(facts: Facts) -> frozenset[str]:
    """Return the properties whose values cannot be known: a secret that nobody tells, variables that nobody lists."""
    around = facts.around
    found = set[str]()
    for name, explained in facts.explained.items():
        for each in explained.lookups:
            opaque = each.source == "secret" and each.found and around.secrets_unknown
            unlisted = each.source in _KINDS and not each.found and around.environment and around.variables is None
            if opaque or (unlisted and each.written != PROXY_HOST):
                found.add(name)
    return frozenset(found)


def _settled(facts: Facts) -> Iterator[Finding]:
    """Make the mail service's settings, if what is needed for a connection is known."""
    assert facts.look is not None
    missing = [name for name in _NEEDED if name in facts.blind]
    if missing:
        text = f"{' and '.join(missing)} cannot be known from here, so the way cannot be followed"
        yield facts.seen(Hop.VARIABLES, State.UNKNOWN, text)
        return
    raw = {each.name: each.value for each in facts.look.properties.values()}
    # What cannot be known is left as it is known to be set.
    known = {name: Value("String", "unknown") if name.lower() in facts.blind else value for name, value in raw.items()}
    try:
        facts.config = settle(known, env=facts.around.env, secrets=facts.around.secrets)
    except ConfigError as error:
        hop = {"smtp.password": Hop.AUTH, "from.address": Hop.SENDER}.get(error.name, Hop.VARIABLES)
        where = f"{error.name}: " if error.name else ""
        told = next((e for e in facts.traps if error.name and e.state is State.BROKEN and error.name in e.text), None)
        yield told or facts.broken(
            hop,
            "not-usable",
            f"{where}{error.text}",
            "correct the property, or the variable that it reads",
            at=error.name,
        )


# -- both ------------------------------------------------------------------------------------------------------


def _trapped(facts: Facts, hop: Hop) -> Iterator[Finding]:
    """Give what the rules on files have found at a hop, what breaks the way last."""
    yield from sorted(facts.trapped(hop), key=lambda each: each.state is State.BROKEN)


def _of_error(hop: Hop, rule: str, error: ConfigError, remedy: str, change: str = "") -> Finding:
    return Finding(hop, State.BROKEN, error.text, rule, remedy, change, error.file, error.line, error.column)
