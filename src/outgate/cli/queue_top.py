"""`outgate queue top`: the queue, live.

Standards: ECMA-48 by way of rich; termios for a key without Enter.
Promises: q, Ctrl-C and a closed terminal end it and leave the terminal as it was; without a terminal, or on one that
    cannot move its cursor, one frame is printed.
Dangers: what sites and replies say comes from strangers: it is shown without control characters.
Not here: asking (`cli.queue`).
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from outgate.cli.calling import clean

_OTHER_LINES = 5
"""Lines of a frame that are no sites."""
_BATCH = 20


def run(look: Callable[[int], dict[str, Any]], interval: float, *, once: bool) -> None:
    """Show what `look` (given how many sites there is room for) finds, again and again until q or Ctrl-C."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if once or not console.is_terminal or console.is_dumb_terminal:
        from outgate.cli.queue import HEADS, cells, print_table, summary

        found = look(_BATCH)
        print_table(HEADS, [cells(site) for site in found["sites"]])
        print(summary(found))
        return
    from rich.live import Live

    from outgate.cli.queue import WIDE

    with (
        suppress(KeyboardInterrupt),
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            room = console.size.height - _OTHER_LINES
            if console.size.width < WIDE:
                room //= 2
            live.update(_frame(look(max(1, min(100, room))), console.size.width), refresh=True)
            if pressed(interval):
                return


def _frame(found: dict[str, Any], width: int) -> Any:
    from rich.console import Group
    from rich.text import Text

    from outgate.cli.queue import WIDE, narrow, summary

    at = time.strftime("%H:%M:%S", time.gmtime())
    head = (Text(f"outgate queue  {at} UTC   q ends", style="bold"), Text(clean(summary(found))), Text(""))
    if width >= WIDE:
        return Group(*head, _table(found))
    heads, *lines = narrow(found["sites"], width)
    styles = [style for site in found["sites"] for style in (_style(site), "dim")]
    return Group(
        *head,
        Text(heads, style="bold"),
        *(Text(line, style=style) for line, style in zip(lines, styles, strict=True)),
    )


def _style(site: dict[str, Any]) -> str:
    return "yellow" if site["held"] else "red" if site["deferred"] else ""


def _table(found: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from outgate.cli.queue import HEADS, cells

    table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
    for head in (*HEADS[:8], "CONN", HEADS[8]):
        right = head not in ("SITE", "NEXT", "WHY")
        table.add_column(
            head,
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=3 if head == "WHY" else 2 if head == "SITE" else None,
        )
    for site in found["sites"]:
        row = [clean(str(cell)) for cell in cells(site)]
        table.add_row(*row[:8], str(site["connections"]), Text(row[8], overflow="ellipsis"), style=_style(site))
    return table


@contextmanager
def _keys() -> Generator[Callable[[float], bool]]:
    """Give a function that waits so many seconds and says whether q was pressed, or nobody is there any more."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):
        # No keyboard, or none that can be read so: Ctrl-C is left.
        yield _asleep
        return
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _asleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _pressed(descriptor: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        readable, _, _ = select.select([descriptor], [], [], left)
        if readable:
            typed = os.read(descriptor, 64)
            if not typed or b"q" in typed.lower() or b"\x04" in typed:
                return True
    return False
