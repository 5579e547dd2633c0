"""`outgate access allow-list`: the legacy list of networks that SMTP lets in to an instance until a day.

Standards: none.
Promises: what is added or removed is so in the list that was read: one that somebody changed meanwhile is not written
    over; a list that ends soon says so on standard error whenever it is shown.
Dangers: what is in the list comes in whatever the rules say.
Not here: what may stand in it (`api.restrictions`), what it lets in (`relay.access`).
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from outgate.cli.calling import (
    NOT_AS_WANTED,
    WRONG_USE,
    Data,
    Json,
    call,
    clean,
    complain,
    fail,
    given,
    print_fields,
    print_json,
    print_table,
    reach,
    tagged,
)
from outgate.connection import Api

commands = typer.Typer(
    no_args_is_help=True, help="The legacy list of networks that may send to an instance, until a day."
)

Networks = Annotated[list[str], typer.Argument(metavar="NETWORK...", help="192.0.2.1, 192.0.2.0/24 or first-last.")]
Instance = Annotated[
    str | None, typer.Option("--instance", metavar="ID", help="Whose list.", show_default="that of `outgate dev`")
]
Until = Annotated[
    str | None, typer.Option(help="90d, 2027-01-31 (to its end, UTC) or a time.", show_default="as it is")
]
Note = Annotated[str | None, typer.Option(help="What it is for.", show_default="as it is")]


@commands.command("show")
def show(
    instance: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this instance, whole.", show_default="all of the account")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show an instance's list, or which instances have one."""
    if instance is not None:
        given(instance, "--instance")
    api = reach(data)
    if instance is not None:
        _print(call(api, "GET", _url(api, instance)), as_json)
        return
    found = call(api, "GET", api.restrictions(f"v1/allow_lists?{urlencode({'account_id': api.dev['account_id']})}"))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["instance_id"], len(each["networks"]), each["ends_at"], each["ends_in_days"], each["note"])
        for each in found["allow_lists"]
    ]
    print_table(("INSTANCE", "NETWORKS", "ENDS", "DAYS LEFT", "NOTE"), rows)
    for each in found["allow_lists"]:
        _warn(each)


@commands.command("set")
def replace(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NETWORK", help="192.0.2.1, 192.0.2.0/24 or first-last.", show_default="as it is"),
    ] = None,
    until: Until = None,
    note: Note = None,
    instance: Instance = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make the list, or replace its networks, its end, or both."""
    wanted = [_network(each) for each in networks or ()]
    ends_at = _end(until)
    api = reach(data)
    url = _url(api, instance)
    found, tag = tagged(api, "GET", url, optional=True)
    if not wanted and found is None:
        fail("a list needs networks: name one at least", WRONG_USE)
    _put(api, url, found, tag, wanted or found["networks"], ends_at, note, as_json)


@commands.command("add")
def add(
    networks: Networks,
    until: Until = None,
    note: Note = None,
    instance: Instance = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add networks to the list."""
    wanted = [_network(each) for each in networks]
    ends_at = _end(until)
    api = reach(data)
    url = _url(api, instance)
    found, tag = tagged(api, "GET", url, optional=True)
    held = [] if found is None else found["networks"]
    _put(api, url, found, tag, [*held, *wanted], ends_at, note, as_json)


@commands.command("remove")
def remove(networks: Networks, instance: Instance = None, data: Data = None, as_json: Json = False) -> None:
    """Take networks out of the list, each as it stands there."""
    unwanted = [_network(each) for each in networks]
    api = reach(data)
    url = _url(api, instance)
    found, tag = tagged(api, "GET", url, optional=True)
    held = _there(found)["networks"]
    missing = [each for each in unwanted if each not in held]
    if missing:
        fail(f"{', '.join(missing)} is not in the list: `outgate access allow-list show` shows it", NOT_AS_WANTED)
    left = [each for each in held if each not in unwanted]
    if not left:
        fail("a list is never empty: `outgate access allow-list end` ends it", NOT_AS_WANTED)
    _put(api, url, found, tag, left, None, None, as_json)


@commands.command("end")
def end(instance: Instance = None, data: Data = None) -> None:
    """End the list now: who came in by it only is out within two seconds, open sessions too."""
    api = reach(data)
    url = _url(api, instance)
    found, tag = tagged(api, "GET", url, optional=True)
    _there(found)
    tagged(api, "DELETE", url, tag=tag)
    print("The allow-list has ended.")


def _put(
    api: Api,
    url: str,
    found: dict[str, Any] | None,
    tag: str,
    networks: list[str],
    ends_at: str | None,
    note: str | None,
    as_json: bool,
) -> None:
    """Make or replace the list; what is None stays as it was."""
    if ends_at is None and (found is None or found["ended"]):
        fail("a list needs an end that is to come: --until 90d, or a date", WRONG_USE)
    held = found or {"note": ""}
    body = {
        "networks": networks,
        "ends_at": held["ends_at"] if ends_at is None else ends_at,
        "note": held["note"] if note is None else note,
    }
    _print(tagged(api, "PUT", url, body, tag)[0], as_json)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    fields = [(name, found[name]) for name in ("instance_id", "ends_at", "ends_in_days", "note")]
    print_fields([*fields, ("changed", found["last_modified_at"]), ("by", found["last_modified_by_id"])])
    for network in found["networks"]:
        print(f"  {clean(network)}")
    _warn(found)


def _warn(found: dict[str, Any]) -> None:
    if found["warning"]:
        complain(f"the allow-list of instance {found['instance_id']} {found['warning']}")


def _there(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        fail("the instance has no allow-list: `outgate access allow-list set` makes one", NOT_AS_WANTED)
    return found


def _url(api: Api, instance: str | None) -> str:
    named = api.dev["instance_id"] if instance is None else given(instance, "--instance")
    return api.restrictions(f"v1/allow_lists/{quote(named, safe='')}")


def _network(text: str) -> str:
    """Return a network as the list spells it, or exit."""
    from ipaddress import ip_address, ip_network

    first, dash, last = text.partition("-")
    try:
        if dash:
            low, high = ip_address(first.strip()), ip_address(last.strip())
            return str(low) if low == high else f"{low}-{high}"
        network = ip_network(text.strip())
    except ValueError as error:
        fail(f"{text!r} is no network ({error}): write 192.0.2.1, 192.0.2.0/24 or first-last", WRONG_USE)
    return str(network[0]) if network.num_addresses == 1 else str(network)


def _end(until: str | None) -> str | None:
    from outgate.base.clock import SystemClock
    from outgate.cli.when import BadTime, end_date

    try:
        return None if until is None else end_date(until, SystemClock().now())
    except BadTime as error:
        fail(f"--until {error}", WRONG_USE)
