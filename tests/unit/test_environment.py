"""`environment run`: what the command gets, what is left afterwards, and what is said when it cannot start."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import outgate.cloud_manager
from outgate import environment

DOCUMENT = {
    "variables": {"EMAIL_USERNAME": "me", "AEM_PROXY_HOST": "not-this", "HOME": "/theirs"},
    "secrets": {"EMAIL_PASSWORD": "pa$$ wörd\n", "EMPTY_ONE": ""},
    "reserved": {"AEM_PROXY_HOST": "127.1.0.1", "AEM_HTTP_PROXY_PORT": "3128", "AEM_HTTPS_PROXY_PORT": "3128"},
    "tunnelAddress": "127.1.0.1",
    "portForwards": [{"name": "smtp.mymail.com", "portDest": 465, "portOrig": 30465}],
    "runModes": ["author", "stage"],
}


class CloudManager:
    """A server that answers one thing and remembers the requests."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = json.dumps(DOCUMENT).encode()
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                sent = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, sent, json.loads(content)))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cloud-manager"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def api() -> Iterator[CloudManager]:
    made = CloudManager()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the secrets a place of this test's own."""
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return place


def run(url: str, command: list[str]) -> int:
    asked = outgate.cloud_manager.CloudManager(url, "ORG@AdobeOrg", "client", "t0ken-value")
    try:
        return environment.run(asked, program_id="4", environment_id="10", service="author", command=command)
    except environment.RunError as error:
        print(error, file=sys.stderr)
        return error.code


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


REPORT = """
import json, os, pathlib, stat, sys
secrets = pathlib.Path(os.environ["OUTGATE_SECRETS"])
mode = lambda path: stat.S_IMODE(path.stat().st_mode)
json.dump({
    "environ": {name: os.environ.get(name) for name in ("EMAIL_USERNAME", "AEM_PROXY_HOST", "HOME", "EMAIL_PASSWORD", "KEPT", "OUTGATE_RUN_MODES")},
    "secrets": {file.name: file.read_bytes().decode() for file in secrets.iterdir()},
    "modes": [mode(secrets.parent), mode(secrets), *sorted({mode(file) for file in secrets.iterdir()})],
    "forwards": json.loads(pathlib.Path(os.environ["OUTGATE_FORWARDS"]).read_text()),
    "place": str(secrets.parent),
}, open(sys.argv[1], "w"))
sys.exit(7)
"""


def test_the_command_gets_everything_and_nothing_is_left(
    api: CloudManager, tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "from outside")
    report = tmp_path / "report.json"
    assert run(api.url, python(REPORT, str(report))) == 7
    found = json.loads(report.read_text())
    assert found["environ"] == {
        "EMAIL_USERNAME": "me",
        "AEM_PROXY_HOST": "127.1.0.1",
        "HOME": "/theirs",
        "EMAIL_PASSWORD": None,
        "KEPT": "from outside",
        "OUTGATE_RUN_MODES": "author,stage",
    }
    assert found["secrets"] == DOCUMENT["secrets"]
    assert found["modes"] == [0o700, 0o700, 0o600]
    assert found["forwards"] == {key: DOCUMENT[key] for key in ("tunnelAddress", "portForwards")}
    assert Path(found["place"]).parent == memory
    assert list(memory.iterdir()) == []
    ((path, headers, body),) = api.requests
    assert path == "/cloud-manager/api/program/4/environment/10/runtime"
    assert body == {"service": "author"}
    assert headers["authorization"] == "Bearer t0ken-value"
    assert (headers["x-api-key"], headers["x-gw-ims-org-id"]) == ("client", "ORG@AdobeOrg")
    assert headers["content-type"] == "application/json"


def test_a_command_that_a_signal_ends(api: CloudManager, memory: Path) -> None:
    assert run(api.url, python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")) == 137
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("command", [["/nonexistent/program"], ["no-such-program-anywhere"], ["/"]])
def test_a_command_that_cannot_start(
    api: CloudManager, memory: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run(api.url, command) == 2
    assert f"{command[0]} cannot be started" in capsys.readouterr().err
    assert list(memory.iterdir()) == []


def test_no_command(api: CloudManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(api.url, []) == 2
    assert "after --" in capsys.readouterr().err
    assert api.requests == []


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error_code": "401013", "message": "Oauth token is not valid"}, ["401013", "Get a new token"]),
        (403, {"error_code": "403027", "message": "lacks the role"}, ["lacks the role", "(runtime)"]),
        (
            404,
            {"status": 404, "errors": [{"code": "x", "message": "no environment 10"}]},
            ["no environment 10", "which must be Outgate"],
        ),
        (400, {"errors": {"f": {"field": "a.arg2.f", "message": "must be one of"}}}, [": f must be one of", "Correct"]),
        (400, {"errors": ["a string"]}, ["a string"]),
        (500, "no object", ["500", "Internal Server Error"]),
        (500, None, ["500"]),
    ],
)
def test_a_refusal_is_told_in_its_own_words(
    api: CloudManager, capsys: pytest.CaptureFixture[str], status: int, body: object, words: list[str]
) -> None:
    api.status, api.body = status, json.dumps(body).encode()
    assert run(api.url, ["true"]) == 30
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "t0ken-value" not in said


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert run(f"http://127.0.0.1:{port}/cloud-manager", ["true"]) == 30
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"secrets": {"../escape": "x"}},
        {"secrets": {"NAME": 5}},
        {"secrets": []},
        {"variables": {"A=B": "x"}},
        {"variables": {"NUL": "\0"}},
        {"variables": {"HALF": "\ud800"}},
        {"secrets": {"HALF": "s3cr3t\udcff"}},
        {"portForwards": {}},
        {"runModes": ["author,prod"]},
        {"runModes": [7]},
        {"runModes": [None]},
        {"runModes": "author"},
        None,
    ],
)
def test_an_answer_that_is_no_runtime_document(
    api: CloudManager, memory: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object] | None
) -> None:
    api.body = b"<html>" if change is None else json.dumps({**DOCUMENT, **change}).encode()
    assert run(api.url, ["true"]) == 30
    assert "not a Cloud Manager API" in capsys.readouterr().err
    assert list(memory.iterdir()) == []


# With real processes: who is told to end, and what is left then.

PARENT = """
import sys
from outgate import environment
from outgate.cloud_manager import CloudManager
api = CloudManager(sys.argv[1], "o", "c", "t")
sys.exit(environment.run(api, program_id="4", environment_id="10", service="author", command=sys.argv[2:]))
"""
CHILD = """
import os, signal, sys
def told(number, frame):
    os.write(1, b"told %d\\n" % number)  # print may be under way when the signal comes
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, told)
print(os.environ["OUTGATE_SECRETS"], os.getpid(), flush=True)
while True:
    signal.pause()
"""


def start(url: str, *, own_group: bool = False) -> tuple[subprocess.Popen[str], Path, int]:
    """Start a parent; return it, the secrets' directory, and the command's process id, once that runs."""
    parent = subprocess.Popen(
        python(PARENT, url, *python(CHILD)),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=own_group,
        # A shell that runs the tests in the background has them ignore SIGINT, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout is not None
    place, child = parent.stdout.readline().split()
    return parent, Path(place), int(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command_and_its_answer_counts(
    api: CloudManager, memory: Path, number: signal.Signals
) -> None:
    parent, place, _ = start(api.url)
    assert (place / "EMAIL_PASSWORD").is_file()
    parent.send_signal(number)
    said, _ = parent.communicate()
    assert said.strip() == f"told {int(number)}"
    assert parent.returncode == 5
    assert list(memory.iterdir()) == []


def test_a_killed_parent_leaves_no_secret(api: CloudManager, memory: Path) -> None:
    parent, place, child = start(api.url)
    assert (place / "EMAIL_PASSWORD").read_text() == "pa$$ wörd\n"
    (watchdog,) = watchdogs_of(place.parent)
    # Whatever else is sent to the watchdog does not stop it.
    os.kill(watchdog, signal.SIGTERM)
    os.kill(watchdog, signal.SIGHUP)
    watching, still = os.pidfd_open(watchdog), os.pidfd_open(child)
    parent.kill()
    parent.wait()
    assert select.select([watching], [], [], 30)[0], "the watchdog did not end"
    os.close(watching)
    assert list(memory.iterdir()) == []
    os.kill(child, signal.SIGKILL)
    assert select.select([still], [], [], 30)[0]
    os.close(still)
    assert parent.stdout is not None
    parent.stdout.close()


def test_a_whole_group_that_is_killed_leaves_no_secret(api: CloudManager, memory: Path) -> None:
    parent, place, _ = start(api.url, own_group=True)
    (watchdog,) = watchdogs_of(place.parent)
    watching = os.pidfd_open(watchdog)
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate()
    assert select.select([watching], [], [], 30)[0], "the watchdog did not end"
    os.close(watching)
    assert list(memory.iterdir()) == []


def watchdogs_of(place: Path) -> list[int]:
    """Return the processes that have this directory as last argument."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(arguments) > 1 and arguments[-2] == os.fsencode(place):
                found.append(int(entry.name))
    return found


def test_it_needs_the_standard_library_only() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import outgate.environment"
    source = str(Path(environment.__file__).parent.parent)
    subprocess.run([sys.executable, "-I", "-S", "-c", code, source], check=True)
