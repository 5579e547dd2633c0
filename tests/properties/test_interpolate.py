"""Interpolation takes any text, ends, and tells no secret."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer.config import settle
from outgate.mailer.interpolate import InterpolationError, interpolate
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
