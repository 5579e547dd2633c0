"""The header of a message, and the fields that we write ourselves.

Property: any bytes are read or refused with `BadHeader`. Reading again what was read, and with the missing empty line put
in, gives the same fields; `without` takes the fields of that name and nothing else; a value on one line has no line end;
an address of a From has one @, no control and no space outside quotes; whatever a client calls itself, our Received is one
field of short lines.
"""

from __future__ import annotations

from outgate.message.fields import BadHeader, mailboxes, read, separated, shown, unfold, without
from outgate.message.trace import received

SEEDS = (
    b"From: A. Name <a@b.example>\r\nTo: c@d.example\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n",
    b"From: a@b.example,\r\n c@d.example\r\nBcc: x@y.example\r\n\tz@y.example\r\n\r\n",
    b".From: a@b.example\r\n..Bcc: x\r\n folded\r\nno field\r\nbody\r\n",
    b'"quo\\"ted, name" (comment (nested)) <"lo cal"@[192.0.2.1]>',
    b"group: a@b.example, c@d.example;",
    b"a@b.example <c@d.example>",
    b"=?utf-8?b?YUBiLmV4YW1wbGU=?= <c@d.example>",
    b"=?unicode_escape?q?\\ud800?= =?idna?b?////?=",
    b"From : a@b.example\r\nfrom: c@d.example\r\n\r\n",
)


def one_input(data: bytes) -> None:
    _text(data)
    _addresses(data)
    _own(data)
    # What stands in a spool has only CR LF, ends with one, and is dot-stuffed: make it so.
    lines = data.replace(b"\r", b"").split(b"\n")
    wire = b"".join((b"." + line if line[:1] == b"." else line) + b"\r\n" for line in lines)
    try:
        header = read(wire)
        content, header = separated(wire, header)
    except BadHeader:
        return
    assert not header.unseparated and read(content) == header
    for name, value in header.fields:
        assert name == name.lower() and name.isascii() and name.isprintable() and " " not in name
        assert b"\r" not in unfold(value) and b"\n" not in unfold(value)
    for name in ("from", "bcc"):
        left = without(content, header, name)
        after = read(left)
        assert after.fields == tuple(field for field in header.fields if field[0] != name)
        assert left[after.body_at :] == content[header.body_at :]


def _text(data: bytes) -> None:
    assert shown(data).isprintable() and len(shown(data)) <= 500


def _addresses(data: bytes) -> None:
    try:
        found = mailboxes(data)
    except BadHeader as error:
        assert str(error).isascii()
        return
    for address in found:
        local, at, domain = address.rpartition(b"@")
        assert local and at and domain and mailboxes(address) == [address]
        assert not set(domain) & set(b' \t\r\n,;:<>"()') or domain[:1] == b"["
        assert b"@" not in local or b'"' in local


def _own(data: bytes) -> None:
    field = received(
        helo=data.decode("utf-8", "replace"),
        address="192.0.2.1",
        by="relay.example",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        utf8=False,
        queue_id="0TEST",
        at=1.0,
    )
    ours = read(field + b"\r\n")
    assert [name for name, _ in ours.fields] == ["received"]
    assert ours.fields[0][1].count(b"(") == 3 == ours.fields[0][1].count(b")") and ours.fields[0][1].count(b";") == 1
    assert all(len(line) <= 998 for line in field.split(b"\r\n"))


if __name__ == "__main__":
    from _run import run

    run(__file__)
