"""Whatever is wrong with a command, its input or the answer: a secret's value is in no output."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from outgate.cli.cloud_manager import commands
from support.vendor_cloud_manager import ORG, TOKEN, Answer, Vendor, vendor

MARK = "Zq7Zq7"
SET = "cloudmanager:set-environment-variables"
_AROUND = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
_SECRETS = st.builds("{}{}{}".format, _AROUND, st.just(MARK), _AROUND)
_OPTIONS = st.sampled_from(["--secret", "-s", "--authorSecret", "--secret=AB", "-sAB", "--variable", "--delete", "-j", "-y", "--strict", "--jsonStdin", "--yamlStdin", "--nonsense", "-x", "10", "AB", "=", ""])  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Vendor]:
    with vendor() as running:
        yield running


def run(server: Vendor, *arguments: str, typed: bytes = b"") -> str:
    """Return all that the command says."""
    env = {"AIO_CLOUDMANAGER_BASE__URL": server.url, "AIO_CLOUDMANAGER__ORGID": ORG, "OUTGATE_DATA": "nowhere"}
    env["AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN"] = TOKEN
    result = CliRunner().invoke(commands, [SET, "-p", "4", "10", *arguments], input=typed, env=env)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code in (0, 2, 3, 30), result.output
    server.answers.clear()
    server.variables.clear()
    return result.output + result.stderr


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_OPTIONS, max_size=3), _SECRETS, st.lists(_OPTIONS, max_size=3))
def test_an_argument_is_never_repeated(server: Vendor, before: list[str], secret: str, after: list[str]) -> None:
    # A name that is one, and a plain variable, are shown: no such thing can be made of these.
    secret = f"!{secret}" if "-" not in secret[:1] else secret
    said = run(server, "-s", "AB", "x", *before, "-s", "CD", secret, *after)
    assert MARK not in said or "--variable" in before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_SECRETS, st.sampled_from([400, 401, 403, 404, 409, 500]), st.data())
def test_what_a_server_repeats_is_masked(server: Vendor, secret: str, status: int, data: st.DataObject) -> None:
    place = f"patchEnvironmentVariables.arg2[0].{data.draw(st.sampled_from(['value', 'name', 'type', 'x']))}"
    said = f"no {secret} here, nor {json.dumps(secret)}"
    problem = {"field": place, "message": said, "invalidValue": secret, "code": "x"}
    body = data.draw(
        st.sampled_from(
            [
                {"errors": {place: problem}}, {"errors": [problem]}, {"errors": [said]}, {"title": said},
                {"error_code": "1", "message": said}, {"invalidParams": [{"name": "x", "reason": said}]},
                said.encode("utf-8", "replace"), {"errors": {"x": said}}, [said],
            ]
        )
    )  # fmt: skip
    server.answers = [None, Answer(status, body)]
    assert MARK not in run(server, "--secret", "AB", secret)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_SECRETS, st.integers(0, 200), st.integers(0, 3), st.text(max_size=4), st.booleans())
def test_a_document_is_never_repeated(server: Vendor, secret: str, at: int, cut: int, put: str, yaml: bool) -> None:
    entries = [
        {"name": "AB", "value": secret, "type": "secretString"},
        {"name": "CD", "value": secret, "type": "secretString"},
    ]
    text = json.dumps(entries, ensure_ascii=False)
    if yaml:
        text = "".join(f"- name: {each['name']}\n  type: secretString\n  value: {secret}\n" for each in entries)
    text = text[:at] + put + text[at + cut :]
    # Without its type a variable is a plain one, which is shown.
    if text.count("secretString") == 2 and text.count("type") == 2:
        said = run(server, "--yamlStdin" if yaml else "--jsonStdin", typed=text.encode("utf-8", "replace"))
        assert MARK not in said
