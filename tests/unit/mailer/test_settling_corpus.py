"""What the mail service makes of its ten properties: tests/corpora/settling, files and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outgate.mailer.config import FILE_NAME, MailConfig, load, settle
from outgate.mailer.osgi import read
from outgate.mailer.values import ConfigError

FOLDER = Path(__file__).parents[2] / "corpora" / "settling"
CASES = [
    pytest.param(case, id=f"{file.stem}-{number}")
    for file in sorted(FOLDER.glob("*.json"))
    for number, case in enumerate(json.loads(file.read_text("utf-8")), 1)
]


def text_of(case: dict[str, Any]) -> str:
    """Return the file: a property a line, those of the case first, and a host unless the case does without."""
    properties = dict(case["properties"])
    if "smtp.host" not in case.get("without", []):
        properties.setdefault("smtp.host", "mx.test")
    lines = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in properties.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def loaded(case: dict[str, Any], file: Path, *, classic: bool = False) -> MailConfig:
    file.write_text(text_of(case), "utf-8")
    return load(file, env=case.get("env", {}), secrets=case.get("secrets", {}), classic=classic)


@pytest.mark.parametrize("case", CASES)
def test_settling(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    classic = case.get("classic", False)
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            loaded(case, file)
        error = caught.value
        assert case["error"] in str(error)
        assert str(error).startswith(f"{file}: ") and [error.line, error.column] == case["at"]
        return
    config = loaded(case, file, classic=classic)
    for name, value in case.get("config", {}).items():
        assert getattr(config, name) == value, name
    if "tls" in case:
        assert config.tls == case["tls"]
        assert loaded(case, file, classic=True).tls == case["classic_tls"]
    if "noticed" in case:
        assert [f"{each.name}: {each.text}" for each in config.noticed] == case["noticed"]
        assert [each.line for each in config.noticed] == [*range(2, 2 + len(config.noticed))]
    again = settle(read(text_of(case)), env=case.get("env", {}), secrets=case.get("secrets", {}), classic=classic)
    assert again == config


def test_the_corpus_is_whole() -> None:
    cases = [case.values[0] for case in CASES]
    assert sum("tls" in case for case in cases) >= 8 and len(cases) >= 70
    assert all({"config", "tls", "noticed", "error"} & case.keys() for case in cases)
