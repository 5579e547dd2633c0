"""`outgate egress`: the egress gateway.

Standards: none.
Not here: what the verbs do (`cli.egress_serve`).
"""

from __future__ import annotations

import typer

from outgate.cli import egress_serve

commands = typer.Typer(no_args_is_help=True, help="The egress gateway.")
commands.command()(egress_serve.serve)
