"""The `outgate` command: every verb, each importing what it needs only when it runs.

Standards: exit codes 0 done, 1 not as wanted, 2 wrong use or configuration, 3 not reachable.
Promises: an error says cause and remedy, never a stack trace, unless OUTGATE_DEBUG is set; every list has `--json`.
Not here: what the verbs do (`app`, `sandbox.demo`, `environment`, the HTTP API).
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Annotated

try:
    import typer

    from outgate import __version__
    from outgate.cli import (
        access,
        cloud_manager,
        dev,
        doctor,
        egress,
        environment,
        key,
        message,
        queue,
        route,
        smtp,
        suppression,
    )
    from outgate.cli.calling import NOT_AS_WANTED, complain
except ModuleNotFoundError as error:  # plain `outgate` is the mailer, and yet its command is on the path
    if error.name != "typer":
        raise
    sys.exit(
        "outgate: the command is not installed: pip install 'outgate[cli]' (the mailer's own: python -m outgate.mailer)"
    )
except KeyboardInterrupt:  # somebody is quicker than the imports
    sys.exit(130)

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Outgate: the controlled way out for an organisation's mail.",
)
cli.add_typer(dev.commands)
cli.command("doctor")(doctor.doctor)
cli.add_typer(environment.commands, name="environment")
cli.add_typer(cloud_manager.commands)
cli.add_typer(egress.commands, name="egress")
cli.add_typer(message.commands, name="message")
cli.add_typer(queue.commands, name="queue")
cli.add_typer(smtp.commands, name="smtp")
cli.add_typer(route.commands, name="route")
cli.add_typer(suppression.commands, name="suppression")
cli.add_typer(access.commands, name="access")
cli.add_typer(key.commands, name="key")


@cli.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Outgate: the controlled way out for an organisation's mail."""
    if version:
        print(f"outgate {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what nobody has foreseen is one line too, and output that cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A sign that the terminal lacks is written as its number and does not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            cli()
        finally:
            # Now, while it can be told: the interpreter would say it with a trace at its end.
            if sys.stdout:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("OUTGATE_DEBUG"):
            raise
        _give_up(error)
        sys.exit(NOT_AS_WANTED)


def _missing(error: Exception) -> str:
    """Say what to install, "" if nothing is missing: not every verb is in every extra."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in ("", "outgate"):
        return ""
    if sys.argv[1:2] == ["egress"]:
        extra = "egress"
    else:
        extra = "doctor" if name == "dns" else "sandbox"
    return f"this needs {name}, which is not installed here: pip install 'outgate[{extra}]'"


def _give_up(error: Exception) -> None:
    # Who reads no further, as `head` does, need not be told.
    if not isinstance(error, BrokenPipeError):
        with suppress(OSError):
            complain(_missing(error) or f"{type(error).__name__}: {error} (OUTGATE_DEBUG=1 shows where)")
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            # What is left cannot be written either; without this the interpreter tries it once more, and complains.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
