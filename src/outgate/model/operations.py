"""What operators do to queued mail: verbs, what they are done to, holds that stand, and how deep sites are.

Standards: none; the operators' words for a mail queue.
Promises: immutable; `fate` is the one table of what a verb means for a recipient.
Dangers: an empty `Scope` is all mail: whoever takes one from a person refuses it.
Not here: rows (`store.verb_rows`), the running queue (`relay.operators`), HTTP (`api.operations`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from outgate.model.flow import Status

OPERATOR = "operator"
"""The reason of what an operator holds or cancels."""
DIRECT = "direct"
"""The route that is always there: by the domain's MX records."""
_QUOTA = "quota"


class Verb(StrEnum):
    """What an operator can do to mail that is not done with."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    CANCEL = "cancel"
    REROUTE = "reroute"


class Fate(StrEnum):
    """What a verb means for one recipient."""

    CHANGES = "changes"
    UNDER_WAY = "under way"
    HELD = "held"
    FINAL = "final"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which recipients: those that fit all that is given. `site` is the one that a recipient was last tried at, or its
    domain while none was; `domain` is in lower case A-labels."""

    queue_ids: tuple[str, ...] = ()
    instance_id: str = ""
    smtp_config_id: str = ""
    site: str = ""
    domain: str = ""

    @property
    def empty(self) -> bool:
        """Say whether nothing is given."""
        return not self.queue_ids and not any(self.key)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what a standing hold is known by: instance, configuration, site, domain."""
        return self.instance_id, self.smtp_config_id, self.site, self.domain

    def words(self) -> str:
        """Return the scope as a person reads it."""
        names = ("instance", "configuration", "site", "domain")
        said = [f"{name} {value}" for name, value in zip(names, self.key, strict=True) if value]
        said += [f"message {each}" for each in self.queue_ids]
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class StandingHold:
    """Mail that is held until it is released, also what comes: by whom, since when (epoch seconds), why."""

    scope: Scope
    actor: str
    since: float
    why: str = ""

    def words(self) -> str:
        """Return what a message's trail says of it, beside who it was."""
        return f"held: {self.scope.words()}" + (f": {self.why}" if self.why else "")


class Standing:
    """The holds that stand, made for a question a job."""

    def __init__(self, holds: Iterable[StandingHold] = ()) -> None:
        self._by_key = {hold.scope.key: hold for hold in holds}
        # Which parts of a key are given, of any hold: a few shapes, however many holds.
        self._shapes = {tuple(bool(part) for part in key) for key in self._by_key}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def all(self) -> list[StandingHold]:
        """Return the holds, the oldest first."""
        return sorted(self._by_key.values(), key=lambda hold: hold.since)

    def find(self, instance_id: str, smtp_config_id: str, domain: str, site: str = "") -> StandingHold | None:
        """Return a hold that covers such mail. A hold on a site whose name is the domain covers the domain."""
        for with_instance, with_configuration, with_site, with_domain in self._shapes:
            for name in dict.fromkeys((site, domain)) if with_site else ("",):
                key = (
                    instance_id if with_instance else "",
                    smtp_config_id if with_configuration else "",
                    name,
                    domain if with_domain else "",
                )
                if key in self._by_key:
                    return self._by_key[key]
        return None

    def ended_by(self, scope: Scope) -> list[StandingHold]:
        """Return the holds that a release of `scope` ends: those that hold nothing else."""
        if scope.queue_ids or scope.empty:
            return []
        wanted = scope.key
        return [
            hold
            for key, hold in self._by_key.items()
            if all(not part or part == own for part, own in zip(wanted, key, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class Order:
    """A verb, given by somebody (`actor`) at a time (epoch seconds). `route` is where a reroute leads, "" for the
    usual order."""

    verb: Verb
    scope: Scope
    actor: str
    at: float
    why: str = ""
    route: str = ""

    def words(self) -> str:
        """Return what a message's trail says of it."""
        done = {
            Verb.HOLD: "held",
            Verb.RELEASE: "released",
            Verb.RETRY: "to be tried now",
            Verb.CANCEL: "cancelled",
            Verb.REROUTE: f"rerouted to {self.route}" if self.route else "rerouted to the usual order",
        }[self.verb]
        return done + (f": {self.why}" if self.why else "")


@dataclass(slots=True)
class Done:
    """What an order came to, in recipients; `messages` are those of what changed. Under way is what delivery has: a
    hold, a cancellation and a route count for it if it comes back. `held` was left alone because it is held, `kept`
    stays held because another standing hold covers it, `final` is done with already."""

    changed: int = 0
    messages: int = 0
    under_way: int = 0
    held: int = 0
    kept: int = 0
    final: int = 0

    def add(self, other: Done) -> None:
        """Count what another step came to as well."""
        self.changed += other.changed
        self.messages += other.messages
        self.under_way += other.under_way
        self.held += other.held
        self.kept += other.kept
        self.final += other.final


def fate(verb: Verb, status: Status, *, leased: bool, reason: str) -> Fate:
    """Say what `verb` means for a recipient that stands so; `reason` is why it is held, if it is."""
    if status.final:
        return Fate.FINAL
    if leased:
        return Fate.UNDER_WAY
    held = status is Status.HELD
    if verb is Verb.RELEASE:
        if not held:
            return Fate.NOTHING
        return Fate.CHANGES if reason == OPERATOR else Fate.HELD
    if verb is Verb.HOLD:
        # What waits for its quota would go by itself: that is what a hold is against.
        return Fate.HELD if held and reason != _QUOTA else Fate.CHANGES
    if verb is Verb.RETRY:
        return Fate.HELD if held else Fate.CHANGES
    return Fate.CHANGES


@dataclass(frozen=True, slots=True)
class SiteDepth:
    """What waits for one site, in recipients: `ready` is due now, `deferred` later, `held` until somebody or something
    lets it go, `under_way` with delivery. `oldest_at` is when its oldest was accepted, `next_at` when the first of
    what is deferred is due; `reason` and `reply` are the commonest of its last failures, `held_reason` and
    `held_domain` of what is held. Times are epoch seconds."""

    name: str
    ready: int
    deferred: int
    held: int
    under_way: int
    oldest_at: float | None
    next_at: float | None
    reason: str
    reply: str
    held_reason: str
    held_domain: str

    @property
    def depth(self) -> int:
        """Return all of them."""
        return self.ready + self.deferred + self.held + self.under_way


@dataclass(frozen=True, slots=True)
class SiteLive:
    """How delivery serves a site now: connections, and until when (epoch seconds, None: it does not) it pauses, why."""

    connections: int = 0
    paused_until: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One recipient that is not done with, as a list shows it."""

    recipient_id: int
    queue_id: str
    instance_id: str
    smtp_config_id: str
    mailbox: str
    domain: str
    site: str
    status: Status
    attempts: int
    due_at: float | None
    leased: bool
    reason: str
    reply: str
    route: str
    accepted_at: float
