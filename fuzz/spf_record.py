"""SPF records and their macros.

Property: any bytes behind `v=spf1 ` are a record or `BadRecord`. A record that was read is read as the same from the text
of its terms, its networks and prefixes are within their families, and each of its macro strings can be expanded whatever
the values are, to a name within 253 octets wherever labels can be dropped.
"""

from __future__ import annotations

from outgate.domains.spf_record import BadRecord, check_explanation, expand, expand_name, is_spf, parse, uses

SEEDS = (
    b"v=spf1 +a:b.example/24//64 mx -all",
    b"v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ?ptr ~all",
    b"v=spf1 include:%{ir}.%{v}._spf.%{d2} exists:%{l1r-}.%{s}.x.example -all",
    b"v=spf1 redirect=_spf.example.com exp=why.%{o}",
    b"v=spf1 a:%%%_%-.%{D12R.-+,/_=} foo=bar%{h}",
    b"v=spf1 ip4:1.2.3.4/33",
    b"v=spf1 ip6:::1%eth0",
    b"%{c} is not one of %{d}'s servers, %{r} says at %{t}",
)
_VALUES = {
    "s": "strong-bad@email.example.com", "l": "strong-bad", "o": "email.example.com", "d": "email.example.com",
    "i": "2.0.0.1.0.d.b.8", "p": "unknown", "v": "ip6", "h": "x" * 250, "c": "2001:db8::1", "r": "relay.example", "t": "0",
}  # fmt: skip


def one_input(data: bytes) -> None:
    _explanation(data)
    record = data if is_spf(data) else b"v=spf1 " + data
    assert is_spf(record)
    try:
        found = parse(record)
    except BadRecord as error:
        assert str(error).isprintable() or not record.decode("latin-1").isprintable()
        return
    again = parse(b"v=spf1 " + " ".join(directive.text for directive in found.directives).encode())
    assert again.directives == found.directives
    for directive in found.directives:
        assert directive.result in ("pass", "fail", "softfail", "neutral")
        assert 0 <= directive.prefix4 <= 32 and 0 <= directive.prefix6 <= 128
        assert (directive.network is not None) == (directive.mechanism in ("ip4", "ip6"))
        _name(directive.target)
    _name(found.redirect)
    _name(found.explanation)


def _name(text: str) -> None:
    name = expand_name(text, _VALUES)
    assert len(name) <= 253 or "." not in name
    for letter in "slodiphcrtv":
        uses(text, letter)


def _explanation(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        check_explanation(text)
    except BadRecord:
        return
    assert expand(text, _VALUES).isascii()


if __name__ == "__main__":
    from _run import run

    run(__file__)
