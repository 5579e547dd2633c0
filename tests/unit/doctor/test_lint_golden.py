"""Each trap by example: a bad tree and the exact text that is told of it, a good one of which nothing is told.

`tests/corpora/lint/RULE/` has `bad/`, `good/`, `expected.txt`, and `known.json` for traps that take knowledge of an
environment. OUTGATE_GOLDEN=write writes the texts anew: read the difference before it is believed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from outgate.doctor import annotations, lint
from outgate.doctor.traps import Known
from outgate.doctor.traps.rules import RULES
from outgate.mailer.config import forwards_from

CORPUS = Path(__file__).parents[2] / "corpora" / "lint"
CASES = sorted(path.name for path in CORPUS.iterdir())
# The only traps that no file can mend: the tree is as good before as after.
NOT_IN_FILES = {"tunnel-variable-set"}


def known(rule: str, *, mended: bool = False) -> Known:
    file = CORPUS / rule / "known.json"
    if not file.exists():
        return Known()
    given = json.loads(file.read_text("utf-8"))
    variables = given.get("variables")
    if mended and rule in NOT_IN_FILES:
        variables = {name: kind for name, kind in variables.items() if name != "AEM_PROXY_HOST"}
    return Known(variables, forwards_from(given["forwards"], {}) if "forwards" in given else None)


def told(tree: Path, given: Known) -> tuple[str, set[str]]:
    with contextlib.chdir(tree):
        found = lint.examine(".", given)
    text = annotations.text(found.findings, found.excerpts, files=found.files)
    return text, {each.rule for each in found.findings}


def test_every_rule_has_its_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_bad_tree_is_told_of_in_these_words(rule: str) -> None:
    text, rules = told(CORPUS / rule / "bad", known(rule))
    golden = CORPUS / rule / "expected.txt"
    if os.environ.get("OUTGATE_GOLDEN") == "write":
        golden.write_text(text, "utf-8")
    assert rule in rules
    assert text == golden.read_text("utf-8")
    assert "correct-horse" not in text


@pytest.mark.parametrize("rule", CASES)
def test_of_the_mended_tree_nothing_is_told(rule: str) -> None:
    text, _ = told(CORPUS / rule / "good", known(rule, mended=True))
    assert text.startswith("nothing found in ")
