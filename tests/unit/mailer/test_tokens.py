"""Access tokens from a real token server: cached, renewed, shared by threads; and from servers that mean no good."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from outgate.base.clock import FrozenClock
from outgate.base.log import JsonFormatter
from outgate.mailer import form_post
from outgate.mailer.oauth import OAuthConfig, TokenError, Tokens
from outgate.mailer.values import ConfigError
from support.http_proxy import World
from support.ports import closed_port
from support.token_server import CLIENT, CLIENT_SECRET, TokenServer, reply

AUTHORITY = trustme.CA()
SCOPES = ("https://outlook.office.com/SMTP.Send", "offline_access")


@pytest.fixture
def server() -> Generator[TokenServer]:
    with TokenServer(AUTHORITY) as running:
        yield running


@pytest.fixture
def server_with_name() -> Generator[TokenServer]:
    with TokenServer(AUTHORITY, names=("tokens.example",)) as running:
        yield running


@pytest.fixture(scope="module")
def cafile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(file)
    return file


def config(server: TokenServer, **change: Any) -> OAuthConfig:
    values = {
        "token_url": server.url,
        "client_id": CLIENT,
        "client_secret": CLIENT_SECRET,
        "refresh_token": server.refresh_token,
        "scopes": SCOPES,
    }
    return OAuthConfig(**(values | change))


def refused(tokens: Tokens) -> TokenError:
    with pytest.raises(TokenError) as caught:
        tokens.token()
    return caught.value


@contextmanager
def logged() -> Generator[io.StringIO]:
    """Collect what is logged, as it would be written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("outgate")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


class TestLife:
    def test_what_is_sent(self, server: TokenServer, cafile: Path) -> None:
        token = Tokens(config(server), cafile=cafile, env={}).token()
        assert token in server.issued
        assert server.forms == [
            {
                "grant_type": "refresh_token",
                "client_id": CLIENT,
                "client_secret": CLIENT_SECRET,
                "refresh_token": server.refresh_token,
                "scope": " ".join(SCOPES),
            }
        ]

    @pytest.mark.parametrize(
        ("lifetime", "good_for"),
        [(3600, 3540), ("3599", 3539), (100, 90), (None, 270), (-5, 270), (True, 270), (10**30, 86_340), ([], 270)],
    )
    def test_a_token_is_kept_until_it_nearly_expires(
        self, server: TokenServer, cafile: Path, lifetime: object, good_for: float
    ) -> None:
        server.lifetime = lifetime
        clock = FrozenClock()
        tokens = Tokens(config(server), clock=clock, cafile=cafile, env={})
        first = tokens.token()
        clock.advance(good_for - 0.5)
        assert tokens.token() == first and len(server.forms) == 1
        clock.advance(1)
        assert tokens.token() != first and len(server.forms) == 2

    def test_forgotten(self, server: TokenServer, cafile: Path) -> None:
        tokens = Tokens(config(server), cafile=cafile, env={})
        first = tokens.token()
        tokens.forget("an older one")
        assert tokens.token() == first
        tokens.forget(first)
        second = tokens.token()
        tokens.forget()
        tokens.forget(first)
        assert len({first, second, tokens.token()}) == 3

    def test_to_forget_one_waits_for_no_fetch(self, server: TokenServer, cafile: Path) -> None:
        """An event loop does it."""
        tokens = Tokens(config(server), cafile=cafile, env={}, seconds=5)

        def answer(request: BaseHTTPRequestHandler) -> None:
            tokens.forget("an older one")
            reply(request, 200, {"access_token": "token-1234"})

        server.answer = answer
        assert tokens.token() == tokens.token() == "token-1234"

    def test_many_threads_cause_one_refresh(self, server: TokenServer, cafile: Path) -> None:
        all_there = threading.Barrier(8)
        tokens = Tokens(config(server), cafile=cafile, env={})

        def ask() -> str:
            all_there.wait(10)
            return tokens.token()

        with ThreadPoolExecutor(8) as pool:
            found = {future.result() for future in [pool.submit(ask) for _ in range(8)]}
        assert len(found) == 1 and len(server.forms) == 1

    def test_who_waits_for_a_failure_shares_it(self, server: TokenServer, cafile: Path) -> None:
        asked, go_on = threading.Event(), threading.Event()

        def slow(request: BaseHTTPRequestHandler) -> None:
            asked.set()
            go_on.wait(10)
            reply(request, 503, b"down")

        server.answer = slow
        tokens = Tokens(config(server), cafile=cafile, env={})
        with ThreadPoolExecutor(4) as pool:
            found = [pool.submit(refused, tokens)]
            assert asked.wait(10)
            waiting = threading.Semaphore(0)

            def wait() -> TokenError:
                waiting.release()
                return refused(tokens)

            found += [pool.submit(wait) for _ in range(3)]
            for _ in range(3):
                waiting.acquire()
            go_on.set()
            reasons = [future.result().reason for future in found]
        assert reasons == ["server"] * 4 and len(server.forms) < 4
        server.answer = None
        assert tokens.token() in server.issued

    def test_without_a_client_secret_none_is_sent(self, server: TokenServer, cafile: Path) -> None:
        assert refused(Tokens(config(server, client_secret="", scopes=()), cafile=cafile, env={})).reason == "client"
        assert "client_secret" not in server.forms[0] and "scope" not in server.forms[0]

    def test_coroutines_ask_in_a_thread(self, server: TokenServer, cafile: Path) -> None:
        async def main() -> set[str]:
            tokens = Tokens(config(server), cafile=cafile, env={})
            return set(await asyncio.gather(*(asyncio.to_thread(tokens.token) for _ in range(4))))

        assert len(asyncio.run(main())) == 1 and len(server.forms) == 1


class TestRotation:
    def test_the_new_refresh_token_is_used_and_told(self, server: TokenServer, cafile: Path) -> None:
        server.rotates = True
        told: list[str] = []
        clock = FrozenClock()
        first = server.refresh_token
        tokens = Tokens(config(server), clock=clock, cafile=cafile, env={}, on_rotated=told.append)
        with logged() as log:
            tokens.token()
            clock.advance(4000)
            tokens.token()
        assert [form["refresh_token"] for form in server.forms] == [first, told[0]]
        assert told[1] == server.refresh_token
        assert not any(secret in log.getvalue() for secret in (first, *told, *server.issued))
        assert log.getvalue().count("gave a new refresh token") == 2

    def test_without_a_callback_a_warning_says_so(self, server: TokenServer, cafile: Path) -> None:
        server.rotates = True
        with logged() as log:
            Tokens(config(server), cafile=cafile, env={}).token()
        line = json.loads(log.getvalue())
        assert line["level"] == "warning" and "gave a new refresh token" in line["event"]
        assert "store it (Tokens(on_rotated=" in line["event"] and server.refresh_token not in log.getvalue()

    def test_a_callback_that_fails_does_not_stop_the_mail(self, server: TokenServer, cafile: Path) -> None:
        server.rotates = True

        def fails(token: str) -> None:
            raise OSError(f"no room for {token}")

        with logged() as log:
            assert Tokens(config(server), cafile=cafile, env={}, on_rotated=fails).token() in server.issued
        assert "is not stored: on_rotated raised " in log.getvalue() and server.refresh_token not in log.getvalue()

    def test_a_callback_may_ask_for_a_token(self, server: TokenServer, cafile: Path) -> None:
        server.rotates = True
        seen: list[str] = []
        tokens = Tokens(config(server), cafile=cafile, env={}, on_rotated=lambda _: seen.append(tokens.token()))
        assert [tokens.token()] == seen


class TestRefusals:
    def test_a_refresh_token_that_was_revoked(self, server: TokenServer, cafile: Path) -> None:
        tokens = Tokens(config(server), cafile=cafile, env={})
        server.revoke()
        error = refused(tokens)
        assert str(error) == (
            f"no access token from 127.0.0.1:{server.port}: the refresh token is no longer valid"
            " (Token has been expired or revoked.): get a new one (docs/oauth.md says how) and store it as the secret"
            " SECRET_SMTP_OAUTH_REFRESH_TOKEN, or as what refreshToken names"
        )
        assert error.reason == "refresh-token" and error.final

    def test_a_final_refusal_is_not_asked_about_at_once(self, server: TokenServer, cafile: Path) -> None:
        clock = FrozenClock()
        tokens = Tokens(config(server), clock=clock, cafile=cafile, env={})
        valid = server.refresh_token
        server.revoke()
        assert str(refused(tokens)) == str(refused(tokens)) and len(server.forms) == 1
        server.refresh_token = valid
        clock.advance(61)
        assert tokens.token() in server.issued

    def test_a_client_that_is_not_known(self, server: TokenServer, cafile: Path) -> None:
        error = refused(Tokens(config(server, client_secret="another-secret"), cafile=cafile, env={}))
        assert "clientId and clientSecret (invalid_client) (AADSTS7000215: Invalid client secret.)" in str(error)
        assert "SECRET_SMTP_OAUTH_CLIENT_SECRET" in str(error) and error.reason == "client" and error.final

    @pytest.mark.parametrize(
        ("status", "document", "reason", "said"),
        [
            (400, {"error": "invalid_scope"}, "request", "the server refuses (400 invalid_scope)"),
            (400, {"error": "temporarily_unavailable"}, "server", "try again later"),
            (503, b"<html>down</html>", "server", "in trouble (503): try again later"),
            (429, {}, "server", "in trouble (429)"),
            (404, b"<!DOCTYPE html><h1>not here</h1>", "answer", "the answer (404) is not one of a token server"),
            (200, b"<!DOCTYPE html><h1>log in</h1>", "answer", "holds no access token"),
            (200, [], "answer", "holds no access token"),
            (200, {"access_token": 7}, "answer", "holds no access token"),
            (200, {"access_token": "two words"}, "answer", "holds no access token"),
            (200, {"access_token": "a\r\nQUIT"}, "answer", "holds no access token"),
            (200, {"access_token": ""}, "answer", "holds no access token"),
            (200, {"access_token": "a", "token_type": "mac"}, "answer", "no bearer token"),
            (200, {"access_token": "a", "token_type": None}, "answer", "no bearer token"),
            (200, b"[" * 60_000, "answer", "holds no access token"),
            (200, b'{"access_token": ' + b"1" * 60_000 + b"}", "answer", "holds no access token"),
            (200, b"\xff\xfe\x00\xd8", "answer", "holds no access token"),
            (400, {"error": {"code": 1}, "error_description": 5}, "answer", "is not one of a token server"),
            (400, {"error": "x" * 5000}, "answer", "is not one of a token server"),
        ],
    )
    def test_other_answers(
        self, server: TokenServer, cafile: Path, status: int, document: object, reason: str, said: str
    ) -> None:
        server.answer = lambda request: reply(request, status, document)
        error = refused(Tokens(config(server), cafile=cafile, env={}))
        assert error.reason == reason and said in str(error) and len(str(error)) < 700

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_not_followed(self, server: TokenServer, cafile: Path, status: int) -> None:
        with TokenServer() as other:
            server.answer = lambda request: reply(request, status, b"", Location=other.url)
            error = refused(Tokens(config(server), cafile=cafile, env={}))
            assert f"it redirects ({status}), and secrets are not sent on" in str(error) and error.final
            assert other.forms == []

    def test_what_a_server_says_cannot_forge_a_line(self, server: TokenServer, cafile: Path) -> None:
        server.answer = lambda request: reply(
            request, 400, {"error": "invalid_grant", "error_description": "one\x1b[2J\r\nERROR forged"}
        )
        text = str(refused(Tokens(config(server), cafile=cafile, env={})))
        assert "(one?[2J)" in text and "forged" not in text and text.isprintable()


def raw(data: bytes, *, then: Callable[[BaseHTTPRequestHandler], None] | None = None) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        request.wfile.flush()
        if then is not None:
            then(request)
        request.close_connection = True

    return answer


def drip(request: BaseHTTPRequestHandler) -> None:
    """Send an octet again and again until the other side goes."""
    pause = threading.Event()
    while not pause.wait(0.02):
        request.wfile.write(b"x")
        request.wfile.flush()


def flood(request: BaseHTTPRequestHandler) -> None:
    while True:
        request.wfile.write(b"x" * 65_536)


HEAD = b"HTTP/1.1 200 OK\r\n"


class TestHostileServers:
    @pytest.mark.parametrize(
        ("data", "then", "said"),
        [
            (b"", drip, "no answer within 0.4 s"),
            (HEAD + b"X-Slow: ", drip, "no answer within 0.4 s"),
            (HEAD + b"Content-Length: 100000\r\n\r\n", drip, "no answer within 0.4 s"),
            (HEAD + b"\r\n", flood, "longer than 65536 octets"),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000\r\n", flood, "longer than 65536 octets"),
            (HEAD + b"Content-Length: 100\r\n\r\n{}", None, "the connection ended within the answer"),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", None, "not HTTP"),
            (HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(500)), None, "not HTTP"),
            (HEAD + b"X: " + b"y" * 100_000, None, "not HTTP"),
            (b"220 smtp.test ESMTP\r\n", None, "not HTTP"),
            (b"", None, "not HTTP"),
        ],
    )
    def test_a_refresh_ends(self, server: TokenServer, cafile: Path, data: bytes, then: Any, said: str) -> None:
        server.answer = raw(data, then=then)
        seconds = 0.4 if "0.4" in said else 20
        error = refused(Tokens(config(server), cafile=cafile, env={}, seconds=seconds))
        assert said in str(error) and error.reason == "network" and not error.final

    def test_nobody_is_there(self, cafile: Path) -> None:
        with TokenServer(AUTHORITY) as gone:
            closed = config(gone)
        assert "Connection refused" in str(refused(Tokens(closed, cafile=cafile, env={})))

    def test_a_name_that_does_not_exist(self, server: TokenServer) -> None:
        error = refused(Tokens(config(server, token_url="https://no-such-name.invalid/token"), env={}))
        assert error.reason == "network" and "no access token from no-such-name.invalid: " in str(error)

    def test_a_certificate_of_somebody_else(self, server: TokenServer) -> None:
        error = refused(Tokens(config(server), env={}))
        assert "TLS: the certificate was not accepted" in str(error) and server.forms == []

    def test_a_certificate_with_another_name(self, cafile: Path) -> None:
        with TokenServer(AUTHORITY, names=("other.test",)) as server:
            error = refused(Tokens(config(server), cafile=cafile, env={}))
        assert "TLS: the certificate was not accepted" in str(error) and server.forms == []

    def test_a_server_without_tls(self, cafile: Path) -> None:
        with TokenServer() as clear:
            address = clear.url.replace("http:", "https:")
            error = refused(Tokens(config(clear, token_url=address), cafile=cafile, env={}, seconds=5))
            assert ": TLS: " in str(error) and "_ssl" not in str(error) and clear.forms == []

    def test_silence_in_the_handshake(self, cafile: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, TokenServer() as server:
            address = f"https://127.0.0.1:{silent.getsockname()[1]}/token"
            error = refused(Tokens(config(server, token_url=address), cafile=cafile, env={}, seconds=0.2))
        assert "TLS: no answer within 0.2 s" in str(error)

    def test_a_file_that_holds_no_certificates(self, server: TokenServer, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("nothing")
        with pytest.raises(ConfigError, match="is not a file of CA certificates"):
            Tokens(config(server), cafile=tmp_path / "ca.pem", env={})


class TestProxies:
    """A real proxy of an environment's; the server's name is known to that only."""

    URL = "https://tokens.example:{port}/token"

    async def _through(self, tmp_path: Path, cafile: Path, env: Callable[[World], dict[str, str]]) -> list[Any]:
        with TokenServer(AUTHORITY, names=("tokens.example",)) as server:
            async with World(tmp_path) as world:
                world.book["tokens.example"] = ["127.0.0.1"]
                made = config(server, token_url=self.URL.format(port=server.port))
                tokens = Tokens(made, cafile=cafile, env=env(world))
                assert await asyncio.to_thread(tokens.token) in server.issued
                await world.closes(1)
                return world.lines("allow") or world.lines("close")

    async def test_the_environments_own(self, tmp_path: Path, cafile: Path) -> None:
        found = await self._through(
            tmp_path,
            cafile,
            lambda world: {"AEM_PROXY_HOST": world.address[0], "AEM_HTTPS_PROXY_PORT": str(world.address[1])},
        )
        assert "tokens.example" in json.dumps(found)

    async def test_the_one_that_is_named_beats_it(self, tmp_path: Path, cafile: Path) -> None:
        found = await self._through(
            tmp_path,
            cafile,
            lambda world: {
                "HTTPS_PROXY": f"http://user:pass%20word@{world.address[0]}:{world.address[1]}",
                "AEM_PROXY_HOST": "127.0.0.1",
                "AEM_HTTPS_PROXY_PORT": "1",
            },
        )
        assert len(found) == 1

    def test_the_environments_own_is_not_there(
        self, server_with_name: TokenServer, cafile: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = server_with_name
        monkeypatch.setattr(form_post.socket, "getaddrinfo", _resolving(form_post.socket.getaddrinfo))
        made = config(server, token_url=self.URL.format(port=server.port))
        closed = closed_port()
        own = {"AEM_PROXY_HOST": "127.0.0.1", "AEM_HTTPS_PROXY_PORT": str(closed)}
        with logged() as log:
            assert Tokens(made, cafile=cafile, env=own).token() in server.issued
        assert "is asked without the environment's proxy: " in log.getvalue()
        named = {"HTTPS_PROXY": f"127.0.0.1:{closed}"}
        error = refused(Tokens(made, cafile=cafile, env=named))
        assert f"the proxy 127.0.0.1:{closed} cannot be reached: Connection refused" in str(error)
        assert Tokens(made, cafile=cafile, env=named | {"NO_PROXY": "other.test, .example"}).token() in server.issued

    async def test_a_proxy_that_refuses(self, tmp_path: Path, server: TokenServer, cafile: Path) -> None:
        async with World(tmp_path) as world:
            made = config(server, token_url=self.URL.format(port=server.port))
            for env in (
                {"HTTPS_PROXY": f"http://user:pass-word@{world.address[0]}:{world.address[1]}"},
                {"AEM_PROXY_HOST": world.address[0], "AEM_HTTPS_PROXY_PORT": str(world.address[1])},
            ):
                error = await asyncio.to_thread(refused, Tokens(made, cafile=cafile, env=env))
                assert f"does not connect to tokens.example:{server.port}: it answers 50" in str(error)
                assert "pass-word" not in str(error)

    @pytest.mark.parametrize("proxy", ["https://proxy.test:1", "socks5://proxy.test", "http://", "http://[", "//\n"])
    def test_an_address_that_is_no_proxys(self, server: TokenServer, cafile: Path, proxy: str) -> None:
        made = config(server, token_url=self.URL.format(port=server.port))
        error = refused(Tokens(made, cafile=cafile, env={"HTTPS_PROXY": proxy}))
        assert error.reason == "network" and "proxy" in str(error)

    def test_this_machine_is_asked_directly(self, server: TokenServer, cafile: Path) -> None:
        env = {"HTTPS_PROXY": "http://127.0.0.1:1", "AEM_PROXY_HOST": "127.0.0.1", "AEM_HTTPS_PROXY_PORT": "1"}
        assert Tokens(config(server), cafile=cafile, env=env).token() in server.issued


def _resolving(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda host, *rest, **named: real("127.0.0.1" if host == "tokens.example" else host, *rest, **named)


_SECRET = st.text(st.sampled_from('QXZqxz79+/=&%~."\\'), min_size=12, max_size=60)  # nothing of it is in a word of ours
_TEMPLATES = st.sampled_from(
    [
        '{{"error": "invalid_grant", "error_description": "no {secret}"}}',
        '{{"error": "{secret}", "error_description": "x"}}',
        '{{"error": "invalid_client", "error_description": "client_secret={secret}&refresh_token={secret}"}}',
        '{{"access_token": "", "error": "{secret}"}}',
        "<html>{secret}</html>",
    ]
)


@pytest.fixture(scope="module")
def echoing() -> Generator[TokenServer]:
    with TokenServer() as running:
        yield running


@given(
    client_secret=_SECRET,
    refresh_token=_SECRET,
    template=_TEMPLATES,
    which=st.booleans(),
    cut=st.integers(0, 30),
    status=st.sampled_from([200, 302, 400, 401, 500]),
)
def test_no_secret_is_ever_told(
    echoing: TokenServer, client_secret: str, refresh_token: str, template: str, which: bool, cut: int, status: int
) -> None:
    secret = json.dumps((client_secret if which else refresh_token)[cut:])[1:-1]
    body = template.format(secret=secret).encode()
    echoing.answer = lambda request: reply(request, status, body)
    tokens = Tokens(config(echoing, client_secret=client_secret, refresh_token=refresh_token), env={})
    with logged() as log:
        error = refused(tokens)
    seen = f"{error} {error!r} {tokens!r} {tokens.config!r} {log.getvalue()}"
    for value in (client_secret, refresh_token):
        assert not any(value[at : at + 12] in seen for at in range(len(value) - 11))
