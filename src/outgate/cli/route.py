"""`outgate route`: the ways by which a configuration's mail goes out.

Standards: none.
Promises: `set` takes what `list --json` prints; a route that does not work ends `test` with 1, after every step that
was made.
Dangers: a file with a password in it is readable by whoever may read the file: it can come on standard input.
Not here: what routes do (`relay.transports`), the calls (`api.event_notifications.routes`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from outgate.cli.calling import (
    NOT_AS_WANTED,
    WRONG_USE,
    Configuration,
    Data,
    Json,
    call,
    configuration,
    fail,
    given,
    print_fields,
    print_json,
    print_table,
    reach,
)

commands = typer.Typer(no_args_is_help=True, help="The ways by which mail goes out: direct, smart hosts, forwards.")


@commands.command("list")
def listed(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """List a configuration's routes, the preferred one first."""
    api = reach(data)
    found = call(api, "GET", api.configurations(f"{configuration(api, config)['id']}/routes"))
    _print(found, as_json)


@commands.command("set")
def replace(
    config: Configuration,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-",
            help='JSON: {"routes": [...]}, or the list alone, as `list --json` prints it; -: standard input.',
            show_default=False,
        ),
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Go by the installation's routes again.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Replace a configuration's routes (role operator)."""
    if default == (file is not None):
        fail("name a file with the routes, or say --default", WRONG_USE)
    wanted: Any = [] if file is None else _read(file)
    if isinstance(wanted, dict):
        wanted = wanted.get("routes")
    api = reach(data)
    url = api.configurations(f"{configuration(api, config)['id']}/routes")
    _print(call(api, "PUT", url, {"routes": wanted}), as_json)


@commands.command("test")
def test(
    config: Configuration,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="A route's name.")],
    domain: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="As for mail to this domain (direct).", show_default=False)
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Try a route without a message: connect, EHLO, TLS, AUTH, QUIT (role operator)."""
    api = reach(data)
    name = quote(given(route, "the route"), safe="")
    url = api.configurations(f"{configuration(api, config)['id']}/routes/{name}/test")
    found = call(api, "POST", url, {} if domain is None else {"domain": given(domain, "--domain")})
    if as_json:
        print_json(found)
    else:
        print_table(("AT", "DID", "ANSWER"), [(step["at"], step["did"], step["reply"]) for step in found["steps"]])
        print_fields([("route", found["route"]), ("site", found["site"]), ("tls", found["tls"])])
    if not found["ok"]:
        fail(f"route {found['route']} does not work ({found['reason']}): {found['text']}", NOT_AS_WANTED)


@commands.command("sources")
def sources(data: Data = None, as_json: Json = False) -> None:
    """List the addresses that mail leaves from; one that is suspended ends this with 1 (role operator)."""
    api = reach(data)
    found = call(api, "GET", api.operations("sources"))
    if as_json:
        print_json(found)
    else:
        rows = [
            (each["address"], ", ".join(each["endpoints"]), each["state"], each["since"], each["reason"])
            for each in found["sources"]
        ]
        print_table(("ADDRESS", "ENDPOINTS", "STATE", "SINCE", "REASON"), rows)
    bad = [each for each in found["sources"] if each["state"] == "suspended"]
    if bad:
        fail(f"{', '.join(each['address'] for each in bad)} suspended: {bad[0]['remedy']}", NOT_AS_WANTED)


@commands.command("health")
def health(data: Data = None, as_json: Json = False) -> None:
    """List the ways out that have failed of late, those that rest first (role operator)."""
    api = reach(data)
    found = call(api, "GET", api.operations("ways"))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["type"], " ".join(each["place"]), each["score"], each["failures"], each["reason"], each["try_at"])
        for each in found["ways"]
    ]
    print_table(("TYPE", "PLACE", "SCORE", "FAILURES", "LAST", "TRIED AGAIN"), rows)


def _read(file: str) -> Any:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", WRONG_USE)
    except ValueError as error:
        fail(f"{file} is not JSON: {error}", WRONG_USE)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found["routes"]:
        print(f"{found['domain']} has no routes of its own; it goes by: {', '.join(found['in_force'])}")
        return
    rows = [(each["name"], each["type"], _leads_to(each), _secured(each), _login(each)) for each in found["routes"]]
    print_table(("NAME", "TYPE", "TO", "TLS", "LOGIN"), rows)


def _leads_to(route: dict[str, Any]) -> str:
    if route["type"] == "smart_host":
        return f"{route['host']}:{route['port']}"
    if route["type"] == "egress_forward":
        return f"environment {route['environment_id']} port {route['port_orig']}"
    return "the domain's own hosts"


def _secured(route: dict[str, Any]) -> str:
    if route["type"] == "direct":
        return ""
    sure = route["tls"] in ("starttls", "implicit")
    return route["tls"] + ("" if not sure or route["verify"] else ", any certificate")


def _login(route: dict[str, Any]) -> str:
    return route.get("username") or ""
