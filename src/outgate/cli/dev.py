"""`outgate dev` and `outgate demo`: everything on loopback.

Standards: the laptop mode's contract.
Promises: what keeps it from starting is said with its remedy, and ends with 2.
Not here: what they do (`laptop`, `sandbox.demo`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outgate.cli.calling import WRONG_USE, Data, fail
from outgate.connection import default_data

commands = typer.Typer()

_Port = Annotated[int, typer.Option(min=0, max=65535)]


@commands.command()
def dev(
    data: Data = None,
    http_port: _Port = 8025,
    submission_port: _Port = 2587,
    submissions_port: _Port = 2465,
    dns_port: _Port = 2053,
    inbox_port: _Port = 2525,
    proxy_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: egress.http_proxy_port (3128).", show_default=False),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", show_default=False)] = None,
) -> None:
    """Run everything on loopback: relay, egress, DNS, inbox, a ready tenant. Port 0 means any free port."""
    from outgate.laptop import DevPorts, run_dev
    from outgate.process import StartFailed

    ports = DevPorts(http_port, submission_port, submissions_port, dns_port, inbox_port, proxy_port)
    try:
        run_dev(data or default_data(), ports, config)
    except StartFailed as error:
        fail(str(error), WRONG_USE)


@commands.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the data in this directory.", show_default=False)] = None,
) -> None:
    """Send one mail the whole way, from an application's configuration to a receiving server, and show its trail."""
    from outgate.sandbox.demo import main as run_demo

    raise typer.Exit(run_demo(keep=keep))
