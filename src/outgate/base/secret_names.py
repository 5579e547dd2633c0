"""Names that say that what they name is a secret: of variables, of properties, in comments.

Standards: none; the words are those of the vendor's pages and of what people call such things.
Promises: pure; time grows with the text's length only.
Dangers: a name is no proof: what hides behind an innocent one is taken for harmless.
Not here: the secrets of a login, which are known (`smtp.masks`).
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRETS = re.compile(
    r"(?:.*(?:password|passwd|passphrase|passcode|secret|token|credential)|apikey|pass|pwd|pw|creds?)s?"
)
_KEYS = re.compile(r"(?:api|private|signing|access|client|auth|encryption|shared) keys?")
# What stands before or behind such a word where the value is about a secret, and none: passwordMaxAge, maxTokens.
_BEFORE = re.compile("allow|check|disable|enable|forgot|has|hide|is|max|min|no|require|reset|show|skip|use")
_BEHIND = re.compile(
    "age|algorithm|alias|attempts|attributes?|audience|change|class|cleanup|count|dir|directory|duration|enabled?"
    "|encapsulated|encoding|endpoint|exp|expires|expiration|expiry|fields?|files?|folder|format|handler|headers?|hosts?"
    "|ids?|interval|issuer|iterations|length|lifetime|limit|link|max|min|mode|names?|page|param|parameter|paths?|pattern"
    "|period|policy|ports?|prefix|providers?|refresh|regexp?|region|required|reset|scopes?|service|size|store|suffix"
    "|support|supported|through|timeout|ttl|types?|uri|urls?|user|username|valid|validity|version"
)

# For what is hidden, rather too much: any name, or comment, with such a word within.
_MENTION = re.compile(
    r"pass(?!ive|age|es\b)|pwd|secret|token|credential|private.?key|api.?key|access.?key|auth.?key", re.I
)
_ADDRESS = re.compile(r"(?:url|uri|endpoint|host|port|type|name|file|path|dir|expir\w*|enabled|length|id)$", re.I)
_SHORT = re.compile(r"(?:^|[._\-])(?:pw|pass|auth|authentication|login)$", re.I)
# A name that is nearly that of a secret: smtp.pasword, clientSercet. Words of these, by their letters.
_MISSPELT = re.compile(r"[a-z]{5,12}")
_WORDS = tuple("".join(sorted(word)) for word in ("password", "passwort", "kennwort", "secret", "token"))


@lru_cache(maxsize=4096)
def named_secret(name: str) -> bool:
    """Say whether a name, of a property or of a variable, says that the value is a secret."""
    words = [word.lower() for word in _WORD.findall(name[:200])]
    for at in reversed(range(len(words))):
        single = _SECRETS.fullmatch(words[at]) is not None
        if single or _KEYS.fullmatch(" ".join(words[at - 1 : at + 1])):
            first = at if single else at - 1
            about = first > 0 and _BEFORE.fullmatch(words[first - 1])
            return not about and not any(_BEHIND.fullmatch(word) for word in words[at + 1 :])
    return False


@lru_cache(maxsize=4096)
def like_a_secret(name: str) -> bool:
    """Say whether a name may be one of a secret, also misspelt: its value must not be shown."""
    if named_secret(name) or _SHORT.search(name):
        return True
    if _ADDRESS.search(name):
        return False
    if mentions_a_secret(name):
        return True
    words = _MISSPELT.findall(re.sub(r"([a-z])([A-Z])", r"\1 \2", name[:100]).lower())
    return any(get_close_matches("".join(sorted(word)), _WORDS, 1, 0.85) for word in words)


def mentions_a_secret(text: str, start: int = 0, end: int | None = None) -> bool:
    """Say whether a text, or its piece from `start` to `end`, has a word for a secret in it."""
    return _MENTION.search(text, start, len(text) if end is None else end) is not None
