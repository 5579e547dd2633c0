"""Endpoints: which regions they serve, their names, where they listen and leave from; and the doors they have.

Standards: the vendor's endpoints (nine regions, two endpoints, a public and a private name each), as data.
Promises: pure; a region has exactly one endpoint; what a listener says of itself is made once, not for each session.
Dangers: the first endpoint serves every region that none names: the order of the settings matters.
Not here: sockets (`app`), certificates (`net.certificates`), what a login at the wrong one reads (`relay.policy`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from outgate.smtp.reply import Reply, reply


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where mail comes in and from which it leaves. `listen` are its public addresses; every one of
    `outgoing_addresses` must pass a domain's SPF, and deliveries say `ehlo_name`."""

    id: str
    regions: tuple[str, ...]
    public_name: str
    private_name: str
    listen: tuple[str, ...]
    outgoing_addresses: tuple[str, ...]
    ehlo_name: str

    def name(self, kind: str) -> str:
        """Return the host name of its "public" or "private" side."""
        return self.private_name if kind == "private" else self.public_name


@dataclass(frozen=True, slots=True)
class Door:
    """What a listener is: "submission" or "submissions", "public" or "private", of which endpoint, and through the
    gateway of which VPC (CRN, "" at the public side); and what it says of itself."""

    listener: str
    endpoint: str
    of: Endpoint
    vpc: str = ""
    host_name: str = field(init=False)
    greeting: Reply = field(init=False)

    def __post_init__(self) -> None:
        name = self.of.name(self.endpoint)
        object.__setattr__(self, "host_name", name)
        object.__setattr__(self, "greeting", reply(220, "", f"{name} ESMTP Outgate"))


class Endpoints:
    """All endpoints of an installation, in order."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        """Raises `ValueError`, in words for whoever wrote the settings: a region, name or listening address belongs to
        one endpoint only, and each leaves from somewhere."""
        self.all = tuple(endpoints)
        if not self.all:
            raise ValueError("there must be one endpoint at least")
        for endpoint in self.all:
            if not endpoint.outgoing_addresses:
                raise ValueError(f"{endpoint.id} has no outgoing address: no SPF record could pass")
        self._by_region = self._owners("region", lambda endpoint: endpoint.regions)
        self._owners("name", lambda endpoint: (endpoint.public_name, endpoint.private_name))
        self._owners("listening address", lambda endpoint: endpoint.listen)

    def _owners(self, what: str, of: Callable[[Endpoint], Iterable[str]]) -> dict[str, Endpoint]:
        owners: dict[str, Endpoint] = {}
        for endpoint in self.all:
            for each in of(endpoint):
                other = owners.setdefault(each, endpoint)
                if other is not endpoint:
                    raise ValueError(f"{what} {each} is in {other.id} and in {endpoint.id}: leave it in one of them")
        return owners

    def of_region(self, region: str) -> Endpoint:
        """Return the endpoint that serves a region: the first one if none names it."""
        return self._by_region.get(region, self.all[0])

    def private_names(self) -> dict[str, str]:
        """Return the private name of each region that an endpoint names; the first one's id stands for what it serves
        if it names none."""
        first = self.all[0]
        found = {} if first.regions else {first.id: first.private_name}
        return found | {region: endpoint.private_name for region, endpoint in self._by_region.items()}


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """An endpoint as it is open now: its ports, and those of its public addresses that could be bound."""

    endpoint: Endpoint
    submission: int
    submissions: int
    addresses: tuple[str, ...]
