"""`outgate dev` and `outgate demo`: everything on loopback.

Standards: the laptop mode's contract.
Promises: what keeps it from starting is said with its remedy, and ends with 2.
Not here: what they do (`laptop`, `sandbox.demo`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from outgate.cli.calling import WRONG_USE, Data, fail
from outgate.connection import default_data

commands = typer.Typer()


def _port(of: str) -> Any:
    return typer.Option(min=0, max=65535, help=f"Port of {of}.")


@commands.command()
def dev(
    data: Data = None,
    http_port: Annotated[int, _port("the page and the APIs")] = 8025,
    submission_port: Annotated[int, _port("submission with STARTTLS")] = 2587,
    submissions_port: Annotated[int, _port("submission in TLS")] = 2465,
    dns_port: Annotated[int, _port("the DNS zone")] = 2053,
    inbox_port: Annotated[int, _port("the inbox, which stands for all receiving servers")] = 2525,
    proxy_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the HTTP(S) proxy.", show_default="egress.http_proxy_port, 3128"),
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
