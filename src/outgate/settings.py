"""Every setting: its default and one sentence. Read from TOML (`--config`); the environment comes before it.

Standards: TOML 1.0; environment names `OUTGATE_<SECTION>__<NAME>`.
Promises: an unknown or ill-typed setting is an error that names it; nothing else reads configuration.
Dangers: files that hold secrets belong to the service's user only.
Not here: what the laptop mode puts where (`app`), tenants' data (`store`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from outgate.base import addresses
from outgate.egress import targets
from outgate.egress.proof import place
from outgate.model.routes import RouteSpec, RouteTls, RouteType, trouble
from outgate.net import guard, resolv_conf
from outgate.relay.endpoints import Endpoint, Endpoints
from outgate.smtp import grammar

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class BadSettings(Exception):
    """The settings cannot be used; the text names file, place and what is wrong, one line each."""


def _resolver(text: str) -> str:
    resolv_conf.server(text)
    return text


def _address(text: str) -> str:
    try:
        return addresses.of_one_host(text)
    except ValueError as error:
        raise ValueError(f"{error}: name each that this one has") from None


def _network(text: str) -> str:
    addresses.network(text)
    return text


def _exception(text: str) -> str:
    guard.spelt(text)
    return text


def _name(text: str) -> str:
    try:
        return grammar.domain(text)
    except grammar.BadSyntax:
        raise ValueError(f"{text!r} is not a domain name") from None


def _optional_name(text: str) -> str:
    return _name(text) if text else ""


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of small letters, digits and hyphens")
    return text


def _record_name(text: str) -> str:
    _name(text.replace("_", "x"))  # names of records only, like `_spf.example.com`, may have underscores
    return text


def _host_and_port(text: str) -> str:
    if text:
        host, _, port = text.rpartition(":")
        if not (port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"{text!r} is not address:port")
        ip_address(host.strip("[]"))
    return text


def _optional_place(text: str) -> str:
    if text:
        place(text)
    return text


def _target(text: str) -> str:
    targets.read(text)
    return text


_Label = Annotated[str, AfterValidator(_label)]
_OptionalName = Annotated[str, AfterValidator(_optional_name)]
_Address = Annotated[str, AfterValidator(_address)]
_Network = Annotated[str, AfterValidator(_network)]
_Exception = Annotated[str, AfterValidator(_exception)]
_Name = Annotated[str, AfterValidator(_name)]
_RecordName = Annotated[str, AfterValidator(_record_name)]
_Resolver = Annotated[str, AfterValidator(_resolver)]
_OptionalPlace = Annotated[str, AfterValidator(_optional_place)]
_Target = Annotated[str, AfterValidator(_target)]
_HostAndPort = Annotated[str, AfterValidator(_host_and_port)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EndpointSettings(_Section):
    """One endpoint: where mail of some regions comes in, and where it leaves from."""

    regions: list[_Label] = Field(
        [], description="Regions whose instances use it; the first endpoint also serves those that none names."
    )
    public_name: _Name = Field(description="The name in the greeting and the certificate.")
    private_name: _OptionalName = Field(
        "", description="The name at private addresses; empty: `private.` and the public name."
    )
    listen: list[_Address] = Field(
        min_length=1, description="Public addresses to listen on; no wildcard, else no private address can be opened."
    )
    outgoing_addresses: list[_Address] = Field(
        min_length=1, description="Addresses that deliveries leave from, and that SPF must allow."
    )
    ehlo_name: _OptionalName = Field(
        "", description="The name deliveries from here say in EHLO; empty: the public name."
    )
    certificate_file: str = Field(
        "", description="PEM file with the certificate chain, the server's own first; empty: the sandbox authority's."
    )
    key_file: str = Field("", description="PEM file with the certificate's private key.")


_US_SOUTH = EndpointSettings(  # pyright: ignore[reportCallIssue]
    regions=["us-south", "ca-tor", "jp-tok", "jp-osa", "au-syd", "eu-gb", "br-sao"],
    public_name="smtp.outgate.test",
    private_name="private.smtp.outgate.test",
    listen=["127.0.0.1", "::1"],
    outgoing_addresses=["127.0.0.1"],
    ehlo_name="out.outgate.test",
)
_EU_DE = EndpointSettings(  # pyright: ignore[reportCallIssue]
    regions=["eu-de", "eu-es"],
    public_name="smtp.eu-de.outgate.test",
    private_name="private.smtp.eu-de.outgate.test",
    listen=["127.0.0.5"],
    outgoing_addresses=["127.0.0.5"],
    ehlo_name="out.eu-de.outgate.test",
)


def _private_name(endpoint: EndpointSettings) -> str:
    return endpoint.private_name or f"private.{endpoint.public_name}"


def _endpoints(given: dict[str, EndpointSettings]) -> dict[str, EndpointSettings]:
    for name, each in given.items():
        if bool(each.certificate_file) != bool(each.key_file):
            raise ValueError(f"{name} needs certificate_file and key_file, or neither")
        try:
            _name(_private_name(each))
        except ValueError:
            raise ValueError(
                f"{name}: {_private_name(each)!r} would be its private name, and is too long: set private_name"
            ) from None
    compiled(given)
    return given


def compiled(given: Mapping[str, EndpointSettings]) -> Endpoints:
    """Return the endpoints that settings describe. Raises `ValueError` if they contradict each other."""
    return Endpoints(
        Endpoint(
            name,
            tuple(each.regions),
            each.public_name,
            _private_name(each),
            tuple(each.listen),
            tuple(each.outgoing_addresses),
            each.ehlo_name or each.public_name,
        )
        for name, each in given.items()
    )


class SiteSettings(_Section):
    """An exception for a site: what is not given is as for all."""

    connections: int | None = Field(None, ge=1, description="Connections at most.")
    per_minute: float | None = Field(None, ge=0, description="Messages a minute at most; 0: any number.")
    messages_per_connection: int | None = Field(None, ge=1, description="Messages over one connection.")


class RouteSettings(_Section):
    """A route that any configuration without routes of its own takes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="What it is called, on attempts too.")
    type: Literal["direct", "smart_host"] = Field(
        "smart_host", description="To the domain's own hosts, or to a smart host."
    )
    host: str = Field("", max_length=253, description="The smart host's name or address.")
    port: int = Field(587, ge=1, le=65535, description="The smart host's port.")
    tls: Literal["starttls", "implicit", "opportunistic", "none"] = Field(
        "starttls", description="What TLS must be; a user name needs one of the first two."
    )
    verify: bool = Field(True, description="Whether its certificate must be vouched for and have its name.")
    names: list[str] = Field([], description="Names that the certificate may have; empty: the host's own.")
    ca_file: str = Field("", description="PEM file with the authorities that may vouch for it; empty: the system's.")
    username: str = Field("", description="User name in AUTH; empty: no login.")
    password_file: str = Field("", description="File that holds the password in AUTH, on one line.")


def default_routes(relay: RelaySettings) -> tuple[RouteSpec, ...]:
    """Return the routes of configurations that have none. Raises `ValueError`, `OSError` for what cannot be used."""
    found: list[RouteSpec] = []
    for each in relay.routes:
        spec = RouteSpec(
            f"installation {each.name}",
            each.name,
            RouteType(each.type),
            each.host if each.type == "smart_host" else "",
            each.port if each.type == "smart_host" else 0,
            tls=RouteTls(each.tls),
            verify=each.verify,
            names=tuple(each.names),
            authorities=Path(each.ca_file).read_text("ascii") if each.ca_file else "",
            username=each.username,
            password=Path(each.password_file).read_text("utf-8").strip("\r\n") if each.password_file else "",
        )
        wrong = trouble(spec)
        if bool(each.username) != bool(each.password_file):
            wrong = ("username", "and password_file come together")
        if wrong is not None:
            raise ValueError(f"{each.name}: {wrong[0]} {wrong[1]}")
        found.append(spec)
    if len({spec.name for spec in found}) != len(found):
        raise ValueError("two have the same name")
    return tuple(found)


class RelaySettings(_Section):
    """The submission relay."""

    endpoints: Annotated[dict[_Label, EndpointSettings], AfterValidator(_endpoints)] = Field(
        {"us-south": _US_SOUTH, "eu-de": _EU_DE},
        description="Endpoints by id, in order; what is given here stands instead of the default ones.",
    )
    authorization: Literal["automatic", "manual"] = Field(
        "manual", description="Whether a new configuration is authorised when created, or by a person."
    )
    spf_host: _RecordName = Field("spf.outgate.test", description="The name customers include in their SPF record.")
    proxy_trusted: list[_Network] = Field(
        [], description="Networks whose connections must begin with a PROXY header; all others must not."
    )
    private_networks: list[_Network] = Field(
        [], description="Networks of this machine whose addresses VPC subnets, and so endpoint gateways, may have."
    )
    max_message_bytes: int = Field(31_457_280, ge=65_536, description="Largest message, in bytes (SIZE).")
    max_recipients: int = Field(50, ge=1, le=1000, description="Recipients per message (LIMITS RCPTMAX).")
    max_line_octets: int = Field(
        998, ge=0, description="Longest line of a message, in octets; the next server may cut longer ones; 0: any."
    )
    bare_line_ends: Literal["refuse", "replace"] = Field(
        "refuse", description="What becomes of a lone CR or LF in a message."
    )
    connections_per_address: int = Field(200, ge=1, description="Open sessions one address, or an IPv6 /64, may have.")
    wrong_logins: int = Field(
        20,
        ge=8,
        description="Wrong logins of one address, less four a minute, from which names that failed there are refused.",
    )
    password_threads: int = Field(
        1, ge=1, le=8, description="Threads that check passwords; each takes 19 MiB and some 40 logins a second."
    )
    command_timeout_s: float = Field(300.0, gt=0, description="Seconds a client may take for a command.")
    data_timeout_s: float = Field(180.0, gt=0, description="Seconds without a byte while a message is sent.")
    max_errors: int = Field(10, ge=1, description="Refused commands before a session is closed.")
    queue_lifetime_s: float = Field(86_400.0, gt=0, description="Seconds a message is tried before it expires.")
    hold_longest_s: float = Field(
        1_209_600.0, gt=0, description="Seconds that mail of a suspended or deleted configuration is held at most."
    )
    suppress_hard_bounces: bool = Field(
        True,
        description="Whether an address is suppressed by its first hard bounce: no mailbox, or one that is closed.",
    )
    hard_bounce_lasts_s: float = Field(
        7_776_000.0,
        ge=0,
        le=3_153_600_000,
        description="Seconds that a hard bounce suppresses its address; 0: until somebody removes it.",
    )
    recheck_interval_s: float = Field(21_600.0, gt=0, description="Seconds between two looks at a verified domain.")
    recheck_grace_s: float = Field(
        259_200.0, ge=0, description="Seconds a domain that fails may still send before it is suspended."
    )
    dkim_ed25519: bool = Field(
        False, description="Whether a new configuration gets an Ed25519 key that signs beside its RSA key."
    )
    dkim_keep_s: float = Field(
        604_800.0,
        ge=0,
        description="Seconds that a retired key's record must stay after the last mail it signed can have left.",
    )
    dns_per_server: float = Field(
        20.0, gt=0, description="Questions per second that checks of domains ask one name server at most."
    )
    dns_overall: float = Field(
        200.0, gt=0, description="Questions per second that checks of domains ask all name servers together."
    )
    recheck_at_once: int = Field(20, ge=1, le=1000, description="Domains that are looked at together.")
    retry_first_s: float = Field(60.0, gt=0, description="Seconds before the second attempt; doubles each time.")
    retry_most_s: float = Field(7_200.0, gt=0, description="Longest pause between two attempts, in seconds.")
    delay_notice_s: float = Field(
        14_400.0, gt=0, description="Seconds after which a sender who asked for it is told that a message is late."
    )
    deliver_to: _HostAndPort = Field(
        "", description="address:port that takes all mail instead of the MX; empty: route by MX."
    )
    routes: list[RouteSettings] = Field(
        [], description="Routes of configurations that have none, in order; empty: direct."
    )
    source_check_s: float = Field(60.0, gt=0, description="Seconds between two looks at the outgoing addresses.")
    delivery_port: int = Field(25, ge=1, le=65535, description="Port of the receiving servers.")
    delivery_tls: Literal["opportunistic", "none"] = Field(
        "opportunistic", description="Whether deliveries use STARTTLS where it is offered."
    )
    authorities_file: str = Field(
        "",
        description="PEM file with the authorities that may vouch for receiving servers and MTA-STS policies; empty:"
        " the system's.",
    )
    mta_sts: bool = Field(True, description="Whether what receiving domains ask by MTA-STS is fetched and kept to.")
    mta_sts_port: int = Field(443, ge=1, le=65535, description="Port of the servers of MTA-STS policies.")
    dane_resolver: _HostAndPort = Field(
        "",
        description="address:port of a validating DNS resolver that is trusted, on this machine or over a way that is"
        " safe: it is asked where mail goes, and for TLSA records; empty: no DANE.",
    )
    connections_per_site: int = Field(20, ge=1, description="Connections an endpoint keeps to one site at most.")
    messages_per_connection: int = Field(1000, ge=1, description="Messages over one delivery connection.")
    site_per_minute: float = Field(
        0.0, ge=0, description="Messages a minute that an endpoint sends to one site at most; 0: any number."
    )
    site_pause_first_s: float = Field(
        60.0, gt=0, description="Seconds a site is left alone that says we send too much; doubles each time in a row."
    )
    site_pause_most_s: float = Field(3600.0, gt=0, description="Longest such pause, in seconds.")
    sites: dict[_Name, SiteSettings] = Field(
        {},
        description="Exceptions by the name of a mail host, of a domain of mail hosts, or of a recipient domain:"
        ' `[relay.sites."example.com"]` with connections, per_minute, messages_per_connection.',
    )
    delivery_idle_s: float = Field(30.0, gt=0, description="Seconds an idle delivery connection is kept.")
    delivery_probe_after_s: float = Field(
        5.0,
        gt=0,
        description="Idle seconds after which a connection is asked whether it lives before a message uses it.",
    )
    delivery_probe_s: float = Field(5.0, gt=0, description="Seconds a server may take for that answer.")
    delivery_timeout_s: float = Field(60.0, gt=0, description="Seconds a receiving server may take for a reply.")
    signing_threads: int = Field(2, ge=1, le=16, description="Threads that sign.")
    connections: int = Field(10_000, ge=1, description="Open sessions in all.")
    min_data_rate: float = Field(
        100.0,
        ge=0,
        description="Octets per second of a message that must come, averaged over `data_timeout_s`; 0: any.",
    )
    receiving_bytes: int = Field(
        268_435_456,
        ge=65_536,
        description="Octets of messages that all sessions together hold before they are stored; more get a 452."
        " One account may hold as much as it leaves free; one message always fits.",
    )


class EgressSettings(_Section):
    """The egress gateway."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        """Refuse an address that flexible egress and a program would both leave from."""
        own = {*self.dedicated_addresses, self.vpn_address}
        if both := sorted(own.intersection(self.shared_addresses)):
            raise ValueError(
                f"{', '.join(both)} cannot be shared and dedicated: name it in shared_addresses, dedicated_addresses or"
                " vpn_address"
            )
        return self

    shared_addresses: list[_Address] = Field(["127.0.0.2"], description="Addresses that flexible egress leaves from.")
    dedicated_addresses: list[_Address] = Field(["127.0.0.3"], description="Pool of dedicated addresses.")
    vpn_address: _Address = Field("127.0.0.4", description="The VPN's local end.")
    guard_exceptions: list[_Exception] = Field([], description="Networks or names the guard lets through, audited.")
    proxy_protocol_targets: list[_Target] = Field(
        [],
        description="name:port or address:port of targets that get a PROXY v2 header, an address under whatever name;"
        " without a port: any.",
    )
    http_proxy_port: int = Field(3128, ge=1, le=65535, description="Port of each environment's HTTP(S) proxy.")
    tunnel_network: _Network = Field(
        "127.1.0.0/24", description="Network from which new environments get a tunnel address of their own."
    )
    client_networks: list[_Network] = Field(
        [], description="Networks that the applications of new environments dial from; empty: nobody may, until set."
    )
    external_domain: str = Field(
        "external.outgate.test", description="Domain of the names p<PROGRAM>.<domain> of dedicated addresses."
    )
    regions: list[_Label] = Field(
        ["aus5", "can2", "deu6", "gbr9", "jpn4", "nld2", "sgp5", "va7", "wa1"],
        min_length=1,
        description="Regions that programs may use.",
    )
    mail_ports: list[int] = Field(
        [25, 465, 587, 2465, 2525, 2587], description="portDest by which a forward is known to carry SMTP."
    )
    mail_targets: list[_Target] = Field(
        [], description="name:port of targets that carry SMTP at other ports; a bare name means any port."
    )
    implicit_tls_ports: list[int] = Field(
        [465, 2465], description="Those of `mail_ports` where TLS begins with the first octet."
    )
    refuse_clear_auth: bool = Field(
        False, description="Whether an SMTP login outside TLS is refused before the target sees it."
    )
    witness: _OptionalPlace = Field(
        "",
        description="host:port of an `outgate egress witness` outside, which tells the address it sees; empty: a"
        " dedicated address is proven on this host only.",
    )
    proof_interval_s: float = Field(300.0, gt=0, description="Seconds between proofs of a dedicated address.")
    port_budget_alert: float = Field(
        0.7, gt=0, le=1, description="Share of the source ports to one target from which a warning is logged."
    )
    keepalive_s: float = Field(60.0, ge=1, description="Seconds of silence after which TCP asks whether a peer lives.")
    resolvers: list[_Resolver] = Field(
        [],
        description="address or address:port of the DNS servers that `outgate egress serve` asks; empty: those of"
        " /etc/resolv.conf.",
    )
    apart: bool = Field(False, description="Whether another process (`outgate egress serve`) carries the connections.")
    connections_per_environment: int = Field(1000, ge=1, description="Connections of one environment at once.")
    connections_alert: int = Field(750, ge=1, description="Connections from which an alert is logged.")
    connect_timeout_s: float = Field(10.0, gt=0, description="Seconds to reach a target.")
    idle_timeout_s: float = Field(600.0, gt=0, description="Seconds without a byte before a connection ends.")
    drain_s: float = Field(60.0, gt=0, description="Seconds that withdrawn forwards let connections finish.")
    proxy_connections_per_environment: int = Field(
        4000, ge=1, description="Clients of one environment's HTTP(S) proxy at once, whatever they are connected to."
    )
    proxy_head_bytes: int = Field(
        32_768, ge=8_192, le=1_048_576, description="Longest head of a request that the HTTP(S) proxy takes, in bytes."
    )
    proxy_head_timeout_s: float = Field(15.0, gt=0, description="Seconds for the head of a request to come in whole.")
    proxy_keepalive_s: float = Field(
        60.0, gt=0, description="Seconds that the HTTP(S) proxy keeps a client which asks for nothing."
    )


class StoreSettings(_Section):
    """Durable state."""

    segment_bytes: int = Field(67_108_864, ge=1_048_576, description="Size of a spool segment in bytes.")
    ready_bytes: int = Field(
        33_554_432, ge=0, description="Message bytes kept in memory between acceptance and delivery."
    )
    retention_s: float = Field(
        2_592_000.0,
        ge=604_800.0,
        description="Seconds that a message and all that befell it are kept once it is done with; a week at least.",
    )


class DevSettings(_Section):
    """The laptop mode."""

    domain: _Name = Field("shop.test", description="The domain that is verified from the start.")
    dkim_key_file: str = Field("", description="PEM file with the RSA key that signs for the domain; empty: made.")
    dkim_selector: str = Field("", description="Selector of that key; empty: a UUID.")
    tunnel_address: _Address = Field(
        "127.0.0.1", description="The environment's tunnel address, when it is first made."
    )


class LogSettings(_Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    status_file: str = Field(
        "", description="File that gets the vendor's record of each delivery, deferral and bounce; empty: none."
    )


class Settings(BaseSettings):
    """All of them."""

    model_config = SettingsConfigDict(env_prefix="OUTGATE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    relay: RelaySettings = RelaySettings()  # pyright: ignore[reportCallIssue]
    egress: EgressSettings = EgressSettings()  # pyright: ignore[reportCallIssue]
    store: StoreSettings = StoreSettings()  # pyright: ignore[reportCallIssue]
    dev: DevSettings = DevSettings()  # pyright: ignore[reportCallIssue]
    log: LogSettings = LogSettings()  # pyright: ignore[reportCallIssue]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before what `load` gives: a file, and a mode's own defaults."""
        return env_settings, init_settings


def load(file: Path | None, **sections: object) -> Settings:
    """Return the settings of the environment, then `file` (TOML), then `sections` (dicts), over the defaults.

    Raises `BadSettings`.
    """
    values: dict[str, object] = {} if file is None else _read(file)
    for name, defaults in sections.items():
        section = values.setdefault(name, {})
        if isinstance(section, dict) and isinstance(defaults, dict):
            for key, value in defaults.items():
                section.setdefault(key, value)  # pyright: ignore[reportUnknownMemberType]
    try:
        return Settings(**values)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {_said(each['msg'])}" for each in error.errors()]
        where = f"settings ({file} and the environment)" if file else "settings (from the environment)"
        raise BadSettings(f"{where}: {'; '.join(wrong)}") from None
    except SettingsError as error:
        raise BadSettings(f"settings from the environment: {error}") from None


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadSettings(f"settings: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise BadSettings(f"settings: {file} is not TOML: {error}") from None


def _said(message: str) -> str:
    known = {
        "Extra inputs are not permitted": "there is no such setting",
        "Input should be a valid dictionary or instance of": "must be a section",
    }
    found = next((said for start, said in known.items() if message.startswith(start)), None)
    return found or message.removeprefix("Value error, ").replace("Input should be", "must be")


def with_relay(settings: Settings, **values: object) -> Settings:
    """Return `settings` with some of the relay's replaced by what only a running service knows."""
    return settings.model_copy(update={"relay": settings.relay.model_copy(update=values)})


def with_egress(settings: Settings, **values: object) -> Settings:
    """Return `settings` with some of the egress's replaced by what only a running service knows."""
    return settings.model_copy(update={"egress": settings.egress.model_copy(update=values)})
