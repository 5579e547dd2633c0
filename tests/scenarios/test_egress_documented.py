"""What `docs/egress.md` tells customers to call is what works: from nothing to a forward that carries, and back."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from support.clients import run
from support.network_bodies import vpn, without_key
from support.running import Running, wait_for

pytestmark = pytest.mark.scenario
PAGE = Path(__file__).parents[2] / "docs" / "egress.md"


class Reader:
    """Somebody who follows the page, block by block."""

    def __init__(self, running: Running) -> None:
        section = PAGE.read_text("utf-8").partition("\n## Network infrastructures and advanced networking\n")[2]
        self._function, *self.blocks = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
        dev = running.dev
        self.known = {
            "TOKEN": dev["token"],
            "API_KEY": dev["api_key"],
            "ORG_ID": dev["org_id"],
            "TENANT": dev["account_id"],
            "CLOUD_MANAGER_URL": dev["cloud_manager_url"],
        }

    def does(self, block: str, **instead: str) -> Any:
        """Run a block, with other words in it, and return the answer."""
        for old, new in instead.items():
            assert old in block
            block = block.replace(old, new)
        done = run(["sh", "-euc", self._function + block], env={**os.environ, **self.known})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def test_from_nothing_to_a_forward_and_back(running: Running) -> None:
    reader = Reader(running)
    program, environment, way, look, put, get, disable, delete = reader.blocks
    reader.known["PROGRAM"] = reader.does(program)["id"]
    reader.known["ENVIRONMENT"] = reader.does(environment)["id"]
    made = reader.does(way)
    reader.known["INFRASTRUCTURE"] = made["id"]
    assert (made["status"], made["egressAddresses"]) == ("creating", ["127.0.0.3"])
    wait_for(lambda: reader.does(look), lambda answer: answer["status"] == "ready")
    target, port = running.address("inbox")
    body = {"smtp.mymail.example": target, "465": str(port)}
    put = put.replace("30465", "ORIG")  # or its last digits would be replaced too
    assert reader.does(put, **body, ORIG="30465")["status"] == "updating"

    def shown() -> Any:
        (entry,) = reader.does(get)["_embedded"]["networkingConfigurations"]
        return entry

    entry = wait_for(shown, lambda entry: entry["status"] == "ready")
    assert entry["egressAddresses"] == ["127.0.0.3"]
    assert [each["portOrig"] for each in entry["engines"]] == [30465]
    with socket.create_connection((entry["tunnelAddress"], 30465), 10) as dialled:
        assert dialled.recv(100).startswith(b"220 ")
    refused = reader.does(delete)
    assert (refused["status"], reader.known["ENVIRONMENT"] in refused["errors"][0]) == (400, True)
    reader.does(disable)
    wait_for(lambda: reader.does(get)["_totalNumberOfItems"], lambda count: count == 0)
    wait_for(lambda: reader.does(delete), lambda answer: answer["status"] in {"deleting", 404})
    assert wait_for(lambda: reader.does(look), lambda answer: answer["status"] == 404)["title"] == "Not Found"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((entry["tunnelAddress"], 30465), 10)


def test_a_vpn_ends_as_failed_with_a_plain_reason(running: Running) -> None:
    reader = Reader(running)
    program, environment, way, look, put, *_ = reader.blocks
    reader.known["PROGRAM"] = reader.does(program, Shop="Tunnelled")["id"]
    reader.known["ENVIRONMENT"] = reader.does(environment)["id"]
    body = vpn()
    made = reader.does(way, **{'{"kind": "dedicatedEgressIp", "region": "va7"}': json.dumps(body)})
    reader.known["INFRASTRUCTURE"] = made["id"]
    failed = wait_for(lambda: reader.does(look), lambda answer: answer["status"] == "failed")
    assert "data path is not available" in failed["statusDetails"]["message"]
    assert {name: failed[name] for name in body} == without_key(body)
    refused = reader.does(put)
    assert (refused["status"], "nothing leaves" in refused["errors"][0]) == (400, True)
    assert body["connections"][0]["sharedKey"] not in json.dumps([made, failed, refused])
