"""`outgate doctor`: what is wrong between an application's mail configuration and its recipient, and what to change.

Standards: exit codes 0 (nothing is broken), 2, 3 as every command, 10 to 21 the class of the first broken hop; of
    `--lint` 1 for an error, with `--strict` for a warning too.
Promises: progress goes to a terminal's standard error only; an interruption ends it with 130 and no trace.
Not here: the walk (`doctor.walk`), what is printed (`doctor.printing`), lint (`doctor.lint`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outgate.cli.calling import UNREACHABLE, WRONG_USE, Data, Json, columns, fail, given, number, one_of, print_json
from outgate.connection import Api, NotReachable, default_data, read_dev_json

if TYPE_CHECKING:
    from outgate.cloud_manager import Chosen
    from outgate.doctor.hops.facts import Asked
    from outgate.doctor.report import Report
    from outgate.doctor.surroundings import Surroundings

INTERRUPTED = 130
_NARROWEST = 60
_API_S = 2.0
"""How long an API may take at least: it may have to ask others."""


class Form(StrEnum):
    """How lint prints what it finds."""

    TEXT = "text"
    GITHUB = "github"
    SARIF = "sarif"
    JSON = "json"


def doctor(
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FOLDER", help="Where the configuration is (default: osgiconfig, else here)."),
    ] = None,
    run_modes: Annotated[
        str | None,
        typer.Option(
            "--run-modes", metavar="A,B", help="Active run modes (default: those of service and environment)."
        ),
    ] = None,
    program: Annotated[str | None, typer.Option("--program", metavar="ID", help="Program id.")] = None,
    environment: Annotated[str | None, typer.Option("--environment", metavar="ID", help="Environment id.")] = None,
    service: Annotated[str, typer.Option(help="author, publish or preview.")] = "author",
    send_to: Annotated[
        str | None, typer.Option("--send-to", metavar="ADDRESS", help="Send a test mail there, and follow it.")
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option(
            "--ca-file", metavar="FILE", help="Authorities to trust (default: SSL_CERT_FILE, else the system's)."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=120, help="Seconds to wait for one answer.")] = 10.0,
    lint: Annotated[
        list[Path] | None,
        typer.Option("--lint", metavar="FOLDER", help="Check files only, offline; may be given again."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FOLDER", help="More for --lint.")] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            parser=one_of(Form),
            metavar="FORM",
            help="Of --lint: text, github, sarif or json.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Of --lint: warnings fail too.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Walk from the mail configuration to the recipient, and name the one thing to change.

    Exit codes: 0 nothing is broken, 1 --lint found an error, 2 wrong use, 3 not reachable, 130 interrupted; broken:

    10 to 21 file, placeholders, variables, forward, tunnel, target DNS, TCP, TLS, EHLO, AUTH, sender, delivery."""
    walking = (config, run_modes, program, environment, send_to, ca_file)
    if lint:
        if any(each is not None for each in walking):
            fail("--lint takes folders, --format and --strict: the others are for the walk", WRONG_USE)
        raise typer.Exit(_lint([*lint, *(more or [])], form or (Form.JSON if as_json else None), strict))
    if more or form is not None or strict:
        fail("folders, --format and --strict go with --lint: the walk takes one folder, with --config", WRONG_USE)
    from outgate.doctor.walk import walk

    tell = _teller()
    try:
        asked = _asked(config, run_modes, program, environment, service, send_to, ca_file, timeout, data, tell)
        report = walk(asked)
    except KeyboardInterrupt:
        tell("")
        fail("interrupted", INTERRUPTED)
    tell("")
    _print(asked, _of_data(report, data), as_json)
    raise typer.Exit(report.exit_code)


def _of_data(report: Report, data: Path | None) -> Report:
    """Return the report with commands that ask the same `outgate dev` as we did."""
    from outgate.doctor.commands import for_data
    from outgate.doctor.report import Report

    place = str(data) if data is not None else ""
    return Report([replace(each, change=for_data(each.change, place)) for each in report.findings])


def _print(asked: Asked, report: Report, as_json: bool) -> None:
    from outgate.doctor import printing

    around = asked.around
    if as_json:
        about: dict[str, object] = {
            "config": asked.where,
            "run_modes": list(asked.run_modes),
            "service": around.service,
            "program": around.program or None,
            "environment": around.environment or None,
        }
        print_json(printing.for_programs(report, about))
    else:
        kind = f" ({around.type})" if around.type else ""
        heading = f"{around.label}{kind}, service {around.service}"
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        width = min(max(columns() or printing.WIDTH, _NARROWEST), printing.WIDTH)
        print(printing.for_people(report, heading, colour=colour, width=width), end="")


def _lint(paths: list[Path], form: Form | None, strict: bool) -> int:
    """Print what is wrong with the files, without a form as text, and in a GitHub workflow at the lines too; return the
    exit code."""
    from outgate.doctor import annotations
    from outgate.doctor.lint import examine
    from outgate.doctor.report import Finding
    from outgate.doctor.traps.source import Excerpt, Replacement
    from outgate.mailer.values import ConfigError

    findings, excerpts, files, code = list[Finding](), dict[tuple[str, int, int], Excerpt](), 0, 0
    fixes = dict[Finding, Replacement]()
    for path in paths:
        try:
            found = examine(path)
        except ConfigError as error:
            fail(str(error), WRONG_USE)
        findings += found.findings
        excerpts |= found.excerpts
        fixes |= {replace(each, file=os.path.abspath(each.file)): fix for each, fix in found.fixes.items()}
        files += found.files
        code = max(code, found.exit_code(strict=strict))
    here = Path.cwd()
    # A viewer of annotations knows files by their paths in the repository, a person by those from here.
    top = _top(here)
    placed = [replace(each, file=os.path.abspath(each.file)) for each in findings]
    lines = {(os.path.abspath(file), line, column): each for (file, line, column), each in excerpts.items()}
    if form in (None, Form.TEXT):
        print(annotations.text(findings, excerpts, files=files, root=here), end="")
        if form is None and os.environ.get("GITHUB_ACTIONS") == "true":
            print(annotations.github(placed, root=top), end="")
    elif form is Form.JSON:
        print(annotations.as_json(findings, root=here), end="")
    elif form is Form.GITHUB:
        print(annotations.github(placed, root=top), end="")
    else:
        print(annotations.sarif(placed, lines, fixes=fixes, root=top), end="")
    return code


def _top(here: Path) -> Path:
    """Return the top of the repository that a folder is in, where there is none that of a workflow, or the folder."""
    repository = next((each for each in (here, *here.parents) if (each / ".git").exists()), None)
    workspace = Path(os.environ.get("GITHUB_WORKSPACE") or here)
    return repository or (workspace if here.is_relative_to(workspace) else here)


def _asked(
    config: str | None,
    run_modes: str | None,
    program: str | None,
    environment: str | None,
    service: str,
    send_to: str | None,
    ca_file: str | None,
    timeout: float,
    data: Path | None,
    tell: Callable[[str], None],
) -> Asked:
    """Return what the walk is to look at, or exit."""
    from outgate.doctor.hops.contact import Trust
    from outgate.doctor.hops.facts import Asked
    from outgate.doctor.hops.reaching import Patience
    from outgate.doctor.surroundings import SERVICES
    from outgate.doctor.witnesses import Outgate
    from outgate.mailer.configuration.run_modes import entries
    from outgate.mailer.values import ConfigError

    if service not in SERVICES:
        fail(f"--service {service!r} is not one of {', '.join(SERVICES)}", WRONG_USE)
    for text, what in ((config, "--config"), (send_to, "--send-to")):
        if text is not None:
            given(text, what)
    program = program if program is None else number(program, "--program", "p")
    environment = environment if environment is None else number(environment, "--environment", "e")
    if send_to is not None and not _is_address(send_to):
        fail(f"--send-to {send_to!r} is not one address, such as ann@example.com", WRONG_USE)
    trust = Trust(ca_file or os.environ.get("SSL_CERT_FILE", ""))
    try:
        trust.context(check_name=True)
    except ConfigError as error:
        fail(f"{'--ca-file' if ca_file else 'SSL_CERT_FILE'}: {error}", WRONG_USE)
    around, chosen, dev = _around(program, environment, service, data, max(timeout, _API_S), tell)
    try:
        modes = around.run_modes if run_modes is None else entries(run_modes)
    except ConfigError as error:
        fail(f"{'--run-modes' if run_modes is not None else 'OUTGATE_RUN_MODES'}: {error.text}", WRONG_USE)
    return Asked(
        where=config or _here(),
        run_modes=modes,
        around=around,
        outgate=Outgate(chosen.api if chosen else None, dev, around.program, around.environment),
        trust=trust,
        sandbox_ca=str(dev.dev.get("ca_file", "")) if dev else "",
        send_to=send_to or "",
        patience=Patience(timeout),
        tell=tell,
    )


def _is_address(text: str) -> bool:
    from outgate.smtp import grammar

    try:
        return bool(grammar.mailbox(text.encode("utf-8")).domain)
    except (grammar.BadSyntax, UnicodeError):
        return False


def _here() -> str:
    """Return where configurations usually are, seen from the current folder."""
    return "osgiconfig" if Path("osgiconfig").is_dir() else "."


def _around(
    program: str | None,
    environment: str | None,
    service: str,
    data: Path | None,
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[Surroundings, Chosen | None, Api | None]:
    """Return what is known of the environment, whom to ask for more, and a running Outgate; or exit.

    What is named is asked for; else this process's own environment counts, if `environment run` made it; else what the
    vendor's settings or a `dev.json` name; else this process's environment again."""
    from outgate.cli.choosing import choose
    from outgate.cloud_manager import Misconfigured, Refused
    from outgate.doctor.asking import of_environment, of_process

    named = program is not None or environment is not None
    dev = _dev(data, seconds)
    own = any(os.environ.get(name) for name in ("OUTGATE_FORWARDS", "OUTGATE_SECRETS", "AEM_PROXY_HOST"))
    if own and not named:
        return of_process(os.environ, service), None, dev
    try:
        chosen = choose(data, timeout=seconds)
    except NotReachable as error:
        # Settings that cannot be used were meant; a dev.json that is not there was not.
        if named or data is not None or isinstance(error, Misconfigured):
            fail(str(error), UNREACHABLE)
        return of_process(os.environ, service), None, None
    program, environment = program or chosen.program, environment or chosen.environment
    if not (program and environment):
        if named:
            fail("name both --program and --environment", WRONG_USE)
        return of_process(os.environ, service), None, None
    local = dev if dev is not None and _same(chosen, dev.dev) else None
    try:
        return of_environment(chosen.api, program, environment, service, tell), chosen, local
    except (Refused, NotReachable) as error:
        tell("")
        if named or data is not None or local is None:
            fail(str(error), UNREACHABLE)
        # An Outgate that ran here once is no reason to look no further.
        found = of_process(os.environ, service)
        return replace(found, label=f"{found.label} (the `outgate dev` of dev.json does not answer)"), None, None


def _dev(data: Path | None, seconds: float) -> Api | None:
    try:
        return Api(read_dev_json(data or default_data()), timeout=seconds)
    except NotReachable:
        return None


def _same(chosen: Chosen, dev: Mapping[str, Any]) -> bool:
    """Say whether the Cloud Manager that was chosen is that of the Outgate on this machine."""
    return chosen.api.base_url == str(dev.get("cloud_manager_url", "")).rstrip("/")


def _teller() -> Callable[[str], None]:
    """Return what shows progress: one line on a terminal, written over; "" wipes it."""
    if not sys.stderr.isatty():
        return lambda _said: None

    def tell(said: str) -> None:
        from outgate.doctor.printing import clean

        room = shutil.get_terminal_size().columns - 2  # a line that wraps cannot be wiped
        print(f"\r\x1b[K{clean(said)[:room]}", end="", file=sys.stderr, flush=True)

    return tell
