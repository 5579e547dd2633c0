"""One PID's file, read and its placeholders replaced, with places."""

import pytest

from outgate.mailer.configuration.properties import Properties, properties_of
from outgate.mailer.folders import ConfigFile
from outgate.mailer.osgi import OsgiError
from outgate.mailer.values import ConfigError, Value


def properties(text: str, *, env: dict[str, str] | None = None, secrets: dict[str, str] | None = None) -> Properties:
    return properties_of(ConfigFile("my.pid", (), "my.cfg.json", text.encode()), env=env or {}, secrets=secrets or {})


def test_values_by_name_in_any_case() -> None:
    found = properties('{"Client.Id": "$[env:A]", "n": 5, "list": ["$[env:A]", "b"]}', env={"A": "x"})
    assert (found.text("client.ID"), found.text("n"), found.texts("list"), found.texts("n")) == (
        "x",
        "5",
        ("x", "b"),
        ("5",),
    )
    assert found.text("none") == "" and found.text("none", "d") == "d" and found.texts("none") == ()
    assert "LIST" in found and "none" not in found and [each.name for each in found] == ["Client.Id", "n", "list"]


def test_conf_names_are_not_case_sensitive_and_the_pid_is_one() -> None:
    found = properties('{"a": "$[conf:B]/$[conf:service.pid]", "b": 1}')
    assert found.text("a") == "1/my.pid"
    settled = found.get("A")
    assert settled is not None and settled.written == Value("String", "$[conf:B]/$[conf:service.pid]")


@pytest.mark.parametrize(("given", "expected"), [("true", True), ('"TRUE"', True), ('"false"', False), ('""', False)])
def test_flags(given: str, expected: bool) -> None:
    assert properties(f'{{"f": {given}}}').flag("F") is expected
    assert properties("{}").flag("f", default=True) is True


@pytest.mark.parametrize("given", ['" true "', '"yes"', "1", '["true"]'])
def test_bad_flags(given: str) -> None:
    with pytest.raises(ConfigError, match="line 1, column 7: f: expected"):
        properties(f'{{"f": {given}}}').flag("f")


def test_errors_have_the_place_of_the_value() -> None:
    text = '{\n  "Port": "$[env:P;type=Integer]"\n}'
    with pytest.raises(ConfigError) as caught:
        properties(text, env={"P": "hush"})
    error = caught.value
    assert (error.name, error.file, error.line, error.column) == ("Port", "my.cfg.json", 2, 11)
    assert "hush" not in str(error)
    assert str(properties(text, env={"P": "5"}).error("port", "expected more")) == (
        "my.cfg.json: line 2, column 11: Port: expected more"
    )
    assert str(properties("{}").error("port", "is missing")) == "my.cfg.json: port: is missing"


def test_what_nothing_is_set_for_is_no_text() -> None:
    found = properties('{\n"a": "$[secret:S]", "l": ["x", "$[env:E]"], "u": "$[env:U]"}')
    for ask in (found.text, found.texts, found.flag):
        with pytest.raises(ConfigError, match=r"my\.cfg\.json: line 2, column 6: a: nothing is set for \$\[secret:S\]"):
            ask("A")
    with pytest.raises(ConfigError, match=r"l: nothing is set for \$\[env:E\]"):
        found.texts("l")
    with pytest.raises(ConfigError, match="c: in a collection placeholders are not replaced"):
        properties('{"c:Collection<String>": ["$[env:E]"]}', env={"E": "e"}).texts("c")


def test_a_list_is_no_text() -> None:
    with pytest.raises(ConfigError, match="expected one value, not a list"):
        properties('{"a": ["x"]}').text("a")


def test_a_file_that_is_no_configuration() -> None:
    with pytest.raises(OsgiError, match=r"my\.cfg\.json: line 1, column 2"):
        properties("{x}")


def test_a_repr_shows_no_value() -> None:
    found = properties('{"a": "$[secret:S]", "b": "plain-hush"}', secrets={"S": "hush"})
    assert "hush" not in repr(found) + repr(list(found))


def test_all_properties_share_one_budget() -> None:
    many = ", ".join(f'"p{number}": "$[conf:big]"' for number in range(100))
    with pytest.raises(ConfigError, match=r"p\d+: its placeholders lead to too many others"):
        properties(f'{{"big": "{"$[env:A]" * 2000}", {many}}}')
    own = ", ".join(f'"p{number}": "{"$[env:A]" * 300}"' for number in range(100))
    assert properties(f"{{{own}}}", env={"A": "a"}).text("p99") == "a" * 300
