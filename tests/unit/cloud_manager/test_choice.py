"""Which Cloud Manager is asked: by the vendor's settings, or a running `outgate dev`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outgate.cloud_manager import BadToken, Misconfigured, client_id_of, from_environment
from outgate.cloud_manager.choice import VENDOR_URL
from outgate.cloud_manager.hjson import settings_of
from support.vendor_cloud_manager import CLIENT, ORG, TOKEN, jwt

NOW = 1_800_000_000.0
DEV: dict[str, Any] = {
    "token": jwt(client_id="outgate-dev"),
    "cloud_manager_url": "http://127.0.0.1:8025/cloud-manager",
    "org_id": "DEV@AdobeOrg",
    "program_id": "44",
    "environment_id": "1010",
}
CLI = {
    "AIO_CLOUDMANAGER_BASE__URL": "https://cm.example/prefix",
    "AIO_CLOUDMANAGER__ORGID": ORG,
    "AIO_CLOUDMANAGER__PROGRAMID": "4",
    "AIO_CLOUDMANAGER__ENVIRONMENTID": "10",
    "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": TOKEN,
    "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY": str(int(NOW * 1000) + 3_600_000),
}
SERVICE = {
    "client_id": "svc",
    "ims_org_id": "SVC@AdobeOrg",
    "access_token": {"token": "opaque", "expiry": int(NOW * 1000) + 1},
}


def never() -> dict[str, Any]:
    raise AssertionError("dev.json is not to be read")


def choose(env: dict[str, str], **other: Any) -> Any:
    return from_environment(env, never, now=lambda: NOW, **other)


def sent(chosen: Any) -> dict[str, str]:
    return {name.lower(): text for name, text in chosen.api._headers.items()}


def file(tmp_path: Path, document: object) -> dict[str, str]:
    place = tmp_path / "aio"
    text = document if isinstance(document, str) else json.dumps(document)
    place.write_text(text, "utf-8", errors="surrogateescape")
    return {"AIO_CONFIG_FILE": str(place)}


def test_a_persons_token() -> None:
    chosen = choose(CLI)
    assert chosen.api.base_url == "https://cm.example/prefix"
    assert (chosen.program, chosen.environment, chosen.of_vendor) == ("4", "10", True)
    assert sent(chosen)["x-api-key"] == CLIENT
    assert sent(chosen)["x-gw-ims-org-id"] == ORG
    assert sent(chosen)["authorization"] == f"Bearer {TOKEN}"


def test_a_base_url_in_an_object() -> None:
    env = {name: text for name, text in CLI.items() if "BASE__URL" not in name}
    assert (
        choose({**env, "AIO_CLOUDMANAGER": '{"base_url": "https://in.example"}'}).api.base_url == "https://in.example"
    )
    with pytest.raises(Misconfigured, match=r"AIO_CLOUDMANAGER\) is not an object in JSON \(line 1, column 1\)"):
        choose({**env, "AIO_CLOUDMANAGER": "https://in.example"})


def test_without_a_base_url_it_is_the_vendors() -> None:
    env = {name: text for name, text in CLI.items() if "BASE__URL" not in name}
    assert choose(env).api.base_url == "https://cloudmanager.adobe.io"


def test_the_dev_json_of_a_running_one_if_nothing_else_is_said() -> None:
    # What does not say where to go and as whom is no choice.
    env = {"AIO_CLOUDMANAGER__PROGRAMID": "4", "HOME": "/", "AIO_": "x"}
    chosen = from_environment(env, lambda: DEV)
    assert chosen.api.base_url == "http://127.0.0.1:8025/cloud-manager"
    assert (chosen.program, chosen.environment, chosen.of_vendor) == ("44", "1010", False)
    assert sent(chosen)["x-api-key"] == "outgate-dev"


def test_a_file_with_a_services_context(tmp_path: Path) -> None:
    settings = {
        "cloudmanager": {"base_url": "https://file.example"},
        "cloudmanager_programid": 4,
        "ims": {"contexts": {"aio-cli-plugin-cloudmanager": SERVICE, "cli": {"access_token": {"token": TOKEN}}}},
    }
    env = file(tmp_path, settings)
    chosen = choose(env)
    assert (chosen.api.base_url, chosen.program) == ("https://file.example", "4")
    assert sent(chosen)["authorization"] == "Bearer opaque"
    assert (sent(chosen)["x-api-key"], chosen.api.org_id) == ("svc", "SVC@AdobeOrg")
    assert env["AIO_CONFIG_FILE"] in chosen.source
    # A variable counts more than the file.
    assert choose(env | {"AIO_CLOUDMANAGER_BASE__URL": "https://cm.example"}).api.base_url == "https://cm.example"
    # Once a person who logged in has an organization, that login counts, as with the vendor's client.
    chosen = choose(env | {"AIO_CLOUDMANAGER__ORGID": ORG})
    assert sent(chosen)["authorization"] == f"Bearer {TOKEN}" and chosen.api.org_id == ORG
    # A context that is named counts more than the usual order.
    chosen = choose(env | {"AIO_CLOUDMANAGER__ORGID": ORG}, context="aio-cli-plugin-cloudmanager")
    assert sent(chosen)["authorization"] == "Bearer opaque" and chosen.api.org_id == "SVC@AdobeOrg"


def test_a_services_context_in_variables() -> None:
    place = "AIO_IMS_CONTEXTS_AIO-CLI-PLUGIN-CLOUDMANAGER_"
    service = {"CLIENT__ID": "svc", "IMS__ORG__ID": "SVC@AdobeOrg", "ACCESS__TOKEN": "opaque"}
    env = {name: text for name, text in CLI.items() if "_CLI_" not in name}
    chosen = choose({**env, **{place + name: text for name, text in service.items()}})
    assert sent(chosen)["authorization"] == "Bearer opaque"
    assert (sent(chosen)["x-api-key"], chosen.api.org_id) == ("svc", "SVC@AdobeOrg")


def test_a_token_that_is_a_text_in_its_context(tmp_path: Path) -> None:
    env = file(tmp_path, {"ims": {"contexts": {"aio-cli-plugin-cloudmanager": {**SERVICE, "access_token": "opaque"}}}})
    assert sent(choose(env))["authorization"] == "Bearer opaque"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY": str(int(NOW * 1000))}, BadToken, "is over since 2027-01-15"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY": "soon"}, BadToken, "expiry is not a time"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_EXPIRY": "-" + "9" * 30}, BadToken, "expiry is not a time"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": ""}, BadToken, "there is no access token"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": "opaque-s3cr3t"}, BadToken, "names no client_id"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": "a.b-s3cr3t.c"}, BadToken, "names no client_id"),
        ({"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": jwt(client_id="c\ns3cr3t")}, Misconfigured, "no header may have"),
        ({"AIO_CLOUDMANAGER__ORGID": ""}, Misconfigured, "AIO_CLOUDMANAGER__ORGID"),
        ({"AIO_CLOUDMANAGER_BASE__URL": "http://cm.example"}, Misconfigured, "in the clear"),
    ],
)
def test_settings_that_cannot_be_used(change: dict[str, str], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as wrong:
        choose({**CLI, **change})
    assert words in str(wrong.value)
    assert "s3cr3t" not in str(wrong.value) and TOKEN not in str(wrong.value)


def test_a_token_says_its_own_end_if_nothing_else_does() -> None:
    env = {name: text for name, text in CLI.items() if "EXPIRY" not in name}
    name = "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN"
    assert choose({**env, name: jwt(client_id="c", exp=NOW + 1)})
    with pytest.raises(BadToken, match="is over"):
        choose({**env, name: jwt(client_id="c", exp=NOW - 1)})


def test_a_context_that_is_not_there() -> None:
    with pytest.raises(BadToken, match=r"ims\.contexts\.other\.access_token\.token"):
        choose(CLI, context="other")


FILE = """{
  cloudmanager: {
    base_url: "https://file.example",
    environmentVariables: {
      strictValidation: true
    }
  },
  cloudmanager_orgid: "%s",
  ims: {
    contexts: {
      cli: {
        access_token: {
          token: "%s",
          expiry: %d
        },
        scopes: [
          "openid"
        ]
      }
    }
  }
}"""


def test_an_endless_key_is_passed_over_and_what_is_below_it() -> None:
    long = "k" * 300
    assert settings_of(f'{{{long}: {{{long}: "x", b: "y"}}, c: "z"}}') == {f"{long}.b": "y", "c": "z"}


def test_of_a_key_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    """As a whole, as in JSON: a token does not meet the address of something that was replaced."""
    again = """cloudmanager: {base_url: "https://first.example"}, cloudmanager: {}, cloudmanager_orgid: x
        cloudmanager_orgid: null, console: {org: {code: "%s"}}"""
    text = FILE.replace("cloudmanager_orgid:", "other:") % (ORG, TOKEN, NOW * 1000 + 1)
    chosen = choose(file(tmp_path, f"{text[:-2]},\n{again % ORG}}}"))
    assert (chosen.api.base_url, chosen.api.org_id) == (VENDOR_URL, ORG)


def test_a_file_as_the_vendors_client_writes_it(tmp_path: Path) -> None:
    env = file(tmp_path, FILE % (ORG, TOKEN, NOW * 1000 - 1))
    with pytest.raises(BadToken, match="is over"):
        choose(env)
    # A token in a variable is not joined with the end of the file's.
    chosen = choose(env | {"AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN": jwt(client_id="other")})
    assert sent(chosen)["x-api-key"] == "other"
    assert (chosen.api.base_url, chosen.api.org_id, chosen.strict) == ("https://file.example", ORG, True)
    assert not choose({**CLI, "AIO_CLOUDMANAGER_ENVIRONMENTVARIABLES_STRICTVALIDATION": "false"}).strict


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        ('{"a":\n :s3cr3t}', "is neither JSON nor Hjson, as aio writes it (line 2, column 2)"),
        ('{a: "s3cr3t', "(line 1, column 5)"),
        ("x" * 2_000_000, "has more than 1048576 octets"),
        ("{a:" * 200_000, "(line 1, column 151)"),
        ("a: s3cr3t", "is neither JSON nor Hjson"),
        ("{a: /* s3cr3t\n b: 1}", "(line 2, column 7)"),
        ("{a: \udcff}", "is not UTF-8 (octet 5)"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str | None, words: str) -> None:
    env = {"AIO_CONFIG_FILE": str(tmp_path / "none")} if content is None else file(tmp_path, content)
    with pytest.raises(Misconfigured) as wrong:
        choose(env)
    assert words in str(wrong.value) and "s3cr3t" not in str(wrong.value)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.!.c", "..", "é.é.é", jwt(), "a." + "W10" + ".c"])
def test_a_token_without_a_client_id(token: str) -> None:
    assert client_id_of(token) == ""
