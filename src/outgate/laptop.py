"""The laptop mode: everything on loopback, with its own DNS zone, inbox, authority and a ready tenant.

Standards: the contract in docs/laptop-mode.md.
Promises: `dev.json` appears by rename once everything answers; state stays in the data directory; a second
process on it is refused; SIGTERM and SIGINT end it cleanly.
Dangers: the guard lets loopback through and the token in `dev.json` may do everything: never for production.
Not here: the parts (`app`, `sandbox`), what HTTP serves (`laptop_http`), production.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outgate import settings as settings_module
from outgate.api.event_notifications import documents
from outgate.api.event_notifications.hashing import PasswordHashing
from outgate.api.identity.tokens import TokenIssuer
from outgate.app import (
    HttpServer,
    RelayService,
    Watch,
    allow_sockets,
    guard_for,
    port_taken,
    recheck_schedule,
    serve_http,
)
from outgate.base import log
from outgate.base.clock import OffsetClock
from outgate.base.log import Log
from outgate.egress.audit import Audit, endpoint
from outgate.egress.reconcile import Names
from outgate.egress.wanted import StoreWanted
from outgate.egress_service import AUDIT_FILE, Apart, Egress, egress_service, take_egress
from outgate.laptop_http import Parts, http_application
from outgate.model.tenancy import KeptKey, KeyState, SmtpConfiguration
from outgate.net.authority import Authority
from outgate.net.certificates import CertificateWatch
from outgate.net.dns import Resolver
from outgate.net.pace import Pace
from outgate.process import StartFailed, settle_memory, take, tame_memory, usable
from outgate.relay.endpoints import Endpoint
from outgate.relay.gateways import Gateways
from outgate.relay.onboarding import Verifier
from outgate.relay.recheck import Recheck
from outgate.sandbox import tenant as tenants
from outgate.sandbox.ca import SandboxCa, ServerNames
from outgate.sandbox.inbox import Inbox
from outgate.sandbox.local import LocalOnly
from outgate.sandbox.nameserver import NameServer
from outgate.sandbox.private_names import PrivateNames
from outgate.sandbox.zone import Zone
from outgate.settings import Settings
from outgate.smtp.asyncio.server import listening_socket
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import BadKey
from outgate.store.migrations import upgrade_apart
from outgate.store.secrets import open_box
from outgate.store.signing_keys import is_replacing

if TYPE_CHECKING:
    from outgate.sandbox.judges import Judges

_log = Log("outgate.laptop")
HOST = "127.0.0.1"
EXCHANGE = "mx.outgate.test"
EGRESS_ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
LOOPBACK = "127.0.0.0/8"
PRIVATE = "127.20.0.0/16"
TUNNEL_NAME = "proxy.tunnel"


@dataclass(frozen=True, slots=True)
class DevPorts:
    """The ports to listen on; 0 is any free one. `proxy` None: that of the settings."""

    http: int = 8025
    submission: int = 2587
    submissions: int = 2465
    dns: int = 2053
    inbox: int = 2525
    proxy: int | None = None


def run_dev(data: Path, ports: DevPorts, config: Path | None) -> None:
    """Run the laptop mode until a signal ends it. Raises `StartFailed`."""
    tame_memory()
    os.umask(0o077)  # mails, zone and databases are this user's only, also in a directory that others can read
    try:
        settings = read_settings(config)
    except settings_module.BadSettings as error:
        raise StartFailed(str(error)) from None
    log.configure(settings.log.level)
    allow_sockets(settings)
    locks = [lock_directory(data)]
    try:
        if not settings.egress.apart:
            locks.append(take_egress(data))
        import uvloop

        uvloop.run(_serve(data, ports, settings))
    except ImportError:
        asyncio.run(_serve(data, ports, settings))
    finally:
        for lock in locks:
            os.close(lock)


def read_settings(config: Path | None) -> Settings:
    """Return the settings of `config` over the laptop mode's own defaults."""
    return settings_module.load(
        config,
        relay={
            "authorization": "automatic",
            "proxy_trusted": list(EGRESS_ADDRESSES),
            "private_networks": [PRIVATE],
        },
        egress={"guard_exceptions": [LOOPBACK], "client_networks": [LOOPBACK, "::1/128"]},
    )


def lock_directory(data: Path) -> int:
    """Take the data directory for this process; return the lock's descriptor. Raises `StartFailed`."""
    return take(
        data,
        "lock",
        taken=f"another process runs on {data}: stop it, or choose another directory with --data",
    )


async def _serve(data: Path, ports: DevPorts, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    laptop = Laptop(data, ports, settings)
    try:
        await laptop.start()
        if laptop.certificates:  # else a hang-up ends this as it ends any program
            loop.add_signal_handler(signal.SIGHUP, laptop.certificates.poke)
        settle_memory()
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
        with usable(data / "clock"):
            self._clock = OffsetClock(data / "clock")
        self._stops: list[Callable[[], Awaitable[None] | None]] = []
        self.certificates: CertificateWatch | None = None
        self.dev: dict[str, Any] = {}

    async def start(self) -> None:
        """Start everything, in the order the parts need each other. Raises `StartFailed`."""
        data, clock = self._data, self._clock
        (data / "dev.json").unlink(missing_ok=True)
        with usable(data / "tenant.json"):
            tenant = tenants.choose(data / "tenant.json")
        with usable(data / "master.key"):
            box = open_box(data / "master.key")
        with usable(data / "control.db"):
            upgrade_apart(control=data / "control.db", queue=data / "queue-0.db")
            control = open_control(data / "control.db", box, clock)
        self._stop_last(control.close)
        hasher = PasswordHashing()
        self._stop_last(hasher.close)
        configuration = await self._tenant(control, tenant, hasher)

        with usable(data / "zone.json"):
            zone = Zone(data / "zone.json", exchange=EXCHANGE, address=HOST)
        self._records(zone, configuration, signing := _published(control, configuration))
        dns_port = await self._name_server(zone)
        resolver = Resolver([(HOST, dns_port)], clock)
        with usable(data / "ca.pem"):
            authority = SandboxCa(data)
        inbox, inbox_port = self._inbox(authority, dns_port)

        environment = control.egress.environment(tenant.program_id, tenant.environment_id)
        tunnel_address = self._settings.dev.tunnel_address if environment is None else environment.tunnel_address
        proxy_port = self._proxy_port(tunnel_address)
        settings = settings_module.with_relay(self._settings, delivery_port=inbox_port)
        settings = settings_module.with_egress(settings, http_proxy_port=proxy_port)
        relay = self._relay(settings, control, authority, zone, resolver)
        self.certificates = relay.certificates
        submission = relay.listen_everywhere("submission", self._ports.submission)
        submissions = relay.listen_everywhere("submissions", self._ports.submissions)
        verifier = self._verifier(settings, control, relay, dns_port)
        if not configuration.verified or any(each.state is KeyState.NEXT for each in signing):
            await verifier.verify(configuration, ("spf", "dkim"))
        names = PrivateNames(zone)
        names.publish(TUNNEL_NAME, tunnel_address)
        egress = await self._egress(settings, control, resolver, relay, names)
        gateways = await self._open(relay, control, names)
        recheck = Recheck(
            verifier,
            control.verification,
            clock,
            schedule=recheck_schedule(settings),
            changed=relay.changed,
            at_once=settings.relay.recheck_at_once,
        )
        recheck.start()
        self._stop_last(recheck.stop)

        http = self._socket("http", self._ports.http)
        self._stop_last(http.close)
        url = f"http://{HOST}:{http.getsockname()[1]}"
        issuer = TokenIssuer(control, clock)
        with usable(data / "master.key.data"):
            token = issuer.issue("iam-ServiceId-laptop", tenant.account_id, tenants.ALL_ROLES, tenants.CLIENT_ID, None)
        of_relay = relay.endpoint_of(tenant.instance_id)
        self.dev = describe(data, url, tenant, configuration, of_relay) | {
            "token": token,
            "submission": _at(of_relay, submission),
            "submissions": _at(of_relay, submissions),
            "dns": f"{HOST}:{dns_port}",
            "inbox": f"{HOST}:{inbox_port}",
            "tunnel_address": tunnel_address,
            "http_proxy": endpoint(tunnel_address, proxy_port),
        }
        parts = Parts(settings, control, clock, zone, inbox, relay, gateways, egress, verifier, recheck, hasher, issuer)
        server, task = await serve_http(LocalOnly(http_application(parts, self.dev, proxy_port)), http)
        self._stop_last(functools.partial(_stop_http, server, task))
        self._write_dev_json()

    async def stop(self) -> None:
        """Stop what was started, last first; each part's trouble is logged and the next is stopped."""
        while self._stops:
            try:
                ended = self._stops.pop()()
                if ended is not None:
                    await ended
            except Exception:
                _log.exception("stop.failed")
        (self._data / "dev.json").unlink(missing_ok=True)

    def _stop_last(self, stop: Callable[[], Awaitable[None] | None]) -> None:
        self._stops.append(stop)

    # -- the parts ------------------------------------------------------------------------------------------

    async def _tenant(
        self, control: ControlStore, tenant: tenants.Tenant, hasher: PasswordHashing
    ) -> SmtpConfiguration:
        dev = self._settings.dev
        key_pem = None
        if dev.dkim_key_file:
            try:
                key_pem = await asyncio.to_thread(Path(dev.dkim_key_file).read_bytes)
            except OSError as error:
                raise StartFailed(f"dev.dkim_key_file {dev.dkim_key_file}: {error.strerror}") from None
        try:
            configuration = await asyncio.to_thread(
                functools.partial(
                    tenants.make_relay_side,
                    control,
                    tenant,
                    domain=dev.domain,
                    key_pem=key_pem,
                    selector=dev.dkim_selector,
                    verifier=await hasher.hash(tenant.smtp_password),
                    ed25519=self._settings.relay.dkim_ed25519,
                )
            )
        except BadKey as error:
            raise StartFailed(f"dev.dkim_key_file {dev.dkim_key_file}: {error}") from None
        await asyncio.to_thread(tenants.make_egress_side, control, tenant, dev.tunnel_address)
        await asyncio.to_thread(tenants.make_private_side, control, tenant)
        return configuration

    def _records(self, zone: Zone, configuration: SmtpConfiguration, signing: Sequence[KeptKey]) -> None:
        """Put the names that everything here needs into the zone, unless somebody has put something there."""
        relay = self._settings.relay
        endpoints = settings_module.compiled(relay.endpoints).all
        domain = configuration.domain
        leaving = [address for each in endpoints for address in each.outgoing_addresses]
        wanted = (
            (relay.spf_host, "TXT", [_spf(leaving)]),
            *(_address_records(each.public_name, each.listen) for each in endpoints),
            *(_address_records(each.ehlo_name, each.outgoing_addresses) for each in endpoints),
            # Receivers of a bounce, whose sender is null, check the name we say in EHLO (RFC 7208 section 2.4).
            *((each.ehlo_name, "TXT", [_spf(each.outgoing_addresses)]) for each in endpoints),
            (domain, "A", [HOST]),
            (domain, "TXT", [documents.spf_text(documents.SmtpRecords(relay.spf_host))]),
            *((each.key.name(domain), "TXT", [each.key.text]) for each in signing),
        )
        for name, rdtype, values in wanted:
            if zone.get(name, rdtype) is None:
                zone.put(name, rdtype, values)

    async def _name_server(self, zone: Zone) -> int:
        server = NameServer(zone)
        try:
            _, port = await server.start(HOST, self._ports.dns)
        except OSError as error:
            raise StartFailed(port_taken("dns", HOST, self._ports.dns, error)) from None
        self._stop_last(server.stop)
        return port

    def _inbox(self, authority: SandboxCa, dns_port: int) -> tuple[Inbox, int]:
        with usable(self._data / "inbox"):
            inbox = Inbox(
                self._data / "inbox",
                clock=self._clock,
                context=authority.context([EXCHANGE]),
                judges=lambda: self._judges(dns_port),
                host_name=EXCHANGE,
            )
        _, port = inbox.start(self._socket("inbox", self._ports.inbox))
        self._stop_last(inbox.stop)
        return inbox, port

    def _judges(self, dns_port: int) -> Judges:
        from outgate.sandbox.judges import Judges

        return Judges((HOST, dns_port), self._clock)

    def _relay(
        self, settings: Settings, control: ControlStore, authority: SandboxCa, zone: Zone, resolver: Resolver
    ) -> RelayService:
        endpoints = settings_module.compiled(settings.relay.endpoints).all
        certified = [name for each in endpoints for name in (each.public_name, each.private_name)]
        at = dict.fromkeys(address for each in endpoints for address in each.listen)

        def ours(name: str) -> bool:
            return not relay.listeners.addresses.isdisjoint(zone.addresses(name))

        names = ServerNames(authority, [*certified, *at], ours)
        relay = RelayService(
            settings,
            data=self._data,
            control=control,
            clock=self._clock,
            resolver=resolver,
            context=names.context,
            permitted=guard_for(settings.egress.guard_exceptions),
        )
        self._stop_last(relay.stop)
        return relay

    def _verifier(self, settings: Settings, control: ControlStore, service: RelayService, dns_port: int) -> Verifier:
        """Return what asks domains' own name servers: here all of them are this machine's, at the zone's port."""
        relay = settings.relay
        pace = Pace(per_server=relay.dns_per_server, overall=relay.dns_overall, own=(HOST,))
        authority = Authority(
            Resolver([(HOST, dns_port)], self._clock, pace=pace),
            self._clock,
            pace=pace,
            port=dns_port,
            permitted=guard_for(settings.egress.guard_exceptions),
        )
        return Verifier(
            authority,
            control.verification,
            endpoint_of=service.endpoint_of,
            clock=self._clock,
            schedule=recheck_schedule(settings),
        )

    async def _egress(
        self,
        settings: Settings,
        control: ControlStore,
        resolver: Resolver,
        relay: RelayService,
        names: PrivateNames,
    ) -> Egress:
        """Start the egress, or leave it to `outgate egress serve`."""
        egress = settings.egress
        if egress.apart:
            service: Egress = Apart(Audit(self._data / AUDIT_FILE), self._data)
        else:
            service = await egress_service(
                egress,
                data=self._data,
                wanted=StoreWanted(control.egress, control.infrastructures, control.data_version),
                resolver=resolver,
                clock=self._clock,
                header_to=relay.listeners.targets,
                names=Names(egress.external_domain, egress.vpn_address, names.publish, names.withdraw),
            )
        self._stop_last(service.stop)
        return service

    def _proxy_port(self, tunnel_address: str) -> int:
        """Return the port of the HTTP proxies: the one that was asked for, which must be free, or any free one."""
        asked = self._ports.proxy
        port = self._settings.egress.http_proxy_port if asked is None else asked
        if self._settings.egress.apart:
            return port or self._settings.egress.http_proxy_port
        try:
            with listening_socket(tunnel_address, port) as probe:
                port = int(probe.getsockname()[1])
            # Nothing listens there before networking is enabled; held, the system gives it to nobody else meanwhile.
            held = socket.socket(socket.AF_INET6 if ":" in tunnel_address else socket.AF_INET)
            self._stop_last(held.close)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((tunnel_address, port))
        except OSError as error:
            raise StartFailed(port_taken("proxy", tunnel_address, port, error)) from None
        return port

    async def _open(self, relay: RelayService, control: ControlStore, names: PrivateNames) -> Gateways:
        """Take up what an earlier run left, let clients in, and follow what changes in the store."""
        gateways = Gateways(
            control.gateways,
            networks=self._settings.relay.private_networks,
            open=relay.open_private,
            close=relay.close_private,
            publish=names.publish,
            withdraw=names.withdraw,
        )

        async def changed() -> None:
            gateways.poke()
            await relay.changed()

        # Before the first look: what changes after it is noticed.
        watch = Watch(control, changed, relay.follow_access, relay.follow_logins, relay.follow_suppressions)
        await relay.changed()
        await relay.start()
        await gateways.start()
        self._stop_last(gateways.stop)
        watch.start()
        self._stop_last(watch.stop)
        return gateways

    def _socket(self, name: str, port: int) -> socket.socket:
        try:
            return listening_socket(HOST, port)
        except OSError as error:
            raise StartFailed(port_taken(name, HOST, port, error)) from None

    def _write_dev_json(self) -> None:
        temporary = self._data / "dev.json.tmp"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(self.dev, out, indent=1)
        os.replace(temporary, self._data / "dev.json")


def describe(
    data: Path, url: str, tenant: tenants.Tenant, configuration: SmtpConfiguration, endpoint: Endpoint
) -> dict[str, Any]:
    """Return the keys of `dev.json` that do not depend on a port but HTTP's."""
    return {
        "pid": os.getpid(),
        "console_url": f"{url}/",
        "event_notifications_url": f"{url}/event-notifications",
        "restrictions_url": f"{url}/context-based-restrictions",
        "cloud_manager_url": f"{url}/cloud-manager",
        "identity_url": f"{url}/iam",
        "vpc_url": f"{url}/vpc/v1",
        "operations_url": f"{url}/operations/v1",
        "sandbox_url": f"{url}/sandbox",
        "api_key": tenant.api_key,
        "token": "",
        "account_id": tenant.account_id,
        "instance_id": tenant.instance_id,
        "org_id": tenant.org_id,
        "program_id": tenant.program_id,
        "environment_id": tenant.environment_id,
        "submission": "",
        "submissions": "",
        "dns": "",
        "inbox": "",
        "tunnel_address": "",
        "http_proxy": "",
        "ca_file": str((data / "ca.pem").absolute()),
        "domain": configuration.domain,
        "smtp_config_id": configuration.id,
        "smtp_user": tenant.smtp_user,
        "smtp_password": tenant.smtp_password,
        "smtp_host_name": endpoint.public_name,
        "vpc_id": tenant.vpc_id,
        "vpc_crn": tenant.vpc_crn,
        "subnet_id": tenant.subnet_id,
    }


def _published(control: ControlStore, configuration: SmtpConfiguration) -> list[KeptKey]:
    """Return the keys whose records the zone has from the start: a rotation's next one is for the user to publish."""
    keys = control.signing_keys.keys(configuration.id)
    return [each for each in keys if each.state is not KeyState.RETIRED and not is_replacing(each, keys)]


def _spf(addresses: Sequence[str]) -> str:
    """Return an SPF record that lets these addresses pass and no others."""
    allowed = " ".join(f"{'ip6' if ':' in address else 'ip4'}:{address}" for address in dict.fromkeys(addresses))
    return f"v=spf1 {allowed} -all"


def _address_records(name: str, addresses: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return the records that lead to the IPv4 addresses among these; to IPv6 only where there are no others: not
    every machine has it."""
    four = [address for address in addresses if ":" not in address]
    return (name, "A", four) if four else (name, "AAAA", list(addresses))


def _at(endpoint: Endpoint, port: int) -> str:
    """Return where clients on this machine find an endpoint, as `dev.json` has it."""
    address = endpoint.listen[0]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def _stop_http(server: HttpServer, task: asyncio.Task[Any]) -> None:
    server.should_exit = True
    await asyncio.wait([task])
