"""Variables in JSON and YAML documents: what is read, and where what is wrong stands."""

from __future__ import annotations

import json
import time

import pytest

from outgate.cli.variable_documents import ENTRIES_LIMIT, OCTETS_LIMIT, read_json, read_yaml
from outgate.cli.variable_plan import Unfit, Wish

BOTH = pytest.mark.parametrize("read", [read_json, read_yaml])


def shown(wishes: list[Wish]) -> list[tuple[str, str, str, str]]:
    return [(wish.name, wish.value, wish.type, wish.service) for wish in wishes]


def refusal(read: object, text: str | bytes) -> str:
    assert callable(read)
    with pytest.raises(Unfit) as wrong:
        read(text.encode() if isinstance(text, str) else text, "vars")
    assert "s3cr3t" not in str(wrong.value)
    return str(wrong.value)


@BOTH
def test_one_document_is_both(read: object) -> None:
    assert callable(read)
    entries = [
        {"name": "EMAIL_USERNAME", "value": "me"},
        {"name": "EMAIL_PASSWORD", "value": 'pä$$ "w"\n', "type": "secretString", "service": "author"},
        {"name": "GONE", "value": ""},
        # What the list command prints can be sent back.
        {"name": "LISTED", "type": "string", "value": "x", "service": "", "status": "ready"},
    ]
    text = "\ufeff" + json.dumps(entries, indent=2, ensure_ascii=False)
    found = read(text.encode(), "vars")
    assert shown(found) == [
        ("EMAIL_USERNAME", "me", "", ""),
        ("EMAIL_PASSWORD", 'pä$$ "w"\n', "secretString", "author"),
        ("GONE", "", "", ""),
        ("LISTED", "x", "string", ""),
    ]
    assert [wish.where for wish in found[:2]] == ["vars: line 2, column 3", "vars: line 6, column 3"]
    assert shown(read(b"[]", "vars")) == []


def test_json_values_are_the_texts_that_stand_there() -> None:
    text = (
        '[{"name":"A1","value":1.10},{"name":"A2","value":true},{"name":"A3","value":-0},{"name":"A4","value":1e400}]'
    )
    assert [wish.value for wish in read_json(text.encode(), "vars")] == ["1.10", "true", "-0", "1e400"]


def test_yaml_values_are_the_texts_that_stand_there() -> None:
    text = "- {name: A1, value: yes}\n- {name: A2, value: 0123}\n- {name: A3, value: 2026-01-01}\n- {name: A4, value: 1.10}\n- name: A5\n  value: |-\n    two\n    lines\n- {name: A6, value: 'null'}\n- {name: A7, value: !!str no}\n"
    assert [wish.value for wish in read_yaml(text.encode(), "vars")] == [
        "yes", "0123", "2026-01-01", "1.10", "two\nlines", "null", "no",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "vars: line 1, column 1: expected an array"),
        ('{"name": "A1"}', "vars: line 1, column 1: expected an array"),
        ('[\n  5]', 'vars: line 2, column 3: expected {"name": …, "value": …}'),
        ('[["s3cr3t"]]', "line 1, column 2: expected {"),
        ('[{"name": "A1", "value": "s3cr3t"},\n]', "line 2, column 1: this is not JSON: Expecting value"),
        ('[{"name": "A1", "value": "s3cr3t"}\n {', "line 2, column 2: this is not JSON: Expecting ',' delimiter"),
        ('[{"name": "A1", "value": "s3cr3t"}] x', "column 37: this is not JSON: Extra data"),
        ('[{"name": "A1",\n"value": "s3cr3t', "line 2, column 10: this is not JSON: Unterminated string"),
        ('[{"name": "A1", "value": "s3cr3t\\x"}]', "this is not JSON: Invalid"),
        ("[{'name': 's3cr3t'}]", "this is not JSON"),
        ('[{"name": "A1", "value": null}]', 'value is missing: write "" to delete'),
        ('[{"name": "A1"}]', "value is missing"),
        ('[{"value": "s3cr3t"}]', "name is missing"),
        ('[{"name": 5, "value": "s3cr3t"}]', "name is not a text"),
        ('[{"name": "A1", "value": {"a": "s3cr3t"}}]', "value must be a text"),
        ('[{"name": "A1", "value": ["s3cr3t"]}]', "value must be a text"),
        ('[{"name": "A1", "value": "s3cr3t", "type": 5}]', "type is not a text"),
        ('[{"name": "A1", "value": "s3cr3t", "service": []}]', "service is not a text"),
        ('[{"name": "A1", "value": "s3cr3t", "value": "x"}]', "line 1, column 2: a variable's key stands twice"),
        ('[{"name": "A1", "value": "s3cr3t", "secret": true}]', "has no such key: name, value, and perhaps type"),
        ("[" * 100_000, "nothing as deep"),
        ('[{"name": ' + "[" * 100_000, "nothing as deep"),
        (b'[{"name": "A1", "value": "\xe4s3cr3t"}]', "vars is not UTF-8 (octet 27)"),
        (b" " * (OCTETS_LIMIT + 1), "more than 1048576 octets"),
        (json.dumps([{"name": "A1", "value": "x"}] * (ENTRIES_LIMIT + 1)), "more than 1000 variables"),
    ],
)  # fmt: skip
def test_json_that_is_wrong(text: str | bytes, words: str) -> None:
    assert words in refusal(read_json, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "vars is empty: expected a sequence"),
        ("# nothing\n", "vars is empty"),
        ("name: A1\nvalue: s3cr3t\n", "line 1, column 1: expected a sequence of variables"),
        ("- s3cr3t\n", "line 1, column 3: expected a variable"),
        ("- name: A1\n  value: s3cr3t: x\n", "line 2, column 16: this is not YAML: put quotes"),
        ("- name: A1\n\tvalue: s3cr3t\n", "this is not YAML"),
        ("- name: A1\n  value: %s3cr3t\n", "this is not YAML"),
        ("- name: A1\n  value: @s3cr3t\n", "this is not YAML"),
        ("- name: A1\n  value: !s3cr3t!x y\n", "this is not YAML"),
        ("- name: A1\n  value: !s3cr3t y\n", "line 2, column 10: a tag has no meaning here"),
        ("- name: A1\n  value: !!python/object/apply:os.system ['s3cr3t']\n", "expected a text"),
        ("- name: A1\n  value: !!timestamp 2026-01-01\n", "a tag has no meaning"),
        ("- name: A1\n  value: &s3cr3t y\n", "an anchor has no meaning"),
        ("- &a\n  name: A1\n  value: x\n- *a\n", "line 1, column 3: an anchor has no meaning"),
        ("- name: A1\n  value: *s3cr3t\n", "line 2, column 10: expected a text"),
        ("- <<: *s3cr3t\n", "expected a text"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "expected a sequence of variables"),
        ("- name: A1\n  value:\n", 'value is missing: write ""'),
        ("- name: A1\n  value: ~\n", "value is missing"),
        ("- name: A1\n  value: [s3cr3t]\n", "line 2, column 10: expected a text: put quotes"),
        ("- name: A1\n  value: s3cr3t\n  value: x\n", "line 1, column 3: a variable's key stands twice"),
        ("- name: A1\n  ? [s3cr3t]\n  : x\n", "expected one of name, value, type, service"),
        ("- {name: A1, value: s3cr3t}\n---\n- {name: A2, value: x}\n", "line 2, column 1: expected the end of the file"),
        ("%TAG ! tag:s3cr3t,2000:\n--- []\n...\n%TAG x\n", "line 4, column 6: this is not YAML"),
        ("- name: A1\n  value: \"s3cr3t\x07\"\n", "has a character that no text may have"),
        ("[" * 100_000, "line 1, column 2: expected a variable"),
        ("- name: A1\n  value: " + "[" * 100_000, "expected a text"),
        ("- {name: A1, value: x}\n" * (ENTRIES_LIMIT + 1), "more than 1000 variables"),
        (b"- \xff", "vars is not UTF-8 (octet 3)"),
    ],
)  # fmt: skip
def test_yaml_that_is_wrong(text: str | bytes, words: str) -> None:
    assert words in refusal(read_yaml, text)


@pytest.mark.parametrize(
    "text",
    [
        "- name: A1\n  value: '" + "x" * (OCTETS_LIMIT // 4) + "'\n",
        "- name: A1\n  value: x\n" + "\n" * (OCTETS_LIMIT // 4),
        "- name: A1\n  value: x\n" + "# x\n" * (OCTETS_LIMIT // 16),
    ],
)
def test_a_large_document_takes_time_by_its_size_only(text: str) -> None:
    began = time.process_time()
    assert shown(read_yaml(text.encode(), "vars"))[0][0] == "A1"
    assert time.process_time() - began < 20
