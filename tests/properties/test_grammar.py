"""Any bytes: the grammar gives a value or `BadSyntax`, and what it gives is safe to hand on."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from outgate.smtp import grammar
from outgate.smtp.grammar import BadSyntax

SIGNS = st.text(st.sampled_from('aZ9@.<>"\\[]:;, -_=+\t\0\x7f\x85é例IPv6:'), max_size=60)
ANY = st.one_of(st.binary(max_size=80), SIGNS.map(str.encode))


@given(ANY)
def test_everything_reads_anything(data: bytes) -> None:
    grammar.command(data)
    for read in (
        grammar.mailbox,
        grammar.parameters,
        grammar.hello_name,
        lambda d: grammar.path(b"FROM:" + d, b"FROM"),
        lambda d: grammar.path(d, b"TO"),
    ):
        with contextlib.suppress(BadSyntax):
            read(data)
    with contextlib.suppress(BadSyntax):
        grammar.domain(data.decode("utf-8", "replace"))
    with contextlib.suppress(BadSyntax):
        grammar.address_literal(data.decode("utf-8", "replace"))


@given(ANY)
def test_a_mailbox_that_was_read_is_safe_to_write(data: bytes) -> None:
    try:
        found = grammar.mailbox(data)
    except BadSyntax:
        return
    assert found.text.encode() == data
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in found.text)
    assert found.domain == found.domain.lower() or found.literal
    assert found.domain.isascii()
    assert grammar.path(b"TO:<" + data + b">", b"TO")[0] == found
    if found.text and not found.literal:
        assert grammar.domain(found.domain) == found.domain


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){0,3}", fullmatch=True))
def test_names_stay_what_they_are(name: str) -> None:
    assert grammar.domain(name) == grammar.domain(name.upper()) == grammar.domain(name + ".") == name
