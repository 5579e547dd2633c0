"""What servers say, without the secrets that they were told.

Standards: none.
Promises: pure; a secret that a server repeats, as it was sent or as it is shown, whole or in a part that can be known
again, is replaced; other text stays as it is; time grows with the text's length only.
Dangers: secrets of fewer than four signs are in any text: they are not looked for. A server that writes a secret
backwards is not found out.
Not here: what a login says (`smtp.login`), mailboxes in logs (`base.masking`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from outgate.smtp.reply import Reply

HIDDEN = "(secret)"
_SHORTEST = 4  # signs
_PART = 8  # signs of a secret in a row that are no chance
_SAMPLE = 4  # signs: of a part that stands anywhere, one sample in a row of `_STEP` is whole
_STEP = _PART - _SAMPLE + 1
_SEARCHED = 1000  # signs of text that are sampled before it is cheaper to have all parts ready
_LONGEST = 65_536  # signs of one secret that are looked for


class Masks:
    """The secrets of one login, ready to be looked for. Its `repr` shows none."""

    __slots__ = ("_all", "_kept", "_searched", "_whole")

    def __init__(self, user: str = "", *secrets: str) -> None:
        """`user` is who logs in with them: name and secret go over the wire as one."""
        whole: dict[str, None] = {}
        for secret in secrets:
            whole.update(dict.fromkeys(form for form in _forms(user, secret[:_LONGEST]) if len(form) >= _SHORTEST))
        # The longest first: a shorter one may be part of it.
        self._whole = sorted(whole, key=len, reverse=True)
        self._all = "\0".join(self._whole)
        self._kept: set[str] | None = None  # all parts: thousands for a token, and few servers repeat any
        self._searched = 0

    def text(self, text: str) -> str:
        """Return `text` without the secrets."""
        for form in self._whole:
            if form in text:
                text = text.replace(form, HIDDEN)
        if not self._suspicious(text):
            return text
        parts = self._parts
        if not any(text[at : at + _PART] in parts for at in range(len(text) - _PART + 1)):
            return text
        shown: list[str] = []
        covered = 0
        for at, sign in enumerate(text):
            if text[at : at + _PART] in parts:
                if at >= covered:
                    shown.append(HIDDEN)
                covered = at + _PART
            if at >= covered:
                shown.append(sign)
        return "".join(shown)

    @property
    def _parts(self) -> set[str]:
        if self._kept is None:
            self._kept = {form[at : at + _PART] for form in self._whole for at in range(len(form) - _PART + 1)}
        return self._kept

    def _suspicious(self, text: str) -> bool:
        """Say whether there may be a part of a secret in `text`; False is certain."""
        self._searched += len(text)
        if self._searched > _SEARCHED:
            return bool(self._parts)
        secrets = self._all
        return any(text[at : at + _SAMPLE] in secrets for at in range(0, len(text) - _SAMPLE + 1, _STEP))

    def reply(self, reply: Reply) -> Reply:
        """Return `reply` without the secrets; the same object if it held none."""
        lines = tuple([self.text(line) for line in reply.lines])
        return reply if lines == reply.lines else Reply(reply.code, reply.enhanced, lines)


def _forms(user: str, secret: str) -> Iterable[str]:
    """Return how a secret may stand in what a server says: as such, as it was sent, as it is shown."""
    octets = secret.encode("utf-8", "replace")
    name = user.encode("utf-8", "replace")
    for text in (secret, octets.decode("utf-8", "replace")):
        yield text
        yield text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)
        yield repr(text)[1:-1]
    yield repr(octets)[2:-1]
    for sent in (octets, b"\0" + name + b"\0" + octets, b"user=" + name + b"\x01auth=Bearer " + octets + b"\x01\x01"):
        yield b64encode(sent).decode("ascii")
