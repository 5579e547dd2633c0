"""The `outgate` command: every verb, each importing what it needs only when it runs.

Standards: exit codes 0 done, 1 not as wanted, 2 wrong use or configuration, 3 not reachable.
Promises: an error says cause and remedy, never a stack trace; every list has `--json`.
Not here: what the verbs do (`app`, `sandbox.demo`, `environment`, the HTTP API).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outgate import __version__
from outgate.cli import access, dev, environment, key, message, smtp

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Outgate: the controlled way out for an organisation's mail.",
)
cli.add_typer(dev.commands)
cli.add_typer(environment.commands, name="environment")
cli.add_typer(message.commands, name="message")
cli.add_typer(smtp.commands, name="smtp")
cli.add_typer(access.commands, name="access")
cli.add_typer(key.commands, name="key")


@cli.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Outgate: the controlled way out for an organisation's mail."""
    if version:
        print(f"outgate {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    try:
        cli()
    except KeyboardInterrupt:
        sys.exit(130)
