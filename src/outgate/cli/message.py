"""`outgate message`: messages and what became of them.

Standards: none.
Promises: nothing is made up: what is printed is what the API tells.
Not here: the trail's words (`outgate.trail`).
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import typer

from outgate.cli.calling import Data, Json, call, clean, columns, filters, given, print_json, reach, shortened

commands = typer.Typer(no_args_is_help=True, help="Messages and what became of them.")


@commands.command("show")
def show(
    queue_id: Annotated[str, typer.Argument(metavar="QUEUE_ID", help="As the reply to the message has it.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show one message by its queue id: every hop, every attempt with its conversation."""
    wanted = given(queue_id, "the queue id")
    api = reach(data)
    found = call(api, "GET", api.messages(wanted))
    if as_json:
        print_json(found)
        return
    from outgate.trail import lines

    for line in lines(found):
        print(clean(line))


@commands.command("list")
def listed(
    recipient: Annotated[str | None, typer.Option(help="Only messages to this address.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="Only messages with a recipient in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List messages, newest first."""
    wanted = filters(recipient=recipient, status=status)
    api = reach(data)
    found = call(api, "GET", f"{api.messages()}?{urlencode({'limit': limit, **wanted})}")
    if as_json:
        print_json(found)
        return
    room = columns()
    for item in found["messages"]:
        states = ", ".join(f"{r['mailbox']} {r['status']}" for r in item["recipients"])
        line = f"{item['queue_id']}  {item['accepted_at']}  {item['header_from']}  {states}  {item['subject']}"
        print(clean(line) if room is None else shortened(clean(line), room))
    print(f"{len(found['messages'])} of {found['total_count']}")
