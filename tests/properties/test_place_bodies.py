"""Whatever is sent to make a program or an environment is read within its limits, or refused by fields that can be shown."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outgate.api.cloud_manager import place_bodies
from outgate.api.cloud_manager.problems import BadParameters, Invalid

REGIONS = ("deu6", "va7")
NAMES = ("name", "type", "region", "description", "capabilities", "secondaryRegionDeployments", "sandbox")
WORDS = st.sampled_from(["", "dev", "prod", "va7", "deu6", "moon", "aem_cloud_service", "a\0b", "\ud800", "x" * 2000])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80) | WORDS
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES | st.text(max_size=70),
        "type": VALUES | st.sampled_from(["dev", "prod", "aem_cloud_service"]),
        "region": VALUES | st.sampled_from(REGIONS),
        "description": VALUES,
        "capabilities": VALUES | st.fixed_dictionaries({"sandbox": st.booleans()}),
        "secondaryRegionDeployments": VALUES
        | st.lists(st.fixed_dictionaries({"region": st.sampled_from(REGIONS)}), max_size=3),
    },
)


def shown(refused: Invalid) -> None:
    """Each field is named and can be written as UTF-8."""
    assert refused.violations
    for each in refused.violations:
        json.dumps([each.field, each.code, each.message]).encode("utf-8")
        assert each.field.partition(".")[0] in ("addProgram", "createEnvironment") and each.message


@given(VALUES | LIKELY)
def test_a_program(body: Any) -> None:
    try:
        name, sandbox = place_bodies.new_program(body)
    except Invalid as refused:
        shown(refused)
    else:
        assert (body["name"], body["type"]) == (name, "aem_cloud_service")
        assert len(name.encode("utf-8")) <= 4 * place_bodies.PROGRAM_NAME and "\0" not in name
        assert sandbox in (True, False)


@given(VALUES | LIKELY)
def test_an_environment(body: Any) -> None:
    try:
        wanted = place_bodies.new_environment(body, REGIONS)
    except Invalid as refused:
        shown(refused)
    else:
        assert (wanted.name, wanted.kind, wanted.region) == (body["name"], body["type"], body["region"])
        assert 1 <= len(wanted.name) <= place_bodies.ENVIRONMENT_NAME and wanted.kind in place_bodies.NEW_TYPES
        assert len({wanted.region, *wanted.secondary_regions}) == 1 + len(wanted.secondary_regions)
        assert {wanted.region, *wanted.secondary_regions} <= set(REGIONS)
        (wanted.name + wanted.description).encode("utf-8")


@given(st.dictionaries(st.sampled_from(["start", "limit", "type"]), st.text(max_size=12) | st.integers().map(str)))
def test_a_page(query: dict[str, str]) -> None:
    try:
        page = place_bodies.page(query)
    except BadParameters as refused:
        assert set(refused.wrong) <= {"start", "limit"}
    else:
        assert 0 <= page.start < 2**31 and 1 <= page.limit <= place_bodies.PAGE
        assert int(query.get("start", "0")) == page.start
