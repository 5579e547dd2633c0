"""`outgate key`: API keys of the account.

Standards: none.
Promises: a key is printed once, alone on standard output, by the command that makes it.
Dangers: what prints a key hands it to whoever reads the terminal or its log.
Not here: what keys may do (`api.identity`).
"""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from outgate.cli.calling import (
    WRONG_USE,
    Data,
    Json,
    call,
    fail,
    one_of,
    print_fields,
    print_json,
    print_table,
    reach,
)

_ID = re.compile(r"ApiKey-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

commands = typer.Typer(no_args_is_help=True, help="API keys, and what their tokens may do.")


class Role(StrEnum):
    """A role that a key can have."""

    READER = "reader"
    WRITER = "writer"
    MANAGER = "manager"
    AUTHORIZER = "authorizer"
    OPERATOR = "operator"
    RUNTIME = "runtime"
    SMTP = "smtp"


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for; names need not differ.")],
    role: Annotated[
        list[Role] | None,
        typer.Option(help="A role; give it again for more.", show_default="reader", parser=one_of(Role)),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="90d, 2027-01-31 (to its end, UTC) or a time.", show_default="never")
    ] = None,
    description: Annotated[str, typer.Option(help="More about it.", show_default=False)] = "",
    instance: Annotated[
        list[str] | None,
        typer.Option(
            help="With --role smtp: an instance whose SMTP users may log in with it; again for more.",
            show_default="all of the account's",
            metavar="ID",
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an API key and print it: this once.

    With the role smtp it is a password of the account's SMTP users."""
    body: dict[str, Any] = {"name": name, "description": description}
    body["roles"] = list(dict.fromkeys(each.value for each in role or [Role.READER]))
    if instance:
        body["instances"] = instance
    if expires is not None:
        body["expires_at"] = _end(expires)
    api = reach(data)
    made = call(api, "POST", api.identity("v1/apikeys"), body)
    if as_json:
        print_json(made)
        return
    print(made["apikey"])
    ends = f", to {made['expires_at']}" if "expires_at" in made else ""
    print(f"{made['id']}: {', '.join(made['roles'])}{ends}.", file=sys.stderr)
    print("The key above is shown only now: keep it where only its user can read it.", file=sys.stderr)


@commands.command("list")
def listed(data: Data = None, as_json: Json = False) -> None:
    """List the account's API keys, oldest first."""
    api = reach(data)
    found: list[dict[str, Any]] = []
    while True:
        query = urlencode({"account_id": api.dev["account_id"], "pagesize": 100, "pagetoken": len(found)})
        answer = call(api, "GET", api.identity(f"v1/apikeys?{query}"))
        found += answer["apikeys"]
        if "next" not in answer:
            break
    if as_json:
        print_json({"apikeys": found})
        return
    rows = [(each["id"], each["name"], ",".join(each["roles"]), each["created_at"], _until(each)) for each in found]
    print_table(("ID", "NAME", "ROLES", "MADE", "ENDS"), rows)


@commands.command("show")
def show(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `outgate key list` shows it.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show an API key, without its text."""
    path = _path(key_id)
    api = reach(data)
    found = call(api, "GET", api.identity(path))
    if as_json:
        print_json(found)
        return
    names = ("id", "name", "description", "iam_id", "created_at", "created_by", "modified_at")
    fields = [*((name, found[name]) for name in names), ("roles", ", ".join(found["roles"])), ("ends", _until(found))]
    if "instances" in found:
        fields.append(("instances", ", ".join(found["instances"])))
    print_fields(fields)


@commands.command("delete")
def delete(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `outgate key list` shows it.")], data: Data = None
) -> None:
    """Delete an API key; its tokens and logins are void at once."""
    path = _path(key_id)
    api = reach(data)
    call(api, "DELETE", api.identity(path))
    print(f"{key_id} is deleted; its tokens and logins are void.")


def _path(key_id: str) -> str:
    # The API has other operations beside the keys (`details`): only an id may lead there.
    if _ID.fullmatch(key_id) is None:
        fail(f"{key_id!r} is not the id of a key: `outgate key list` shows those there are", WRONG_USE)
    return f"v1/apikeys/{key_id}"


def _until(key: dict[str, Any]) -> str:
    return f"{key['expires_at']}{' (past)' if key['disabled'] else ''}" if "expires_at" in key else "never"


def _end(text: str) -> str:
    from outgate.base.clock import SystemClock
    from outgate.cli.when import BadTime, end_date

    try:
        return end_date(text, SystemClock().now())
    except BadTime as error:
        fail(f"--expires {error}", WRONG_USE)
