"""A file, a folder, a project, a package: which findings come of it, in which order, and what a build makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from outgate.doctor import annotations, lint
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.mailer.values import ConfigError

ROOT = Path(__file__).parents[3]
GOOD: dict[str, Any] = {
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "30465",
    "smtp.user": "$[secret:EMAIL_USERNAME]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@wknd.site",
    "smtp.ssl": True,
}


def put(folder: Path, pid: str = MAIL, **changed: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{pid}.cfg.json"
    given = (GOOD if pid == MAIL else {}) | {name.replace("_", "."): value for name, value in changed.items()}
    file.write_text(json.dumps(given), "utf-8")
    return file


def rules(path: Path) -> list[str]:
    return [each.rule for each in lint.run(path)]


def test_the_example_has_the_note_about_the_vendors_command_only() -> None:
    found = lint.examine(ROOT / "examples" / "wknd")
    assert [each.rule for each in found.findings] == ["documented-as-secret"]
    assert found.exit_code() == found.exit_code(strict=True) == 0


def test_one_file_is_judged_by_itself(tmp_path: Path) -> None:
    file = put(tmp_path / "config.preview", oauth_flow=True, smtp_port="30587", smtp_ssl=False, smtp_requiretls=True)
    assert rules(file) == ["oauth-password"]
    other = file.rename(tmp_path / "mail.json")
    assert rules(other) == ["oauth-password"]  # whatever it is called
    assert set(rules(tmp_path / "config.preview" / ".." / "mail.json")) == {"oauth-password"}


@pytest.mark.parametrize("make", [lambda path: None, lambda path: (path / "config").mkdir(parents=True)])
def test_nothing_to_look_at_is_wrong_use(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "there")
    with pytest.raises(ConfigError, match="there"):
        lint.run(tmp_path / "there")


def test_errors_fail_a_build_and_warnings_do_if_it_is_strict(tmp_path: Path) -> None:
    put(tmp_path / "config", from_address="")
    found = lint.examine(tmp_path)
    assert ([each.rule for each in found.findings], found.exit_code(), found.exit_code(strict=True)) == (
        ["from-missing"],
        0,
        1,
    )
    put(tmp_path / "config", smtp_port="465")
    assert lint.examine(tmp_path).exit_code() == 1


def test_findings_are_sorted_by_place_and_each_is_there_once(tmp_path: Path) -> None:
    put(tmp_path / "config.publish", smtp_port="465", smtp_password="x")
    put(tmp_path / "config.author", smtp_ssl="yes", smtp_port="587")
    found = lint.run(tmp_path)
    places = [(each.file, each.line, each.column) for each in found]
    assert places == sorted(places) and len(set(found)) == len(found) == 4


# -- run modes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["config"], []),
        (["config.author"], []),  # who sends from author only needs no other
        (["config.author", "config.publish"], []),
        (["config", "config.dev", "config.author.dev"], []),
        (["config.dev", "config.stage", "config.prod"], []),
        (["config.dev"], ["stage, prod"]),  # rde has dev's
        (["config.rde"], ["dev, stage, prod"]),
        (["config.author.prod"], ["dev, rde, stage"]),
    ],
)
def test_each_type_of_environment_has_a_file(tmp_path: Path, folders: list[str], expected: list[str]) -> None:
    for folder in folders:
        put(tmp_path / folder)
    told = [each.text.rpartition(" on ")[2] for each in lint.run(tmp_path) if each.rule == "environment-without-file"]
    assert told == expected


@pytest.mark.parametrize(
    ("folders", "modes"),
    [
        (["config.author", "config.dev"], ["author and dev"]),  # on rde config.author has more of its own
        (["config.publish", "config.prod", "config.author"], ["publish and prod", "author and prod"]),
        (["config.author", "config.dev", "config.author.dev"], []),
        (["config.dev", "config.rde"], []),
        (["config", "config.author"], []),
    ],
)
def test_ties_name_the_run_modes_that_they_are_for(tmp_path: Path, folders: list[str], modes: list[str]) -> None:
    for folder in folders:
        put(tmp_path / folder)
    told = [each.text for each in lint.run(tmp_path) if each.rule == "folders-tie"]
    assert len(told) == len(modes)
    assert all(any(f"matches {each} equally" in text for text in told) for each in modes), told


def test_debugging_is_told_of_only_where_it_reaches_production(tmp_path: Path) -> None:
    put(tmp_path / "config", debug_email=True)
    put(tmp_path / "config.author.prod")
    assert rules(tmp_path) == ["debug-in-production"]  # publish takes it
    put(tmp_path / "config.publish.prod")
    assert rules(tmp_path) == []
    put(tmp_path / "config.stage", debug_email=True)
    assert rules(tmp_path) == []


def test_a_provider_must_be_there_for_the_same_run_modes(tmp_path: Path) -> None:
    flow = {"oauth_flow": True, "smtp_port": "30587", "smtp_ssl": False, "smtp_requiretls": True, "smtp_password": ""}
    put(tmp_path / "config", **flow)
    put(
        tmp_path / "config.publish.prod",
        OAUTH,
        tokenUrl="https://x",
        clientId="x",
        clientSecret="$[secret:CS]",
        refreshToken="$[secret:RT]",
    )
    (found,) = lint.run(tmp_path)
    assert found.rule == "oauth-no-provider" and "publish and prod" not in found.text
    assert "author and prod" in found.text


# -- trees and packages -----------------------------------------------------------------------------------------


def test_a_package_is_looked_into(tmp_path: Path) -> None:
    package = tmp_path / "all ä.zip"
    with zipfile.ZipFile(package, "w") as written:
        written.writestr(
            f"jcr_root/apps/wknd/osgiconfig/config/{MAIL}.cfg.json", json.dumps(GOOD | {"smtp.port": "465"})
        )
    found = lint.examine(package)
    (finding,) = found.findings
    assert finding.rule == "port-real" and "!/jcr_root/" in finding.file
    assert '"smtp.port": "465"' in annotations.text(found.findings, found.excerpts)
    uri = json.loads(annotations.sarif(found.findings, root=tmp_path))["runs"][0]["results"][0]["locations"][0]
    assert uri["physicalLocation"]["artifactLocation"]["uri"].startswith("all%20%C3%A4.zip%21/jcr_root/apps/")


def test_other_services_are_searched_for_placeholders_and_readability_only(tmp_path: Path) -> None:
    config = tmp_path / "ui.config/jcr_root/apps/x/osgiconfig/config"
    put(config)
    (config / "org.example.Login.cfg.json").write_text('{"password": "in clear", "smtp.port": 465, "log": "${x.y}"}')
    (config / "org.example.Factory~a.cfg.json").write_text('{"x": "$[secrets:A]"}')
    (config / "org.example.Broken.cfg.json").write_text("{'x': 1}")
    assert rules(tmp_path) == ["unreadable", "misspelt-placeholder"]


def test_a_wrong_pid_is_told_and_its_file_looked_into(tmp_path: Path) -> None:
    put(tmp_path / "config")
    wrong = put(tmp_path / "config.dev", smtp_port="465")
    wrong.rename(wrong.with_name("com.day.cq.mailer.impl.DefaultMailService.cfg.json"))
    assert rules(tmp_path) == ["wrong-pid", "port-real"]


def test_a_file_that_cannot_be_opened_is_an_error_of_one_line(tmp_path: Path) -> None:
    put(tmp_path / "config")
    os.mkfifo(tmp_path / "config" / "org.example.Pipe.cfg.json")
    (tmp_path / "config" / f".#{OAUTH}.cfg.json").symlink_to("somebody@host.42")  # who edits it
    assert rules(tmp_path) == []
    (tmp_path / "config" / f"{OAUTH}.cfg.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is a link that leads to nothing"):
        rules(tmp_path)


# Shapes that configurations of other services have, and that resemble traps without being any.
INNOCENT = {
    "org.apache.sling.commons.log.LogManager.factory.config~wknd": {
        "org.apache.sling.commons.log.pattern": "{0,date,dd.MM.yyyy HH:mm:ss.SSS} *{4}* [{2}] {3} {5}",
        "org.apache.sling.commons.log.level": "$[env:LOG_LEVEL;default=info]",
    },
    "com.day.cq.commons.impl.ExternalizerImpl": {
        "externalizer.domains": ["local $[env:LOCAL_URL;default=http://localhost:4502]", "author $[env:AUTHOR_URL]"]
    },
    "org.apache.sling.jcr.repoinit.RepositoryInitializer~wknd": {
        "scripts": ["create path (sling:OrderedFolder) /content/dam/wknd\nset ACL for everyone\n allow jcr:read on /x\nend"]
    },
    "com.adobe.granite.auth.saml.SamlAuthenticationHandler~x": {
        "keyStorePassword": "$[secret:SAML_PASSWORD]", "path": ["/"], "service.ranking:Integer": 5002,
        "idpUrl": "https://$[env:IDP_HOST;default=idp.example.com]/sso?a=b;c=d", "userIDAttribute": "",
        "spPrivateKeyAlias": "$[env:SAML_AEM_KEYSTORE_ALIAS;default=aem-saml-encryption]",
    },
    "org.apache.jackrabbit.oak.security.authentication.token.TokenConfigurationImpl": {
        "tokenRefresh": "$[env:TOKEN_REFRESH;type=Boolean;default=true]", "tokenLength": "$[env:TOKEN_LENGTH;default=8]",
        "passwordSaltSize": "$[env:SALT_SIZE;type=Integer;default=8]", "passwordMaxAge": "$[env:PASSWORD_MAX_AGE;default=90]",
        "forgot.password.link": "$[env:FORGOT_PASSWORD_LINK;default=/forgot]", "maxTokens": "$[env:MAX_TOKENS;default=9]",
        "to": "$[env:SECRETARY_EMAIL;default=a@example.com]", "bypass": "$[env:BYPASS_CACHE;default=no]",
    },
    "org.apache.sling.scripting.Thing": {
        "mapping": "${placeholder} #{el} $(shell) $1 {name} [a] ${sys:user.home} ${property.name} {config} ${env.BUILD} ${secret.x}", "re": "^/c(/.*)?$",
        "list": "$[env:LIST;type=String[];delimiter=,;default=a,b]", "escaped": "\\$[env:X]", "conf": "$[conf:re]",
        "sign": "$[env:SIGN;type=char;default=::]", "signs": "$[env:SIGNS;type=char[];default=abc]",
        "numbers": "$[env:NUMBER;type=Integer;default=5]", "ports:Integer[]": [1, 2], "other": "$[vault:thing]",
    },
}  # fmt: skip


def test_what_only_resembles_a_trap_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    put(folder)
    put(tmp_path / "config.author.local", smtp_host="localhost", smtp_port="1025")  # a capturing server on the laptop
    for pid, properties in INNOCENT.items():
        (folder / f"{pid}.cfg.json").write_text(f"// a comment\n{json.dumps(properties, indent=1)}\n", "utf-8")
    assert rules(tmp_path) == ["folder-unsupported"]


def test_linting_takes_no_more_than_the_mailer() -> None:
    said = "import sys; from outgate.doctor import annotations, lint; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert not {"typer", "rich", "dns", "yaml", "asyncio", "aiohttp", "cryptography"} & set(done.stdout.split())
