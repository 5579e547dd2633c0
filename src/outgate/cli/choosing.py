"""Which Cloud Manager a command asks, and what it says if there is none to ask.

Standards: exit codes as every command.
Promises: --data counts more than the vendor's settings, and these more than what else runs here.
Not here: what settings mean (`outgate.cloud_manager`), where `dev.json` is (`connection`).
"""

from __future__ import annotations

import os
from pathlib import Path

from outgate.cli.calling import UNREACHABLE, WRONG_USE, complain, fail
from outgate.cloud_manager import BadToken, Chosen, Misconfigured, NotReachable, from_dev_json, from_environment
from outgate.connection import default_data, read_dev_json


def choose(data: Path | None, context: str = "", *, timeout: float | None = None) -> Chosen:
    """Return the Cloud Manager of the Outgate that runs on a data directory; if that is None, the one that the vendor's
    settings name, else that of the default directory; an answer may take `timeout` seconds. Raises `NotReachable`
    and its kinds."""
    if data is not None:
        return from_dev_json(read_dev_json(data), timeout=timeout)
    return from_environment(os.environ, lambda: read_dev_json(default_data()), context=context, timeout=timeout)


def chosen(data: Path | None, context: str = "", *, token: int = WRONG_USE, nobody: int = UNREACHABLE) -> Chosen:
    """Return what `choose` does, or exit, with the codes given for a token that cannot be used and if nobody is there.
    If there are two that could be meant, say which it is."""
    try:
        found = choose(data, context)
    except BadToken as error:
        fail(str(error), token)
    except Misconfigured as error:
        fail(str(error), WRONG_USE)
    except NotReachable as error:
        hint = "; or name another Cloud Manager by the vendor's AIO_ variables" if data is None else ""
        fail(f"{error}{hint}", nobody)
    if found.of_vendor and os.path.exists(default_data() / "dev.json"):
        complain(f"asks {found.api.where}, which {found.source} name; --data asks the outgate dev that is there too")
    return found
