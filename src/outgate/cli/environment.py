"""`outgate environment`: environments and what runs in them.

Standards: none.
Promises: the exit code is the command's.
Not here: what an environment gives (`outgate.environment`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from outgate.cli.calling import Data, fail, given, number
from outgate.cli.choosing import chosen

commands = typer.Typer(no_args_is_help=True, help="Environments and what runs in them.")


@commands.command("run")
def run(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Program id.")],
    environment_id: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Environment id.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="What to run, behind a `--`.")],
    service: Annotated[str, typer.Option(help="author, publish or preview.")] = "author",
    data: Data = None,
) -> None:
    """Start a command with what its environment gives it: `outgate environment run P E -- COMMAND …`.

    It asks the running `outgate dev`, or the Outgate that the vendor's AIO_ variables name."""
    from outgate.environment import RunError
    from outgate.environment import run as run_in

    program, environment_id = number(program, "the program", "p"), number(environment_id, "the environment", "e")
    given(service, "--service")
    api = chosen(data).api
    try:
        code = run_in(api, program_id=program, environment_id=environment_id, service=service, command=command)
    except RunError as error:
        fail(str(error), error.code)
    raise typer.Exit(code)
