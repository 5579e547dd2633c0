"""`outgate egress witness`: tell each caller the address it calls from.

Standards: none.
Promises: runs until SIGINT or SIGTERM, then ends with 0; what keeps it from listening is said, and ends with 2.
Dangers: it answers whoever asks, from wherever it listens: put it outside, at an address that only gateways need.
Not here: the service (`egress.witness`), who asks it (`egress.proof`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from outgate.cli.calling import WRONG_USE, fail


def witness(
    listen: Annotated[
        str,
        typer.Option(
            "--listen", metavar="ADDRESS:PORT", help="Where to be asked; port 0 means any free one.", show_default=False
        ),
    ],
) -> None:
    """Tell each caller the address it calls from, for proofs of dedicated addresses (setting egress.witness)."""
    import asyncio

    from outgate.egress.proof import place

    try:
        address, port = place(listen, least=0)
    except ValueError as error:
        fail(f"--listen: {error}", WRONG_USE)
    try:
        asyncio.run(_serve(address, port))
    except OSError as error:
        fail(f"--listen {listen}: {error.strerror or error}", WRONG_USE)


async def _serve(address: str, port: int) -> None:
    import asyncio
    import signal

    from outgate.egress.audit import endpoint
    from outgate.egress.witness import Witness

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Witness()
    print(f"witness at {endpoint(*await service.start(address, port))}", flush=True)
    await stop.wait()
    await service.stop()
