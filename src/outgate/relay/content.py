"""Rule 10, what a message may hold: no attachments unless the instance allows them.

Standards: RFC 2046, 2183, 2387 (multipart/related), 6522 (multipart/report); the vendor: "attachments are
not supported over SMTP".
Promises: one verdict for every way a message comes in; what cannot be read clearly counts as an attachment.
Not here: the walk through the parts (`message.mime`), HTML and unsubscribe checks (they join this module).
"""

from __future__ import annotations

from outgate.message.fields import Header
from outgate.message.mime import Leaf, TooComplex, leaves


def attachment(content: bytes, header: Header, *, null_reverse_path: bool) -> str | None:
    """Return why the message counts as carrying an attachment, or None."""
    try:
        parts = leaves(content, header)
    except TooComplex:
        return "its structure is too complex to look through"
    for part in parts:
        why = _why(part, null_reverse_path)
        if why is not None:
            return why
    return None


def _why(part: Leaf, null_reverse_path: bool) -> str | None:
    if null_reverse_path and part.within and part.within[0] == "multipart/report":
        return None
    if part.attachment:
        return f"a part of type {part.type} has the disposition attachment"
    inline_image = part.type.startswith("image/") and part.content_id and "multipart/related" in part.within
    if part.named and not inline_image:
        return f"a part of type {part.type} has a file name"
    if part.type.startswith("text/") or inline_image:
        return None
    return f"a part has the type {part.type}"
