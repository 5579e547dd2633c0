"""`outgate egress test`: whether an environment's connections get to a host and port.

Standards: none.
Promises: `--json` prints the answer as it came; a port that no resolver leads to ends with 1.
Dangers: what servers say is printed without what would steer a terminal, and is still a stranger's word.
Not here: the test (`egress.connectivity`), the call (`api.cloud_manager.connectivity`).
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from outgate.cli.calling import NOT_AS_WANTED, Data, Json, call, given, print_fields, print_json, reach


def test(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Program id.")],
    environment_id: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Environment id.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host name or an address.")],
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="A port.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Test a host and port from where the environment's traffic leaves (roles writer, manager, operator)."""
    places = [
        quote(given(text, what), safe="") for text, what in ((program, "program"), (environment_id, "environment"))
    ]
    api = reach(data)
    url = "{}/api/program/{}/environment/{}/connectivityTest".format(api.dev["cloud_manager_url"], *places)
    found = call(api, "POST", url, {"host": given(host, "the host"), "port": port})
    entries: list[dict[str, Any]] = found.get("resolvers", [])
    if as_json:
        print_json(found)
    elif not entries:
        print_fields([("result", found["error"])])
    for entry in [] if as_json else entries:
        _print(entry)
    if not any(entry["port_open"] for entry in entries):
        raise typer.Exit(NOT_AS_WANTED)


def _print(entry: dict[str, Any]) -> None:
    names, http = entry["dns_resolution"], entry["http_connectivity"]
    said = http.get("error") or f"{http['protocol']} {http['status_code']} {http['reason']}"
    print_fields(
        [
            ("resolver", entry["name"]),
            ("addresses", ", ".join(names.get("ips", ())) or names.get("error")),
            ("port", "open" if entry["port_open"] else "not open"),
            ("HTTP", said),
            ("note", http.get("note")),
            ("result", entry["reachability"]),
        ]
    )
