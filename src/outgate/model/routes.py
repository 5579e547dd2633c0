"""Routes: the ways by which a configuration's mail may go out, in the order in which they are preferred.

Standards: RFC 8314 (implicit TLS), RFC 3207 (STARTTLS), RFC 4954 (AUTH).
Promises: immutable; a route with a user name has TLS that cannot be left out.
Dangers: `password` is in clear here; it is sealed in the store and in no answer.
Not here: which of them a message takes (`relay.transports`), JSON (`api.event_notifications.routes`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address

from outgate.smtp import grammar

MOST_ROUTES = 8


class RouteType(StrEnum):
    """Where a route leads."""

    DIRECT = "direct"
    SMART_HOST = "smart_host"
    EGRESS_FORWARD = "egress_forward"


class RouteTls(StrEnum):
    """What TLS to a smart host, or through a forward, must be."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    OPPORTUNISTIC = "opportunistic"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One route. `host` (a name or an address) is a smart host's; a forward is that of an environment, at `port`
    (portOrig) of its tunnel address. `verify`: the certificate must be vouched for, by `authorities` (PEM) or the
    system's, and have one of `names`, or the host's own. `id` is another one when anything else is."""

    id: str
    name: str
    type: RouteType
    host: str = ""
    port: int = 0
    program_id: str = ""
    environment_id: str = ""
    tls: RouteTls = RouteTls.STARTTLS
    verify: bool = True
    names: tuple[str, ...] = ()
    authorities: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def place(self) -> tuple[str, ...]:
        """Return what it shares with every route that leads to the same place."""
        if self.type is RouteType.EGRESS_FORWARD:
            return ("egress_forward", self.environment_id, str(self.port))
        return (self.type.value, self.host, str(self.port))

    def keeps_password_of(self, other: RouteSpec) -> bool:
        """Say whether it is still the same login at the same place, to which the same password may be sent."""
        mine = (self.place, self.program_id, self.username, self.tls, self.verify, self.names, self.authorities)
        its = (other.place, other.program_id, other.username, other.tls, other.verify, other.names, other.authorities)
        return mine == its


DIRECT = RouteSpec("direct", "direct", RouteType.DIRECT)
"""To the hosts that the recipient's domain names."""


@dataclass(frozen=True, slots=True)
class Forward:
    """An environment's port forward as a way out: where to connect, and the name and port it leads to; or `trouble`,
    why it cannot be used now."""

    address: str = ""
    name: str = ""
    port_dest: int = 0
    trouble: str = ""


def trouble(spec: RouteSpec) -> tuple[str, str] | None:
    """Return which field of a route is wrong, and why in words that go on from its name; None if it is sound."""
    if (spec.name == DIRECT.name) != (spec.type is RouteType.DIRECT):
        return "name", "must be 'direct' for the route of type direct, and for no other"
    if spec.type is RouteType.DIRECT:
        return None
    if spec.type is RouteType.SMART_HOST and not _is_host(spec.host):
        return "host", "must be a host name or an address"
    if spec.type is RouteType.EGRESS_FORWARD and not (spec.program_id and spec.environment_id):
        return "environment_id", "and program_id say whose forward it is: both must be given"
    if not 0 < spec.port < 65_536:
        return "port", "must be 1 to 65535"
    sure = spec.tls in (RouteTls.STARTTLS, RouteTls.IMPLICIT)
    if spec.username and not sure:
        return "tls", "must be 'starttls' or 'implicit' where there is a username: a password is not sent without TLS"
    if any("\0" in text or "\r" in text or "\n" in text for text in (spec.username, spec.password)):
        return "password", "and username must not contain NUL, CR or LF"
    if spec.password and not spec.username:
        return "username", "is missing: there is a password"
    if not all(_is_host(name) for name in spec.names):
        return "names", "must be host names or addresses"
    if (spec.names or spec.authorities) and not (sure and spec.verify):
        return "verify", "must be true, with tls 'starttls' or 'implicit', where names or authorities are given"
    if spec.authorities and "-----BEGIN CERTIFICATE-----" not in spec.authorities:
        return "authorities", "must be certificates in PEM"
    return None


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        pass
    else:
        return "%" not in text
    try:
        return "." in text and grammar.domain(text) == text
    except grammar.BadSyntax:
        return False
