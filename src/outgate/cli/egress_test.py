"""`outgate egress test`: whether an environment's connections get to a host and port.

Standards: exit codes as every command.
Promises: `--json` prints the answer as it came; a port that no resolver leads to ends with 1.
Dangers: what servers say is printed without what would steer a terminal, and is still a stranger's word.
Not here: the test (`egress.connectivity`), the call (`api.cloud_manager.connectivity`).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from outgate.cli.calling import NOT_AS_WANTED, UNREACHABLE, Data, Json, fail, given, number, print_fields, print_json
from outgate.cli.choosing import chosen
from outgate.cloud_manager import NotReachable, Refused


def test(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Program id.")],
    environment_id: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Environment id.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host name or an address.")],
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="A port.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Test a host and port from where the environment's traffic leaves (roles writer, manager, operator).

    It asks the running `outgate dev`, or the Outgate that the vendor's AIO_ variables name."""
    program, environment_id = number(program, "the program", "p"), number(environment_id, "the environment", "e")
    given(host, "the host")
    api = chosen(data).api
    try:
        found = api.connectivity_test(program, environment_id, host, port)
    except Refused as error:
        fail(f"{error}. {error.remedy('writer, manager or operator', ours=True)}", NOT_AS_WANTED)
    except NotReachable as error:
        fail(str(error), UNREACHABLE)
    try:
        entries: list[dict[str, Any]] = found.get("resolvers", [])
        told = [_lines(entry) for entry in entries] or [[("result", found["error"])]]
        reached = any(entry["port_open"] for entry in entries)
    except (LookupError, TypeError, AttributeError):
        fail(f"what answered at {api.where} is no test of a connection: is that an Outgate?", UNREACHABLE)
    if as_json:
        print_json(found)
    else:
        for lines in told:
            print_fields(lines)
    if not reached:
        raise typer.Exit(NOT_AS_WANTED)


def _lines(entry: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what is told of what one resolver led to. Raises anything for an answer of another kind."""
    names, http = entry["dns_resolution"], entry["http_connectivity"]
    said = http.get("error") or f"{http['protocol']} {http['status_code']} {http['reason']}"
    return [
        ("resolver", entry["name"]),
        ("addresses", ", ".join(names.get("ips", ())) or names.get("error")),
        ("port", "open" if entry["port_open"] else "not open"),
        ("HTTP", said),
        ("note", http.get("note")),
        ("result", entry["reachability"]),
    ]
