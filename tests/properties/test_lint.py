"""Whatever a tree holds, lint says something about it; and no secret of a file is in what it says."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from outgate.doctor import annotations, lint
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.mailer.folders import ConfigFile, Configurations
from outgate.mailer.values import ConfigError

MARK = "Zq9Kv"
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\u2028\u2029\x85"), max_size=12)
_SECRET = st.tuples(_TEXT, _TEXT).map(lambda ends: f"{ends[0]}{MARK}{ends[1]}")
_SECRET_NAMES = st.sampled_from(
    [
        *("smtp.password", "clientSecret", "refreshToken", "api.key", "db.pwd", "smtp.password:String"),
        *("tokens:String[]", "smtp.pasword", "smtp.pw", "refreshTokne", "smtp.passwrod"),
        *("signing.key", "clientKey", "creds", "smtpPw"),
    ]
)
_OTHERS = st.sampled_from(
    [
        '"smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]"',
        '"smtp.port": "465"',
        '"smtp.ssl": "yes"',
        '"oauth.flow": true',
        '"smtp.user": "$[env:EMAIL_USERNAME]"',
        '"from.address": "x"',
        'authUrl: "<Url>"',
        '"a": null',
        '"smtp.port:Integer": "$[env:P]"',
        "// a comment",
        "oops",
        '"',
    ]
)


def _written(name: str, secret: str, form: int) -> str:
    quoted, key = json.dumps(secret, ensure_ascii=form % 2 == 0), json.dumps(name)
    bare = "".join(sign for sign in secret if sign.isalnum()) or MARK
    forms = [
        f"{key}: {quoted}",
        f"{key}: [{quoted}, {quoted}]",
        f'{key}: {{"inner": {quoted}}}',
        f'{key}: "$[secret:NAME;default={quoted[1:]}',
        f'{key}: "$[env:NAME;type=Integer;default={quoted[1:]}',
        f"{key}: {bare}",
        f"{key}: '{bare}'",
        f"{name.partition(':')[0]}: {quoted}",
        f"{name.partition(':')[0]} = {quoted}",
        f"{key} {quoted}",
        f'{key}: "$[{quoted[1:-1]}]"',
        f"// {key}: {quoted}",
        f'{key}: "$[env:NAME;Default={quoted[1:]}',
        f'"smtp.user": "$[env:EMAIL_PASSWORD;Default={quoted[1:]}',
    ]
    return forms[form % len(forms)]


_MEMBER = st.one_of(
    _OTHERS,
    st.builds(_written, _SECRET_NAMES, _SECRET, st.integers(0, 27)),
    st.builds(_written, _SECRET_NAMES, _SECRET, st.just(0)),
)
_SEPARATORS = st.sampled_from([",", ",\n", ",\n    ", "\n", " ", ",,", "", ", // x\n"])


@st.composite
def _documents(draw: st.DrawFn) -> str:
    parts = draw(st.lists(_MEMBER, min_size=1, max_size=7))
    between = [draw(_SEPARATORS) for _ in parts[1:]] + [draw(st.sampled_from(["", ",", "\n"]))]
    return (
        draw(st.sampled_from(["{", "{\n    ", ""]))
        + "".join(part + gap for part, gap in zip(parts, between, strict=True))
        + draw(st.sampled_from(["}", "\n}", ""]))
    )


@given(_documents(), st.sampled_from([MAIL, OAUTH, "org.example.Thing"]))
def test_no_value_of_a_secret_is_in_any_output(text: str, pid: str) -> None:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        assume(False)
        return
    found = lint.of(Configurations("config", (ConfigFile(pid, (), f"config/{pid}.cfg.json", data),)))
    told = [
        annotations.text(found.findings, found.excerpts),
        annotations.github(found.findings),
        annotations.sarif(found.findings, found.excerpts, fixes=found.fixes),
        annotations.as_json(found.findings),
        repr(found),
    ]
    assert not [each for each in told if MARK in each], text


_NAMES = st.sampled_from(
    [
        f"{MAIL}.cfg.json", f"{OAUTH}.cfg.json", "com.day.cq.mailer.impl.DefaultMailService.cfg.json", f"{MAIL}.xml",
        f"{MAIL}~a.cfg.json", "org.example.Thing.cfg.json", "x.cfg.json", ".cfg.json", "\udcff.cfg.json", "a\nb.cfg.json",
    ]
)  # fmt: skip
_FOLDERS = st.sampled_from(
    [
        ".",
        "config",
        "config.author",
        "config.dev",
        "config.dev.author",
        "config.preview",
        "config.",
        "apps/x/osgiconfig/config",
    ]
)


@given(
    files=st.dictionaries(
        st.tuples(_FOLDERS, _NAMES), st.one_of(st.binary(max_size=60), _documents().map(str.encode)), max_size=8
    )
)
def test_any_tree_is_told_of(tmp_path_factory, files: dict[tuple[str, str], bytes]) -> None:
    root: Path = tmp_path_factory.mktemp("tree")
    for (folder, name), data in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(data)
    try:
        found = lint.examine(root)
    except ConfigError as error:
        assert str(error)
        return
    assert found.findings == sorted(set(found.findings), key=found.findings.index)
    json.loads(annotations.sarif(found.findings, root=root))
    annotations.text(found.findings, found.excerpts, root=root).encode()
