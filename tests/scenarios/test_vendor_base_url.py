"""The command line, unchanged, against a server that is as the vendor's: https, its own CA, its headers and links."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.vendor_cloud_manager import BASE, ORG, TOKEN, Vendor, vendor

pytestmark = pytest.mark.scenario
SET = "cloudmanager:set-environment-variables"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Vendor]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with vendor(tls=context) as running:
        yield running


def outgate(server: Vendor, ca_file: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "AIO_CLOUDMANAGER_BASE__URL": server.url,
        "AIO_CLOUDMANAGER__ORGID": ORG,
        "AIO_CLOUDMANAGER__PROGRAMID": "4",
        "AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN": TOKEN,
        "SSL_CERT_FILE": str(ca_file),
        "OUTGATE_DATA": "nowhere",
    }
    command = [sys.executable, "-m", "outgate.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings | more, timeout=60)


def test_the_documented_line_against_the_vendors_base_url(
    server: Vendor, authority: trustme.CA, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    server.rounds, server.page = 2, 1
    server.variables = [
        {"name": "OLD_ONE", "type": "secretString", "value": "x", "status": "ready"},
        {"name": "KEPT", "type": "string", "value": "kept", "status": "ready"},
    ]
    done = outgate(
        *(server, ca_file, SET, "e10", "--variable", "EMAIL_USERNAME", "me"),
        *("--secret", "EMAIL_PASSWORD", "pa$$", "--delete", "OLD_ONE"),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["name", "type", "value", "service", "status"],
        ["KEPT", "string", "kept", "ready"],
        ["EMAIL_USERNAME", "string", "me", "updating"],
        ["EMAIL_PASSWORD", "secretString", "****", "updating"],
    ]
    paths = [path for _, path in server.calls()]
    first, change = f"{BASE}/variables", f"{BASE}/variables?start=1"
    assert paths == [first, change, first, first, change, f"{BASE}/variables?start=2"]
    listed = outgate(server, ca_file, "cloudmanager:list-environment-variables", "10", "--json")
    assert [each["name"] for each in json.loads(listed.stdout)] == ["KEPT", "EMAIL_USERNAME", "EMAIL_PASSWORD"]


def test_a_server_whose_certificate_nobody_vouches_for_gets_no_token(server: Vendor, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    done = outgate(server, other, SET, "10", "-s", "EMAIL_PASSWORD", "s3cr3t")
    assert done.returncode == 30 and "certificate verify failed" in done.stderr
    assert server.requests == [] and "s3cr3t" not in done.stderr + done.stdout


def test_a_token_that_the_vendor_does_not_take(server: Vendor, authority: trustme.CA, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    done = outgate(server, ca_file, SET, "10", "-v", "AB", "x", AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN=TOKEN[:-1])
    assert done.returncode == 30
    assert "Oauth token is not valid (Code: 401013) (x-request-id req-1). Get a new token" in done.stderr
    assert TOKEN[:-1] not in done.stderr
