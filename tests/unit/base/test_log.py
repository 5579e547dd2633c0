"""Log lines: one per record, no secret in any."""

from __future__ import annotations

import io
import json
import logging
import ssl
import sys
from collections.abc import Iterator

import pytest
import trustme

from outgate.base.log import Log, configure
from outgate.net.tls import server_context


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger("outgate")
    before = (list(root.handlers), root.level, root.propagate, sys.unraisablehook)
    stream = io.StringIO()
    configure("info", stream)
    yield stream
    root.handlers[:], root.level, root.propagate, sys.unraisablehook = before


def test_one_line_with_its_fields(out: io.StringIO) -> None:
    Log("outgate.x").info("message.accepted", queue_id="0Q", text='a\r\n{"event": "forged"}', path=object)
    text = out.getvalue()
    assert text.count("\n") == 1
    entry = json.loads(text)
    assert (entry["level"], entry["logger"], entry["event"], entry["queue_id"]) == (
        "info",
        "outgate.x",
        "message.accepted",
        "0Q",
    )
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize(
    "name", ["password", "api_key", "Authorization", "bearer_token", "client_secret", "private_pem"]
)
def test_secrets_are_masked(out: io.StringIO, name: str) -> None:
    Log("outgate.x").warning("e", **{name: "hunter2"})
    assert "hunter2" not in out.getvalue() and json.loads(out.getvalue())[name] == "****"


def test_levels_and_exceptions(out: io.StringIO) -> None:
    log = Log("outgate.x")
    log.debug("hidden")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("failed")
    log.error("last")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["event"] for entry in entries] == ["failed", "last"]
    assert "RuntimeError: boom" in entries[0]["exception"]


def test_a_server_name_that_is_not_ascii_is_one_line(out: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    """Python decodes the name in a hello before anybody is asked for a certificate, and cannot raise there."""
    context = server_context()
    trustme.CA().issue_cert("relay.test").configure_cert(context)
    context.sni_callback = lambda *_: None
    into, out_of = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(into, out_of, server_hostname="zz")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = out_of.read().replace(b"\0\x02zz", b"\0\x02\xff\xfe")
    into, out_of = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(into, out_of, server_side=True)
    into.write(hello)
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["object"]) == ("python.unraisable", "bytes")
    assert "UnicodeDecodeError" in entry["exception"]
    assert capfd.readouterr() == ("", "")


def test_what_nobody_can_catch_names_where_it_was(out: io.StringIO) -> None:
    class Broken:
        def __del__(self) -> None:
            raise RuntimeError("boom")

    made = Broken()
    del made
    entry = json.loads(out.getvalue())
    assert entry["object"].endswith("Broken.__del__") and "RuntimeError: boom" in entry["exception"]
