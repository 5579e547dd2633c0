"""Port forwards, from a file or as given: what is taken, and where each mistake stands."""

import json

import pytest

from outgate.mailer.configuration.forwards import Forward, Forwards, forwards_from
from outgate.mailer.values import ConfigError

ENTRY = {"name": "smtp.mymail.com", "portDest": 465, "portOrig": 30465}
OTHER = {"name": "smtp.other.test", "portDest": 587, "portOrig": 30587}


class TestTaken:
    @pytest.mark.parametrize("wrapped", [True, False])
    def test_a_file_that_the_environment_names(self, tmp_path, wrapped: bool) -> None:
        file = tmp_path / "forwards.json"
        document = {"tunnelAddress": "127.0.0.1", "portForwards": [ENTRY, OTHER]} if wrapped else [ENTRY, OTHER]
        file.write_text(json.dumps(document))
        found = forwards_from(None, {"OUTGATE_FORWARDS": str(file)})
        assert found.by_port == {
            30465: Forward(30465, "smtp.mymail.com", 465),
            30587: Forward(30587, "smtp.other.test", 587),
        }
        assert found.tunnel == ("127.0.0.1" if wrapped else "")

    def test_the_api_s_answer_whole(self, tmp_path) -> None:
        answer = {"portForwards": [ENTRY], "nonProxyHosts": ["a.test"], "advancedNetworkingEnabled": True, "_links": {}}
        assert list(forwards_from(answer, {}).by_port) == [30465]
        (tmp_path / "f").write_text("// what the API says\n" + json.dumps(answer))
        assert list(forwards_from(tmp_path / "f", {}).by_port) == [30465]

    def test_a_list_behind_a_comment(self, tmp_path) -> None:
        (tmp_path / "f").write_text("/* the forwards */ // of dev\n" + json.dumps([ENTRY]))
        assert list(forwards_from(tmp_path / "f", {}).by_port) == [30465]

    @pytest.mark.parametrize("given", [None, [], {}, {"portForwards": []}, {"portForwards": None}])
    def test_none(self, given: object) -> None:
        assert forwards_from(given, {}) == Forwards("", {})

    def test_as_they_are(self) -> None:
        known = Forwards("127.0.0.1", {})
        assert forwards_from(known, {}) is known


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "place", "says"),
        [
            ("", (1, 1), "expected"),
            ("[\n{]", (2, 2), "expected a property name"),
            ("[1\n", (2, 1), "expected , or ] behind an element"),
            ('[{"name": "a",}]', (1, 14), "take it away"),
            ("nothing", (1, 1), "expected {"),
            ('{"portForwards": 3}', (1, 18), "expected a list of port forwards"),
            (
                '{"portForwards": [5],\n"portForwards": [{"name": "a", "portDest": 1, "portOrig": 1}, {}]}',
                (2, 1),
                'expected each name once in an object, found "portForwards" again',
            ),
            ("", (1, 1), "expected { or [ at the beginning, found the end of the file"),
            ("[] x", (1, 4), "expected nothing behind the list"),
            ('{\n "portforwards": []}', (1, 1), "did you mean that by portforwards?"),
            ('{"tunnelAddress": 5, "portForwards": []}', (1, 38), "tunnelAddress to be text"),
            ("[5]", (1, 2), "expected an object with name, portDest and portOrig"),
            ('[{"name": "a"}]', (1, 2), "portDest is missing"),
            ('[\n {"name": "a", "portDst": 1, "portOrig": 2}]', (2, 2), "portDest is missing: did you mean that by portDst?"),
            ('[{"name": "", "portDest": 1, "portOrig": 2}]', (1, 2), "expected name to be the destination's host name"),
            ('[{"name": "a\\u0000b", "portDest": 1, "portOrig": 2}]', (1, 2), "expected name to be a host name or an address"),
            ('[{"name": "smtps://a", "portDest": 1, "portOrig": 2}]', (1, 2), "no scheme, no slash"),
            ('[{"name": "a.test:465", "portDest": 1, "portOrig": 2}]', (1, 2), "without a port: that is portDest's"),
            ('[{"name": "a..b", "portDest": 1, "portOrig": 2}]', (1, 2), "1 to 63 characters between its dots"),
            ('{"tunnelAddress": "a\\nb", "portForwards": []}', (1, 43), "expected tunnelAddress to be a host name"),
            ('[{"name": "a\u2026..b", "portDest": 1, "portOrig": 2}]', (1, 2), "cannot be written in ASCII"),
            ('[{"name": "a", "portDest": "1", "portOrig": 2}]', (1, 2), "portDest to be a number: write it without quotes"),
            ('[{"name": "a", "portDest": 0, "portOrig": 2}]', (1, 2), "portDest to be a number from 1 to 65535"),
            ('[{"name": "a", "portDest": 1, "portOrig": 65536}]', (1, 2), "portOrig to be a number from 1 to 65535, usually from 30000 to 31000"),
            ('[{"name": "a", "portDest": 1, "portOrig": 1.5}]', (1, 2), "portOrig to be a number"),
            ('[{"name": "a", "portDest": 1, "portOrig": true}]', (1, 2), "portOrig to be a number"),
            ('[{"name": "a", "portDest": 1, "portOrig": ' + "9" * 5000 + "}]", (1, 2), "portOrig to be a number"),
            (
                '[{"name": "a", "portDest": 1, "portOrig": 30001},\n {"name": "b", "portDest": 1, "portOrig": 30001}]',
                (2, 2),
                "portOrig 30001 is that of the forward to a in line 1 already",
            ),
            ("[" * 1000, (1, 51), "within each other"),
        ],
    )  # fmt: skip
    def test_a_file_with_its_place(self, tmp_path, text: str, place: tuple[int, int], says: str) -> None:
        file = tmp_path / "f.json"
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            forwards_from(None, {"OUTGATE_FORWARDS": str(file)})
        assert says in str(caught.value)
        assert (caught.value.line, caught.value.column) == place
        assert str(caught.value).startswith(f"{file}: line {place[0]}, column {place[1]}: OUTGATE_FORWARDS: ")

    @pytest.mark.parametrize("bad", [[{"name": "x"}], [5], 7, {"portForwards": 3}, [{**ENTRY, "portOrig": True}]])
    def test_what_is_given(self, bad: object) -> None:
        with pytest.raises(ConfigError, match=r"^forwards: "):
            forwards_from(bad, {})

    def test_which_of_those_that_are_given(self) -> None:
        with pytest.raises(
            ConfigError, match=r"^forwards: port forward 2: portOrig 30465 is that of the forward to smtp"
        ):
            forwards_from([ENTRY, ENTRY], {})

    def test_no_file(self, tmp_path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
            forwards_from(tmp_path / "none", {})
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            forwards_from(str(tmp_path), {})
        with pytest.raises(ConfigError, match="expected the path of a file"):
            forwards_from("a\0b", {})

    def test_another_encoding(self, tmp_path) -> None:
        (tmp_path / "f").write_bytes('["\n ü'.encode() + b"\xfc")
        with pytest.raises(ConfigError, match="line 2, column 3: forwards: expected UTF-8, found another"):
            forwards_from(tmp_path / "f", {})
