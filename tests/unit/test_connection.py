"""How a command finds and asks a running Outgate."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from outgate.connection import Api, NotReachable, Refusal, client_id_of, default_data, read_dev_json
from support.ports import closed_port

TOKEN = "h." + base64.urlsafe_b64encode(b'{"client_id":"outgate-dev"}').decode().rstrip("=") + ".s"


class Handler(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self.seen.append(
            (
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
        )
        status, body = {"/json": (200, b'{"a":1}'), "/text": (200, b"hello"), "/none": (204, b"")}.get(
            self.path, (404, b"no such")
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/json":
            self.send_header("ETag", '"v1"')
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen.clear()
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def api(**more: str) -> Api:
    return Api({"token": TOKEN, "org_id": "org"} | more)


def test_a_call_carries_who_we_are(server: str) -> None:
    assert api().call("POST", f"{server}/json", {"b": 2}) == {"a": 1}
    method, path, headers, body = Handler.seen[0]
    assert (method, path, json.loads(body)) == ("POST", "/json", {"b": 2})
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert (headers["x-gw-ims-org-id"], headers["x-api-key"], headers["content-type"]) == (
        "org",
        "outgate-dev",
        "application/json",
    )


def test_answers_of_all_kinds(server: str) -> None:
    assert api().call("GET", f"{server}/none") is None
    assert api().call("GET", f"{server}/text") == "hello"
    with pytest.raises(Refusal) as caught:
        api().call("GET", f"{server}/missing")
    assert (caught.value.status, caught.value.body) == (404, "no such")


def test_a_call_on_condition_of_a_version(server: str) -> None:
    assert api().tagged("GET", f"{server}/json") == ({"a": 1}, '"v1"')
    assert api().tagged("POST", f"{server}/none", {"b": 2}, '"v1"') == (None, "")
    assert [headers.get("if-match") for _, _, headers, _ in Handler.seen] == [None, '"v1"']


def test_a_proxy_of_the_environment_never_sees_the_token(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert api().call("GET", f"{server}/json") == {"a": 1}


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReachable, match="outgate dev") as caught:
        api().call("GET", f"http://127.0.0.1:{closed_port()}/")
    assert TOKEN not in str(caught.value) and "Errno" not in str(caught.value)


def test_somebody_else_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"220 this is no web server\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotReachable, match="outgate dev"):
            api().call("GET", f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()


def test_dev_json(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="start `outgate dev"):
        read_dev_json(tmp_path)
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(NotReachable, match="cannot be read"):
        read_dev_json(tmp_path)
    for short in ("[]", "3", '{"token": "x"}'):
        (tmp_path / "dev.json").write_text(short)
        with pytest.raises(NotReachable, match=r"lacks .*org_id.*: start `outgate dev"):
            read_dev_json(tmp_path)
    with pytest.raises(NotReachable, match="cannot be read: Not a directory"):
        read_dev_json(tmp_path / "dev.json")
    (tmp_path / "dev.json").write_text("[" * 100_000)
    with pytest.raises(NotReachable, match="cannot be read"):
        read_dev_json(tmp_path)
    needed = (
        *("token", "org_id", "account_id", "instance_id"),
        *("event_notifications_url", "restrictions_url", "cloud_manager_url", "identity_url", "sandbox_url"),
    )
    whole = dict.fromkeys(needed, "x")
    (tmp_path / "dev.json").write_text(json.dumps(whole))
    assert read_dev_json(tmp_path) == whole
    for key in needed:
        (tmp_path / "dev.json").write_text(json.dumps({name: "x" for name in needed if name != key}))
        with pytest.raises(NotReachable, match=f"lacks {key}: start `outgate dev"):
            read_dev_json(tmp_path)


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("OUTGATE_DATA", raising=False)
    assert default_data() == tmp_path / "outgate" / "dev"
    monkeypatch.setenv("OUTGATE_DATA", "/elsewhere")
    assert default_data() == Path("/elsewhere")


def test_the_client_id_of_a_token() -> None:
    assert client_id_of(TOKEN) == "outgate-dev"
    for wrong in ("", "a", "a.!!!.c", "a.W10.c"):
        assert client_id_of(wrong) == ""


def test_urls() -> None:
    a = api(event_notifications_url="http://h/en", instance_id="i", cloud_manager_url="http://h/cm", program_id="1", environment_id="2", sandbox_url="http://h/s")  # fmt: skip
    assert a.messages() == "http://h/en/v1/instances/i/smtp/messages" and a.messages("Q").endswith("/messages/Q")
    assert a.messages("a b/../?c#").endswith("/messages/a%20b%2F..%2F%3Fc%23")
    assert a.configurations("c/users") == "http://h/en/v1/instances/i/smtp/config/c/users"
    assert a.environment("variables") == "http://h/cm/api/program/1/environment/2/variables"
    assert a.sandbox("clock") == "http://h/s/clock"
