"""A file of rules: what it may say, what is said of one that is wrong, and that a bad one changes nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outgate.egress.plan import Terms, plan
from outgate.egress.rules_file import BadRules, RulesFile, read_rules
from outgate.model.egress import Mode, PortForward

GOOD: dict[str, Any] = {
    "portForwards": [{"name": "smtp.example", "portDest": 465, "portOrig": 30465}],
    "tunnelAddress": "127.1.0.1",
    "clientNetworks": ["10.0.0.0/8"],
}


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_one_environment() -> None:
    (found,) = read_rules(json.dumps(GOOD), "rules.json")
    assert found.forwards == (PortForward("smtp.example", 30465, 465),)
    assert (found.kind, found.tunnel_address, found.client_networks) == (Mode.FLEXIBLE, "127.1.0.1", ("10.0.0.0/8",))
    assert (found.environment_id, found.program_id) == ("127.1.0.1", "127.1.0.1")


def test_several_environments_and_what_the_api_returns() -> None:
    kept = {
        **GOOD,
        "kind": "dedicatedEgressIp",
        "egressAddresses": ["192.0.2.7"],
        "nonProxyHosts": ["*.example.com"],
        "environmentId": "10",
        "programId": "4",
        "networkInfrastructureId": "7",
        "advancedNetworkingEnabled": True,
        "_links": {"self": {"href": "/api"}},
    }
    other = {"tunnelAddress": "::ffff:127.1.0.2", "clientNetworks": ["10.0.0.0/8"]}
    first, second = read_rules(json.dumps({"environments": [kept, other]}), "rules.json")
    assert (first.environment_id, first.program_id, first.egress_addresses) == ("10", "4", ("192.0.2.7",))
    assert first.non_proxy_hosts == ("*.example.com",)
    assert (second.forwards, second.tunnel_address) == ((), "127.1.0.2")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], 'document: must be an object: {"portForwards": [...]} or {"environments": [...]}'),
        ({**GOOD, "portForward": []}, "portForward: there is no such field; known are clientNetworks"),
        ({**GOOD, "portForwards": {}}, "portForwards: must be an array (found {})"),
        (
            {**GOOD, "portForwards": [{"name": "a.example", "portDest": 25, "portOrig": 25}]},
            "portForwards[0].portOrig: must be between 30000 and 31000 (found 25)",
        ),
        (
            {**GOOD, "tunnelAddress": "proxy.tunnel"},
            'tunnelAddress: must be an IP address of one host (found "proxy.tunnel")',
        ),
        ({**GOOD, "tunnelAddress": None}, "tunnelAddress: is required"),
        ({**GOOD, "tunnelAddress": "0.0.0.0"}, 'tunnelAddress: must be an IP address of one host (found "0.0.0.0")'),
        ({**GOOD, "egressAddresses": ["::"]}, 'egressAddresses[0]: must be an IP address of one host (found "::")'),
        ({**GOOD, "clientNetworks": ["10.0.0.0/99"]}, "clientNetworks[0]: must be a network such as 10.0.0.0/8 (found"),
        ({**GOOD, "clientNetworks": []}, "clientNetworks: must name the networks that the applications dial from"),
        ({**GOOD, "kind": "none"}, "kind: must be one of flexiblePortEgress, dedicatedEgressIp, vpn (found"),
        ({**GOOD, "kind": "dedicatedEgressIp"}, "egressAddresses: must name the addresses to leave from"),
        ({**GOOD, "nonProxyHosts": ["a.example"]}, "nonProxyHosts: must be empty, since kind is flexiblePortEgress"),
        ({**GOOD, "environmentId": 10}, "environmentId: must be a string"),
        ({"environments": {}}, "environments: must be an array of objects (found {})"),
        ({"environments": [7]}, "environments[0]: must be an object with portForwards and tunnelAddress (found 7)"),
        ({"environments": [], "kind": "vpn"}, "kind: must not stand beside environments"),
        (
            {"environments": [GOOD, GOOD]},
            'environments[1].tunnelAddress: must differ from that of environments[0] (found "127.1.0.1")',
        ),
        (
            {"environments": [GOOD, {**GOOD, "tunnelAddress": "127.1.0.2", "environmentId": "127.1.0.1"}]},
            "environments[1].environmentId: must differ from that of environments[0]",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document: object, said: str) -> None:
    with pytest.raises(BadRules) as caught:
        read_rules(json.dumps(document), "rules.json")
    lines = str(caught.value).split("\n")
    assert any(line.startswith(f"rules.json: {said}") for line in lines), lines
    assert "null" not in str(caught.value)


def test_what_stands_for_something_missing_is_not_wrong_too() -> None:
    with pytest.raises(BadRules) as caught:
        read_rules("{}", "rules.json")
    assert [line.split(":")[1].strip() for line in str(caught.value).split("\n")] == ["tunnelAddress", "clientNetworks"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"portForwards": [}', "rules.json: line 1, column 19: is not JSON"),
        ("", "rules.json: line 1, column 1: is not JSON"),
        ('{"kind": "vpn", "kind": "vpn"}', "rules.json: 'kind' is there twice in one object"),
        ("[" * 100_000, "rules.json: "),
    ],
)
def test_what_is_no_json_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadRules, match=re.escape(said)):
        read_rules(text, "rules.json")


def test_networks_of_the_settings_are_those_of_who_names_none() -> None:
    document = {name: value for name, value in GOOD.items() if name != "clientNetworks"}
    (found,) = read_rules(json.dumps(document), "rules.json", client_networks=["10.9.0.0/16"])
    assert found.client_networks == ("10.9.0.0/16",)


def test_not_all_of_a_thousand_wrongs_are_told() -> None:
    with pytest.raises(BadRules) as caught:
        read_rules(json.dumps({**GOOD, "portForwards": [1] * 1000}), "rules.json")
    assert str(caught.value).endswith("rules.json: and 980 more")


def names(file: RulesFile) -> list[str]:
    return [each.name for target in file.targets() if target.networking for each in target.networking.port_forwards]


def test_a_bad_new_file_leaves_the_old_rules_and_says_why(tmp_path: Path) -> None:
    path = written(tmp_path / "rules.json", GOOD)
    file = RulesFile(path)
    seen = file.changes()
    assert (names(file), file.problem) == (["smtp.example"], "")
    path.write_text('{"portForwards": ')
    assert file.changes() != seen
    assert names(file) == ["smtp.example"]
    assert file.problem.startswith(f"{path}: line 1, column 18: is not JSON")
    path.unlink()
    assert names(file) == ["smtp.example"]
    assert "cannot be read: No such file" in file.problem
    rules = [{"name": "other.example", "portDest": 25, "portOrig": 30025}]
    # As an editor does it: written beside and renamed.
    os.replace(written(tmp_path / "new", {**GOOD, "portForwards": rules}), path)
    assert (names(file), file.problem) == (["other.example"], "")


def test_a_file_is_read_again_on_demand(tmp_path: Path) -> None:
    path = written(tmp_path / "rules.json", GOOD)
    file = RulesFile(path)
    seen, kept = file.changes(), path.stat()
    path.write_text(path.read_text().replace("smtp.example", "mail.example"))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert file.changes() == seen
    file.again()
    assert file.changes() != seen
    assert names(file) == ["mail.example"]


def test_a_file_that_cannot_be_taken_at_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRules, match="cannot be read: No such file"):
        RulesFile(tmp_path / "rules.json")
    (tmp_path / "rules.json").write_bytes(b'{"kind": "\xff"}')
    with pytest.raises(BadRules, match="octet 10 is not UTF-8"):
        RulesFile(tmp_path / "rules.json")


def test_states_are_kept_for_the_generation_that_they_are_about(tmp_path: Path) -> None:
    path = written(tmp_path / "rules.json", GOOD)
    file = RulesFile(path)
    (target,) = file.targets()
    assert (target.environment.status, target.mode) == ("updating", Mode.NONE)
    assert file.settle_infrastructure("127.1.0.1", 1, "")
    assert not file.settle_infrastructure("127.1.0.1", 1, "")
    (target,) = file.targets()
    assert target.mode is Mode.FLEXIBLE
    assert file.settle("127.1.0.1", 1, "no")
    assert not file.settle("127.1.0.1", 1, "no")
    (target,) = file.targets()
    assert (target.environment.status, target.networking and target.networking.reason) == ("failed", "no")
    # Another rule, the same way out: it need not be proven anew, or all would be closed for a moment.
    rules = [{"name": "other.example", "portDest": 25, "portOrig": 30025}]
    written(path, {**GOOD, "portForwards": rules})
    (target,) = file.targets()
    assert (target.environment.status, target.mode) == ("updating", Mode.FLEXIBLE)
    assert not file.settle("127.1.0.1", 1, "")
    written(path, {**GOOD, "kind": "dedicatedEgressIp", "egressAddresses": ["192.0.2.7"]})
    (target,) = file.targets()
    assert (target.mode, target.egress_addresses) == (Mode.NONE, ())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from([*GOOD, "nonProxyHosts", "kind", "egressAddresses", "programId", "environmentId", "x"])
documents = json_values | st.dictionaries(fields, json_values, max_size=8).map(lambda more: GOOD | more)


@settings(max_examples=200, deadline=None)
@given(documents | st.lists(documents, max_size=3).map(lambda all_of: {"environments": all_of}))
@example({**GOOD, "environmentId": ""})
def test_any_document_is_taken_or_refused_with_words(document: object) -> None:
    try:
        found = read_rules(json.dumps(document), "rules.json")
    except BadRules as error:
        assert all(line.startswith("rules.json: ") for line in str(error).split("\n"))
        str(error).encode("utf-8")
        return
    assert all(each.tunnel_address and each.client_networks and each.environment_id for each in found)


def test_a_file_is_planned_like_a_store(tmp_path: Path) -> None:
    file = RulesFile(written(tmp_path / "rules.json", GOOD))
    for way in file.infrastructures():
        file.settle_infrastructure(way.id, way.generation, "")
    (planned,) = plan(file.targets(), Terms(shared_addresses=("127.0.0.2",))).environments
    assert [type(rule).__name__ for rule in planned.rules] == ["Forward", "Proxy"]


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rules.json")
    with pytest.raises(BadRules, match="is a pipe"):
        RulesFile(tmp_path / "rules.json")
