"""The page on configuration files says what the reader does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from outgate.mailer import folders, osgi
from outgate.mailer.configuration import commented_json

PAGE = (Path(__file__).parents[3] / "docs" / "configuration-files.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\"p.+)` \| `([^`]+)` \| `(.+)` \|$", PAGE, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_has_its_rows() -> None:
    assert len(ROWS) == 17


@pytest.mark.parametrize(("written", "type_name", "value"), ROWS)
def test_the_table_of_types(written: str, type_name: str, value: str) -> None:
    found = osgi.read("{" + written + "}")["p"]
    assert found.type == type_name
    expected = json.loads(value)
    assert repr(found.value) == repr(tuple(expected) if isinstance(expected, list) else expected)


def test_the_examples(tmp_path: Path) -> None:
    (example,) = blocks("json")
    assert len(osgi.read(example)) == 6
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    folder = tmp_path / "jcr_root/apps/shop/osgiconfig/config.author"
    folder.mkdir(parents=True)
    file = folder / "com.day.cq.mailer.DefaultMailService.cfg.json"
    file.write_text(example, "utf-8")
    assert names["mail_file"](str(tmp_path)) == str(file)  # type: ignore[operator]


def test_the_older_formats_and_limits_are_told() -> None:
    for suffix in (".config", ".cfg", ".properties"):
        assert f"`{suffix}`" in PAGE and suffix in folders._OLD
    assert f"{commented_json.MOST_PROPERTIES:,}\nproperties" in PAGE
