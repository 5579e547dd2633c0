"""`outgate queue`: what waits and why, and what an operator can do about it.

Standards: none.
Promises: a verb without a selection is refused; cancelling more than one message asks first; an answer says what
    changed, what is under way, and what was left alone and why.
Dangers: a cancelled message is gone, and its sender is not told.
Not here: the live table (`queue_top`), what the verbs do (`relay.operators`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from outgate.cli.calling import (
    NOT_AS_WANTED,
    UNREACHABLE,
    WRONG_USE,
    Data,
    Json,
    call,
    clean,
    columns,
    configuration,
    fail,
    given,
    one_of,
    print_json,
    print_table,
    reach,
    shortened,
)
from outgate.connection import Api

commands = typer.Typer(help="The queue: which sites mail waits for and why; hold, release, retry, cancel, reroute.")

HEADS = ("SITE", "WAITING", "READY", "DEFERRED", "HELD", "UNDER WAY", "OLDEST", "NEXT", "WHY")
WIDE = 120
"""Columns of a terminal from which a site's row has room for why."""
_NARROW = (0, 1, 3, 4, 6, 7)
"""What a narrower one shows in a row; why stands below it."""


class Sort(StrEnum):
    """What comes first."""

    DEPTH = "depth"
    AGE = "age"


Messages = Annotated[
    list[str] | None, typer.Option("--message", metavar="ID", help="A queue id; give several.", show_default=False)
]
Config = Annotated[
    str | None,
    typer.Option("--config", metavar="CONFIG", help="A configuration's domain or id.", show_default=False),
]
Site = Annotated[str | None, typer.Option("--site", help="A site, as `outgate queue` shows it.", show_default=False)]
Domain = Annotated[str | None, typer.Option("--domain", help="The recipients' domain.", show_default=False)]
Instance = Annotated[
    str | None, typer.Option("--instance", metavar="ID", help="An instance's mail only.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the trail.", show_default=False)]
SortBy = Annotated[
    Sort, typer.Option("--sort", parser=one_of(Sort), metavar="depth|age", help="The deepest first, or the oldest.")
]
Limit = Annotated[int, typer.Option(min=1, max=100, help="How many sites.")]


@commands.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    sort: SortBy = Sort.DEPTH,
    limit: Limit = 20,
    config: Config = None,
    domain: Domain = None,
    instance: Instance = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show the sites that mail waits for: how much, since when, until when, and why."""
    if context.invoked_subcommand is not None:
        return
    api = operations(data)
    wanted = _Selection((), config, None, domain, instance).query(api)
    found = call(api, "GET", queue_url(api, sort=sort, limit=limit, **wanted))
    if as_json:
        print_json(found)
        return
    if not found["sites"]:
        print("Nothing waits.")
        return
    room = columns()
    if room is not None and room < WIDE:
        print("\n".join(narrow(found["sites"], room)))
    else:
        print_table(HEADS, [cells(site) for site in found["sites"]], cut=True)
    print(summary(found))


@commands.command("messages")
def messages(
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List the recipients that mail waits for, the oldest first."""
    api = operations(data)
    wanted = _Selection(tuple(message or ()), config, site, domain, instance).query(api)
    url = f"{api.operations('queue/messages')}?{urlencode({'limit': limit, **wanted}, doseq=True)}"
    found = call(api, "GET", url)
    if as_json:
        print_json(found)
        return
    if not found["recipients"]:
        print("Nothing waits.")
        return
    rows = [
        (
            each["queue_id"],
            each["recipient"],
            "under way" if each["under_way"] else each["status"],
            each["attempts"],
            _moment(each["next_attempt_at"]),
            each["site"] or each["domain"],
            each["route"],
            _why(each),
        )
        for each in found["recipients"]
    ]
    print_table(("QUEUE ID", "RECIPIENT", "STATUS", "TRIES", "NEXT", "SITE", "ROUTE", "WHY"), rows)
    print(f"{len(rows)} of {found['total_count']}")


@commands.command("hold")
def hold(
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    reason: Reason = "",
    now_only: Annotated[bool, typer.Option("--now-only", help="Only what is there now, not what comes.")] = False,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Hold mail until it is released; of a site, domain, configuration or instance also what comes."""
    wanted = _Selection(tuple(message or ()), config, site, domain, instance)
    more = {"standing": False} if now_only else {}
    _give("hold", wanted, {"reason": reason, **more}, dry_run=dry_run, data=data, as_json=as_json)


@commands.command("release")
def release(
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """End operators' holds: what they held is due now."""
    wanted = _Selection(tuple(message or ()), config, site, domain, instance)
    _give("release", wanted, {"reason": reason}, dry_run=dry_run, data=data, as_json=as_json)


@commands.command("retry")
def retry(
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Try what waits now, whenever its next attempt was to be."""
    wanted = _Selection(tuple(message or ()), config, site, domain, instance)
    _give("retry", wanted, {"reason": reason}, dry_run=dry_run, data=data, as_json=as_json)


@commands.command("cancel")
def cancel(
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """End mail for good; its sender is not told."""
    wanted = _Selection(tuple(message or ()), config, site, domain, instance)
    _give("cancel", wanted, {"reason": reason}, dry_run=dry_run, data=data, as_json=as_json, ask=not yes)


@commands.command("reroute")
def reroute(
    route: Annotated[
        str, typer.Argument(metavar="ROUTE", help="direct, a route of the configuration, or usual: the usual order.")
    ],
    message: Messages = None,
    config: Config = None,
    site: Site = None,
    domain: Domain = None,
    instance: Instance = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Send what waits another way, now."""
    wanted = _Selection(tuple(message or ()), config, site, domain, instance)
    name = "" if given(route, "the route") == "usual" else route
    _give("reroute", wanted, {"reason": reason, "route": name}, dry_run=dry_run, data=data, as_json=as_json)


@commands.command("holds")
def holds(data: Data = None, as_json: Json = False) -> None:
    """List the holds that stand: on what, by whom, since when, why."""
    api = operations(data)
    found = call(api, "GET", api.operations("holds"))
    if as_json:
        print_json(found)
        return
    if not found["holds"]:
        print("No hold stands.")
        return
    rows = [(_words(each["selection"]), each["by"], each["since"], each["reason"]) for each in found["holds"]]
    print_table(("HELD", "BY", "SINCE", "WHY"), rows)


@commands.command("top")
def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    sort: SortBy = Sort.DEPTH,
    data: Data = None,
) -> None:
    """Watch the queue live; q or Ctrl-C ends it. Without a terminal it is shown once."""
    from outgate.cli import queue_top

    api = operations(data)
    queue_top.run(lambda size: call(api, "GET", queue_url(api, sort=sort, limit=size)), interval, once=once)


def operations(data: Any) -> Api:
    """Return the calls to a running Outgate that has the operations API, or exit."""
    api = reach(data)
    if "operations_url" not in api.dev:
        fail("dev.json lacks operations_url: an older `outgate dev` wrote it; start it again", UNREACHABLE)
    return api


def queue_url(api: Api, **wanted: object) -> str:
    """Return the URL of the sites that are wanted."""
    return f"{api.operations('queue')}?{urlencode(wanted)}"


def cells(site: dict[str, Any]) -> tuple[object, ...]:
    """Return what a table shows of a site."""
    return (
        site["site"],
        site["recipients"],
        site["ready"],
        site["deferred"],
        site["held"],
        site["under_way"],
        "" if site["oldest_age_s"] is None else span(site["oldest_age_s"]),
        _moment(site["next_attempt_at"]),
        site["why"],
    )


def narrow(sites: Sequence[dict[str, Any]], room: int) -> list[str]:
    """Return a table for a terminal of `room` columns: the heads, then two lines a site, the second says why."""
    rows = [HEADS, *(cells(site) for site in sites)]
    texts = [[clean(str(row[column])) for column in _NARROW] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(_NARROW))]
    widths[0] = min(widths[0], max(8, room - sum(widths[1:]) - 2 * (len(_NARROW) - 1)))
    lines: list[str] = []
    for row, text in zip(rows, texts, strict=True):
        cut = (shortened(cell, width).ljust(width) for cell, width in zip(text, widths, strict=True))
        lines.append(shortened("  ".join(cut).rstrip(), room))
        if row is not HEADS:
            lines.append(shortened(f"    {clean(str(row[-1]))}".rstrip(), room))
    return lines


def summary(found: dict[str, Any]) -> str:
    """Return the sums in one line."""
    shown = len(found["sites"])
    return (
        f"{shown} of {found['total_count']} sites; {found['recipients']} recipients: {found['ready']} ready,"
        f" {found['deferred']} deferred, {found['held']} held, {found['under_way']} under way"
    )


def span(seconds: int) -> str:
    """Return a length of time as short as it can be read."""
    for size, sign, lower, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            rest = seconds % size // lower
            return f"{seconds // size}{sign}{rest}{below}" if rest else f"{seconds // size}{sign}"
    return f"{seconds}s"


def _moment(text: str | None) -> str:
    """Return a time of today without its date."""
    if not text:
        return ""
    today = datetime.now(UTC).date().isoformat()
    date, _, clock = text.partition("T")
    return clock.removesuffix("Z").partition(".")[0] if date == today else f"{date} {clock[:5]}"


def _why(recipient: dict[str, Any]) -> str:
    """Return why a recipient waits; what a server said before it was held is not why."""
    if recipient["status"] == "held":
        return f"held: {recipient['reason']}"
    return ": ".join(part for part in (recipient["reason"], recipient["reply"]) if part)


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which mail, as a person typed it."""

    messages: tuple[str, ...]
    config: str | None
    site: str | None
    domain: str | None
    instance: str | None

    def body(self, api: Api) -> dict[str, Any]:
        """Return it as a verb takes it, or exit if it is empty or names what is not there."""
        found: dict[str, Any] = {}
        if self.messages:
            found["queue_ids"] = [given(each, "--message") for each in self.messages]
        if self.config is not None:
            found["smtp_config_id"] = configuration(api, self.config)["id"]
        for name, value in (("site", self.site), ("domain", self.domain), ("instance_id", self.instance)):
            if value is not None:
                found[name] = given(value, f"--{name.removesuffix('_id')}")
        return found

    def query(self, api: Api) -> dict[str, Any]:
        """Return it as a list takes it."""
        found = self.body(api)
        if "queue_ids" in found:
            found["queue_id"] = found.pop("queue_ids")
        return found


def _give(
    verb: str,
    wanted: _Selection,
    more: dict[str, Any],
    *,
    dry_run: bool,
    data: Any,
    as_json: bool,
    ask: bool = False,
) -> None:
    """Give an order, or exit; `ask` first if it is for more than one message."""
    api = operations(data)
    selection = wanted.body(api)
    if not selection:
        fail(f"say which mail to {verb}: --message, --config, --site, --domain or --instance", WRONG_USE)
    url = api.operations(f"queue/{verb}")
    if ask and not dry_run:
        _ask(call(api, "POST", url, {"selection": selection, **more, "dry_run": True}), verb, selection)
    found = call(api, "POST", url, {"selection": selection, **more, "dry_run": dry_run})
    if as_json:
        print_json(found)
        return
    print(clean(_came_to(found)))


def _ask(would: dict[str, Any], verb: str, selection: dict[str, Any]) -> None:
    recipients = would["changed"] + would["under_way"]
    if would["messages"] + would["under_way"] <= 1:
        return
    question = f"{verb} {recipients} recipient(s) ({_words(selection)})?"
    if not _somebody():
        fail(f"{question} Nobody is there to be asked: add --yes", WRONG_USE)
    if not typer.confirm(clean(question), err=True):
        fail("nothing was done", NOT_AS_WANTED)


def _somebody() -> bool:
    """Say whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


_DONE = {
    "hold": ("held", "would be held"),
    "release": ("released", "would be released"),
    "retry": ("to be tried now", "would be tried now"),
    "cancel": ("cancelled", "would be cancelled"),
    "reroute": ("rerouted", "would be rerouted"),
}


def _came_to(found: dict[str, Any]) -> str:
    """Return in a line what an order came to."""
    verb = found["verb"]
    if not any(found[count] for count in ("changed", "under_way", "held", "kept", "final", "standing")):
        return f"nothing to {verb}: no mail that waits is what was named (`outgate queue` shows what waits)"
    parts = [f"{found['changed']} recipient(s) of {found['messages']} message(s) {_DONE[verb][found['dry_run']]}"]
    if found["under_way"]:
        later = {
            "hold": "held if they come back",
            "cancel": "cancelled if they come back, too late for what is being sent",
            "reroute": "rerouted if they come back",
        }
        parts.append(f"{found['under_way']} under way: {later.get(verb, 'left alone')}")
    if found["held"]:
        remedy = {
            "hold": "held already",
            "release": "held for another reason (`outgate queue` shows it)",
        }.get(verb, "held: release them first")
        parts.append(f"{found['held']} {remedy}")
    if found["kept"]:
        parts.append(f"{found['kept']} stay held, for another hold stands (`outgate queue holds`)")
    if found["final"]:
        parts.append(f"{found['final']} done with already")
    if found["standing"]:
        parts.append("what comes is held too, until it is released")
    return "; ".join(parts)


def _words(selection: dict[str, Any]) -> str:
    names = {"queue_ids": "message", "smtp_config_id": "config", "instance_id": "instance"}
    said = [
        f"{names.get(name, name)} {each}"
        for name, value in selection.items()
        for each in (value if isinstance(value, list) else [value])
        if each
    ]
    return ", ".join(said)
