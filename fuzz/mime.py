"""The MIME structure of a message.

Property: any message gives at least one leaf or `TooComplex`, never another exception; a leaf's type is one word, a slash
and one word in lower case; no more leaves than we look at; and where Python's own parser finds a part that is neither text
nor a container, we do not call everything text.
"""

from __future__ import annotations

import email
import email.policy
from email.errors import MessageError

from outgate.message.fields import BadHeader, read, separated, unstuffed
from outgate.message.mime import DEPTH, PARTS, TooComplex, leaves

_HEAD = b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
SEEDS = (
    _HEAD + b"--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/pdf; name=x.pdf\r\n\r\nfile\r\n--b--\r\n",
    _HEAD + b"--b\r\nContent-Type: multipart/related; boundary=c\r\n\r\n--c\r\nContent-Type: image/png\r\nContent-ID: <1>\r\n\r\nx\r\n--c--\r\n--b--\r\n",
    _HEAD + b"--b\r\nContent-Disposition: attachment; filename*=utf-8''x\r\n\r\nx\r\n--b",
    b'Content-Type: multipart/mixed; boundary="c"; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--c\r\n\r\ny\r\n--b--\r\n',
    b'Content-Type: multipart/mixed;\r\n boundary*0="b";\r\n boundary*1=c\r\n\r\n--bc\r\n\r\nx\r\n--bc--\r\n',
    b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+\r\n",
    b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nFrom: x\r\n\r\ny\r\n--b--\r\n",
    b"Content-Type: multipart/mixed (a; b)\r\n; boundary=b\r\n\r\n.--b\r\n\r\nx\r\n",
)  # fmt: skip


def one_input(data: bytes) -> None:
    lines = data.replace(b"\r", b"").split(b"\n")
    wire = b"".join((b"." + line if line[:1] == b"." else line) + b"\r\n" for line in lines)
    try:
        content, header = separated(wire, read(wire))
        found = leaves(content, header)
    except (BadHeader, TooComplex):
        return
    assert 0 < len(found) <= 2 * PARTS
    for leaf in found:
        kind, slash, sub = leaf.type.partition("/")
        assert kind and slash and sub and leaf.type == leaf.type.lower() and leaf.type.isascii()
        assert len(leaf.within) <= DEPTH + 1 and not leaf.type.startswith("multipart/")
    if all(leaf.type.startswith("text/") for leaf in found):
        assert not _files(unstuffed(content)), "a file that another reader finds is called text"


def _files(message: bytes) -> list[str]:
    try:
        parsed = email.message_from_bytes(message, policy=email.policy.compat32)
        kinds = [part.get_content_type() for part in parsed.walk()]
    except (MessageError, ValueError, LookupError, RecursionError):  # it has bugs of its own
        return []
    return [kind for kind in kinds if not kind.startswith(("text/", "multipart/"))]


if __name__ == "__main__":
    from _run import run

    run(__file__)
