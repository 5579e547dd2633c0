"""dkimpy judges what our Signer signed after relays have refolded it, as relaxed canonicalisation allows, and after
changes that it does not allow: for both algorithms, over messages as the listener lets them in."""

from __future__ import annotations

import functools
import random
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from outgate.model.flow import Job, JobRecipient, Location, SigningKey
from outgate.model.tenancy import DkimKey
from outgate.relay.signer import Signer
from outgate.smtp.buffer import InputBuffer
from outgate.smtp.content import ContentReader, Intake
from outgate.store.keys import NewKey, new_dkim_key, new_ed25519_key
from support.judge import received, verdicts

TRACE = b"Received: from a by b;\r\n\tSat, 21 Nov 2026 07:00:00 +0000\r\nMessage-ID: <1@shop.test>\r\nDate: Sat, 21 Nov 2026 07:00:00 +0000\r\n"
SIGNED_NAMES = [b"To", b"cC", b"Subject", b"Reply-To", b"MIME-Version", b"CONTENT-TYPE", b"References", b"List-Unsubscribe"]  # fmt: skip

_words = st.binary(min_size=1, max_size=12).map(lambda word: re.sub(rb"[\0-\x20\x7f]", b"w", word))
_gaps = st.sampled_from([b" ", b"\t", b"  \t ", b"\r\n ", b"\r\n\t", b" \r\n  ", b"\t\r\n \t"])
_values = st.lists(st.tuples(_words, _gaps), max_size=40).map(
    lambda parts: b" " + b"".join(word + gap for word, gap in parts) + b"end"
)
_fields = st.lists(st.tuples(st.sampled_from([*SIGNED_NAMES, b"X-Other"]), _values), max_size=8)
_line = st.one_of(
    st.lists(st.one_of(_words, st.sampled_from([b" ", b"\t", b"  ", b" \t\t", b".", b".."])), max_size=10).map(
        b"".join
    ),
    st.sampled_from([b"", b" ", b"\t", b" \t ", b".", b"..", b". ", b"-- ", b"From me"]),
)
_body = st.lists(_line, max_size=12).map(b"\r\n".join)


@functools.cache
def keys() -> dict[str, NewKey]:
    return {"rsa": new_dkim_key(), "ed": new_ed25519_key()}


@functools.cache
def records() -> dict[str, str]:
    made = (("one", keys()["rsa"]), ("two", keys()["ed"]))
    return {f"{at}._domainkey.shop.test": DkimKey("", "", at, key.algorithm, key.public).text for at, key in made}


def taken_in(message: bytes) -> bytes:
    """Return a message in wire form, as the listener does with one that comes in a chunk: any end of the last line."""
    reader = ContentReader(Intake(), most=1 << 20, text_line=0, replace_bare=False)
    source = InputBuffer()
    source.feed(message)
    reader.begin_chunk(len(message), True, None)
    content = reader.read(source)
    assert isinstance(content, bytes), content
    return content


def signed(message: bytes) -> bytes:
    """Return what the receiver of a message gets."""
    signer = Signer(threads=0, key_pem=lambda key_id: keys()[key_id].pem, load=lambda job: (b"", b""), notify=lambda call: call())  # fmt: skip
    job = Job("0Q", "i", "c", SigningKey("rsa", "shop.test", "one", "ed", "two"), "a@shop.test", "x.test",
              (JobRecipient(1, "b@x.test", "x.test", 0),), Location(0, 0, 0, 0), 1_795_158_180.0, 2e9, False, False,
              TRACE, taken_in(message))  # fmt: skip
    return received(signer.sign(job))


def build(fields: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [name + b":" + value for name, value in [(b"From", b" a@shop.test"), *fields]]
    return b"\r\n".join(lines) + b"\r\n\r\nparagraph 1\r\n" + body


def refolded(message: bytes, chance: random.Random) -> bytes:
    """Do to a message whatever relaxed canonicalisation does not see."""
    header, _, body = message.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", header)
    assert body.endswith(b"\r\n")
    lines = [_refolded_body_line(line, chance) for line in body.split(b"\r\n")[:-1]]
    end = b"".join(chance.choice((b"\r\n", b" \t\r\n")) for _ in range(chance.randrange(4)))
    return b"\r\n".join(_refolded_field(field, chance) for field in fields) + b"\r\n\r\n" + b"".join(lines) + end


def _refolded_field(field: bytes, chance: random.Random) -> bytes:
    name, _, value = field.partition(b":")
    words = re.split(rb"(?:\r\n)?[ \t]+(?:\r\n[ \t]+)*", value.strip(b" \t\r\n"))
    folds = (b" ", b"\t", b"   ", b" \t", b"\r\n ", b"\r\n\t\t", b" \r\n \t")
    text = chance.choice((b"", b" ", b"\t ")) + words[0]
    for word in words[1:]:
        text += chance.choice(folds) + word
    name = chance.choice((name, name.upper(), name.lower(), name.swapcase()))
    return name + b":" + text + chance.choice((b"", b" ", b"\t "))


def _refolded_body_line(line: bytes, chance: random.Random) -> bytes:
    text = re.sub(rb"[ \t]+", lambda _: chance.choice((b" ", b"\t", b"  ", b"\t \t")), line)
    return text + chance.choice((b"", b"", b" ", b"\t ")) + b"\r\n"


@settings(max_examples=150, deadline=None)
@given(_fields, _body, st.integers(0, 1 << 32))
@example([], b"", 1)
@example([(b"Subject", b"")], b"\r\n\r\n", 2)
@example([(b"Subject", b" a\r\n\tb\r\n  c")], b".\r\n..\r\n \r\n\t\r\n", 3)
@example([(b"Subject", b" \xff\xfe \xe9")], b"\xc3\x28 \xa0\r\nno line end", 4)
def test_legal_refolding_keeps_both_right(fields: list[tuple[bytes, bytes]], body: bytes, seed: int) -> None:
    message = signed(build(fields, body))
    assert verdicts(message, records()) == [True, True]
    again = refolded(message, random.Random(seed))
    assert verdicts(again, records()) == [True, True]
    twice = refolded(again, random.Random(seed + 1))
    assert verdicts(twice, records()) == [True, True]


@settings(max_examples=100, deadline=None)
@given(
    _fields, _body, st.integers(0, 1 << 32), st.sampled_from(["field", "word", "case", "digit", "line", "gap", "cut"])
)
def test_any_other_change_makes_both_wrong(
    fields: list[tuple[bytes, bytes]], body: bytes, seed: int, change: str
) -> None:
    message = refolded(signed(build([(b"Subject", b" the subject here"), *fields], body)), random.Random(seed))
    assert verdicts(message, records()) == [True, True]
    header, _, text = message.partition(b"\r\n\r\n")
    subject = rb"(?i)(\r\nsubject:[ \t]*the(?:[ \t\r\n]+)subject)(?:[ \t\r\n]+)here"
    if change == "field":
        header = re.sub(subject + rb"[ \t]*", b"", header, count=1)
    elif change == "word":
        header = re.sub(subject, rb"\1 there", header, count=1)
    elif change == "case":
        header = re.sub(subject, rb"\1 Here", header, count=1)
    elif change == "gap":
        header = re.sub(subject, rb"\1here", header, count=1)
    elif change == "digit":
        text = text.replace(b"1", b"2", 1)
    elif change == "line":
        text = b"\r\n" + text
    else:
        text = b""
    assert header + b"\r\n\r\n" + text != message
    assert verdicts(header + b"\r\n\r\n" + text, records()) == [False, False]


@given(st.sampled_from([b"From: a@shop.test\r\n\r\n", b"From: a@shop.test\r\n", b"From: a@shop.test\r\n\r\n\r\n\r\n"]))
def test_messages_without_a_body(message: bytes) -> None:
    found = signed(message)
    found = found if b"\r\n\r\n" in found else found + b"\r\n"
    assert verdicts(found, records()) == [True, True]
    assert verdicts(found + b" \r\n\r\n", records()) == [True, True]
    assert verdicts(found + b"x\r\n", records()) == [False, False]
