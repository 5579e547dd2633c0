"""The laptop mode: everything on loopback, with its own DNS zone, inbox, authority and a ready tenant.

Standards: the contract in docs/laptop-mode.md.
Promises: `dev.json` appears by rename once everything answers; state stays in the data directory; a second
process on it is refused; SIGTERM and SIGINT end it cleanly.
Dangers: the guard lets loopback through and the token in `dev.json` may do everything: never for production.
Not here: the parts (`app`, `sandbox`), production.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from outgate import settings as settings_module
from outgate.api import cloud_manager, event_notifications, identity, restrictions
from outgate.api.event_notifications.hashing import PasswordHashing
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.api.messages.documents import message_document, summary_document
from outgate.app import (
    HttpServer,
    RelayService,
    StartFailed,
    Watch,
    egress_service,
    guard_for,
    port_taken,
    serve_http,
    tame_memory,
)
from outgate.base import log
from outgate.base.clock import OffsetClock
from outgate.base.log import Log
from outgate.console import views
from outgate.model.tenancy import SmtpConfiguration, Verification
from outgate.net.dns import Resolver
from outgate.relay.onboarding import Verifier
from outgate.sandbox import api as sandbox_api
from outgate.sandbox import tenant as tenants
from outgate.sandbox.ca import Authority
from outgate.sandbox.inbox import Inbox
from outgate.sandbox.judges import Judges
from outgate.sandbox.local import LocalOnly
from outgate.sandbox.zone import Zone
from outgate.settings import Settings
from outgate.smtp.asyncio.server import listening_socket
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box

_log = Log("outgate.laptop")
HOST = "127.0.0.1"
EGRESS_ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True, slots=True)
class DevPorts:
    """The ports to listen on; 0 is any free one."""

    http: int = 8025
    submission: int = 2587
    submissions: int = 2465
    dns: int = 2053
    inbox: int = 2525
    proxy: int = 3128


def run_dev(data: Path, ports: DevPorts, config: Path | None) -> None:
    """Run the laptop mode until a signal ends it. Raises `StartFailed`."""
    tame_memory()
    try:
        settings = read_settings(config)
    except Exception as error:
        raise StartFailed(f"the settings cannot be read: {error}") from None
    log.configure(settings.log.level)
    lock = lock_directory(data)
    try:
        import uvloop

        uvloop.run(_serve(data, ports, settings))
    except ImportError:
        asyncio.run(_serve(data, ports, settings))
    finally:
        os.close(lock)


def read_settings(config: Path | None) -> Settings:
    """Return the settings of `config` over the laptop mode's own defaults."""
    return settings_module.load(
        config,
        relay={"authorization": "automatic", "proxy_trusted": list(EGRESS_ADDRESSES)},
        egress={"guard_exceptions": [LOOPBACK]},
    )


def lock_directory(data: Path) -> int:
    """Take the data directory for this process; return the lock's descriptor. Raises `StartFailed`."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartFailed(f"{data} cannot be used: {error.strerror}; choose another with --data DIR") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartFailed(f"another process runs on {data}: stop it, or choose another directory with --data") from None
    return descriptor


async def _serve(data: Path, ports: DevPorts, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    laptop = Laptop(data, ports, settings)
    try:
        await laptop.start()
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        print(f"ready {laptop.dev['console_url']} (dev.json in {data})", flush=True)
        await stop.wait()
    finally:
        await laptop.stop()


class Laptop:
    """All parts of one laptop mode."""

    def __init__(self, data: Path, ports: DevPorts, settings: Settings) -> None:
        self._data = data
        self._ports = ports
        self._settings = settings
        self._clock = OffsetClock(data / "clock")
        self._stops: list[Any] = []
        self.dev: dict[str, Any] = {}

    async def start(self) -> None:
        """Start everything, in the order the parts need each other. Raises `StartFailed`."""
        data, settings, clock = self._data, self._settings, self._clock
        (data / "dev.json").unlink(missing_ok=True)
        tenant = tenants.choose(data / "tenant.json")
        control = open_control(data / "control.db", open_box(data / "master.key"), clock)
        self._stops.append(_closing(control))
        zone = Zone(data / "zone.json")
        dns_port = await self._nameserver(zone)
        resolver = Resolver([(HOST, dns_port)], clock)
        authority = Authority(data)
        hasher = PasswordHashing()
        self._stops.append(_closing(hasher))
        configuration = await asyncio.to_thread(self._tenant, control, tenant)
        self._records(zone, configuration)
        inbox_port = await self._inbox(zone, authority, dns_port)
        settings = settings_module.with_relay(settings, delivery_port=inbox_port)
        relay = self._relay(control, zone, authority, resolver, settings)
        submission = relay.listen(HOST, self._ports.submission, "submission")
        submissions = relay.listen(HOST, self._ports.submissions, "submissions")
        relay.listen_also("::1", submission, "submission")
        relay.listen_also("::1", submissions, "submissions")
        self._stops.append(relay.stop)
        verifier = self._verifier(control, resolver)
        if not configuration.verified:
            await verifier.verify(configuration, ("spf", "dkim", "en_authorization"))
        egress = await egress_service(
            settings,
            data=data,
            control=control,
            resolver=resolver,
            clock=clock,
            header_to=(f"{HOST}:{submission}", f"{HOST}:{submissions}"),
        )
        self._stops.append(egress.stop)
        relay.changed()
        relay.start()
        watch = Watch(control, relay.changed)
        watch.start()
        self._stops.append(watch.stop)
