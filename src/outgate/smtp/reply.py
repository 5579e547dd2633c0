"""A reply: code, enhanced code, text; and the catalogue of every reply the server side gives.

Standards: RFC 5321 section 4.2, RFC 3463 and 2034 (enhanced codes), RFC 4954 (AUTH).
Promises: no reply contains a path, an address we know in private or a rule's name; the texts the vendor's
transcript shows are word for word here.
Dangers: text that comes from outside must not enter a reply: `Reply` refuses CR, LF and NUL.
Not here: when a reply is given (`smtp.server`, `relay.policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `enhanced` is "" where RFC 2034 has none (greeting, EHLO, 354); `lines` are its texts."""

    code: int
    enhanced: str
    lines: tuple[str, ...]
    wire: bytes = field(init=False, repr=False, compare=False)
    """The reply as it is sent. Made once: most replies are constants."""

    def __post_init__(self) -> None:
        prefix = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        texts = [f"{self.code}{' ' if number == last else '-'}{prefix}{line}" for number, line in enumerate(self.lines)]
        whole = "".join(texts)
        if "\r" in whole or "\n" in whole or "\0" in whole:
            raise ValueError("a reply's line holds a control character")
        object.__setattr__(self, "wire", ("\r\n".join(texts) + "\r\n").encode("utf-8"))

    @property
    def text(self) -> str:
        """Return the texts of all lines as one, without codes."""
        return " ".join(self.lines)

    @property
    def ok(self) -> bool:
        """Say whether the code is 2xx."""
        return 200 <= self.code < 300

    def __bytes__(self) -> bytes:
        return self.wire

    def __str__(self) -> str:
        return self.wire.decode("utf-8").rstrip("\r\n").replace("\r\n", " / ")


def reply(code: int, enhanced: str, *lines: str) -> Reply:
    """Make a reply: `reply(250, "2.1.0", "Ok")`."""
    return Reply(code, enhanced, lines)
