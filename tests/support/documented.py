"""The snippets of `docs/clients.md`, filled in for a running laptop mode."""

from __future__ import annotations

import re
from pathlib import Path

from support.running import Running

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def snippet(running: Running, heading: str, number: int = 0) -> str:
    """Return a code block under a heading with what this instance has in place of the page's examples."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    text = re.findall(r"```[a-z]*\n(.*?)```", section, re.DOTALL)[number]
    for listener, port in (("submission", "587"), ("submissions", "465")):
        text = re.sub(rf"\b{port}\b", str(running.address(listener)[1]), text)
    text = text.replace("smtp.outgate.example", running.address("submission")[0])
    text = text.replace("/etc/outgate/ca.pem", running.dev["ca_file"])
    return text.replace(".example", ".test")
