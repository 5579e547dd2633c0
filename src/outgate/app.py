"""The only place where concrete parts are chosen and wired: the relay, the HTTP side.

Standards: none.
Promises: parts are started in the order they need each other and stopped in the reverse one; a change to the
control store is noticed within a second.
Dangers: everything here runs on one event loop; what blocks runs in a thread.
Not here: what the parts do; the laptop mode's tenant and zone (`laptop`); how mail goes out (`outbound`); the egress
(`egress_service`).

The module is long because the order in which parts start and stop is read in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator
from math import inf
from pathlib import Path
from typing import Any

import uvicorn

from outgate.base.clock import Clock, SystemClock
from outgate.base.log import Log
from outgate.base.tasks import cancel, spawn
from outgate.model.flow import Attempt, Client, Job
from outgate.net import guard
from outgate.net.certificates import BadCertificate, CertificateWatch, ServerCertificate
from outgate.net.dns import Resolver
from outgate.outbound import Outbound
from outgate.process import StartFailed, allow_files, usable
from outgate.relay import policy
from outgate.relay.access import AccessTable
from outgate.relay.credentials import Credentials
from outgate.relay.endings import Endings
from outgate.relay.endpoints import Door, Endpoint, Endpoints
from outgate.relay.guessing import FAMILIAR_S, Guessing
from outgate.relay.holds import Holds
from outgate.relay.listeners import CannotListen, Listeners
from outgate.relay.operators import Operators
from outgate.relay.planning import Planning
from outgate.relay.queue import Queue, Retry
from outgate.relay.reports import Reports, Writer, written
from outgate.relay.retired_keys import RetiredKeys
from outgate.relay.session import Relay, SubmissionSession
from outgate.relay.signer import Signer
from outgate.relay.standing import Schedule
from outgate.relay.status_log import StatusLog
from outgate.relay.suppressing import Suppressing
from outgate.settings import BadSettings, RelaySettings, Settings, compiled
from outgate.smtp.asyncio.server import (
    Connection,
    Listener,
    ListenerOptions,
    Peer,
    Timeouts,
)
from outgate.smtp.content import Intake
from outgate.smtp.fairness import Turnstile
from outgate.smtp.server import Limits
from outgate.store.control import ControlStore
from outgate.store.spool import Sync, default_sync
from outgate.store.sqlite import QueueStore, open_queue

_log = Log("outgate.app")
_WATCH_S = 0.5
_HELPING = 50
"""Sessions that are looked at before others get their turn on the loop: 2 ms of it, 8 ms where all have to go."""
_SOON_S = 3600.0
"""When a domain is looked at again that is suspended, or could not be asked."""
_OTHER_FILES = 4096  # deliveries, forwards, databases
_IN_FLIGHT = 2000
"""Jobs that delivery holds at once; the rest waits in the store."""


class RelayService:
    """The relay: queue, signer, delivery, sessions, listeners."""

    def __init__(
        self,
        settings: Settings,
        *,
        data: Path,
        control: ControlStore,
        clock: Clock,
        resolver: Resolver,
        context: ssl.SSLContext,
        permitted: Callable[[str, str], bool],
        sync: Sync = default_sync,
    ) -> None:
        """`context` is the TLS of endpoints without certificate files; `permitted` judges (name, address) of receiving
        servers; `sync` puts a file on disk."""
        loop = asyncio.get_running_loop()
        relay = settings.relay
        self._settings = settings
        self._control = control
        self._clock = clock
        self.endpoints = compiled(relay.endpoints)
        self.endpoint_of = functools.lru_cache(maxsize=10_000)(self._endpoint_of)
        self._context = context
        self._certificates = _certificates(relay, self.endpoints)
        self.certificates = CertificateWatch(list(self._certificates.values()))
        self._is_trusted = functools.lru_cache(maxsize=4096)(self._in_trusted)
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in relay.proxy_trusted]
        with usable(data / "queue-0.db"):
            self.store: QueueStore = open_queue(
                data,
                shard="0",
                clock=clock,
                segment_bytes=settings.store.segment_bytes,
                notify=loop.call_soon_threadsafe,
                retention_s=settings.store.retention_s,
                sync=sync,
            )
        self.credentials = Credentials(control.tenancy, control.identity, clock, threads=relay.password_threads)
        self.signer = Signer(
            threads=relay.signing_threads,
            key_pem=control.tenancy.signing_key_pem,
            load=self.store.load,
            notify=loop.call_soon_threadsafe,
        )
        self.suppressing = Suppressing(
            control.suppressions,
            clock,
            bounces=relay.suppress_hard_bounces,
            lasts_s=relay.hard_bounce_lasts_s,
            durable=self.store.flush,
        )
        self._status_log = _status_log(settings.log.status_file)
        self._permitted = permitted
        self.listeners = Listeners(self.endpoints, self._listener)
        try:
            self.outbound = Outbound(
                relay,
                control=control,
                clock=clock,
                resolver=resolver,
                permitted=permitted,
                endpoints=self.endpoints,
                endpoint_of=self.endpoint_of,
                listening=self.listeners.targets,
                signer=self.signer,
                finished=self._finished,
                # The queue is made after it, of what delivery takes.
                may_go=lambda job, site: self.queue.may_go(job, site),
                given_back=lambda job, due_at, site, why: self.queue.release(job, due_at, site, why),
            )
        except BadSettings as error:
            raise StartFailed(str(error)) from None
        writer = Writer(
            clock,
            "0",
            self.store.load,
            lambda instance_id: self.endpoint_of(instance_id).ehlo_name,
            relay.queue_lifetime_s,
            relay.delay_notice_s,
        )
        self.reports = Reports(writer)
        self.queue = self._queue(clock)
        self.holds = Holds(
            self.store,
            control.verification.holds,
            clock,
            released=self._released,
            longest_s=relay.hold_longest_s,
            report=functools.partial(written, writer),
            reported=self.queue.stored,
        )
        self.relay = self._relay(clock, loop)
        self.retired_keys = RetiredKeys(
            control.signing_keys,
            self.store.keys_needed,
            clock,
            keep_s=relay.queue_lifetime_s + relay.hold_longest_s + relay.dkim_keep_s,
            destroyed=self.signer.forget,
        )
        self.planning = Planning(self.store, self.relay.quotas, control.tenancy.quotas, clock, planned=self.queue.look)
        self.operators = Operators(
            self.store.verbs,
            self.queue,
            clock,
            sift=self.outbound.delivery.sift,
            released=self._released,
            live=self.outbound.delivery.live,
            forgive=self.outbound.delivery.forgive,
            routes=self.outbound.transports.names,
        )
        self._turnstile = Turnstile(relay.connections, relay.connections_per_address)
        self._changing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._endings = Endings()
        self._followed = control.data_version()
        self._due = -inf  # when the time of day asks for a look at access, though no row has changed

    def _queue(self, clock: Clock) -> Queue:
        relay = self._settings.relay
        return Queue(
            self.store,
            clock,
            self.outbound.delivery.deliver,
            lambda: _IN_FLIGHT - self.outbound.delivery.busy - self.reports.pending,
            retry=Retry(relay.retry_first_s, relay.retry_most_s),
            ready_bytes=self._settings.store.ready_bytes,
            held=lambda smtp_config_id: self.holds.reason(smtp_config_id),
            suppressed=self.suppressing.among,
            reports=self.reports,
            recorded=self.suppressing.look,
            stopped=lambda job, site: self.operators.stopped(job, site),
        )

    def _relay(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> Relay:
        relay = self._settings.relay
        return Relay(
            endpoints=self.endpoints,
            shard="0",
            clock=clock,
            access=AccessTable(self._control.access.snapshot()),
            credentials=self.credentials,
            queue=self.queue,
            limits=Limits(
                text_line=relay.max_line_octets,
                message=relay.max_message_bytes,
                recipients=relay.max_recipients,
                errors=relay.max_errors,
            ),
            lifetime=relay.queue_lifetime_s,
            call_soon=loop.call_soon_threadsafe,
            call_later=loop.call_later,
            guessing=Guessing(relay.wrong_logins),
            replace_bare_line_ends=relay.bare_line_ends == "replace",
            intake=Intake(max(relay.receiving_bytes, relay.max_message_bytes + 1024)),
            suppressed=self.suppressing.words,
            may_be_dialled=lambda address: self._permitted("", address),
        )

    def _finished(self, job: Job, attempt: Attempt) -> None:
        settled = self.queue.record(job, attempt)
        if self._status_log is not None and not job.origin:
            self._status_log.tell(job, settled)
        for outcome in settled.outcomes:
            _log.debug("delivery.outcome", queue_id=job.queue_id, status=outcome.status, reason=outcome.reason)

    def _endpoint_of(self, instance_id: str) -> Endpoint:
        """Return the endpoint of an instance's region; from memory but for the first time. Raises `LookupError`."""
        instance = self._control.tenancy.instance(instance_id)
        if instance is None:
            raise LookupError(f"there is no instance {instance_id}")
        return self.endpoints.of_region(instance.region)

    def listen(self, address: str, port: int, door: Door) -> int:
        """Listen at a public address; return the port. Raises `StartFailed`."""
        try:
            return self.listeners.listen(address, port, door)
        except CannotListen as error:
            raise StartFailed(port_taken(door.listener, error.address, error.port, error.error)) from None

    def listen_everywhere(self, kind: str, port: int) -> int:
        """Listen at the public addresses of all endpoints, as `Listeners` does. Raises `StartFailed`."""
        try:
            return self.listeners.listen_everywhere(kind, port)
        except CannotListen as error:
            raise StartFailed(port_taken(kind, error.address, error.port, error.error)) from None

    def open_private(self, address: str, *, vpc: str, region: str) -> None:
        """Listen at the address of a VPC's (CRN) endpoint gateway, for the endpoint of `region`. Raises `OSError`."""
        self.listeners.open_private(address, vpc=vpc, region=region)

    async def close_private(self, address: str) -> None:
        """Listen at such an address no more; messages under way may be finished, within a minute."""
        await self.listeners.close_private(address)

    def _listener(self, sock: socket.socket, door: Door) -> Listener:
        relay = self._settings.relay
        certificate = self._certificates.get(door.of.id)
        options = ListenerOptions(
            context=self._context if certificate is None else certificate.context,
            implicit_tls=door.listener == "submissions",
            timeouts=Timeouts(relay.command_timeout_s, relay.data_timeout_s, rate=relay.min_data_rate),
            trusted=self._is_trusted,
            welcome=lambda peer: self.relay.welcomes(peer.address, door.endpoint, door.vpc),
            turnstile=self._turnstile,
        )
        return Listener(sock, options, functools.partial(self._session, door))

    def _session(self, door: Door, peer: Peer, connection: Connection) -> SubmissionSession:
        client = Client(peer.address, peer.port, door.endpoint, door.listener, peer.via, door.vpc)
        return SubmissionSession(
            self.relay,
            door,
            client,
            connection.pump,
            lambda: connection.tls,
            implicit_tls=door.listener == "submissions",
        )

    def _in_trusted(self, address: str) -> bool:
        at = ipaddress.ip_address(address)
        return any(at in network for network in self._trusted)

    async def start(self) -> None:
        """Take up what an earlier run left and begin to accept."""
        await self.outbound.start()
        await self.suppressing.start()
        await self.planning.start()
        await self.operators.start()
        await self.holds.start()
        now = self._clock.now()
        self.relay.guessing.remember(await asyncio.to_thread(self.store.sent_from, now - FAMILIAR_S))
        self.queue.start()
        self.listeners.start()
        self.certificates.start()
        self.retired_keys.start()

    async def changed(self) -> None:
        """Look at the control store again: zones, rules, users, configurations may have changed."""
        self.outbound.transports.forget()
        await self._logins_changed()
        await self.follow_access()
        await self.planning.changed()
        await self.holds.changed()

    async def _logins_changed(self) -> None:
        """Read who has logged in anew, and end the sessions whose login is void."""
        async with self._reading:
            in_use = [session.sender for _, session in self._sessions() if session.sender is not None]
            await asyncio.to_thread(self.credentials.forget, in_use)
            await self._end_sessions(lambda session: session.still_logged_in())

    async def follow_logins(self) -> None:
        """End the sessions whose login has ended by the time of day: a key's end date, the end of a rotation's overlap;
        read who logged in while all were read. Some microseconds if there is nothing to do."""
        if not self.credentials.is_due():
            return
        async with self._reading:
            await asyncio.to_thread(self.credentials.follow)
            await self._end_sessions(lambda session: session.still_logged_in())

    async def follow_suppressions(self) -> None:
        """Notice addresses that another process has suppressed. Some microseconds if nothing was written."""
        version = self._control.data_version()
        if version != self._followed:
            await self.suppressing.follow()
            self._followed = version

    async def follow_access(self) -> None:
        """Decide by the network rules of now, in open sessions too, if they have changed or an allow-list has ended;
        tell of those that will. Some microseconds if there is nothing to do."""
        # One at a time: a snapshot that was taken earlier must not replace a later one.
        async with self._changing:
            table = self.relay.access
            if self._clock.now() < self._due and self._control.access.is_current(table.generation, table.until):
                return
            table = self.relay.access = await asyncio.to_thread(self._access)
            self._due = min(table.until, self._endings.look(table.allow_lists, self._clock.now()))
            await self._end_sessions(lambda session: session.is_current or session.still_welcome())

    async def _end_sessions(self, may_stay: Callable[[SubmissionSession], bool]) -> None:
        """End the sessions that may not stay."""
        for looked, (connection, session) in enumerate(self._sessions()):
            if connection.session is session and not may_stay(session):
                connection.end(policy.WITHDRAWN)
            if not (looked + 1) % _HELPING:
                await asyncio.sleep(0)

    def _sessions(self) -> list[tuple[Connection, SubmissionSession]]:
        """Return the sessions that are open, with their connections."""
        found = ((each, each.session) for each in self.listeners.connections)
        return [(each, session) for each, session in found if isinstance(session, SubmissionSession)]

    async def _released(self, smtp_config_id: str) -> None:
        """Plan what a hold's end let go on, and look for what is due."""
        await self.planning.again(smtp_config_id)
        self.queue.look()

    def _access(self) -> AccessTable:
        """Return the access table of now: the one that is there if nothing about access has changed."""
        access, table = self._control.access, self.relay.access
        current = access.is_current(table.generation, table.until)
        return table if current else AccessTable(access.snapshot(), table)

    async def stop(self) -> None:
        """End sessions, then deliveries, then write what is left."""
        await self.certificates.stop()
        await self.retired_keys.stop()
        await self.listeners.stop()
        await self.holds.stop()
        await self.outbound.stop()
        await self.queue.stop()
        await self.suppressing.stop()
        self.signer.close()
        self.credentials.close()
        self.relay.checking.close()
        await asyncio.to_thread(self.store.close)


def recheck_schedule(settings: Settings) -> Schedule:
    """Return when verified domains are looked at again, and how long one that fails may still send."""
    relay = settings.relay
    return Schedule(relay.recheck_interval_s, relay.recheck_grace_s, min(relay.recheck_interval_s, _SOON_S))


def allow_sockets(settings: Settings) -> None:
    """Let this process have as many open files as its connections need, or as many as the system allows it."""
    allow_files(settings.relay.connections + _OTHER_FILES, "lower relay.connections")


def guard_for(exceptions: list[str]) -> Callable[[str, str], bool]:
    """Return a judge of (name, address): may it be dialled?"""
    compiled = guard.compile_exceptions(exceptions)

    def permitted(name: str, address: str) -> bool:
        return guard.check(address, exceptions=compiled, name=name).allowed

    return permitted


class HttpServer(uvicorn.Server):
    """uvicorn in our own loop: signals are the service's, not the HTTP server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve_http(app: Any, sock: socket.socket) -> tuple[HttpServer, asyncio.Task[Any]]:
    """Serve an ASGI application on a bound socket; return the server once it answers, and its task."""
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        # Whoever connects is who calls: a header of theirs must not say otherwise, restrictions go by it.
        proxy_headers=False,
    )
    server = HttpServer(config)
    task = spawn(server.serve(sockets=[sock]), "http")
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    return server, task


class Watch:
    """Notice changes to the control store that others must act on, by whatever process, within a second."""

    def __init__(
        self,
        control: ControlStore,
        changed: Callable[[], Awaitable[None]],
        *follow: Callable[[], Awaitable[None]],
    ) -> None:
        """Each of `follow` is called at every look, beside `changed` and the others: who may connect or stay waits for
        nothing else, such as holding the mail of many domains."""
        self._control = control
        self._changed = changed
        self._follow = follow
        self._seen = control.data_version()
        self._revision = control.revision()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look."""
        self._tasks = [spawn(_again(look), "watch") for look in (self._look, *self._follow)]

    async def stop(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            await cancel(task)

    async def _look(self) -> None:
        version = self._control.data_version()
        if version == self._seen:
            return
        revision = self._control.revision()
        if revision != self._revision:
            await self._changed()
        self._seen, self._revision = version, revision


async def _again(look: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(_WATCH_S)
        try:
            await look()
        except Exception:
            _log.exception("watch.failed")


def _certificates(relay: RelaySettings, endpoints: Endpoints) -> dict[str, ServerCertificate]:
    """Return the certificates of endpoints that name files. Raises `StartFailed`."""
    found: dict[str, ServerCertificate] = {}
    for endpoint in endpoints.all:
        given = relay.endpoints[endpoint.id]
        if given.certificate_file:
            names = [endpoint.public_name, *([given.private_name] if given.private_name else [])]
            try:
                # Validity is the machine's time, as it is for those who verify it.
                found[endpoint.id] = ServerCertificate(
                    Path(given.certificate_file), Path(given.key_file), names, SystemClock()
                )
            except BadCertificate as error:
                raise StartFailed(f"relay.endpoints.{endpoint.id}: {error}") from None
    for certificate in found.values():
        certificate.others = [each for each in found.values() if each is not certificate]
    return found


def _status_log(file: str) -> StatusLog | None:
    """Return the vendor's log of statuses, if there is to be one. Raises `StartFailed` if that cannot be written."""
    if not file:
        return None
    found = StatusLog(Path(file))
    try:
        found.try_out()
    except OSError as error:
        raise StartFailed(
            f"log.status_file {file}: {error.strerror}; name a file in a directory that is there and that the service"
            " may write"
        ) from None
    return found


def port_taken(name: str, address: str, port: int, error: OSError) -> str:
    """Return the error for a port that cannot be had."""
    option = f"--{name}-port"
    why = error.strerror or str(error)
    return f"{name}: cannot listen on {address}:{port} ({why}); free it or choose another with {option} N (0: any)"
