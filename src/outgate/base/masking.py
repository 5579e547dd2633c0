"""Mask addresses, so that a log tells which mailbox is meant to those who know it, and to nobody else.

Standards: none; the vendor's records star "every second character or so".
Promises: pure; of a mailbox every second sign of each label and of the local part is a star, and what is one sign long
    is a star; text without "@" comes back as it is; time grows with the text's length only.
Dangers: whoever has a list of addresses can find the masked one in it: masking is discretion, no encryption.
Not here: secrets, which are never logged (`log`).
"""

from __future__ import annotations

import re
from typing import cast

# Bounded, so that a text that is all one word costs no more than its length. What stands before a "=" or an apostrophe
# is left as it is: more often than part of a mailbox it is what a representation puts before one.
_MAILBOX = re.compile(
    r"""(?:"(?:[^"\\\r\n]|\\.){1,128}"|[^\s<>()\[\],;:"'=\\@]{1,256}|['=])"""  # local part, quoted or not
    r"""@(?:\[[^\]\s"]{1,64}\]|[^\s<>()\[\],;:"'\\@]+)"""
)
_WORD = re.compile(r'[^.@\[\]"]+')


def masked(text: str) -> str:
    """Return `text` with every mailbox in it masked: "anna@dest.test" reads "a*n*@d*s*.t*s*"."""
    return _MAILBOX.sub(_mask, text) if "@" in text else text


def masked_in(value: object) -> object:
    """Return what JSON holds with every mailbox in its texts masked, also in names."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [masked_in(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        return {masked(name): masked_in(each) for name, each in cast("dict[str, object]", value).items()}
    return value


def _mask(found: re.Match[str]) -> str:
    return _WORD.sub(_star, found[0])


def _star(word: re.Match[str]) -> str:
    text = word[0]
    return "".join("*" if number % 2 else sign for number, sign in enumerate(text)) if text[1:] else "*"
