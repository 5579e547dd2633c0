"""`outgate egress witness`: what keeps it from listening is said. That it tells addresses: tests/scenarios."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from outgate.cli import cli


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("nonsense", "'nonsense' is not host:port"),
        ("127.0.0.1:65536", "is not host:port"),
        ("192.0.2.1:0", "--listen 192.0.2.1:0: "),
    ],
)
def test_what_cannot_be_listened_on_is_said(listen: str, says: str) -> None:
    result = CliRunner().invoke(cli, ["egress", "witness", "--listen", listen])
    assert result.exit_code == 2 and says in result.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(cli, ["egress", "witness", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert result.exit_code == 2 and "in use" in result.stderr
