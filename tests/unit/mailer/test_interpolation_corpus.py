"""Every corner of the placeholders' grammar: tests/corpora/interpolation, input and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outgate.mailer.interpolate import InterpolationError, interpolate
from outgate.mailer.values import Value

FOLDER = Path(__file__).parents[2] / "corpora" / "interpolation"
CASES = [
    pytest.param(case, id=f"{file.stem}-{number}")
    for file in sorted(FOLDER.glob("*.json"))
    for number, case in enumerate(json.loads(file.read_text("utf-8")), 1)
]


def frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def given(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    for name, content in case.get("files", {}).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8", newline="")
    return {
        "env": case.get("env", {}),
        "secrets": folder if "files" in case else case.get("secrets", {}),
        "props": case.get("props"),
        "conf": {name: Value(each["type"], frozen(each["value"])) for name, each in case.get("conf", {}).items()},
    }


@pytest.mark.parametrize("case", CASES)
def test_interpolation(case: dict[str, Any], tmp_path: Path) -> None:
    value = Value("String[]", frozen(case["value"])) if isinstance(case["value"], list) else case["value"]
    sources = given(case, tmp_path)
    if "error" in case:
        with pytest.raises(InterpolationError) as caught:
            interpolate(value, **sources)
        assert case["error"] in str(caught.value)
        return
    found = interpolate(value, **sources)
    assert found.type == case["type"]
    if "result" in case:
        expected = frozen(case["result"])
        assert found.value == expected
        items = found.value if isinstance(found.value, tuple) else (found.value,)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        assert [type(item) for item in items] == [type(item) for item in wanted]
    if "text" in case:
        assert found.text == case["text"]
    assert "result" in case or "text" in case


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 200
    given = [json.dumps({**case.values[0], "why": ""}) for case in CASES]
    assert len(set(given)) >= len(given) - 1  # the tunnel's host is in the table and on the page
