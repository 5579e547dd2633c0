"""A submission relay in memory: a tenant, its network rules, a queue that answers when told, and sessions."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from argon2 import PasswordHasher

from outgate.base.clock import FrozenClock
from outgate.model.access import Address, Context, Rule, Snapshot, Zone
from outgate.model.flow import Accepted, Client
from outgate.model.tenancy import (
    Credential,
    DkimKey,
    Instance,
    Sender,
    SmtpConfiguration,
    Verification,
)
from outgate.relay.access import AccessTable
from outgate.relay.endpoints import Door, Endpoint, Endpoints
from outgate.relay.session import Relay, SubmissionSession
from outgate.smtp.server import Limits

USER = "abcdefghijklmnopqr42"
PASSWORD = "correct horse"
DALLAS = Endpoint("dal", ("us-south",), "relay.test", "private.relay.test", ("127.0.0.1",), ("127.0.0.1",), "out.test")
FRANKFURT = Endpoint("fra", ("eu-de",), "fra.test", "private.fra.test", ("127.0.0.5",), ("127.0.0.5",), "out.fra.test")
ENDPOINTS = Endpoints((DALLAS, FRANKFURT))
DOOR = Door("submissions", "public", DALLAS)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def configuration(domain: str = "shop.test", **changes: object) -> SmtpConfiguration:
    """Return a verified configuration."""
    done = Verification.SUCCESSFUL
    made = SmtpConfiguration(
        f"cfg-{domain}", "inst", "n", "", domain, done, done, done, DkimKey("key-1", f"cfg-{domain}", "sel", "rsa", "x"), 0, 0
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def sender(*configurations: SmtpConfiguration, attachments: bool = False, verifier: str = "v") -> Sender:
    """Return a sender for `configurations` (shop.test if none)."""
    instance = Instance("inst", "acc", "us-south", "n", attachments, 0)
    found = configurations or (configuration(),)
    return Sender(Credential("cred", "inst", USER, verifier, 0), instance, {c.domain: c for c in found})


def access(*networks: str, excluded: tuple[str, ...] = (), rules: int = 1) -> AccessTable:
    """Return a table that lets `networks` into the instance "inst"."""
    zone = Zone(
        "z", "acc", "z", "", tuple(Address("subnet", n) for n in networks), tuple(Address("subnet", n) for n in excluded), "1", 0, 0, "", ""
    )  # fmt: skip
    rule = Rule("r", "acc", "", (Context(("z",), ()),), "inst", "", True, "enabled", {}, "1", 0, 0, "", "")
    return AccessTable(Snapshot(1, (zone,), (rule,) * rules, (("inst", "acc", "us-south"),)))


@dataclass
class FakeCredentials:
    """Credentials that answer when the test says so; `now` answers at once."""

    known: Sender | None
    waiting: list[Callable[[], None]] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    gone: bool = False
    error: Exception | None = None
    refuse: Exception | None = None
    unread: bool = False

    def remembered(self, username: str, password: str) -> Sender | None:
        return None

    def is_remembered(self, username: str, password: str) -> bool:
        return self.unread

    def check(
        self, username: str, password: str, done: Callable[[Sender | None, Exception | None], None], *, source: str = ""
    ) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.checked.append(username)
        self.sources.append(source)
        right = username == USER and password == PASSWORD
        self.waiting.append(functools.partial(done, self.known if right else None, self.error))

    def current(self, sender: Sender) -> Sender | None:
        return None if self.gone else self.known

    def digest(self, username: str, password: str) -> bytes:
        return f"{username} {password}".encode()


@dataclass
class FakeQueue:
    """Keeps what it is given; the test calls `store`."""

    taken: list[Accepted] = field(default_factory=list)
    pending: list[Callable[[Exception | None], None]] = field(default_factory=list)

    def accept(self, accepted: Accepted, done: Callable[[Exception | None], None]) -> None:
        self.taken.append(accepted)
        self.pending.append(done)

    def store(self, error: Exception | None = None) -> None:
        pending, self.pending = self.pending, []
        for done in pending:
            done(error)


@dataclass
class Desk:
    """One session, driven by hand."""

    credentials: FakeCredentials
    queue: FakeQueue
    relay: Relay
    session: SubmissionSession
    resumed: int = 0
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def pump(self) -> str:
        """Drain the machine; return what the client reads."""
        machine = self.session.machine
        while (event := machine.next_event()) is not None:
            self.session.handle(event)
        return machine.outgoing().decode()

    def say(self, *lines: str) -> str:
        """Send lines; return the replies."""
        self.session.machine.receive("".join(line + "\r\n" for line in lines).encode())
        return self.pump()

    def login(self, user: str = USER, password: str = PASSWORD, authzid: str = "") -> str:
        """Say EHLO and log in by PLAIN."""
        word = base64.b64encode(f"{authzid}\0{user}\0{password}".encode()).decode()
        self.say("EHLO client.example")
        said = self.say(f"AUTH PLAIN {word}")
        return said + self.settle()

    def settle(self) -> str:
        """Let waiting password checks end."""
        waiting, self.credentials.waiting = self.credentials.waiting, []
        for done in waiting:
            done()
        return self.pump()

    def wait(self) -> float:
        """Let the longest of the waits that were asked for pass; return its seconds, 0.0 if there was none."""
        later, self.later[:] = list(self.later), []
        for _, call in later:
            call()
        return max((seconds for seconds, _ in later), default=0.0)

    def mail(self, *lines: str, sender: str = "a@shop.test", to: tuple[str, ...] = ("b@other.test",)) -> str:
        """Send a whole message and return the last reply (none while the commit is under way)."""
        self.say(f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{path}>" for path in to), "DATA")
        return self.say(*lines, ".")


def desk(
    *,
    known: Sender | None = None,
    client: Client | None = None,
    table: AccessTable | None = None,
    limits: Limits | None = None,
    door: Door = DOOR,
) -> Desk:
    """Return a fresh session over TLS whose client has not spoken yet."""
    credentials, queue = FakeCredentials(known or sender()), FakeQueue()
    later: list[tuple[float, Callable[[], None]]] = []
    relay = Relay(
        endpoints=ENDPOINTS,
        shard="0",
        clock=FrozenClock(),
        access=table or access("127.0.0.0/8"),
        credentials=credentials,  # type: ignore[arg-type]
        queue=queue,
        limits=limits or Limits(),
        lifetime=86_400,
        call_soon=lambda call: call(),
        call_later=lambda seconds, call: later.append((seconds, call)),
    )
    made: list[Desk] = []

    def resume() -> None:
        made[0].resumed += 1

    session = SubmissionSession(
        relay,
        door,
        client or Client("127.0.0.1", 4711, "public", "submissions"),
        resume,
        lambda: "TLSv1.3 TLS_AES_256_GCM_SHA384",
        implicit_tls=True,
    )
    made.append(Desk(credentials, queue, relay, session, later=later))
    return made[0]
