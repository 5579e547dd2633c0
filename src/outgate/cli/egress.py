"""`outgate egress`: how the egress stands, and what operators decide about it.

Standards: none.
Promises: every list has `--json`; no line is wider than the terminal: names in rows are cut, what is said below a row
    goes on in the next line; a change prints what is so now.
Dangers: names and addresses are shown in full.
Not here: `serve`, `test` and `witness` (modules of their own), the lines (`egress_tables`), what the verbs do
    (`api.operations.egress`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode

import typer

from outgate.cli import egress_serve, egress_tables, egress_test, egress_witness
from outgate.cli.calling import (
    NOT_AS_WANTED,
    UNREACHABLE,
    WRONG_USE,
    Data,
    Json,
    call,
    clean,
    columns,
    fail,
    given,
    paged,
    print_json,
)
from outgate.cli.queue import operations
from outgate.connection import Api, default_data
from outgate.net import guard

commands = typer.Typer(
    no_args_is_help=True,
    help="The egress gateway: what is in force, where environments are, addresses, the guard's exceptions, the audit.",
)
_environment = typer.Typer(no_args_is_help=True, help="One environment.")
_exceptions = typer.Typer(no_args_is_help=True, help="What the guard lets through though it is not public.")
commands.add_typer(_environment, name="environment")
commands.add_typer(_exceptions, name="exceptions")
commands.command()(egress_serve.serve)
commands.command()(egress_witness.witness)
commands.command()(egress_test.test)

_SOCKET = "egress.sock"

_Environment = Annotated[
    str | None, typer.Option("--environment", metavar="ID", help="Only this environment.", show_default=False)
]
_StatusData = Annotated[
    Path | None,
    typer.Option("--data", help="Data directory of `outgate dev` or `outgate egress serve`.", show_default=False),
]
_Socket = Annotated[
    Path | None, typer.Option("--socket", metavar="FILE", help="Its egress.sock, to ask directly.", show_default=False)
]


@commands.command("status")
def status(
    environment: _Environment = None,
    data: _StatusData = None,
    socket: _Socket = None,
    as_json: Json = False,
) -> None:
    """Show what is in force: forwards and proxies with live and total figures, refusals, and what is not and why."""
    found = _document(data, socket)
    if environment is not None:
        wanted = given(environment, "--environment")
        found["environments"] = [each for each in found["environments"] if each["environment"] == wanted]
        if not found["environments"]:
            fail(f"there is no environment {wanted}: `outgate egress status` shows those there are", NOT_AS_WANTED)
    if as_json:
        print_json(found)
        return
    _print(egress_tables.status(found, columns()))


@commands.command("environments")
def environments(data: Data = None, as_json: Json = False) -> None:
    """List the environments of all programs: tunnel address, client networks, state, and why it failed."""
    api = operations(data)
    found = list(paged(api, api.operations("egress/environments"), "environments"))
    if as_json:
        print_json({"environments": found})
        return
    _print(egress_tables.environments(found, columns()) if found else ["There is no environment."])


@_environment.command("set")
def environment_set(
    environment: Annotated[str, typer.Argument(metavar="ID", help="The environment's id.")],
    tunnel_address: Annotated[
        str | None,
        typer.Option("--tunnel-address", help="What `proxy.tunnel` means to its applications.", show_default=False),
    ] = None,
    client_network: Annotated[
        list[str] | None,
        typer.Option("--client-network", help="Where they dial from; give several, all of them.", show_default=False),
    ] = None,
    no_clients: Annotated[bool, typer.Option("--no-clients", help="Let nobody dial.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Set where an environment is: its tunnel address, and all networks that its applications dial from."""
    if no_clients and client_network:
        fail("--no-clients and --client-network exclude each other", WRONG_USE)
    body: dict[str, Any] = {}
    if tunnel_address is not None:
        body["tunnelAddress"] = given(tunnel_address, "--tunnel-address")
    if client_network or no_clients:
        body["clientNetworks"] = [given(each, "--client-network") for each in client_network or ()]
    if not body:
        fail("say what to set: --tunnel-address, --client-network (several) or --no-clients", WRONG_USE)
    api = operations(data)
    place = quote(given(environment, "the environment"), safe="")
    found = call(api, "PATCH", api.operations(f"egress/environments/{place}"), body)
    if as_json:
        print_json(found)
        return
    _print(egress_tables.environments([found], columns()))


@commands.command("addresses")
def addresses(data: Data = None, as_json: Json = False) -> None:
    """List the addresses that leave: whose they are, whether they are proven, and how full their source ports are."""
    api = operations(data)
    found = call(api, "GET", api.operations("egress/addresses"))
    if as_json:
        print_json(found)
        return
    _print(egress_tables.addresses(found, columns()))


@_exceptions.command("list")
def exceptions_list(data: Data = None, as_json: Json = False) -> None:
    """List what the guard lets through, for whom, since when, by whom and why."""
    found = _all_exceptions(operations(data))
    if as_json:
        print_json(found)
        return
    if not found["exceptions"]:
        print("The guard lets nothing through that is not public.")
        return
    _print(egress_tables.exceptions(found["exceptions"], columns()))


@_exceptions.command("add")
def exceptions_add(
    entry: Annotated[
        str, typer.Argument(metavar="ENTRY", help="An address, a network, a name, or '*.domain' for names below it.")
    ],
    environment: Annotated[
        str, typer.Option("--environment", metavar="ID", help="Only for this one.", show_default=False)
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the next operator.", show_default=False)] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let a network or a name through, for one environment or for all; connections that begin from now on."""
    api = operations(data)
    body = {"entry": given(entry, "the entry"), "environment": environment, "reason": reason}
    made = call(api, "POST", api.operations("egress/exceptions"), body)
    if as_json:
        print_json(made)
        return
    _print(egress_tables.exceptions([made], columns()))


@_exceptions.command("remove")
def exceptions_remove(
    exception: Annotated[str, typer.Argument(metavar="ID|ENTRY", help="Its id, or the entry if it stands once.")],
    data: Data = None,
) -> None:
    """Take an exception away: new connections are judged without it, open ones are drained."""
    api = operations(data)
    name = given(exception, "the exception")
    known = {name, _spelt(name)}
    found = [each for each in _all_exceptions(api)["exceptions"] if not known.isdisjoint((each["id"], each["entry"]))]
    if not found:
        fail(f"there is no exception {name}: `outgate egress exceptions list` shows those there are", NOT_AS_WANTED)
    stored = [each for each in found if each["id"] is not None]
    if not stored:
        fail(f"{name} is let through by a setting: take it out of egress.guard_exceptions and restart", NOT_AS_WANTED)
    if len(stored) > 1:
        fail(f"{name} stands {len(stored)} times: name one by its id, {', '.join(e['id'] for e in stored)}", WRONG_USE)
    call(api, "DELETE", api.operations(f"egress/exceptions/{quote(stored[0]['id'], safe='')}"))
    whose = f"environment {stored[0]['environment']}" if stored[0]["environment"] else "all environments"
    print(clean(f"{stored[0]['entry']} is no longer let through for {whose}; open connections are drained"))


@commands.command("audit")
def audit(
    environment: _Environment = None,
    refusal: Annotated[
        str | None, typer.Option("--refusal", metavar="CLASS", help="Only refusals of this class.", show_default=False)
    ] = None,
    client: Annotated[
        str | None, typer.Option("--client", metavar="ADDRESS[:PORT]", help="Only of this client.", show_default=False)
    ] = None,
    before: Annotated[
        float | None, typer.Option("--before", metavar="SECONDS", help="Only older lines.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many lines.")] = 20,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what was let through and what was refused: the newest lines, the newest last."""
    api = operations(data)
    wanted: dict[str, object] = {"limit": limit}
    for name, value in (("environment", environment), ("refusal", refusal), ("client", client)):
        if value is not None:
            wanted[name] = given(value, f"--{name}")
    if before is not None:
        wanted["before"] = repr(before)
    found = call(api, "GET", f"{api.operations('egress/audit')}?{urlencode(wanted)}")
    if as_json:
        print_json(found)
        return
    if not found["lines"]:
        print("No line is like that.")
    _print(egress_tables.audit(found["lines"], columns()))
    if found["older"] is not None:
        print(f"older ones: --before {found['older']!r}")


def _spelt(entry: str) -> str:
    """Return an entry as it is stored, for what was typed when it was added."""
    with contextlib.suppress(ValueError):
        return guard.spelt(entry)
    return entry


def _all_exceptions(api: Api) -> Any:
    return call(api, "GET", api.operations("egress/exceptions"))


def _document(data: Path | None, socket: Path | None) -> dict[str, Any]:
    """Return the status: of the operations API where `dev.json` is, else of the socket of a stand-alone process."""
    if socket is not None:
        if data is not None:
            fail("--data and --socket exclude each other", WRONG_USE)
        if socket.name != _SOCKET:
            fail(f"{socket} is not the {_SOCKET} of `outgate egress serve`", WRONG_USE)
        return _asked(socket.parent)
    places = [data] if data is not None else [default_data(), default_data().with_name("egress")]
    for place in places:
        if (place / "dev.json").exists():
            api = operations(place)
            return dict(call(api, "GET", api.operations("egress/status")))
        if (place / _SOCKET).exists():
            return _asked(place)
    return _nowhere(places)


def _nowhere(places: Sequence[Path]) -> NoReturn:
    where = " or ".join(str(place) for place in places)
    fail(
        f"neither dev.json nor {_SOCKET} is in {where}: start `outgate dev` or `outgate egress serve`, or name its "
        "directory with --data",
        UNREACHABLE,
    )


def _asked(directory: Path) -> dict[str, Any]:
    from outgate.egress import status_socket

    try:
        return status_socket.read(directory)
    except status_socket.NotServing as error:
        fail(str(error), UNREACHABLE)


def _print(lines: list[str]) -> None:
    for line in egress_tables.fitted([clean(line) for line in lines], columns()):
        print(line)
