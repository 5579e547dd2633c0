"""The examples, against a real server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask.testing import FlaskClient

from outgate.mailer import ConfigError
from support.mail_server import PASSWORD, MailServer, mail_server

EXAMPLES = Path(__file__).parents[3] / "examples"
ORDER = {"name": 'O\'Hara, "A" <b>', "email": "you@customer.test", "order": "7"}


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def flask_client(server: MailServer) -> FlaskClient:
    shop = module(EXAMPLES / "flask" / "shop.py")
    config = {"MAIL": server.path, "RUN_MODES": "author,dev", "MAIL_OPTIONS": server.options, "TESTING": True}
    return shop.create_app(config).test_client()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    with mail_server(tmp_path) as running:
        yield running


class TestFlask:
    def test_an_order(self, server: MailServer) -> None:
        client = flask_client(server)
        for number in (1, 2):
            answer = client.post("/orders", data=ORDER)
            assert (answer.status_code, answer.json) == (201, {"queue_id": f"Q{number}"})
        assert server.peer.connections == 1
        mail = server.mails[0]
        assert mail["Subject"] == "Your order 7" and mail["To"].addresses[0].display_name == ORDER["name"]
        html, plain = mail.get_body(("html",)), mail.get_body(("plain",))
        assert html is not None and "Dear O&#x27;Hara, &quot;A&quot; &lt;b&gt;," in html.get_content()
        assert plain is not None and "See it <https://shop.example/orders/7>" in plain.get_content()
        client.application.extensions["mail"].close()

    @pytest.mark.parametrize("email", ["", "nobody", "a@x.test, b@x.test", "a@x.test\r\nBcc: b@x.test"])
    def test_an_address_that_is_none(self, server: MailServer, email: str) -> None:
        answer = flask_client(server).post("/orders", data=ORDER | {"email": email})
        assert (answer.status_code, server.peer.messages) == (400, [])

    @pytest.mark.parametrize(
        ("options", "status", "again"),
        [
            ({"answers": {"dot": b"451 4.3.0 later\r\n"}}, 503, True),
            ({"answers": {"dot": b"554 5.7.1 no\r\n"}}, 502, False),
            ({"hang_up_at": "dot"}, 503, False),
            ({"hang_up_at": "MAIL"}, 503, True),
        ],
    )
    def test_a_mail_that_does_not_go(self, tmp_path: Path, options: dict[str, Any], status: int, again: bool) -> None:
        with mail_server(tmp_path, **options) as server:
            answer = flask_client(server).post("/orders", data=ORDER)
            assert (answer.status_code, answer.json["try_again"]) == (status, again)  # type: ignore[index]

    def test_a_forward_that_is_not_known(self, server: MailServer) -> None:
        server.options["forwards"] = []
        answer = flask_client(server).post("/orders", data=ORDER)
        assert (answer.status_code, answer.json) == (503, {"error": "mail is not possible now", "try_again": False})

    def test_a_wrong_configuration_ends_the_start(self, server: MailServer) -> None:
        server.options["secrets"] = {}
        with pytest.raises(ConfigError, match=r"nothing is set for \$\[secret:EMAIL_PASSWORD\]"):
            flask_client(server)


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("send.py", ["you@customer.test"], "Q1\n"),
        ("send_async.py", ["you@customer.test"], "you@customer.test Q1\n"),
        ("send_async.py", [f"a{number}@customer.test" for number in range(20)], None),
    ],
)
def test_scripts(server: MailServer, name: str, to: list[str], said: str | None) -> None:
    secrets = server.folder / "secrets"
    secrets.mkdir()
    (secrets / "EMAIL_PASSWORD").write_text(PASSWORD)
    forwards = server.folder / "forwards.json"
    forwards.write_text(json.dumps(server.options["forwards"]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "script" / name), str(server.path), "author,dev", *to],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ
        | {
            "AEM_PROXY_HOST": "127.0.0.1",
            "OUTGATE_SECRETS": str(secrets),
            "OUTGATE_FORWARDS": str(forwards),
            "SSL_CERT_FILE": str(server.options["cafile"]),
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in (None, done.stdout) and len(done.stdout.splitlines()) == len(to) == len(server.mails)
    assert sorted(str(mail["To"]) for mail in server.mails) == sorted(to)
    assert 1 <= server.peer.connections <= 8


@pytest.mark.parametrize("name", ["send.py", "send_async.py"])
def test_a_script_says_what_is_wrong(server: MailServer, name: str) -> None:
    for arguments in ([str(server.path), "publish", "a@x.test"], [str(server.path), "author", "a@x.test"]):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "script" / name), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
