"""Play a dialogue against the client machine: `S:` lines are fed, `C:` lines must be exactly what it says."""

from __future__ import annotations

from collections.abc import Callable

from outgate.smtp.client import ClientMachine, Event


def play(machine: ClientMachine, dialogue: str, on_event: Callable[[Event], None] | None = None) -> list[Event]:
    """Play `dialogue`, calling `on_event` for each event; return all events. Blank lines are left out.

    Consecutive `C:` lines are one expectation; at the end nothing may be left unsaid."""
    events: list[Event] = []
    lines = [line.strip() for line in dialogue.strip().splitlines() if line.strip()]
    at = 0
    _drain(machine, events, on_event)
    while at < len(lines):
        if lines[at].startswith("S: "):
            fed = ""
            while at < len(lines) and lines[at].startswith("S: "):
                fed += lines[at][3:] + "\r\n"
                at += 1
            machine.receive(fed.encode(), 1000.0 + at)
            _drain(machine, events, on_event)
        else:
            said = ""
            while at < len(lines) and lines[at].startswith("C:"):
                said += lines[at][3:] + "\r\n"
                at += 1
            assert at and lines[at - 1].startswith("C:"), f"not a dialogue: {lines[at]}"
            assert b"".join(machine.outgoing()).decode() == said
    assert machine.outgoing() == []
    return events


def _drain(machine: ClientMachine, events: list[Event], on_event: Callable[[Event], None] | None) -> None:
    while (event := machine.next_event()) is not None:
        events.append(event)
        if on_event is not None:
            on_event(event)
