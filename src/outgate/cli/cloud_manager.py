"""`outgate cloudmanager:…`: an environment's variables and forwards, with the arguments of the vendor's command line.

Standards: `cloudmanager:environment:set-variables` and `:list-variables` of the vendor's plugin 4.2: options, flow
    (GET, one PATCH, GET), columns, exit codes (1 generic, 2 configuration, 3 validation, 10 token, 30 API).
Promises: what the server would refuse is told before anything is sent; a secret's value is never printed, and need not
    stand in the command (`--secretFile`). What was not asked for stays as it is.
Dangers: values are sent as the texts they are; the vendor's client sends what looks like JSON (`true`) as JSON, which
    its server takes as text or refuses.
Not here: which server and token (`outgate.cloud_manager`), reading arguments and documents, what to send and what is
    wrong with it (`variable_options`, `variable_documents`, `variable_plan`).
"""

from __future__ import annotations

import getpass
import re
import shlex
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer

from outgate.cli import variable_options as options
from outgate.cli.calling import (
    WRONG_USE,
    Data,
    columns,
    complain,
    fail,
    print_fields,
    print_json,
    print_table,
    shortened,
)
from outgate.cli.choosing import chosen
from outgate.cli.variable_documents import OCTETS_LIMIT, read_json, read_yaml, text_of
from outgate.cli.variable_options import VALIDATION
from outgate.cli.variable_plan import SECRET, STRING, Unfit, Wish, is_name, option, plan, together
from outgate.cloud_manager import CloudManager, NotReachable, Refused

GENERIC, TOKEN, API = 1, 10, 30
CONFLICT, INTERRUPTED = 409, 130
_COLUMNS = ("name", "type", "value", "service", "status")
_HEADS = {column: column for column in _COLUMNS}
_MASK = "****"
_UNDER_WAY = frozenset({"creating", "updating", "deleting"})
_POLL_S = 5.0
commands = typer.Typer()

# The commands


@commands.command("cloudmanager:set-environment-variables", cls=options.WithPairs)
@commands.command("cloudmanager:environment:set-variables", cls=options.WithPairs, hidden=True)
@options.with_pairs
def set_variables(
    environment_id: options.Environment = "",
    program_id: options.Program = "",
    strict: options.Strict = False,
    wait: options.Wait = 0,
    as_json: options.Json = False,
    as_yaml: options.Yaml = False,
    context: options.Context = "",
    data: Data = None,
    json_stdin: options.JsonStdin = False,
    json_file: options.JsonFile = None,
    yaml_stdin: options.YamlStdin = False,
    yaml_file: options.YamlFile = None,
    *,
    pairs: options.Pairs,
) -> None:
    """Set and delete an environment's variables, and show those it has then. What is not named stays as it is.

    For instance: --programId=4 10 --variable EMAIL_USERNAME me --secretFile EMAIL_PASSWORD pw.txt --delete OLD_ONE

    It asks the running `outgate dev`, or the Cloud Manager that the vendor's AIO_ variables name."""
    documents = {"--jsonStdin": json_stdin, "--jsonFile": json_file, "--yamlStdin": yaml_stdin, "--yamlFile": yaml_file}
    _one_form(as_json, as_yaml)
    with _told():
        inputs = _Inputs()
        wishes = together(_wishes(pairs, inputs), _document(documents, inputs))
    place = _Place(environment_id, program_id, data, context)
    left = 0.0
    with _told():
        planned = plan(place.variables(), wishes, strict=strict or place.strict)
        for each in planned.warnings:
            complain(f"warning: {each}")
        if planned.changes:
            left = place.change(planned.changes, wait)
        else:
            print("No variables to set or delete.", file=sys.stderr)
    with _told("the variables were sent, but " if planned.changes else ""):
        if wait and planned.changes:
            settle(place.api, place.program, place.environment, left)
        _show(place.variables(), as_json, as_yaml)


@commands.command("cloudmanager:list-environment-variables")
@commands.command("cloudmanager:environment:list-variables", hidden=True)
def list_variables(
    environment_id: options.Environment = "",
    program_id: options.Program = "",
    as_json: options.Json = False,
    as_yaml: options.Yaml = False,
    context: options.Context = "",
    data: Data = None,
) -> None:
    """List an environment's variables; secrets without their values."""
    _one_form(as_json, as_yaml)
    place = _Place(environment_id, program_id, data, context)
    with _told():
        _show(place.variables(), as_json, as_yaml)


@commands.command("cloudmanager:show-environment-networking")
@commands.command("cloudmanager:environment:show-networking", hidden=True)
def show_networking(
    environment_id: options.Environment = "",
    program_id: options.Program = "",
    as_json: options.Json = False,
    context: options.Context = "",
    data: Data = None,
) -> None:
    """Show an environment's port forwards and the hosts that are not proxied, which the vendor's client cannot."""
    place = _Place(environment_id, program_id, data, context)
    with _told():
        found = place.api.networking(place.program, place.environment)
    if as_json:
        print_json(found)
        return
    forwards: list[dict[str, Any]] = found.get("portForwards") or []
    hosts = ", ".join(str(host) for host in found.get("nonProxyHosts") or [])
    print_fields(
        [
            ("advanced networking", "enabled" if found.get("advancedNetworkingEnabled") else "not enabled"),
            ("not proxied", hosts),
            ("port forwards", None if forwards else "none"),
        ]
    )
    if forwards:
        rows = [(each.get("portOrig"), each.get("name"), each.get("portDest")) for each in forwards]
        print_table(("portOrig", "name", "portDest"), rows)


# What was given


class _Inputs:
    """Files and standard input, which can be read once."""

    def __init__(self) -> None:
        self._taken = ""

    def document(self, path: str, option: str) -> bytes:
        """Return the octets of a document; of standard input if `path` is empty."""
        return self._read(path, f"{option}: {path}") if path else self._typed(option)

    def secret(self, name: str, path: str, option: str) -> str:
        """Return a secret without the line end that editors put behind it; a person is asked for it. No error names the
        path: it may be the secret itself."""
        what = f"{option} {name}" if is_name(name) else option
        if path == "-" and not self._taken and sys.stdin is not None and sys.stdin.isatty():
            self._taken = option
            with suppress(EOFError):
                return getpass.getpass(f"{what.rpartition(' ')[2]}: ")
            return ""
        raw = self._typed(option) if path == "-" else self._read(path, f"{what}: its file")
        return text_of(raw, what).removesuffix("\n").removesuffix("\r")

    def _typed(self, option: str) -> bytes:
        if self._taken:
            fail(f"{option} and {self._taken} cannot both have standard input", WRONG_USE)
        self._taken = option
        # One octet more than allowed is enough to see that there are too many.
        return sys.stdin.buffer.read(OCTETS_LIMIT + 1) if sys.stdin is not None else b""

    def _read(self, path: str, what: str) -> bytes:
        try:
            with Path(path).open("rb") as file:
                return file.read(OCTETS_LIMIT + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no path"
            fail(f"{what} cannot be read: {reason}", WRONG_USE)


def _wishes(given: options.Pairs, inputs: _Inputs) -> list[Wish]:
    """Return what the options want, in the order of the vendor's client. Raises `Unfit`."""
    wishes: list[Wish] = []
    for (service, word), texts in given.items():
        where = option(word, service)
        if word == "delete":
            wishes += [Wish(name, "", "", service, where) for name in texts]
            continue
        for name, text in zip(texts[::2], texts[1::2], strict=True):
            value = inputs.secret(name, text, where) if word == "secretFile" else text
            if not value:
                raise Unfit([f"{where}: a value is empty: give one, or delete the variable with --delete"])
            wishes.append(Wish(name, value, STRING if word == "variable" else SECRET, service, where))
    return wishes


def _document(given: Mapping[str, bool | str | None], inputs: _Inputs) -> list[Wish]:
    """Return what the document wants, if there is one. Raises `Unfit`."""
    wanted = [(where, value) for where, value in given.items() if value not in (False, None)]
    if len(wanted) > 1:
        fail(f"{' and '.join(where for where, _ in wanted)} exclude each other", WRONG_USE)
    for where, value in wanted:
        if value == "":
            fail(f"{where} needs a path", WRONG_USE)
        path = value if isinstance(value, str) else ""
        read = read_json if where.startswith("--json") else read_yaml
        return read(inputs.document(path, where), path or "standard input")
    return []


# Whom to ask


class _Place:
    """An environment of a Cloud Manager, or the end of the command: nothing to ask, or none that is meant."""

    def __init__(self, environment: str, program: str, data: Path | None, context: str) -> None:
        if data is not None and context:
            fail("--data and --imsContextName exclude each other", WRONG_USE)
        found = chosen(data, context, token=TOKEN, nobody=WRONG_USE)
        self.api, self.strict = found.api, found.strict
        self.program = _number(program or found.program, "program", "--programId", "")
        self.environment = _number(environment or found.environment, "environment", "ENVIRONMENT_ID", "e")
        asked = [self.environment, f"--programId={self.program}"]
        asked += [f"--data={data}"] if data is not None else [f"--imsContextName={context}"] if context else []
        self.listing = shlex.join(["outgate", "cloudmanager:list-environment-variables", *asked])

    def variables(self) -> list[dict[str, Any]]:
        return self.api.variables(self.program, self.environment)

    def change(self, changes: Sequence[Mapping[str, str]], seconds: float) -> float:
        """Make changes once nothing else is under way, which may take `seconds`; return how many are left."""
        try:
            return when_free(lambda: self.api.set_variables(self.program, self.environment, changes), seconds)
        except (NotReachable, KeyboardInterrupt) as error:
            told, code = (f"{error}", API) if isinstance(error, NotReachable) else ("interrupted", INTERRUPTED)
            _stop([f"{told}. Whether anything was changed is not known: `{self.listing}` shows it"], code)


def _number(text: str, what: str, option: str, prefix: str) -> str:
    """Return an id, without the letter that the vendor's addresses put before an environment's, or end."""
    if not text:
        fail(f"which {what}? Give {option}", VALIDATION)
    number = text.removeprefix(prefix)
    if re.fullmatch(r"[0-9]{1,20}", number) is None:
        fail(f"{option} must be the {what}'s number", VALIDATION)
    return number


# What is said


@contextmanager
def _told(before: str = "") -> Generator[None]:
    """Turn what goes wrong into sentences, with `before` in front, and exit codes."""
    try:
        yield
    except Unfit as error:
        _stop([*error.reasons, "nothing was sent"], VALIDATION)
    except Refused as error:
        _stop([f"{before}{error}. {error.remedy('Deployment Manager')}"], API)
    except NotReachable as error:
        _stop([f"{before}{error}"], API)
    except KeyboardInterrupt:
        _stop([f"{before}this was interrupted"], INTERRUPTED)


def _stop(reasons: Sequence[str], code: int) -> NoReturn:
    for each in reasons:
        complain(each)
    raise typer.Exit(code)


def _one_form(as_json: bool, as_yaml: bool) -> None:
    if as_json and as_yaml:
        fail("--json and --yaml exclude each other", WRONG_USE)


def _show(variables: Sequence[Mapping[str, Any]], as_json: bool, as_yaml: bool) -> None:
    rows = [{column: str(each.get(column) or "") for column in _COLUMNS} for each in variables]
    for row in rows:
        if row["type"] != STRING:
            row["value"] = _MASK
    if as_json:
        print_json(rows)
    elif as_yaml:
        import yaml

        print(yaml.safe_dump(rows, sort_keys=False, allow_unicode=False, width=10_000), end="")
    else:
        room = columns()
        if room is not None:
            # One long value would push the other columns off the terminal.
            others = sum(
                max(len(row[column]) for row in [*rows, _HEADS]) + 2 for column in _COLUMNS if column != "value"
            )
            for row in rows:
                row["value"] = shortened(row["value"], max(20, room - others))
        print_table(_COLUMNS, [list(row.values()) for row in rows])


def when_free(
    change: Callable[[], None],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Make a change; again, for `seconds`, as long as it is refused because another is under way. Return how many are
    left. Raises what the change raises."""
    until = clock() + seconds
    told = False
    while True:
        try:
            change()
        except Refused as error:
            if error.status != CONFLICT or clock() >= until:
                raise
            if not told:
                complain(f"{error.text}; waiting")
            told = True
            sleep(_POLL_S)
        else:
            return max(0.0, until - clock())


def settle(
    api: CloudManager,
    program: str,
    environment: str,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once neither the environment nor a variable is under way; or end the command, with 1, after `seconds` and
    if something failed. Raises what the calls raise."""
    until = clock() + seconds
    before = ""
    while True:
        status = str(api.environment(program, environment).get("status", ""))
        variables = api.variables(program, environment)
        failed = sorted(str(each.get("name")) for each in variables if "failed" in str(each.get("status")))
        moving = sorted(str(each.get("name")) for each in variables if each.get("status") in _UNDER_WAY)
        told = f"the environment is {status}" + (f"; under way: {', '.join(moving)}" if moving else "")
        if "failed" in status or (failed and not moving):
            _stop([told + (f"; failed: {', '.join(failed)}" if failed else "")], GENERIC)
        if status not in _UNDER_WAY and not moving:
            return
        if clock() >= until:
            _stop([f"{told}, after {seconds:.0f} seconds still"], GENERIC)
        if told != before:
            complain(told)
        before = told
        sleep(_POLL_S)
