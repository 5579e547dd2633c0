"""The corpora of the reader: what each text is, or why it is nothing; which folder counts for which run modes.

values.json: text, and each property's type and value. changed.json: text of a property `p` that Felix makes another value
of, that value, place, parts of what is said, and what may not be. refused.json: the same of what is nothing.
run_modes.json: folders that have the same PID, run modes, the one that counts, and those that are told as odd.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.mailer.folders import open_configurations
from outgate.mailer.osgi import OsgiError, parse, read, write
from outgate.mailer.values import ConfigError

CORPUS = Path(__file__).parents[2] / "corpora" / "osgi"
PID = "com.day.cq.mailer.DefaultMailService"


def cases(name: str) -> Iterator[Any]:
    for case in json.loads((CORPUS / f"{name}.json").read_text("utf-8")):
        yield pytest.param(case, id=case["name"])


FILES = ("values", "changed", "refused", "run_modes")
VALUES, CHANGED, REFUSED, RUN_MODES = (list(cases(name)) for name in FILES)


def test_the_corpora_are_all_here() -> None:
    assert {file.stem for file in CORPUS.iterdir()} == set(FILES)
    assert (len(VALUES), len(CHANGED), len(REFUSED), len(RUN_MODES)) == (102, 32, 91, 34)
    names = [case.id for case in (*VALUES, *CHANGED, *REFUSED, *RUN_MODES)]
    assert len(names) == len(set(names))


def told(value: object) -> object:
    """Return a value as the corpus has it: lists for tuples, and a number's type beside it, as 1 == 1.0 == True."""
    if isinstance(value, (tuple, list)):
        return [told(item) for item in value]
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value == float("inf") else "-Infinity"
    return (type(value).__name__, value)


@pytest.mark.parametrize("case", VALUES)
def test_values(case: dict[str, Any]) -> None:
    found = read(case["text"])
    assert list(found) == list(case["properties"])
    for name, (type_name, value) in case["properties"].items():
        assert found[name].type == type_name
        expected = told(value)
        assert told(found[name].value) in (expected, value)
    assert read(write(found)) == found
    assert not any(each.changed for each in parse(case["text"]).values())


@pytest.mark.parametrize("case", CHANGED)
def test_what_felix_changes_is_changed_and_told(case: dict[str, Any]) -> None:
    found = parse(case["text"])["p"]
    assert found.value.type == case["type"]
    expected = told(case["value"])
    assert told(found.value.value) in (expected, case["value"])
    assert list(found.changed_at) == case["at"]
    for part in case["says"]:
        assert part in found.changed
    assert case.get("hides", "\0") not in found.changed
    assert read(write({"p": found.value})) == {"p": found.value}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(OsgiError) as caught:
        parse(case["text"])
    assert [caught.value.line, caught.value.column] == case["at"]
    for part in case["says"]:
        assert part in caught.value.text
    assert case.get("hides", "\0") not in str(caught.value)


@pytest.mark.parametrize("case", RUN_MODES)
def test_run_modes(case: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "osgiconfig"
    for folder in case["folders"]:
        (root / folder).mkdir(parents=True)
        (root / folder / f"{PID}.cfg.json").write_text("{}", "utf-8")
    found = open_configurations(tmp_path)
    told_as_odd = {each.where.removesuffix(f"/{PID}.cfg.json").rpartition("/")[2] for each in found.oddities}
    assert told_as_odd == set(case.get("odd", ()))
    if case.get("ties"):
        with pytest.raises(ConfigError) as caught:
            found.resolve(PID, case["active"])
        assert "equally well" in str(caught.value)
        assert all(str(root / folder) in str(caught.value) for folder in case["ties"])
    elif case["counts"] is None:
        with pytest.raises(ConfigError, match="no config folder"):
            found.resolve(PID, case["active"])
    else:
        best = found.resolve(PID, case["active"])
        assert Path(best.where).parent.name == case["counts"]
        assert found.candidates(PID, case["active"])[0] == best
