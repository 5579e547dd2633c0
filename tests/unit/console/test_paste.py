"""The texts to paste, as far as they can be judged without running them (scenarios/test_browser.py runs them)."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from outgate.console.paste import recipes
from outgate.mailer import osgi
from outgate.mailer.config import settle
from support.console_tenant import DEV

RECIPES = {recipe.name: recipe for recipe in recipes(DEV)}


def test_django_gets_the_settings_it_reads() -> None:
    settings: dict[str, Any] = {}
    code, shell = RECIPES["Django"].blocks
    exec(code.text, settings)
    del settings["__builtins__"]
    assert settings == {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": 2465,
        "EMAIL_USE_SSL": True,
        "EMAIL_HOST_USER": DEV["smtp_user"],
        "EMAIL_HOST_PASSWORD": DEV["smtp_password"],
        "DEFAULT_FROM_EMAIL": "hello@shop.test",
        "SERVER_EMAIL": "hello@shop.test",
    }
    assert shlex.split(shell.text)[0] == f"SSL_CERT_FILE={DEV['ca_file']}"


def test_djangos_other_backend_gets_the_configuration() -> None:
    config, code = RECIPES["Django, as configured"].blocks
    settings: dict[str, Any] = {}
    exec(code.text, settings)
    assert settings["EMAIL_BACKEND"] == "outgate.mailer.django.EmailBackend"
    assert settings["OUTGATE_MAILER"]["path"] == config.where
    found = settle(
        osgi.read(config.text), env=settings["OUTGATE_MAILER"]["env"], secrets=settings["OUTGATE_MAILER"]["secrets"]
    )
    assert (found.host, found.port, found.tls) == ("127.0.0.1", 2465, "implicit")
    assert (found.user, found.password) == (DEV["smtp_user"], DEV["smtp_password"])
    assert settings["OUTGATE_MAILER"]["cafile"] == DEV["ca_file"]


@pytest.mark.parametrize("name", ["Python", "SDK"])
def test_python_texts_compile(name: str) -> None:
    (block,) = RECIPES[name].blocks
    compile(block.text, block.where, "exec")


def test_aem_gets_the_documented_configuration_and_calls() -> None:
    config, calls, send = RECIPES["AEM"].blocks
    assert config.where == "com.day.cq.mailer.DefaultMailService.cfg.json"
    settings = json.loads(config.text)
    assert settings["smtp.host"] == "$[env:AEM_PROXY_HOST;default=proxy.tunnel]"
    assert (settings["smtp.port"], settings["smtp.ssl"]) == ("30465", True)
    assert settings["from.address"] == "noreply@shop.test"
    words = shlex.split(send.text)
    assert words[0] == f"SSL_CERT_FILE={DEV['ca_file']}"
    assert words[words.index("--data") + 1] == str(Path(DEV["ca_file"]).parent)
    assert words[words.index("--config") + 1] == config.where
    assert DEV["token"] not in calls.text


def test_the_calls_of_aem_reach_their_commands_whole(tmp_path: Path) -> None:
    """A real shell reads them, with an `outgate` and a `curl` that write down what they are given."""
    data = tmp_path / "o'hara \"$(data)"
    data.mkdir()
    (data / "dev.json").write_text(json.dumps(DEV))
    aem = next(recipe for recipe in recipes(DEV | {"ca_file": str(data / "ca.pem")}) if recipe.name == "AEM")
    setting, _, put = aem.blocks[1].text.partition("\n\n")
    program = re.match(r"\S+/outgate(?= )|\S+ -m outgate\.cli(?= )", setting)
    assert program is not None
    script = "told() { printf '%s\\0' \"$@\"; }\n"
    given = [
        subprocess.run(["bash", "-ec", script + text], capture_output=True, text=True, check=True).stdout.split("\0")[
            :-1
        ]
        for text in (f"told{setting[program.end() :]}", put.replace("curl", "told", 1))
    ]
    assert given[0] == [
        *("cloudmanager:set-environment-variables", "--data", str(data), "--programId=4", "10"),
        *("--variable", "EMAIL_USERNAME", DEV["smtp_user"], "--secret", "EMAIL_PASSWORD", DEV["smtp_password"]),
    ]
    words = given[1]
    assert json.loads(words[words.index("-d") + 1]) == {
        "portForwards": [{"name": "smtp.outgate.test", "portDest": 2465, "portOrig": 30465}]
    }
    assert words.count("x-api-key: client-1") == 1
    assert words.count(f"Authorization: Bearer {DEV['token']}") == 1
    assert [word for word in words if word.startswith("http")] == [
        "http://127.0.0.1:8025/cloud-manager/api/program/4/environment/10/advancedNetworking"
    ]


def test_swaks_gets_every_value_whole() -> None:
    (block,) = RECIPES["swaks"].blocks
    words = shlex.split(block.text)
    assert words[words.index("--auth-password") + 1] == DEV["smtp_password"]
    assert words[words.index("--tls-ca-path") + 1] == DEV["ca_file"]
    assert "--tls-verify" in words
