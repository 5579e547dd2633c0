"""`outgate environment`: what cannot be asked for."""

from __future__ import annotations

import pytest

from .conftest import Outgate


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "2"), "the program must not be empty"),
        (("1", "\udcff"), "the environment '\\udcff' is not UTF-8"),
        (("1", "2", "--service", ""), "--service must not be empty"),
    ],
)
def test_wrong_use(outgate: Outgate, arguments: tuple[str, ...], says: str) -> None:
    result = outgate("environment", "run", *arguments, "--", "true")
    assert (result.exit_code, result.stdout) == (2, "") and says in result.stderr
