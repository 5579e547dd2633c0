"""Configuration files under lint.

Property: any octets, as the mail service's file, its OAuth provider's and another service's, give findings, each with a
rule of the table and a place within the file; every way to print them gives what can be read: lines of text without
control characters, one workflow command a line, JSON.
"""

from __future__ import annotations

import json

from outgate.doctor import annotations, lint
from outgate.doctor.traps.names import MAIL, OAUTH
from outgate.doctor.traps.rules import RULES
from outgate.mailer.folders import ConfigFile, Configurations

_GOOD = b"""{
    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
    "smtp.port": "30465", // the way to 465
    "smtp.user": "$[env:EMAIL_USERNAME;default=myApiKey]",
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "from.address": "noreply@wknd.site",
    "smtp.ssl": true, "smtp.starttls": false,
    "oauth.flow": false
}"""
SEEDS = (
    _GOOD,
    b'{"smtp.port:Integer": "$[env:P;type=int;default=x]", "smtp.ssl": null}',
    b'{authUrl: "<Authorization Url>", clientSecret: "x" refreshToken: "y"}',
    b'{"a": "$[env:$[secret:X;default=\\\\;];type=Integer[];delimiter=;]", "b": ["${env.X}", "$[env:"]}',
    b'{"smtp.host": "$[conf:smtp.user]", "smtp.user": "$[conf:smtp.host]", "smtp.port": 1e400}',
    b'{"smtp.password": "\\u0000\\ud83d\\ude00", "SMTP.PASSWORD": 1}',
    b'\xff\xfe{"', b"$[" * 300 + b"]" * 300, b'{"a":"' + b"$[env:X;default=" * 80 + b"]" * 80 + b'"}',
)  # fmt: skip


def one_input(data: bytes) -> None:
    files = [
        ConfigFile(MAIL, (), "config/mail.cfg.json", data),
        ConfigFile(MAIL, ("author",), "config.author/mail.cfg.json", data[len(data) // 2 :] or _GOOD),
        ConfigFile(OAUTH, (), "config/oauth.cfg.json", data),
        ConfigFile("org.example.Thing~1", ("dev", "author"), "config.dev.author/other.cfg.json", data),
    ]
    found = lint.of(Configurations("config", tuple(files)))
    by_name = {file.where: file for file in files}
    for each in found.findings:
        assert each.rule in RULES and each.text
        if each.file in by_name:
            lines = by_name[each.file].data.decode("utf-8", "replace").split("\n")
            assert 1 <= each.line <= len(lines) and 1 <= each.column <= len(lines[each.line - 1]) + 1, each
    told = annotations.text(found.findings, found.excerpts, files=found.files)
    assert all(sign.isprintable() or sign == "\n" for sign in told)
    commands = annotations.github(found.findings)
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in commands.splitlines())
    assert commands.count("\n") == len(found.findings)
    log = json.loads(annotations.sarif(found.findings))
    assert len(log["runs"][0]["results"]) == len(json.loads(annotations.as_json(found.findings)))


if __name__ == "__main__":
    from _run import run

    run(__file__)
