"""What listing costs: 100 of 100,000 SMTP configurations, over HTTP, from the first page to the last.

    .venv/bin/python bench/listing.py [--configurations 100000] [--requests 40]

Prints the median and the 95th percentile in milliseconds of each kind of page. The rows are written straight into
the database, with one key for all: what is measured is reading them.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import uvicorn
import uvloop
from sqlalchemy import insert

from outgate.api import event_notifications
from outgate.api.event_notifications import SmtpRecords
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.base.clock import SystemClock
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import new_dkim_key
from outgate.store.secrets import open_box
from outgate.store.tables import smtp_configurations


def fill(store: ControlStore, count: int) -> tuple[str, str]:
    """Make an account with an instance of `count` configurations; return (account id, instance id)."""
    account_id = store.tenancy.create_account()
    instance = store.tenancy.create_instance(account_id, "eu-de", "bench")
    key = new_dkim_key()
    first = store.tenancy.create_configuration(instance.id, name="n", domain="a.test", description="", key=key)
    rows = [
        {
            "id": f"{number:08x}-0000-4000-8000-000000000000",
            "instance_id": instance.id,
            "name": f"Shop {number}",
            "description": "Orders and invoices",
            "domain": f"shop{number}.test",
            "spf": "SUCCESSFUL",
            "dkim": "SUCCESSFUL",
            "authorization": "SUCCESSFUL",
            "key_id": first.key.id,
            "created_at": first.created_at + number,
            "updated_at": first.created_at + number,
        }
        for number in range(1, count)
    ]
    with store._database.writing() as connection:
        connection.execute(insert(smtp_configurations), rows)
    return account_id, instance.id


def serve(app: object) -> int:
    """Serve `app` in a thread of its own loop and return the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))  # type: ignore[arg-type]
    threading.Thread(target=lambda: uvloop.run(server.serve(sockets=[listener])), daemon=True).start()
    return listener.getsockname()[1]


def timed(url: str, token: str, requests: int) -> tuple[list[float], int]:
    """Ask for `url` again and again; return the milliseconds of each, and how many items the last had."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own
    took: list[float] = []
    items = 0
    for _ in range(requests):
        begun = time.perf_counter()
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own
            body = answer.read()
        took.append((time.perf_counter() - begun) * 1000)
        items = len(json.loads(body)["smtp_configurations"])
    return took, items


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--configurations", type=int, default=100_000)
    options.add_argument("--requests", type=int, default=40)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        clock = SystemClock()
        store = open_control(Path(directory) / "control.db", open_box(Path(directory) / "master.key"), clock)
        account_id, instance_id = fill(store, given.configurations)
        app = event_notifications.build(
            store=store,
            authenticator=Authenticator(store, clock),
            verifier=None,  # type: ignore[arg-type]
            hasher=None,  # type: ignore[arg-type]
            records=SmtpRecords("spf.outgate.test"),
            history=None,  # type: ignore[arg-type]
            egress_trail=lambda address, port, at: [],
            authorization="automatic",
            clock=clock,
        )
        token = TokenIssuer(store, clock).issue("iam-bench", account_id, ["reader"], "bench")
        base = f"http://127.0.0.1:{serve(app)}/v1/instances/{instance_id}/smtp/config?limit=100"
        last = given.configurations - 100
        print(f"{'100 of ' + format(given.configurations, ','):<28}  median ms  95 % ms")
        for name, query in (
            ("first page", ""),
            ("page in the middle", f"&offset={given.configurations // 2}"),
            ("last page", f"&offset={last}"),
            ("search, many match", "&search=Shop%201"),
            ("search, one matches", f"&search=Shop%20{given.configurations - 1}"),
        ):
            timed(base + query, token, 3)
            took, items = timed(base + query, token, given.requests)
            high = statistics.quantiles(took, n=20)[18]
            print(f"{name:<28}  {statistics.median(took):9.1f}  {high:7.1f}   {items} items")
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
