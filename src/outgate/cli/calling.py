"""What the commands share: finding a running Outgate, asking it, saying what went wrong, printing what came back.

Standards: exit codes 0 done, 1 not as wanted, 2 wrong use or configuration, 3 not reachable.
Promises: an error is one line of cause and remedy on standard error; text from outside reaches the terminal without
    control characters.
Not here: HTTP (`connection`), the commands.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlencode

import typer

from outgate.connection import Api, NotReachable, Refusal, default_data, read_dev_json

_Choice = TypeVar("_Choice", bound=StrEnum)
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
NOT_AS_WANTED, WRONG_USE, UNREACHABLE = 1, 2, 3
_STRING = 255

Data = Annotated[Path | None, typer.Option("--data", help="Data directory of `outgate dev`.", show_default=False)]
Configuration = Annotated[str, typer.Argument(metavar="CONFIG", help="A configuration's domain or id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(text: str, code: int) -> NoReturn:
    """Print an error and exit."""
    complain(text)
    raise typer.Exit(code)


def complain(text: str) -> None:
    """Print an error."""
    print(f"outgate: {clean(' '.join(text.splitlines()))}", file=sys.stderr)


def one_of(choices: type[_Choice]) -> Callable[[str], _Choice]:
    """Return a parser of an option's value; typer's own puts "Value error" before its refusals."""

    def parse(text: str) -> _Choice:
        try:
            return choices(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}") from None

    return parse


def given(text: str, what: str) -> str:
    """Return what a person typed, or exit if it is empty or not text: in a URL, an empty part makes another call and
    an empty filter lets everything through."""
    if not text:
        fail(f"{what} must not be empty", WRONG_USE)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        fail(f"{what} {text!r} is not UTF-8", WRONG_USE)
    return text


def number(text: str, what: str, letter: str) -> str:
    """Return an id without the letter that the vendor's addresses put before it (p5, e10); or exit, as `given`."""
    text = given(text, what)
    return text[1:] if text.startswith(letter) and text[1:].isdecimal() else text


def filters(**wanted: str | None) -> dict[str, str]:
    """Return what of a list is wanted, without what was not given; or exit, as `given`."""
    return {name: given(text, f"--{name}") for name, text in wanted.items() if text is not None}


def reach(data: Path | None) -> Api:
    """Return the calls to the Outgate that runs on a data directory (the default one if None), or exit."""
    try:
        return Api(read_dev_json(data or default_data()))
    except NotReachable as error:
        fail(str(error), UNREACHABLE)


def configuration(api: Api, typed: str) -> dict[str, Any]:
    """Return the SMTP configuration with that id or domain, or exit."""
    name = given(typed, "the configuration")
    if _ID.fullmatch(name):
        return call(api, "GET", api.configurations(name.lower()))
    from outgate.smtp import grammar

    try:
        domain = grammar.domain(name)
    except grammar.BadSyntax:
        fail(f"{name!r} is neither the id of a configuration nor a domain", WRONG_USE)
    for found in paged(api, api.configurations(), "smtp_configurations"):
        if found["domain"] == domain:
            return found
    fail(f"there is no configuration of {domain}: `outgate smtp list` shows those there are", NOT_AS_WANTED)


def call(api: Api, method: str, url: str, body: object = None) -> Any:
    """Return the decoded answer of a call, or exit."""
    return tagged(api, method, url, body)[0]


def tagged(
    api: Api, method: str, url: str, body: object = None, tag: str = "", *, optional: bool = False
) -> tuple[Any, str]:
    """Return the decoded answer of a call and its entity tag, or exit. `tag` is the condition of the call; what is
    not there is None if `optional`."""
    try:
        return api.tagged(method, url, body, tag)
    except NotReachable as error:
        fail(str(error), UNREACHABLE)
    except Refusal as error:
        if optional and error.status == 404:
            return None, ""
        if error.status == 401:  # a dev.json is left behind, and the next `outgate dev` may have the same ports
            fail(f"{words(error)}: another `outgate dev` than that of dev.json answers; name its --data", NOT_AS_WANTED)
        fail(words(error), NOT_AS_WANTED)


def paged(api: Api, url: str, name: str, **wanted: object) -> Iterator[dict[str, Any]]:
    """Give the items `name` of a list page after page, until there is no next one; None in `wanted` is left out."""
    query = {key: value for key, value in wanted.items() if value is not None}
    limit, offset = 100, 0
    while True:
        found = call(api, "GET", f"{url}?{urlencode({'limit': limit, 'offset': offset, **query})}")
        yield from found[name]
        if "next" not in found:
            return
        offset += limit


def print_json(document: object) -> None:
    """Print a document for programs: what would steer a terminal, or cannot be written to it, is escaped."""
    narrow = not str(getattr(sys.stdout, "encoding", "")).lower().startswith("utf")
    text = json.dumps(document, indent=2, ensure_ascii=narrow)
    # Line ends are the layout's own: those within a text are escaped by now.
    print("".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, cut: bool = False) -> None:
    """Print rows in columns under their heads; `cut` lines to the width of a terminal."""
    cells = [[clean("" if cell is None else str(cell)) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    room = columns() if cut else None
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if room is None else shortened(line, room))


def columns() -> int | None:
    """Return how wide the terminal is; None without one."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def shortened(text: str, room: int) -> str:
    """Return text in at most `room` signs."""
    return text if len(text) <= room else f"{text[: room - 1]}\N{HORIZONTAL ELLIPSIS}"


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line; what is None or empty is left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {clean(str(value))}")


def clean(text: str) -> str:
    """Return text with a sign in place of each character that would steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def words(error: Refusal) -> str:
    """Return what a refusal says, whichever of the vendors' bodies it has."""
    try:
        body = json.loads(error.body)
        if "errors" in body:
            # A list of problems or of texts, or problems by the field that is wrong.
            found = body["errors"].values() if isinstance(body["errors"], dict) else body["errors"]
            said = [each if isinstance(each, str) else str(each["message"]) for each in found]
            if isinstance(body["errors"], dict):
                said = [f"{name.rpartition('.')[2]} {text}" for name, text in zip(body["errors"], said, strict=True)]
            return "; ".join(said) or str(error)
        return str(body.get("errorMessage") or body["message"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return str(error)


def zone_line(record: dict[str, Any]) -> str:
    """Write a TXT record (`txt_name`, `txt_value`) as a zone file has it: strings of 255 octets at most."""
    text = record["txt_value"].replace("\\", "\\\\").replace('"', '\\"')
    parts = [text[at : at + _STRING] for at in range(0, len(text), _STRING)]
    return f"{record['txt_name']}. IN TXT " + " ".join(f'"{part}"' for part in parts)
