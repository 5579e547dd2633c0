"""A suppressed address: one that an instance's mail is not sent to, why, who says so, and until when.

Standards: RFC 5321 section 2.4 and 4.1.2 (mailboxes), RFC 5890 (A-labels).
Promises: pure; two spellings of a mailbox that reach the same one in practice have the same key.
Dangers: a receiver may tell `Ann@` from `ann@` (RFC 5321 lets it). None of size does, and whoever asked not to be
    written to asked for every spelling: the local part counts without its case here, and only here. What stands
    behind a plus sign counts: `ann+news@` is an address of its own.
Not here: rows (`store.suppressions`), who is added by a bounce (`relay.suppressing`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from outgate.base.clock import rfc3339
from outgate.smtp.grammar import mailbox

HARD_BOUNCE, COMPLAINT, UNSUBSCRIBE, MANUAL = "hard_bounce", "complaint", "unsubscribe", "manual"
"""The reasons we give ourselves. An import may bring others: one word of small letters, digits, `_` and `-`."""
REASON = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
LONGEST_SOURCE, LONGEST_DETAIL = 200, 1000
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_DOT_ATOM = re.compile(r"[^\s\"(),:;<>@\[\\\].]+(?:\.[^\s\"(),:;<>@\[\\\].]+)*")
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class NewSuppression:
    """What is to be suppressed. `address` is a mailbox as given; `source` says who wants it ("bounce of A06F…", an
    identity, an import), `detail` more of it, as the reply that refused. Times are epoch seconds; `created_at` None:
    now; `expires_at` None: for good."""

    address: str
    reason: str
    source: str
    detail: str = ""
    expires_at: float | None = None
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that is suppressed. `address` is the mailbox as given, `key` what it is found by."""

    id: int
    instance_id: str
    key: str
    address: str
    reason: str
    source: str
    detail: str
    created_at: float
    expires_at: float | None

    def words(self) -> str:
        """Return what the trail says of a recipient that is not sent to because of it."""
        said = f" ({self.detail[:_SHOWN]})" if self.detail else ""
        when = rfc3339(self.created_at)[:10]
        return (
            f"suppressed: {self.reason.replace('_', ' ')} of {when}{said};"
            f" remove it with `outgate suppression remove {self.address}`"
        )


@lru_cache(maxsize=4096)
def key(address: str) -> str:
    """Return what a mailbox is found by: the local part without case and needless quotes, the domain in lower case
    A-labels. Raises `smtp.grammar.BadSyntax`."""
    found = mailbox(address.encode("utf-8", "surrogatepass"))
    local = found.local
    if local.startswith('"'):
        plain = _QUOTED_PAIR.sub(r"\1", local[1:-1])
        if _DOT_ATOM.fullmatch(plain) is not None:
            local = plain
    if not local.isascii():
        local = unicodedata.normalize("NFC", local)
    return f"{local.casefold()}@{found.domain}"
