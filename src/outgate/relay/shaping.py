"""How fast a site is served: connection slots, messages per minute, and when it is left alone for a while.

Standards: RFC 5321 sections 3.8 (421) and 4.2.1 (4xx); what large providers write into their replies.
Promises: pure, times are epoch seconds and arguments; slots are halved at 421, or are those that a server let in before
it refused one more, and come back one at a time; a pause doubles with each in a row up to a longest one, and after it
one message probes; greylisting and what else speaks of one message slows nobody.
Dangers: replies are a stranger's words: a wrong guess costs time, so every pause has an end.
Not here: connections and what waits (`relay.sites`), when a message is tried again (`relay.queue`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from outgate.smtp.reply import Reply

_GROW_S = 30.0
"""Seconds of good answers after which a slot comes back."""
_IN_A_ROW = 3
"""So many goodbyes or failures to connect, with nothing good between them, and the site gets a pause."""
_LOST_FIRST_S, _LOST_MOST_S = 10.0, 300.0
"""Pauses for a site that cannot be reached: its messages have their own, longer ones."""


class About(StrEnum):
    """What a refusal speaks of."""

    MESSAGE = "message"
    LEAVING = "leaving"
    """The server ends this session."""
    CONNECTIONS = "connections"
    """We have too many connections."""
    US = "us"
    """We send too much, or are not trusted now."""


# First match decides. The sources are what the providers' own pages and postmasters' logs show.
_WORDINGS: tuple[tuple[re.Pattern[str], About], ...] = tuple(
    (re.compile(pattern), about)
    for pattern, about in (
        # A server that has not met this sender and recipient before lets the same message in later.
        (r"gr[ae]y-?list|greylist", About.MESSAGE),
        # Mailboxes with a rate of their own: Gmail 4.2.1 "receiving mail at a rate that prevents", Exchange likewise.
        (r"(?:user|mailbox|recipient)\b.{0,60}\b(?:too quickly|at a rate|rate limit|too many messages)", About.MESSAGE),
        # Postfix "too many connections from", Exchange 4.3.2 "maximum number of concurrent connections", GoDaddy IB007.
        (r"too many (?:concurrent |simultaneous |open )?(?:smtp )?(?:connections|sessions)", About.CONNECTIONS),
        (
            r"(?:concurrent|simultaneous|maximum number of|number of) (?:smtp )?(?:connections|sessions)",
            About.CONNECTIONS,
        ),
        (r"connection(?:s)? (?:rate |count )?limit|limit (?:on|of|for) connections", About.CONNECTIONS),
        # Microsoft's consumer side: RP-001 to RP-003 are its limits of rate and connections for an address.
        (r"\brp-00[123]\b", About.US),
        # Gmail 4.7.28: an unusual rate from this address, network or domain.
        (r"\b4\.7\.28\b|unusual rate of", About.US),
        # Microsoft 4.7.650 to 4.7.699, 4.7.500: limited because of the address's reputation, or the server is busy.
        (r"\b4\.7\.(?:500|6[5-9]\d)\b", About.US),
        # Yahoo's TSS and TS codes: deferred because of volume or complaints.
        (r"\[?\btss?\d\d\b", About.US),
        (r"temporarily (?:deferred|rate[ -]limited|blocked|blacklisted|blocklisted|rejected)", About.US),
        (
            r"rate[ -]?limit|throttl|too many (?:messages|mails|e-mails|emails)|too (?:fast|much mail)|slow down",
            About.US,
        ),
        (r"(?:sending|message|mail) rate|exceeded (?:the |your )?(?:hourly|daily|rate|quota|limit)", About.US),
        (r"reputation|user complaints", About.US),
    )
)


def about(reply: Reply) -> About:
    """Say what a refusal speaks of; anything but a 4xx is about the message."""
    if not 400 <= reply.code < 500:
        return About.MESSAGE
    text = f"{reply.enhanced} {reply.text[:1000]}".lower()
    for pattern, found in _WORDINGS:
        if pattern.search(text):
            return found
    return About.LEAVING if reply.code == 421 else About.MESSAGE


@dataclass(frozen=True, slots=True)
class PaceRules:
    """What a site gets: connections, messages a minute (0: any number) and over one connection, and the first and the
    longest pause in seconds. `name` is that of the exception in the settings, "" for everybody's rules."""

    connections: int = 20
    per_minute: float = 0.0
    messages_per_connection: int = 1000
    pause_first: float = 60.0
    pause_most: float = 3600.0
    name: str = ""


class RuleBook:
    """Rules for all sites: the usual ones, and exceptions by the name of a mail host or recipient domain."""

    def __init__(self, usual: PaceRules, exceptions: Mapping[str, PaceRules] | None = None) -> None:
        """An exception's key is a host's name, a domain of hosts ("google.com" has "aspmx.l.google.com") or a recipient
        domain, in small letters."""
        self.usual = usual
        self._exceptions = dict(exceptions or {})
        self.has_exceptions = bool(exceptions)

    def rules(self, domain: str, hosts: Iterable[str]) -> PaceRules:
        """Return the rules for mail to `domain` by way of `hosts`: the domain's own come first, then the longest name
        that fits a host."""
        if not self._exceptions:
            return self.usual
        if (found := self._exceptions.get(domain)) is not None:
            return found
        for host in hosts:
            name = host
            while name:
                if (found := self._exceptions.get(name)) is not None:
                    return found
                name = name.partition(".")[2]
        return self.usual


@dataclass(frozen=True, slots=True)
class PaceStatus:
    """How a site is served now. `slots` are the connections it may have; `until` is the end of its pause (0: none) and
    `why` the reason; `given_back` messages wait in the store for that end."""

    connections: int
    slots: int
    per_minute: float
    until: float
    why: str
    last_reply: str
    given_back: int


class Pace:
    """How fast one site is served, from one source."""

    __slots__ = (
        "_failures", "_full_at", "_given_back", "_grown_at", "_last_reply", "_pauses", "_planned", "_probing",
        "_tokens", "_tokens_at", "_why", "connections", "leaving", "opening", "rules", "slots", "troubled", "until",
    )  # fmt: skip

    def __init__(self, rules: PaceRules) -> None:
        self.rules = rules
        self.slots = rules.connections
        self.connections = 0
        """Connections that are open or being opened: their owner counts."""
        self.opening = self.leaving = 0
        """Those of them that are being opened, and those that say goodbye."""
        self.until = 0.0
        self.troubled = False
        """Whether anything is other than it would be without trouble."""
        self._why = self._last_reply = ""
        self._pauses = self._failures = self._given_back = 0
        self._probing = False
        self._grown_at = 0.0
        self._full_at = max(1.0, min(rules.per_minute / 6, 10.0))  # what may go at once after a quiet time
        self._tokens = self._full_at
        self._tokens_at = 0.0
        self._planned = 0.0

    @property
    def room(self) -> int:
        """Return how many connections more it may have."""
        return self.slots - self.connections

    @property
    def surplus(self) -> bool:
        """Say whether it has more connections than it may have."""
        return self.connections - self.opening - self.leaving > self.slots

    @property
    def on_trial(self) -> bool:
        """Say whether it is yet to be seen whether a pause has helped."""
        return self._pauses > 0

    @property
    def why(self) -> str:
        """Return why it has a pause, with the server's words."""
        return f"{self._why}: {self._last_reply}" if self._last_reply else self._why

    @property
    def easy(self) -> bool:
        """Say whether `may_begin` is yes without asking."""
        return not self.troubled and not self.rules.per_minute

    def is_open(self, now: float) -> bool:
        """Say whether a connection is worth opening: no pause, no probe that is under way, and the rate has room."""
        return now >= self.until and not self._probing and self.waits_for(now) <= now

    def may_begin(self, now: float) -> bool:
        """Say whether a message may go out now; if so, it counts."""
        if self.easy:
            return True
        if now < self.until or self._probing:
            return False
        if self.rules.per_minute and not self._take_token(now):
            return False
        self._probing = self._pauses > 0
        return True

    def waits_for(self, now: float) -> float:
        """Return when the rate lets the next message go (epoch seconds); `now` if it does not wait for that."""
        per_minute = self.rules.per_minute
        if not per_minute:
            return now
        return max(now, self._tokens_at + (1.0 - self._tokens) * 60.0 / per_minute)

    def due(self, now: float, waiting: int) -> float:
        """Return when a message should come (back): 0 for now, else the end of the pause, or when its turn is at the
        rate. `waiting` messages are here already: as many as a minute lets go may be."""
        if now < self.until:
            self._given_back += 1
            return self.until
        per_minute = self.rules.per_minute
        if not per_minute or waiting < max(1.0, per_minute):
            return 0.0
        self._planned = max(now + waiting * 60.0 / per_minute, self._planned + 60.0 / per_minute)
        return self._planned

    def _take_token(self, now: float) -> bool:
        passed = max(0.0, now - self._tokens_at)
        self._tokens = min(self._full_at, self._tokens + passed * self.rules.per_minute / 60.0)
        self._tokens_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    # -- what happened --------------------------------------------------------------------------------------

    def went_well(self, now: float) -> None:
        """The site answered a message as servers do, with yes or no."""
        if not self.troubled:
            return
        if now >= self.until:
            self._pauses = self._failures = 0
            self._probing = False
            self._why = ""
            self._given_back = 0
        if self.slots < self.rules.connections and now - self._grown_at >= _GROW_S:
            self.slots += 1
            self._grown_at = now
        self.troubled = self.slots < self.rules.connections or self._pauses > 0

    def heard(self, reply: Reply, now: float) -> About:
        """A reply that is no success has come: say what it is about, and slow down if it is about us."""
        found = about(reply)
        if found is About.MESSAGE:
            self.went_well(now)
            return found
        self._last_reply = str(reply)[:300]
        if found is About.US:
            self._probing = False
            self._pause(now, "the server slows us down")
            return found
        self._probe_ends(now, "the server still refuses")
        self._fewer(min(self.slots, self.connections) // 2, now)
        self._failures += 1
        if self._failures >= _IN_A_ROW:
            self._pause(now, "the server ends one session after the other")
        return found

    def refused(self, text: str, reply: Reply | None, now: float) -> None:
        """A connection could not be opened, for the reason `text`; the site may still have others."""
        if reply is not None and (found := about(reply)) is not About.MESSAGE:
            self._last_reply = str(reply)[:300]
            self._probing = False
            if found is About.US or self.connections == 0:
                self._pause(now, "the server takes no connection")
            else:  # it takes as many as there are
                self._fewer(self.connections - self.opening, now)
            return
        self._failures += 1
        self.troubled = True
        self._last_reply = text[:300]
        self._probe_ends(now, "still no connection")
        if self._failures >= _IN_A_ROW and self.connections == 0:
            self._pause(now, "no connection", _LOST_FIRST_S, _LOST_MOST_S)

    def lost(self, now: float) -> None:
        """A message got no answer: the connection ended."""
        self._probe_ends(now, "the connection ended")

    def forgive(self) -> None:
        """Forget what was wrong: an operator says that the site may be tried."""
        self.until = 0.0
        self.slots = self.rules.connections
        self._pauses = self._failures = self._given_back = 0
        self._probing = self.troubled = False
        self._why = self._last_reply = ""

    def unused(self) -> None:
        """What `may_begin` let go did not go."""
        self._probing = False

    def _fewer(self, slots: int, now: float) -> None:
        self.slots = max(1, min(self.slots, slots))
        self._grown_at = now
        self.troubled = True

    def _probe_ends(self, now: float, why: str) -> None:
        if self._probing:
            self._probing = False
            self._pause(now, why)

    def _pause(self, now: float, why: str, first: float = 0.0, most: float = 0.0) -> None:
        if now < self.until:  # one of many that were under way: they all say the same
            return
        first, most = first or self.rules.pause_first, most or self.rules.pause_most
        self.until = now + min(first * 2.0 ** min(self._pauses, 60), most)
        self._pauses += 1
        self._why = why
        self.troubled = True

    def status(self, now: float) -> PaceStatus:
        """Return how the site is served."""
        until = self.until if now < self.until else 0.0
        why = self._why
        if not why and self.slots < self.rules.connections:
            why = "fewer connections than usual: the server asked for that"
        return PaceStatus(
            self.connections, self.slots, self.rules.per_minute, until, why, self._last_reply, self._given_back
        )

    def is_over(self, now: float) -> bool:
        """Say whether nothing is worth remembering."""
        return not self.connections and now >= self.until + _LOST_MOST_S and now >= self._planned
