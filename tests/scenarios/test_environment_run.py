"""From the API to the application and out: real HTTP, a real process, a real connection through its tunnel."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from outgate import environment
from outgate.cloud_manager import CloudManager
from support.egress_peers import Bench, Target, echo, tunnel_address
from support.egress_store import ORG, Api, world
from support.reconciling import reconciler_for

APPLICATION = """
import json, os, pathlib, socket, sys
forwards = json.loads(pathlib.Path(os.environ["OUTGATE_FORWARDS"]).read_text())
secret = (pathlib.Path(os.environ["OUTGATE_SECRETS"]) / "EMAIL_PASSWORD").read_text()
place = os.environ["AEM_PROXY_HOST"], forwards["portForwards"][0]["portOrig"]
with socket.create_connection(place) as tunnel:
    tunnel.sendall(f"{os.environ['EMAIL_USERNAME']}:{secret}".encode())
    tunnel.shutdown(socket.SHUT_WR)
    answer = tunnel.makefile("rb").read()
    client = tunnel.getsockname()
pathlib.Path(sys.argv[1]).write_text(json.dumps([answer.decode(), client]))
"""


async def test_an_application_speaks_through_its_tunnel(tmp_path: Path) -> None:
    with world(tmp_path, tunnel=tunnel_address()) as place:
        async with Bench(tmp_path) as bench, Target(echo) as target:
            reconciler = reconciler_for(place, bench, poll_s=1.0)
            await reconciler.start()
            api = Api(place)
            root = FastAPI()
            root.mount("/cloud-manager", api.app)
            server = uvicorn.Server(uvicorn.Config(root, port=0, log_level="warning", lifespan="off"))
            serving = asyncio.ensure_future(server.serve())
            while not server.started:
                await asyncio.sleep(0.005)
            url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/cloud-manager"
            base = "/api/program/4/environment/10/"
            variables = [
                {"name": "EMAIL_USERNAME", "value": "me"},
                {"name": "EMAIL_PASSWORD", "value": "pa$$", "type": "secretString"},
            ]
            rule = {"name": "target.example", "portDest": target.port, "portOrig": 30465}
            assert (await api.call("PATCH", base + "variables", json=variables)).status_code == 204
            answer = await api.call("PUT", base + "advancedNetworking", json={"portForwards": [rule]})
            assert answer.json()["status"] == "updating"
            reconciler.poke()
            while (await api.call("GET", base.rstrip("/"))).json()["status"] == "updating":
                await asyncio.sleep(0.005)

            report = tmp_path / "report.json"
            code = await asyncio.to_thread(
                environment.run,
                CloudManager(url, ORG, "client", "good"),
                program_id="4",
                environment_id="10",
                service="author",
                command=[sys.executable, "-c", APPLICATION, str(report)],
            )
            assert code == 0
            said, client = json.loads(report.read_text())
            assert said == "me:pa$$"
            opened = bench.audit.find(client[0], client[1], bench.clock.now())[0]
            assert (opened["refusal"], opened["environment"]) == ("", "10")
            assert target.peers[0][0] == "127.0.0.2"
            assert place.store.audit(limit=1)[0].action == "environment.run"
            server.should_exit = True
            await serving
            await reconciler.close()
