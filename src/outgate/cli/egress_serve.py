"""`outgate egress serve`: carry connections in a process of its own.

Standards: none.
Promises: what keeps it from starting is said with its remedy, and ends with 2.
Not here: what it does (`standalone`), the other verbs of `outgate egress` (`cli.egress`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outgate.cli.calling import WRONG_USE, fail
from outgate.connection import default_data

_File = Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", show_default=False)]
_Data = Annotated[
    Path | None,
    typer.Option("--data", help="Directory of a control store on this machine, to serve it.", show_default=False),
]
_Rules = Annotated[
    Path | None,
    typer.Option("--rules", help="File of rules (JSON) to serve, without a control store.", show_default=False),
]
_State = Annotated[
    Path | None,
    typer.Option("--state", help="With --rules: directory of audit and status socket.", show_default=False),
]


def serve(data: _Data = None, rules: _Rules = None, state: _State = None, config: _File = None) -> None:
    """Carry connections by a control store (--data DIR) or a file of rules (--rules FILE) until it is told to end."""
    if (data is None) == (rules is None):
        fail("name what to serve: --data DIR (a control store) or --rules FILE, one of the two", WRONG_USE)
    if data is not None and state is not None:
        fail("--state goes with --rules: with --data the directory is the state", WRONG_USE)
    from outgate.process import StartFailed
    from outgate.standalone import Place, run

    try:
        run(Place(data or state or default_data().with_name("egress"), rules), config)
    except StartFailed as error:
        fail(str(error), WRONG_USE)
