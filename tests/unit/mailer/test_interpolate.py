"""Placeholders: the reference's sample table, row by row, and the rest of the grammar."""

import pytest

from outgate.mailer.configuration.secret_files import SecretFiles
from outgate.mailer.interpolate import InterpolationError, Lookup, explain, interpolate
from outgate.mailer.values import Value


def text(value: str, env: dict[str, str] | None = None, **others: object) -> str:
    result = interpolate(value, env=env or {}, secrets=others.pop("secrets", {}), **others)
    assert result.type == "String"
    return result.value


class TestSampleTable:
    def test_default_of_the_tunnel(self) -> None:
        assert text("$[env:AEM_PROXY_HOST;default=proxy.tunnel]") == "proxy.tunnel"

    def test_a_secret_is_no_environment_variable(self) -> None:
        value = "$[env:EMAIL_USERNAME;default=myApiKey]"
        assert text(value, secrets={"EMAIL_USERNAME": "real"}) == "myApiKey"

    def test_secret_files_are_trimmed(self, tmp_path) -> None:
        (tmp_path / "S").write_text("  tok \n")
        assert text("$[secret:S]", secrets=SecretFiles([tmp_path])) == "tok"

    def test_typed_array_from_default(self) -> None:
        result = interpolate("$[env:P;type=Integer[];delimiter=,;default=1,2]", env={}, secrets={})
        assert result == Value("Integer[]", (1, 2))

    def test_a_semicolon_ends_the_default(self) -> None:
        assert text("$[env:X;default=foo;=bar]") == "foo"

    def test_balanced_brackets(self) -> None:
        assert text("$[env:X;default=[8080]]") == "[8080]"

    def test_escaped_marker(self) -> None:
        assert text(r"\$[env:A]", {"A": "1"}) == "$[env:A]"

    def test_nested_default(self) -> None:
        assert text("$[env:A;default=$[prop:A;default=z]]") == "z"

    def test_nested_name(self) -> None:
        assert text("$[env:$[env:A]]", {"A": "1"}) == "$[env:1]"

    def test_typed_but_not_alone(self) -> None:
        assert text("port=$[env:P;type=Integer]", {"P": "8080"}) == "port=8080"

    def test_conversion_never_falls_back(self) -> None:
        with pytest.raises(InterpolationError):
            interpolate("$[env:P;type=Integer;default=5]", env={"P": "abc"}, secrets={})

    def test_secrets_never_lie_above(self, tmp_path) -> None:
        (tmp_path / "x").write_text("outside")
        (tmp_path / "in").mkdir()
        assert text("$[secret:../x;default=d]", secrets=SecretFiles([tmp_path / "in"])) == "d"


class TestSources:
    def test_no_value_and_no_default_stays(self) -> None:
        assert text("a $[env:X] b $[secret:Y;type=Integer] c") == "a $[env:X] b $[secret:Y;type=Integer] c"

    def test_set_but_empty_counts(self) -> None:
        assert text("<$[env:X;default=d]>", {"X": ""}) == "<>"

    def test_nothing_is_trimmed(self) -> None:
        assert text("$[env: A ]", {" A ": " v "}) == " v "

    def test_names_are_case_sensitive(self) -> None:
        assert text("$[env:a;default=d]", {"A": "v"}) == "d"

    def test_unknown_source_honours_its_default(self) -> None:
        assert text("$[foo:x;default=d] $[foo:x] $[nocolon]") == "d $[foo:x] $[nocolon]"

    def test_properties(self) -> None:
        assert text("$[prop:p]", props={"p": "v"}) == "v"

    def test_conf(self) -> None:
        conf = {"a": Value("Long", 5), "b": Value("String[]", ("x", "y")), "c": Value("String", "$[env:E]")}
        assert text("$[conf:a] $[conf:b] $[conf:c]", {"E": "e"}, conf=conf) == "5 [x, y] e"

    def test_missing_conf_is_an_error_whatever_the_default(self) -> None:
        with pytest.raises(InterpolationError, match="does not have"):
            text("$[conf:a;default=d]", conf={})

    @pytest.mark.parametrize("name", ["/etc/passwd", "", "a/../b"])
    def test_secret_names(self, tmp_path, name: str) -> None:
        assert SecretFiles([tmp_path]).get(name) is None

    def test_secret_directories_in_order_and_below(self, tmp_path) -> None:
        for directory, content in (("one", "1"), ("two", "2")):
            (tmp_path / directory / "sub").mkdir(parents=True)
            (tmp_path / directory / "sub" / "key").write_text(content + "\n")
        (tmp_path / "two" / "other").write_text("line 1\nline 2\n")
        files = SecretFiles([tmp_path / "one", tmp_path / "two"])
        assert files.get("sub/key") == "1" and files.get("other") == "line 1\nline 2"


class TestNesting:
    def test_values_are_expanded_again(self) -> None:
        assert text("$[secret:P]", {"X": "inner"}, secrets={"P": r"a$[env:X]b\$[env:X]"}) == "ainnerb$[env:X]"

    def test_a_cycle_is_left_as_it_is(self) -> None:
        assert text("$[env:A]", {"A": "<$[env:B]>", "B": "$[env:A]"}) == "<$[env:A]>"
        assert text("$[conf:a]", conf={"a": Value("String", "$[conf:a]")}) == "$[conf:a]"

    def test_a_semicolon_from_a_nested_value_ends_the_default(self) -> None:
        assert text("$[env:X;default=$[env:N]]", {"N": "one;two"}) == "one"

    def test_the_first_semicolon_ends_the_name_also_inside_a_nested_placeholder(self) -> None:
        assert text("$[env:$[env:A;default=B]]", {"B": "v"}) == "B]"

    def test_several(self) -> None:
        assert text("$[env:A]$[env:B]-$[env:A]", {"A": "1", "B": "2"}) == "12-1"

    def test_what_is_nested_in_one_that_stays_is_replaced(self) -> None:
        assert text("$[env:X $[env:A]] $[env:A]", {"A": "1"}) == "$[env:X 1] 1"

    @pytest.mark.parametrize("sign", ["", "x"])
    def test_values_that_multiply_are_stopped(self, sign: str) -> None:
        env = {f"V{n}": f"$[env:V{n + 1}]" * 10 for n in range(30)} | {"V30": sign}
        with pytest.raises(InterpolationError):
            text("$[env:V0]", env)

    def test_deep_nesting_is_stopped(self) -> None:
        with pytest.raises(InterpolationError):
            text("$[env:" * 900 + "]" * 900)


class TestEscapes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (r"\\$[env:A]", r"\\1"),
            (r"$[env:X;default=a\]b]", "a]b"),
            (r"$[env:X;default=a\[b]", "a[b"),
            (r"$[env:X;default=a\;b]", "a;b"),
            (r"$[env:X;default=a\\;b]", r"a\\"),
            ("$[env:X;default]", ""),
            ("$[env:X;default=a;default=b]", "b"),
            ("$[env:X;colour=red;default=a=b]", "a=b"),
            ("$[env:A", "$[env:A"),
            ("$[env:A [", "$[env:A ["),
            ("$ [env:A]", "$ [env:A]"),
        ],
    )
    def test_escapes_and_directives(self, value: str, expected: str) -> None:
        assert text(value, {"A": "1"}) == expected


class TestTypes:
    @pytest.mark.parametrize(
        ("given", "type_name", "expected"),
        [
            ("5", "int", Value("Integer", 5)),
            ("-5", "Long", Value("Long", -5)),
            ("+7", "short", Value("Short", 7)),
            ("127", "byte", Value("Byte", 127)),
            ("1.5", "float", Value("Float", 1.5)),
            (" 1e3 ", "double", Value("Double", 1000.0)),
            ("x", "char", Value("Character", "x")),
            ("TRUE", "boolean", Value("Boolean", True)),
            ("yes", "Boolean", Value("Boolean", False)),
            ("1", "Unknown", Value("String", "1")),
            ("1", "String", Value("String", "1")),
            ("1,2", "int[]", None),
            ("a", "String[]", Value("String[]", ("a",))),
        ],
    )
    def test_types(self, given: str, type_name: str, expected: Value | None) -> None:
        value = f"$[env:V;type={type_name}]"
        if expected is None:
            with pytest.raises(InterpolationError):
                interpolate(value, env={"V": given}, secrets={})
        else:
            assert interpolate(value, env={"V": given}, secrets={}) == expected

    @pytest.mark.parametrize(
        ("given", "type_name"),
        [
            ("128", "byte"),
            ("2147483648", "int"),
            (" 5", "int"),
            ("", "int"),
            ("5.0", "long"),
            ("\U0001f4e7", "char"),
            ("x", "float"),
        ],
    )
    def test_what_does_not_fit(self, given: str, type_name: str) -> None:
        with pytest.raises(InterpolationError) as caught:
            interpolate(f"$[env:V;type={type_name}]", env={"V": given}, secrets={})
        assert "$[env:V]" in str(caught.value)

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("a,b", ("a", "b")),
            (" a , b ", (" a ", " b ")),
            ("a,,b,", ("a", "", "b", "")),
            ("a\\,b,c", ("a,b", "c")),
            ("a\\\\,b", ("a\\", "b")),
            ("", ("",)),
        ],
    )
    def test_arrays(self, given: str, expected: tuple[str, ...]) -> None:
        result = interpolate("$[env:V;type=String[];delimiter=,]", env={"V": given}, secrets={})
        assert result == Value("String[]", expected)

    def test_primitive_arrays_stay_primitive(self) -> None:
        assert interpolate("$[env:V;type=int[];delimiter=|]", env={"V": "1|2"}, secrets={}).type == "int[]"

    def test_delimiter_without_type(self) -> None:
        assert text("$[env:V;delimiter=,]", {"V": "a,b"}) == "a,b"

    def test_an_array_is_spliced_into_an_array(self) -> None:
        given = Value("String[]", ("x", "$[env:V;type=Integer[];delimiter=,]", "y$[env:V]"))
        result = interpolate(given, env={"V": "1,2"}, secrets={})
        assert result == Value("String[]", ("x", "1", "2", "y1,2"))

    def test_other_types_are_left_alone(self) -> None:
        assert interpolate(Value("Long", 5), env={}, secrets={}) == Value("Long", 5)


class TestWhatStayed:
    @pytest.mark.parametrize(
        ("value", "stayed"),
        [
            ("$[env:A] $[secret:B;type=int]", ("$[env:A]", "$[secret:B]")),
            ("$[env:A;default=$[secret:B]]", ("$[secret:B]",)),
            ("$[env:SET;default=$[secret:B]]", ()),
            (r"\$[env:A]", ()),
            ("$[env:INNER]", ()),
        ],
    )
    def test_it_is_told(self, value: str, stayed: tuple[str, ...]) -> None:
        env = {"SET": "1", "INNER": "$[env:NOT_IN_THE_FILE]"}
        assert explain(value, env=env, secrets={}).stayed == stayed


class TestLookups:
    """What `explain` tells of each placeholder."""

    def look_up(self, value: str, **sources: object) -> list[Lookup]:
        given = {"env": {}, "secrets": {}} | sources
        return list(explain(value, **given).lookups)

    def test_found_defaulted_and_stayed(self) -> None:
        found, defaulted, stayed = self.look_up("$[env:A]$[secret:B;default=d]$[prop:C]", env={"A": "a"}, props={})
        assert (found.source, found.written, found.found, found.defaulted, found.stayed) == (
            "env",
            "A",
            True,
            False,
            False,
        )
        assert (defaulted.label, defaulted.defaulted, defaulted.default_from) == ("$[secret:B]", True, ())
        assert (stayed.label, stayed.stayed, stayed.reason) == ("$[prop:C]", True, "")

    def test_where_a_default_came_from(self) -> None:
        inner, outer = self.look_up("$[env:X;default=<$[secret:S]>]", secrets={"S": "s"})
        assert (inner.label, inner.found, outer.label, outer.default_from) == (
            "$[secret:S]",
            True,
            "$[env:X]",
            ("$[secret:S]",),
        )
        first, second, third = self.look_up("$[env:X;default=$[env:Y;default=$[prop:Z;default=z]]]")
        assert (first.default_from, second.default_from) == ((), ("$[prop:Z]",))
        assert third.default_from == ("$[prop:Z]", "$[env:Y]")

    def test_a_default_that_is_not_used_is_not_told(self) -> None:
        assert [each.label for each in self.look_up("$[env:A;default=$[secret:S]]", env={"A": "a"})] == ["$[env:A]"]

    def test_names_as_written_and_as_they_came_out(self) -> None:
        inner, outer = self.look_up("$[env:$[env:A]_X]", env={"A": "a", "a_X": "v"})
        assert (inner.name, outer.written, outer.name, outer.found, outer.nested) == (
            "A",
            "$[env:A]_X",
            "a_X",
            True,
            False,
        )

    def test_what_stands_in_a_value_is_nested(self) -> None:
        inner, outer = sorted(self.look_up("$[env:A]", env={"A": "$[env:B]"}), key=lambda each: not each.nested)
        assert (inner.written, inner.nested, inner.stayed, outer.nested) == ("B", True, True, False)

    def test_what_stands_in_a_secret_is_not_told(self) -> None:
        lookups = self.look_up("$[secret:S]", secrets={"S": "$[env:B]$[hush:hush;type=hush;hush=1]"})
        assert [(each.source, each.written, each.type, each.ignored) for each in lookups if each.nested] == [
            ("env", "…", "", 0),
            ("…", "…", "…", 0),
        ]
        assert "hush" not in repr(lookups)

    def test_what_comes_of_a_secret_is_not_told(self) -> None:
        lookups = self.look_up("$[env:$[secret:S];type=$[secret:S];default=]", secrets={"S": "hush"})
        assert "hush" not in repr(lookups) and lookups[-1].type == "…"

    def test_what_is_in_one_that_stays_is_told_once_behind_it(self) -> None:
        lookups = self.look_up("$[env:X_$[env:A];type=$[env:B]]", env={"A": "a", "B": "b"})
        assert [each.label for each in lookups] == ["$[env:X_$[env:A]]", "$[env:A]", "$[env:B]"]

    @pytest.mark.parametrize(
        ("directives", "type_name", "ignored", "meant"),
        [
            ("", "", 0, ()),
            (";type=Integer;default=1", "Integer", 0, ()),
            (";type=Intger;default=1", "Intger", 0, ()),
            (";defualt=1", "", 1, ("default",)),
            (";tpye=int;delimeter=,;x=y", "", 3, ("type", "delimiter")),
            (";default=pass;word", "", 1, ()),
            (";default=$[env:Y;default=x];tipe=y", "", 1, ("type",)),
        ],
    )
    def test_directives(self, directives: str, type_name: str, ignored: int, meant: tuple[str, ...]) -> None:
        told = self.look_up(f"$[env:X{directives}]")[-1]
        assert (told.type, told.ignored, told.meant) == (type_name, ignored, meant)

    def test_why_there_is_no_value(self) -> None:
        assert self.look_up("$[evn:A]")[0].reason == "there are the sources env, secret, prop and conf"
        itself = self.look_up("$[env:A]", env={"A": "$[env:A]"})
        assert [each.reason for each in itself] == ["", "it leads back to itself"]

    def test_names_are_shown_safely(self) -> None:
        label = self.look_up("$[env:a\n\x1b\ud800]")[0].label
        assert label == r"$[env:a\n\x1b\ud800]"
        assert self.look_up(f"$[env:{'x' * 200}]")[0].label == f"$[env:{'x' * 100}…]"

    def test_explaining_is_what_interpolating_does(self) -> None:
        value = Value("String[]", ("$[env:A]", "$[env:B;default=b]"))
        explained = explain(value, env={"A": "a"}, secrets={})
        assert explained.value == interpolate(value, env={"A": "a"}, secrets={}) == Value("String[]", ("a", "b"))
        assert interpolate(["$[env:A]"], env={"A": "a"}, secrets=None) == Value("String[]", ("a",))


class TestConfiguration:
    def test_other_properties_may_be_python_s_own(self) -> None:
        conf = {"s": "x", "b": True, "n": 5, "d": 1e7, "l": ["a", "b"], "t": (1, 2), "v": Value("Float", 0.5)}
        value = " ".join(f"$[conf:{name}]" for name in conf)
        assert text(value, conf=conf) == "x true 5 1.0E7 [a, b] [1, 2] 0.5"


def test_a_value_hides_what_it_holds() -> None:
    assert "hush" not in repr(Value("String", "hush"))
