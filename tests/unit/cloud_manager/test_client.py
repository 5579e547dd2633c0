"""Calls of a Cloud Manager: what is sent, what comes back, and what is never let out."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import outgate.cloud_manager
from outgate.cloud_manager import BadToken, CloudManager, Misconfigured, NotReachable, Refused
from outgate.cloud_manager import client as module
from support.ports import closed_port
from support.vendor_cloud_manager import BASE, CLIENT, ORG, TOKEN, Answer, Vendor, vendor


@pytest.fixture
def place() -> str:
    """Below which path the API is."""
    return "/cloud-manager"


@pytest.fixture
def server(place: str) -> Iterator[Vendor]:
    with vendor(place) as running:
        yield running


def client(server: Vendor, **other: Any) -> CloudManager:
    values = {"base_url": server.url, "org_id": ORG, "client_id": CLIENT, "token": TOKEN}
    return CloudManager(**{**values, **other})


@pytest.mark.parametrize("place", ["", "/cloud-manager"])
def test_each_call_is_one_request_with_the_vendors_headers(server: Vendor) -> None:
    server.networking = [{"portForwards": [{"name": "smtp.a.example", "portDest": 465, "portOrig": 30465}]}]
    api = client(server)
    change = {"name": "EMAIL_PASSWORD", "value": "pa$$ wörd", "type": "secretString"}
    assert api.set_variables("4", "10", [change]) is None
    assert api.variables("4", "10") == [{"name": "EMAIL_PASSWORD", "type": "secretString", "status": "ready"}]
    assert api.environment("4", "10")["status"] == "ready"
    assert api.networking("4", "10") == server.networking[0]
    assert server.calls() == [
        ("PATCH", f"{BASE}/variables"),
        ("GET", f"{BASE}/variables"),
        ("GET", BASE),
        ("GET", f"{BASE}/advancedNetworking"),
    ]
    assert server.bodies() == [[change]]
    for method, _, headers, _ in server.requests:
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert (headers["x-api-key"], headers["x-gw-ims-org-id"]) == (CLIENT, ORG)
        assert headers["accept"] == "application/json"
        assert headers.get("content-type") == ("application/json" if method == "PATCH" else None)


@pytest.mark.parametrize("place", ["", "/cloud-manager"])
def test_a_slash_behind_the_base_url_is_not_doubled(server: Vendor) -> None:
    client(server, base_url=server.url + "/").environment("4", "10")
    assert server.calls() == [("GET", BASE)]


@pytest.mark.parametrize("place", ["", "/cloud-manager"])
def test_a_list_is_read_page_after_page(server: Vendor) -> None:
    server.variables = [{"name": f"V_{n}", "type": "string", "value": "x"} for n in range(5)]
    server.page = 2
    assert [each["name"] for each in client(server).variables("4", "10")] == ["V_0", "V_1", "V_2", "V_3", "V_4"]
    assert [path for _, path in server.calls()] == [
        f"{BASE}/variables",
        f"{BASE}/variables?start=2",
        f"{BASE}/variables?start=4",
    ]


@pytest.mark.parametrize(
    "href",
    [
        "https://elsewhere.example/api",
        "//elsewhere.example/api",
        "/\\elsewhere.example",
        "@elsewhere",
        5,
        None,
        f"{BASE}/variables",
    ],
)
def test_a_link_that_leads_elsewhere_or_round_is_not_followed(server: Vendor, href: object) -> None:
    server.answers = [Answer(200, {"_embedded": {"variables": []}, "_links": {"next": {"href": href}}})]
    api = client(server)
    if href is None:
        assert api.variables("4", "10") == []
    else:
        with pytest.raises(NotReachable, match="not a Cloud Manager API"):
            api.variables("4", "10")
    assert len(server.requests) == 1


def test_pages_without_end_end(server: Vendor) -> None:
    server.answers = [
        Answer(200, {"_embedded": {"variables": []}, "_links": {"next": {"href": f"/api/{n}"}}}) for n in range(500)
    ]
    with pytest.raises(NotReachable):
        client(server).variables("4", "10")
    assert len(server.requests) == 100


@pytest.mark.parametrize("kind", ["secretString", "SecretString", "secret", None])
def test_a_secret_that_a_server_shows_all_the_same_is_dropped(server: Vendor, kind: str | None) -> None:
    shown = {"name": "A_SECRET", "type": kind, "value": "s3cr3t"}
    server.answers = [Answer(200, {"_embedded": {"variables": [shown]}})]
    assert client(server).variables("4", "10") == [{"name": "A_SECRET", "type": kind}]


@pytest.mark.parametrize(
    "body",
    [[], "text", 5, {"_embedded": []}, {"_embedded": {"variables": [5]}}, {"_links": 5}, b"<html>", b"[" * 100_000],
)
def test_an_answer_of_another_kind(server: Vendor, body: object) -> None:
    server.answers = [Answer(200, body)]
    with pytest.raises(NotReachable, match="not a Cloud Manager API: check the address"):
        client(server).variables("4", "10")


def test_what_a_person_typed_stays_one_part_of_the_path(server: Vendor) -> None:
    with pytest.raises(Refused):
        client(server).environment("4", "../../5?x#y")
    assert server.calls() == [("GET", "/api/program/4/environment/..%2F..%2F5%3Fx%23y")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"errors": {"f": {"field": "patchEnvironmentVariables.arg2[1].name", "message": 'must match "x"', "invalidValue": "1X"}}},
            'THE_SECOND: name (1X) must match "x"',
        ),
        (
            {"errors": {"f": {"field": "patchEnvironmentVariables.arg2[0].value", "message": "too long", "invalidValue": "s3cr3t-value"}}},
            "THE_FIRST: value too long",
        ),
        ({"errors": ["one is wrong", "two"]}, "one is wrong; two"),
        ({"errors": [{"message": "is wrong", "code": "x"}]}, "is wrong"),
        ({"errors": ['the value s3cr3t-value and "line\\nbreak" are wrong']}, 'the value **** and "****" are wrong'),
        ({"missingParams": [{"name": "limit"}], "invalidParams": [{"name": "start", "reason": "is no number"}]}, "limit is missing; start is no number"),
        ({"error_code": "403003", "message": "Api Key is invalid"}, "Api Key is invalid (Code: 403003)"),
        ({"title": "Bad\nRequest"}, "Bad Request"),
        ([], "Bad Request"),
        (b"<html>", "Bad Request"),
        (b"[" * 60_000, "Bad Request"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_said_but_no_value(server: Vendor, body: object, words: str) -> None:
    server.answers = [Answer(400, body)]
    changes = [{"name": "THE_FIRST", "value": "s3cr3t-value"}, {"name": "THE_SECOND", "value": "line\nbreak"}]
    with pytest.raises(Refused) as refused:
        client(server).set_variables("4", "10", changes)
    assert str(refused.value) == f"Cloud Manager refused (400): {words} (x-request-id req-1)"
    assert (refused.value.status, refused.value.text, refused.value.request_id) == (400, words, "req-1")


def test_a_server_that_repeats_all_it_got_tells_nobody(server: Vendor) -> None:
    server.answers = [Answer(400, {"errors": [f"Bearer {TOKEN} and s3cr3t"]}, {"x-request-id": "s3cr3t"})]
    with pytest.raises(Refused) as refused:
        client(server).set_variables("4", "10", [{"name": "AB", "value": "s3cr3t"}])
    assert refused.value.text == "Bearer **** and ****" and "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("line", [b"", b"HTTP/1.1 99 s3cr3t\r\n\r\n", b"HTTP/s3cr3t 200 OK\r\n\r\n", b"s3cr3t\r\n"])
def test_one_that_does_not_even_speak_http_neither(server: Vendor, line: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def echo() -> None:
            peer, _ = listening.accept()
            with peer:
                asked = peer.recv(65_536)
                peer.sendall(line or asked)

        thread = threading.Thread(target=echo)
        thread.start()
        with pytest.raises(NotReachable) as wrong:
            client(server, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}").set_variables(
                "4", "10", [{"name": "AB", "value": "s3cr3t"}]
            )
        thread.join()
    assert TOKEN not in str(wrong.value) and "s3cr3t" not in str(wrong.value)


def test_a_redirect_does_not_get_the_token(server: Vendor) -> None:
    server.answers = [Answer(307, {}, {"location": server.url + BASE})]
    with pytest.raises(Refused) as refused:
        client(server).environment("4", "10")
    assert refused.value.status == 307 and len(server.requests) == 1


def test_nothing_is_tried_twice(server: Vendor) -> None:
    server.answers = [Answer(503, {"title": "Service Unavailable"})] * 3
    api = client(server)
    for call in (lambda: api.set_variables("4", "10", []), lambda: api.variables("4", "10")):
        with pytest.raises(Refused, match=r"\(503\): Service Unavailable"):
            call()
    assert len(server.requests) == 2


def test_a_proxy_of_the_shell_is_not_told_about_loopback(server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert client(server).environment("4", "10")["id"] == "10"
    with pytest.raises(NotReachable) as nobody:
        CloudManager(f"http://127.0.0.1:{closed_port()}", ORG, CLIENT, TOKEN).environment("4", "10")
    assert "proxy" not in str(nobody.value)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://u:s3cr3t@127.0.0.1:1", "through the proxy that https_proxy names: [Errno 111]"),
        ("http:/u:s3cr3t@127.0.0.1", "through the proxy that https_proxy names: that is no address"),
        ("u:s3cr3t", "that is no address"),
    ],
)
def test_a_proxy_that_is_none(proxy: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(NotReachable) as wrong:
        CloudManager("HTTPS://cm.example", ORG, CLIENT, TOKEN).environment("4", "10")
    assert words in str(wrong.value) and "s3cr3t" not in str(wrong.value)


def test_an_answer_has_an_end_in_size_and_in_time(server: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_OCTETS", 1000)
    server.answers = [Answer(200, {"x": "y" * 1000})]
    with pytest.raises(NotReachable, match="longer than 1000 octets"):
        client(server).environment("4", "10")
    monkeypatch.setattr(module, "_WHOLE_S", -1.0)
    with pytest.raises(NotReachable, match="does not end"):
        client(server).environment("4", "10")


def test_a_server_that_says_nothing_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(NotReachable, match="timed out"):
            CloudManager(url, ORG, CLIENT, TOKEN, timeout=0.05).environment("4", "10")


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"])
def test_a_server_that_drips_is_left(first: bytes) -> None:
    """Octet by octet, each well in time for one step, in its headers or in its body."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            peer, _ = listening.accept()
            with peer, suppress(OSError):
                peer.recv(65_536)
                peer.sendall(first)
                peer.settimeout(0.02)
                for _ in range(3000):
                    with suppress(TimeoutError):
                        if not peer.recv(1):
                            return
                    peer.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(NotReachable, match=r"timed out|does not end"):
            CloudManager(url, ORG, CLIENT, TOKEN, timeout=0.3).environment("4", "10")
        thread.join()


def test_a_server_that_goes_away_in_the_middle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(NotReachable):
            CloudManager(url, ORG, CLIENT, TOKEN).environment("4", "10")
        thread.join()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://cm.example/cloud-manager", "would send secrets in the clear"),
        ("http://user:pw@cm.example", "http://cm.example would send"),
        ("https://user:pw@cm.example", "https://cm.example is given with a user name"),
        ("https://user:p@pw@cm.example/x", "https://cm.example/x is given with a user name"),
        ("https://user:p/pw@cm.example", "'https://cm.example' is not the address"),
        ("https://cm.example:port/", "is not the address"),
        ("https://cm.example/a b", "is not the address"),
        ("https://cm.example/ä", "is not the address"),
        ("https://cm.example/?x=y", "is not the address"),
        ("https://cm.example/#x", "is not the address"),
        ("https://cm.example/\r\nX: y", "is not the address"),
        ("ftp://127.0.0.1", "is not the address"),
        ("https://", "is not the address"),
    ],
)
def test_an_address_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        CloudManager(url, ORG, CLIENT, TOKEN)
    assert words in str(wrong.value) and "pw" not in str(wrong.value)


@pytest.mark.parametrize("name", ["org_id", "client_id", "token"])
@pytest.mark.parametrize("text", ["", "a\r\nX-Other: b", "ä-s3cr3t", "\ud800", " "])
def test_what_no_header_may_have(name: str, text: str) -> None:
    values = {"org_id": ORG, "client_id": CLIENT, "token": TOKEN, name: text}
    with pytest.raises(BadToken if name == "token" else Misconfigured) as wrong:
        CloudManager("http://127.0.0.1:1", **values)
    assert "s3cr3t" not in str(wrong.value)


def test_certificates_that_are_none(tmp_path: Path) -> None:
    for content in (None, "no certificate"):
        place = tmp_path / "ca.pem"
        if content:
            place.write_text(content)
        with pytest.raises(Misconfigured, match=r"ca\.pem holds no certificates"):
            CloudManager("https://cm.example", ORG, CLIENT, TOKEN, ca_file=str(place))


def test_no_repr_has_the_token() -> None:
    assert TOKEN not in repr(CloudManager("http://127.0.0.1:1", ORG, CLIENT, TOKEN))


def test_it_needs_the_standard_library_only() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import outgate.cloud_manager"
    source = str(Path(outgate.cloud_manager.__file__).parents[2])
    subprocess.run([sys.executable, "-I", "-S", "-c", code, source], check=True)


def test_runtime_and_test_of_a_connection_are_posted(server: Vendor) -> None:
    server.answers = [Answer(200, {"variables": {}}), Answer(200, {"resolvers": []})]
    api = client(server)
    assert api.runtime("4", "10", "author") == {"variables": {}}
    assert api.connectivity_test("4", "10", "smtp.a.example", 465) == {"resolvers": []}
    assert [(method, path, body) for method, path, _, body in server.requests] == [
        ("POST", f"{BASE}/runtime", {"service": "author"}),
        ("POST", f"{BASE}/connectivityTest", {"host": "smtp.a.example", "port": 465}),
    ]


def test_what_a_program_has_of_networks(server: Vendor) -> None:
    server.answers = [
        Answer(200, {"_embedded": {"networkInfrastructures": [{"id": "1"}]}}),
        Answer(200, {"_embedded": {}}),
    ]
    api = client(server)
    assert api.infrastructures("4") == [{"id": "1"}]
    assert json.dumps(server.calls()[0]) == '["GET", "/api/program/4/networkInfrastructures"]'
    server.answers = [Answer(200, {"_totalNumberOfItems": 0})]
    assert api.networking("4", "10") == {}
    server.networking = [{"portForwards": [5]}]
    with pytest.raises(NotReachable, match="is not a Cloud Manager API"):
        api.networking("4", "10")
