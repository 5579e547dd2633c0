"""Taking transparency dots out: the fast way and the plain way agree on any bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.message import fields

WIRE = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"\r", b"\n", b"x", b"\r\n."]), max_size=40).map(b"".join)


@given(WIRE, st.sampled_from([0, 1, 3, 500]))
def test_unstuffed_agrees_with_the_rule(wire: bytes, few: int) -> None:
    lines = wire.split(b"\r\n")
    plain = b"\r\n".join(line.removeprefix(b".") for line in lines)
    before = fields._FEW_DOTS
    fields._FEW_DOTS = few
    try:
        assert fields.unstuffed(wire) == plain
    finally:
        fields._FEW_DOTS = before
