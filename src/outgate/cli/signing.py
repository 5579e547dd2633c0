"""`outgate smtp dkim`: the keys that sign a domain's mail, and their rotation.

Standards: RFC 1035 (zone file form of the records to publish).
Promises: what to do about each record is said in words; records that are to be published are printed as a zone file
    takes them.
Not here: looking for the records (`outgate smtp verify --type dkim`), the calls (`api.event_notifications.signing`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from outgate.cli.calling import (
    Configuration,
    Data,
    Json,
    call,
    configuration,
    one_of,
    print_fields,
    print_json,
    reach,
    zone_line,
)

commands = typer.Typer(no_args_is_help=True, help="The keys that sign a domain's mail, and their rotation.")


class Switch(StrEnum):
    """Whether an Ed25519 key signs beside the RSA key."""

    ON = "on"
    OFF = "off"


@commands.command("show")
def show(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Show the keys, their records, and what to do with each."""
    _call("GET", config, "dkim", None, data, as_json)


@commands.command("rotate")
def rotate(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Make new keys; each begins to sign when its record has been seen."""
    _call("POST", config, "dkim/rotate", None, data, as_json)


@commands.command("cancel")
def cancel(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Cancel a rotation: the keys that were to take over are destroyed."""
    _call("DELETE", config, "dkim/rotate", None, data, as_json)


@commands.command("ed25519")
def ed25519(
    config: Configuration,
    switch: Annotated[
        Switch,
        typer.Argument(parser=one_of(Switch), metavar="on|off", help="Whether such a key is used.", show_default=False),
    ],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Sign with an Ed25519 key beside the RSA key, once its record has been seen; or with RSA alone."""
    _call("PATCH", config, "dkim", {"ed25519": switch is Switch.ON}, data, as_json)


def _call(method: str, config: str, path: str, body: object, data: Any, as_json: bool) -> None:
    api = reach(data)
    found = call(api, method, api.configurations(f"{configuration(api, config)['id']}/{path}"), body)
    if as_json:
        print_json(found)
        return
    print_fields([("domain", found["domain"]), ("rotation", "under way" if found["rotating"] else "none")])
    for key in found["keys"]:
        print()
        print_fields(
            [
                ("selector", key["selector"]),
                ("key", f"{key['algorithm']}, {key['state']} since {key['since']}"),
                ("record", key["verification"]),
                ("removable", key["removable_at"]),
                ("to do", key["advice"]),
            ]
        )
        if key["state"] != "retired":
            print(zone_line(key))
