"""Draw the SMTP state machines from their tables into docs/sessions.md: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from outgate.smtp import client, server

TARGET = Path(__file__).parent / "sessions.md"


def diagram(transitions: Mapping[Enum, Mapping[str, Enum]], first: Enum) -> str:
    """Return a Mermaid state diagram of a transition table."""

    def name(state: Enum) -> str:
        return str(state.value).replace(" ", "_")

    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {name(first)}"]
    for state, row in transitions.items():
        towards: dict[str, list[str]] = {}
        for verb, target in row.items():
            towards.setdefault(name(target), []).append(verb)
        lines += [f"    {name(state)} --> {target}: {', '.join(verbs)}" for target, verbs in towards.items()]
    return "\n".join([*lines, "```"])


def page() -> str:
    """Return the whole page."""
    return f"""# Sessions

Drawn from the tables in `src/outgate/smtp/server.py` and `client.py` by `make docs`; a test compares.

## The server's side

Capitals are the client's commands, words in brackets what else happens. A verb that is not at a state's arrows is
out of order there. NOOP, RSET, HELP, VRFY and QUIT are welcome wherever commands are; QUIT, too many errors, a 421
and the end of the connection lead to `closed`. Bytes behind STARTTLS end the session.

BDAT is the exception: its octets come whether it is welcome or not, so they are read in every state that takes
commands, and then it is refused; only a size that is no number ends the session, for nobody knows what follows. A chunk
that is refused ends its transaction. Chunks become the form that DATA would have brought: a dot doubled where a line
begins with one, and a CR LF at the end of a last line that has none. That CR LF is ours: DATA could not say that it is
missing. A line that is a dot inside a chunk is content and leaves doubled.

{diagram(server.TRANSITIONS, server.State.CONNECTED)}

## The client's side

Capitals are our commands, `2xx` to `5xx` classes of replies; a class that is not at a state's arrows breaks the
protocol. A 421 leads to `closed` from anywhere. With PIPELINING the commands of the states to come have gone out
already.

{diagram(client.TRANSITIONS, client.State.GREETING)}
"""


if __name__ == "__main__":
    TARGET.write_text(page(), "utf-8")
    sys.stdout.write(f"{TARGET} written\n")
