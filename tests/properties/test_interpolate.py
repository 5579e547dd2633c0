"""Interpolation takes any text, ends, and tells no secret."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.log import JsonFormatter
from outgate.mailer.config import FILE_NAME, load, settle
from outgate.mailer.interpolate import Explained, InterpolationError, explain, interpolate
from outgate.mailer.values import ConfigError, Value

_PIECES = st.sampled_from(
    [
        "$[",
        "]",
        "[",
        "\\",
        ";",
        "=",
        ":",
        "env:",
        "secret:",
        "conf:",
        "A",
        "B",
        "default=",
        "type=",
        "Integer",
        "int[]",
        "delimiter=",
        ",",
        "1",
        "x",
        " ",
        "\n",
        "ü",
    ]
)
_TEXT = st.lists(_PIECES, max_size=25).map("".join)
_ENV = st.dictionaries(st.sampled_from(["A", "B", ""]), _TEXT, max_size=3)


@given(value=_TEXT, env=_ENV, secrets=_ENV, conf=_ENV)
def test_any_text_gives_a_value_or_an_error(
    value: str, env: dict[str, str], secrets: dict[str, str], conf: dict[str, str]
) -> None:
    properties = {name: Value("String", text) for name, text in conf.items()}
    try:
        result = interpolate(value, env=env, secrets=secrets, conf=properties)
    except InterpolationError:
        return
    assert isinstance(result.value, str | int | float | tuple)


@given(value=st.text(st.characters(exclude_characters="$\\", exclude_categories=["Cs"])), env=_ENV)
def test_text_without_markers_is_itself(value: str, env: dict[str, str]) -> None:
    assert interpolate(value, env=env, secrets={}) == Value("String", value)


@given(value=st.text(st.characters(exclude_characters="$\\", exclude_categories=["Cs"])))
def test_a_value_comes_through_whole(value: str) -> None:
    assert interpolate("<$[env:A]>", env={"A": value}, secrets={}).value == f"<{value}>"


_SECRET = st.text("hush0123456789;[]$:=\\", min_size=1, max_size=12).map(lambda text: f"%%{text}%%")


@given(
    secret=_SECRET,
    properties=st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from(
                [
                    "$[secret:S]",
                    "$[secret:S;type=Integer]",
                    "x$[env:$[secret:S]]",
                    "$[conf:$[secret:S]]",
                    "$[env:X;default=$[secret:S]]",
                    "465",
                    "true",
                    "$[foo:$[secret:S]]",
                ]
            )
            for name in (
                "smtp.host",
                "smtp.port",
                "smtp.user",
                "smtp.password",
                "from.address",
                "smtp.ssl",
                "oauth.flow",
            )
        },
    ),
)
def test_no_error_and_no_repr_tells_a_secret(secret: str, properties: dict[str, str]) -> None:
    raw = {name: Value("String", text) for name, text in properties.items()}
    try:
        config = settle(raw, env={}, secrets={"S": secret})
    except ConfigError as error:
        assert secret not in f"{error} {error!r} {error.__cause__!r}"
        return
    shown = f"{config} {config!r}"
    if secret not in config.host + config.from_address:  # those two are told to the world by their nature
        assert secret not in shown


# -- what only a secret has is never shown, not even a part of it ---------------------------------------------------

_SIGNS = "αβγδ"  # nothing else has them
_SECRETS = st.lists(
    st.sampled_from(
        [
            *_SIGNS,
            "$[",
            "]",
            "[",
            "\\",
            ";",
            "=",
            ":",
            "env:A",
            "secret:",
            "conf:c",
            "default=",
            ";type=Integer",
            ",",
            " ",
        ]
    ),
    max_size=14,
).map("".join)
_TEXTS = st.lists(
    st.sampled_from(
        [
            "$[secret:S]",
            "$[env:A]",
            "$[conf:c]",
            "$[secret:S;type=Integer]",
            "$[env:$[secret:S]]",
            "$[conf:$[secret:S]]",
            "$[$[secret:S]:A]",
            "$[env:X;default=$[secret:S]]",
            "$[env:X;default=1;type=$[secret:S]]",
            "$[env:X;$[secret:S]]",
            "$[foo:$[secret:S]]",
            "$[env:X;type=int[];delimiter=$[secret:S];default=1]",
            "x",
            "\\",
            "465",
        ]
    ),
    min_size=1,
    max_size=3,
).map("".join)


def _shows(text: str) -> bool:
    escaped = [sign.encode("unicode_escape").decode() for sign in _SIGNS]
    return any(sign in text for sign in (*_SIGNS, *escaped))


def _told(explained: Explained) -> str:
    return repr(explained) + "".join(
        f"{each} {each.label} {each.source} {each.written} {each.type} {each.default_from} {each.meant} {each.reason}"
        for each in explained.lookups
    )


@given(value=_TEXTS, env=_TEXTS, conf=_TEXTS, secret=_SECRETS)
def test_no_part_of_a_secret_is_told(value: str, env: str, conf: str, secret: str) -> None:
    sources = {"env": {"A": env}, "secrets": {"S": secret}, "conf": {"c": Value("String", conf)}}
    try:
        explained = explain(value, **sources)
    except InterpolationError as error:
        assert not _shows(f"{error} {error!r} {error.args} {error.__cause__!r}")
        return
    assert not _shows(_told(explained) + " ".join(explained.stayed))


@given(
    secret=_SECRETS,
    properties=st.dictionaries(
        st.sampled_from(["smtp.port", "smtp.user", "smtp.password", "smtp.ssl", "oauth.flow", "smtp.start.tls", "c"]),
        _TEXTS,
    ),
)
def test_nothing_that_loading_says_or_logs_tells_a_part_of_one(
    secret: str, properties: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("config", numbered=True)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "S").write_text(secret, "utf-8")
    (folder / FILE_NAME).write_text(json.dumps({"smtp.host": "mx.test"} | properties), "utf-8")
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("outgate")
    logger.addHandler(handler)
    try:
        config = load(folder, env={"A": "$[secret:S]"}, secrets=folder / "secrets")
    except ConfigError as error:
        assert not _shows(f"{error} {error!r} {error.args} {error.__cause__!r}")
    else:
        assert not _shows(repr(config) + " ".join(map(str, config.noticed)))
        assert "$[secret:" not in config.password or config.password == config.password.strip()
    finally:
        logger.removeHandler(handler)
    assert not _shows(said.getvalue())


# -- long ones: what takes quadratic time would not end here --------------------------------------------------------

_LONG = 120_000


def _long(piece: str) -> str:
    return piece * (_LONG // len(piece))


@pytest.mark.parametrize(
    ("value", "ends_in"),
    [
        ("$[" * (_LONG // 2), "itself"),
        ("$[" * (_LONG // 3) + "]" * (_LONG // 3), "itself"),
        ("$[a:" * (_LONG // 5) + "]" * (_LONG // 5), "an error"),
        ("$[env:X;default=" * (_LONG // 17) + "]" * (_LONG // 17), "an error"),
        ("$[a:" * 20 + "x" * _LONG + "]" * 20, "an error"),
        (_long("$[env:A]"), "another"),
        (_long("$[env:E]"), "another"),
        (_long("$[env:X]"), "itself"),
        (_long("$[no]"), "itself"),
        (_long("$[env:B]$[env:A]"), "another"),
        (_long("\\$["), "another"),
        (_long("$[x\\]]"), "an error"),
        ("$[env:A" + _long("[]") + "]", "itself"),
        ("$[env:X" + ";" * _LONG + "]", "itself"),
        ("$[env:X;default=" + _long("\\;") + "]", "another"),
        ("$[env:X;type=String[];delimiter=,;default=" + _long("ab\\,") + "]", "another"),
        ("$[env:X;type=Integer;default=" + "1" * _LONG + "]", "an error"),
        ("$[env:X;type=Double;default=" + "1" * _LONG + "]", "an error"),
        ("$[env:SELF]", "an error"),
        ("$[env:WIDE]", "an error"),
        ("$[env:BIG]" * 100, "an error"),
    ],
    ids=range(21),
)
def test_a_long_text_ends_soon(value: str, ends_in: str) -> None:
    env = {"A": "1", "E": "", "B": "\\", "SELF": _long("$[env:SELF]"), "WIDE": "$[env:A]" * 20_000, "BIG": "x" * 50_000}
    try:
        found = interpolate(value, env=env, secrets={}).text
    except InterpolationError:
        assert ends_in == "an error"
        return
    assert ends_in == ("itself" if found == value else "another")
