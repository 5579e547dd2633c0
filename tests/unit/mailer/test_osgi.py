"""Reading `cfg.json` files: types, comments, clashes, and errors with line and column."""

import json

import pytest

from outgate.mailer.osgi import OsgiError, read
from outgate.mailer.values import Value


def one(value: str, key: str = "p") -> Value:
    return read(f'{{"{key}": {value}}}')[key.split(":")[0]]


class TestUntyped:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ('"x"', Value("String", "x")),
            ("465", Value("Long", 465)),
            ("4.0", Value("Double", 4.0)),
            ("1e2", Value("Double", 100.0)),
            ("true", Value("Boolean", True)),
            ("[]", Value("String[]", ())),
            ('["a", "b"]', Value("String[]", ("a", "b"))),
            ("[1, 2]", Value("Long[]", (1, 2))),
            ("[1.5]", Value("Double[]", (1.5,))),
            ("[true]", Value("Boolean[]", (True,))),
            ('[1, "a"]', Value("String", '[1,"a"]')),
            ("[true, 1]", Value("String", "[true,1]")),
            ("[[1]]", Value("String", "[[1]]")),
            ('{"a": [1, null]}', Value("String", '{"a":[1,null]}')),
        ],
    )
    def test_values(self, given: str, expected: Value) -> None:
        assert one(given) == expected

    def test_null_voids_the_file(self) -> None:
        with pytest.raises(OsgiError, match="null") as caught:
            read('{\n  "a": 1,\n  "b": null}')
        assert (caught.value.line, caught.value.column) == (3, 8)

    def test_a_number_beyond_long_is_the_one_that_felix_has(self) -> None:
        assert one("9223372036854775808") == Value("Long", -9223372036854775808)


class TestTyped:
    @pytest.mark.parametrize(
        ("key", "given", "expected"),
        [
            ("p:Integer", "465", Value("Integer", 465)),
            ("p:int", '"465"', Value("Integer", 465)),
            ("p:String", "465", Value("String", "465")),
            ("p:Boolean", '"True"', Value("Boolean", True)),
            ("p:Integer[]", "[1, 2]", Value("Integer[]", (1, 2))),
            ("p:int[]", "5", Value("int[]", (5,))),
            ("p:String", '"$[env:A]"', Value("String", "$[env:A]")),
            ("p:Collection<Integer>", '["1", "2"]', Value("Collection<Integer>", (1, 2))),
            ("p:Collection", '["a"]', Value("Collection", ("a",))),
            ("p:Character", '"x"', Value("Character", "x")),
        ],
    )
    def test_values(self, key: str, given: str, expected: Value) -> None:
        assert one(given, key) == expected

    @pytest.mark.parametrize(
        ("key", "given", "says"),
        [
            ("p:Integer", '"$[env:P]"', ";type=Integer"),
            ("p:Integer", '"abc"', "not a number"),
            ("p:Integer", '"2147483648"', "range"),
            ("p:Integer", "[]", "cannot be"),
            ("p:Collection<Integer>", '["1", 2]', "cannot be"),
            ("p:Integer[]", "[[1]]", "cannot be"),
            ("p:Nothing", "1", "type that exists"),
            ("p:", "1", "type that exists"),
            ("p:Collection<int>", "1", "type that exists"),
            ("p:binary", '"x"', "bundles"),
            (":configurator:what", "1", ":configurator:"),
        ],
    )
    def test_refused(self, key: str, given: str, says: str) -> None:
        with pytest.raises(OsgiError, match=says):
            one(given, key)

    def test_configurator_keys_are_no_properties(self) -> None:
        assert read('{":configurator:resource-version": 1, "a": 1}') == {"a": Value("Long", 1)}

    @pytest.mark.parametrize("second", ["a", "A", "a:Integer"])
    def test_clashes_name_both(self, second: str) -> None:
        with pytest.raises(OsgiError, match='same property as "a" in line 2') as caught:
            read(f'{{\n "a": 1,\n\n "{second}": 2}}')
        assert (caught.value.line, caught.value.column) == (4, 2)


class TestComments:
    def test_both_kinds(self) -> None:
        text = """// first
        { /* a
        b */ "x": /**/ "http://y/*no*/", // end
        "z": "\\\\" /* last */ } // "
        """
        assert read(text) == {"x": Value("String", "http://y/*no*/"), "z": Value("String", "\\")}

    def test_positions_survive(self) -> None:
        with pytest.raises(OsgiError) as caught:
            read('{ /* long\n comment */ "a": 1 /* x */ "b": 2}')
        assert (caught.value.line, caught.value.column) == (2, 28)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "line", "column", "says"),
        [
            ("", 1, 1, "expected {.*end of the file"),
            ("[]", 1, 1, "expected {"),
            ('{"a": 1', 1, 8, "expected , or }"),
            ('{"a": 1,}', 1, 8, "no comma behind the last"),
            ('{\n"a" 1}', 2, 5, "expected :"),
            ("{\n  smtp.host: 1}", 2, 3, 'double quotes, found smtp.host: write "smtp.host"'),
            ("{'a': 1}", 1, 2, "single quotes"),
            ("{\n# comment\n}", 2, 1, "comments begin with //"),
            ("{\"a\": 'x'}", 1, 7, "expected a value, found .* single quotes"),
            ('{"a": [1, 2}', 1, 12, "expected ,"),
            ('{"a": "x\ny"}', 1, 9, "line end or control"),
            ('{"a": "x', 1, 7, "closing quote"),
            ('{"a": NaN}', 1, 7, "NaN"),
            ('{"a": 1} x', 1, 10, "nothing behind"),
            ('{"a": 1 "b": 2}', 1, 9, "expected , or }"),
            ('{"a": /* 1}', 1, 7, "end of this comment"),
            ("\ufeff{}", 1, 1, "byte order mark"),
        ],
    )
    def test_place_and_expectation(self, text: str, line: int, column: int, says: str) -> None:
        with pytest.raises(OsgiError, match=says) as caught:
            read(text)
        assert (caught.value.line, caught.value.column) == (line, column)

    def test_deep_nesting(self) -> None:
        with pytest.raises(OsgiError):
            read('{"a": ' + "[" * 100_000)

    def test_the_vendors_broken_sample(self) -> None:
        with pytest.raises(OsgiError) as caught:
            read('{\n    authUrl: "https://login.example/authorize",\n    tokenUrl: "x"\n}')
        assert (caught.value.line, caught.value.column) == (2, 5)


def test_plain_json_reads_the_same() -> None:
    document = {"b": True, "s": 'täxt " \\ //', "n": -3, "l": ["x"]}
    assert {name: value.value for name, value in read(json.dumps(document)).items()} == {**document, "l": ("x",)}


def test_ten_thousand_properties_are_read_and_no_more() -> None:
    most = ",".join(f'"p{number}":0' for number in range(10_000))
    assert len(read(f"{{{most}}}")) == 10_000
    with pytest.raises(OsgiError, match="line 2, column 1: expected at most 10000 properties"):
        read(f'{{{most},\n"q": 0}}')
