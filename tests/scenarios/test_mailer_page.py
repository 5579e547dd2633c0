"""What `docs/mailer.md` says works: each block is run, in an application's folder, through its tunnel to the relay."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.console.paste import recipes
from support.clients import run
from support.ports import forward_port
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mailer.md").read_text("utf-8")
CONFIG = "osgiconfig/config/com.day.cq.mailer.DefaultMailService.cfg.json"


def blocks(heading: str) -> list[str]:
    """Return the code under a heading, with the sandbox's names in place of the page's."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"```(?:[a-z]*)\n(.*?)```", section, re.DOTALL)
    return [re.sub(r"\.example\b", ".test", block) for block in found]


class Application:
    """An application's folder, and an environment whose port forward leads to the relay."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        dev = running.dev
        port = forward_port()
        rule = {"name": dev["smtp_host_name"], "portDest": running.address("submissions")[1], "portOrig": port}
        headers = {"x-gw-ims-org-id": dev["org_id"], "x-api-key": running.api.client_id}
        url = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}"

        def call(method: str, path: str, body: Any = None) -> Any:
            status, answer = running.status(
                method,
                url + path,
                None if body is None else json.dumps(body).encode(),
                headers | {"Authorization": f"Bearer {dev['token']}", "Content-Type": "application/json"},
            )
            assert status < 300, answer
            return json.loads(answer) if answer else None

        call("PUT", "/advancedNetworking", {"portForwards": [rule]})
        wait_for(lambda: call("GET", ""), lambda answer: answer["status"] == "ready")
        (folder / "secrets").mkdir(mode=0o700)
        (folder / "secrets" / "EMAIL_PASSWORD").write_text(dev["smtp_password"])
        (folder / "forwards.json").write_text(json.dumps({"portForwards": [rule]}))
        (folder / CONFIG).parent.mkdir(parents=True)
        (folder / CONFIG).write_text(blocks("Configure")[0])
        (folder / "mails").mkdir()
        (folder / "mails" / "order.html").write_text(blocks("Templates")[0])
        self.environment = os.environ | {
            "AEM_PROXY_HOST": dev["tunnel_address"],
            "EMAIL_PORT": str(port),
            "EMAIL_USERNAME": dev["smtp_user"],
            "OUTGATE_SECRETS": str(folder / "secrets"),
            "OUTGATE_FORWARDS": str(folder / "forwards.json"),
            "SSL_CERT_FILE": dev["ca_file"],
            "PYTHONWARNINGS": "error",
        }

    def runs(self, *command: str, **more: str) -> str:
        """Run a command; return what it printed."""
        done = run([*command], env=self.environment | more, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        return self.runs(sys.executable, "-c", code)

    def arrived(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for mail to so many recipients, and take it away."""
        mails = wait_for(self.running.inbox, lambda found: len(recipients(found)) >= count)
        self.running.api.call("DELETE", self.running.api.sandbox("inbox"))
        return mails


@pytest.fixture(scope="module")
def application(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    yield Application(running, tmp_path_factory.mktemp("application"))


def recipients(mails: list[dict[str, Any]]) -> list[str]:
    return sorted(address for mail in mails for address in mail["envelope"]["rcpt_to"])


def test_the_command_line(application: Application) -> None:
    (command,) = [block for block in blocks("Configure") if "python -m outgate.mailer" in block]
    said = application.runs("sh", "-euc", command.replace("python -m", f"{sys.executable} -m"))
    assert "queue id: " in said
    assert recipients(application.arrived()) == ["you@customer.test"]


@pytest.mark.parametrize(
    ("heading", "number", "expected"),
    [
        ("Send", 0, ["archive@shop.test", "you@customer.test"]),
        ("Send from tasks", 0, ["you@customer.test"]),
        ("Results and errors", 0, ["anna@customer.test", "you@customer.test"]),
        ("Templates", 1, ["you@customer.test"]),
    ],
)
def test_python(application: Application, heading: str, number: int, expected: list[str]) -> None:
    queue_id = application.python(blocks(heading)[number]).strip()
    application.running.settled(queue_id)
    assert recipients(application.arrived(len(expected))) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "forwards.json", "configuration: "),
        ("OUTGATE_SECRETS", "nowhere", "configuration: "),
        ("OUTGATE_FORWARDS", "", "configuration: "),
        ("AEM_PROXY_HOST", "127.66.0.9", "connect: "),
    ],
)
def test_errors_are_a_line(application: Application, name: str, value: str, said: str) -> None:
    (block,) = blocks("Results and errors")
    done = run([sys.executable, "-c", block], env=application.environment | {name: value}, cwd=application.folder)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(said), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2
    assert application.running.dev["smtp_password"] not in done.stderr


def test_django(application: Application) -> None:
    """Django's own command, with the page's settings, through the tunnel."""
    (settings,) = blocks("Django")
    (application.folder / "page_settings.py").write_text(settings)
    for command in ("sendtestemail you@customer.test", "check"):
        application.runs(
            sys.executable,
            "-W",
            "error",
            "-m",
            "django",
            *command.split(),
            DJANGO_SETTINGS_MODULE="page_settings",
            PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{application.folder}",
        )
    (mail,) = application.arrived()
    assert mail["envelope"] == {"mail_from": "orders@shop.test", "rcpt_to": ["you@customer.test"]}
    assert (mail["spf"]["result"], mail["dkim"]["result"]) == ("pass", "pass")


def test_the_consoles_recipe_for_django(application: Application, tmp_path: Path) -> None:
    """The page of the laptop mode has the backend too: its blocks, pasted as they are."""
    (recipe,) = [each for each in recipes(application.running.dev) if each.name == "Django, as configured"]
    config, settings = recipe.blocks
    (tmp_path / config.where).write_text(config.text)
    (tmp_path / settings.where).write_text(settings.text)
    done = run(
        [sys.executable, "-m", "django", "sendtestemail", "you@customer.test"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert recipients(application.arrived()) == ["you@customer.test"]


def test_flask(application: Application) -> None:
    """The block is the example; it is asked over its test client, in a process of its own."""
    (block,) = blocks("Flask")
    example = (ROOT / "examples" / "flask" / "shop.py").read_text("utf-8")
    assert block == re.sub(r"\.example\b", ".test", example)
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples" / "flask")!r})
import shop
template = shop.MAILS / "order.html"
from outgate.mailer import Template
app = shop.create_app()
app.extensions["order_mail"] = Template(template.read_text().replace(".example", ".test"))
answer = app.test_client().post("/orders", data={{"name": "Anna", "email": "you@customer.test", "order": "7"}})
assert answer.status_code == 201, answer.json
print(answer.json["queue_id"])
"""
    said = application.runs(sys.executable, "-c", program, SHOP_MAIL="osgiconfig", SHOP_RUN_MODES="author,dev")
    application.running.settled(said.strip())
    assert recipients(application.arrived()) == ["you@customer.test"]


def test_logging(application: Application) -> None:
    application.python(blocks("Logging")[0])
    assert recipients(application.arrived()) == ["ops@customer.test"]


def test_a_projects_own_tests(application: Application, tmp_path: Path) -> None:
    conftest, test = blocks("Test it")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_orders.py").write_text(test)
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text(blocks("Configure")[0])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        env=os.environ | {"PATH": path, "PYTHONWARNINGS": ""},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_is_run_here() -> None:
    """Those of the page, counted: a new one needs a test."""
    assert len(re.findall(r"^```[a-z]*$", PAGE, re.MULTILINE)) == 2 * 13
    assert blocks("Install") == ["pip install outgate\n"]  # test_plain_install.py


def test_every_name_on_the_page_is_there() -> None:
    names = set(re.findall(r"`(outgate\.[\w.]+)(?:\(\))?`", PAGE)) | set(
        re.findall(r'"(outgate\.mailer\.[\w.]+)"', PAGE)
    )
    assert len(names) >= 7
    django = {name for name in names if name.startswith("outgate.mailer.django.")}
    for name in names - django:
        pkgutil.resolve_name(name)
    source = (ROOT / "src" / "outgate" / "mailer" / "django.py").read_text("utf-8")
    for name in django:  # importing it here would need settings
        assert re.search(rf"^(?:class|def) {name.rpartition('.')[2]}\b", source, re.MULTILINE), name
