"""`outgate suppression`: the addresses that the instance's mail is not sent to.

Standards: RFC 4180 (CSV).
Promises: an export is written whole or not at all to a file that did not end in an error; it reads back with `import`;
    `-` is standard input or output.
Not here: what files may hold (`api.suppressions`), what becomes of mail (`relay`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from outgate.cli.calling import (
    NOT_AS_WANTED,
    UNREACHABLE,
    WRONG_USE,
    Data,
    Json,
    call,
    fail,
    filters,
    given,
    paged,
    print_fields,
    print_json,
    print_table,
    reach,
    words,
)
from outgate.connection import NotReachable, Refusal

commands = typer.Typer(no_args_is_help=True, help="Addresses that mail is not sent to.")

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="A whole mailbox such as ann@example.com.")]


@commands.command("list")
def listed(
    search: Annotated[str | None, typer.Option(help="Part of the address.", show_default=False)] = None,
    reason: Annotated[
        str | None, typer.Option(help="As hard_bounce, complaint, unsubscribe, manual.", show_default=False)
    ] = None,
    source: Annotated[str | None, typer.Option(help="Who wanted it, in full.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="Entries at most.")] = 100,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List suppressed addresses, newest first; `export` gives all."""
    wanted = filters(search=search, reason=reason, source=source)
    api = reach(data)
    found: list[dict[str, Any]] = []
    for each in paged(api, api.suppressions(), "suppressions", **wanted):
        found.append(each)
        if len(found) >= limit:
            break
    if as_json:
        print_json({"suppressions": found})
        return
    rows = [(e["address"], e["reason"], e["created_at"][:10], _ends(e)[:10], e["source"]) for e in found]
    print_table(("ADDRESS", "REASON", "SINCE", "ENDS", "SOURCE"), rows)


@commands.command("show")
def show(address: Address, data: Data = None, as_json: Json = False) -> None:
    """Show why an address is suppressed; exit code 1 if it is not."""
    wanted = given(address, "the address")
    api = reach(data)
    found = call(api, "GET", api.suppressions(wanted))
    if as_json:
        print_json(found)
        return
    names = ("address", "reason", "source", "detail", "created_at")
    print_fields([*((name, found[name]) for name in names), ("ends", _ends(found))])


@commands.command("add")
def add(
    address: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="Whole mailboxes; one or more.")],
    reason: Annotated[
        str, typer.Option(help="One word: manual, unsubscribe, complaint, hard_bounce, or one of your own.")
    ] = "manual",
    detail: Annotated[str, typer.Option(help="More about it.", show_default=False)] = "",
    expires: Annotated[
        str | None, typer.Option(help="90d, 2027-01-31 (to its end, UTC) or a time.", show_default="never")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Suppress addresses, or give them another reason or end."""
    entry: dict[str, Any] = {"reason": reason, "detail": detail}
    if expires is not None:
        entry["expires_at"] = _end(expires)
    body = {"suppressions": [{"address": given(each, "the address"), **entry} for each in address]}
    api = reach(data)
    made = call(api, "POST", api.suppressions(), body)
    if as_json:
        print_json(made)
        return
    for each in made["suppressions"]:
        print_fields([("suppressed", each["address"]), ("reason", each["reason"]), ("ends", _ends(each))])


@commands.command("remove")
def remove(address: Address, data: Data = None) -> None:
    """Suppress an address no longer: the next message is sent to it."""
    wanted = given(address, "the address")
    api = reach(data)
    call(api, "DELETE", api.suppressions(wanted))
    print("It is suppressed no longer.")


@commands.command("import")
def load(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A CSV file whose first line names the columns; - for standard input.")
    ],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add the addresses of a CSV file, all of them or none.

    Columns: address, and if wanted reason, source, detail, created_at, expires_at."""
    octets = _read(given(file, "the file"))
    api = reach(data)
    try:
        done = api.sent_as("text/csv", api.suppressions("import", quoted=False), octets)
    except NotReachable as error:
        fail(str(error), UNREACHABLE)
    except Refusal as error:
        fail(words(error), NOT_AS_WANTED)
    if as_json:
        print_json(done)
        return
    print_fields([("added", done["added"]), ("replaced", done["replaced"]), ("left out, ended", done["ended"])])


@commands.command("export")
def give(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write; - for standard output.")] = "-",
    data: Data = None,
) -> None:
    """Write all suppressed addresses as CSV, which `import` reads again."""
    given(file, "the file")
    api = reach(data)
    try:
        parts = api.parts(api.suppressions("export", quoted=False))
        if file == "-":
            sys.stdout.flush()
            for part in parts:
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        else:
            _write(Path(file), parts)
    except NotReachable as error:
        fail(str(error), UNREACHABLE)
    except Refusal as error:
        fail(words(error), NOT_AS_WANTED)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", WRONG_USE)


def _write(file: Path, parts: Iterator[bytes]) -> None:
    temporary = file.with_name(f"{file.name}.part")
    try:
        # Addresses of people: for their owner's eyes only.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            for part in parts:
                out.write(part)
        os.replace(temporary, file)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", NOT_AS_WANTED)
    finally:
        temporary.unlink(missing_ok=True)


def _ends(entry: dict[str, Any]) -> str:
    return entry["expires_at"] or "never"


def _end(text: str) -> str:
    from outgate.base.clock import SystemClock
    from outgate.cli.when import BadTime, end_date

    try:
        return end_date(text, SystemClock().now())
    except BadTime as error:
        fail(f"--expires {error}", WRONG_USE)
