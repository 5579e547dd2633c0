"""What goes to a site as one message: the jobs of it that lead there, and which wait before which.

Standards: RFC 5321 sections 4.5.3.1.8 and 4.5.3.1.10 (100 recipients, 452), RFC 9422 (LIMITS).
Promises: pure; each recipient of a bundle gets exactly one outcome; who is refused for being one too many goes on in
the next transaction and that is no attempt; configurations take turns, a message each.
Dangers: a server that calls everybody one too many must not be asked for ever: somebody must have been taken each
time, and the rounds are counted.
Not here: connections (`relay.sites`), what replies mean (`relay.outcome`).
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from outgate.model.flow import Host, Job, JobRecipient, Outcome, Prepared, Route, Status
from outgate.relay import outcome
from outgate.smtp.reply import Reply
from outgate.smtp.transaction import Step, TransactionResult

NOWHERE = Host("", "", 0)
RECIPIENTS = 100
"""Recipients in a transaction where the server says nothing: it must take as many (RFC 5321)."""
_ROUNDS = 12
"""Transactions of one message in which a server may find that recipients are too many without having said so."""
_STEPS, _SIGNS, _LONG = 100, 64_000, 16_000
"""What is kept of a conversation: steps, signs of all, signs of one text. Twenty hosts may say 64 KB to each step."""
_TOO_MANY = re.compile(r"too many (?:recipients|rcpts)|recipients? (?:limit|per)|(?:max|limit).{0,30}recipients", re.I)


@dataclass(frozen=True, slots=True)
class Tried:
    """A route that a job could not be handed over to just now, and why."""

    via: str
    text: str


@dataclass(slots=True)
class Work:
    """A job on its way, and its route. `tried` are the routes that could not take it just now, `before` what was said
    on them."""

    job: Job
    route: Route
    started_at: float
    tried: tuple[Tried, ...] = ()
    before: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server takes at once (RFC 9422): recipients and domains per transaction, transactions per connection; 0
    where it sets no limit."""

    recipients: int = 0
    domains: int = 0
    mails: int = 0


def offered(limits: str) -> Offer:
    """Read the parameters of LIMITS; what is no number counts as not said."""
    found: dict[str, int] = {}
    for word in limits.split():
        name, _, value = word.upper().partition("=")
        if value.isascii() and value.isdecimal() and len(value) <= 6:
            found.setdefault(name, int(value))
    return Offer(found.get("RCPTMAX", 0), found.get("RCPTDOMAINMAX", 0), found.get("MAILMAX", 0))


def too_many(result: TransactionResult) -> int | None:
    """Return the number of the first recipient from which on all were refused as one too many, None if there is none.

    At least one before it was taken, so that each round gets somebody through."""
    replies = result.recipients
    last = replies[-1] if replies else None
    if last is None or last.code < 400 or not _is_limit(last):
        return None
    first = len(replies)
    while first and (reply := replies[first - 1]) is not None and not reply.ok and _is_limit(reply):
        first -= 1
    return first if any(reply is not None and reply.ok for reply in replies[:first]) else None


def _is_limit(reply: Reply) -> bool:
    if reply.enhanced:
        return reply.enhanced[1:] == ".5.3" or (reply.code in (452, 552) and bool(_TOO_MANY.search(reply.text)))
    return reply.code in (452, 552) or (reply.code >= 400 and bool(_TOO_MANY.search(reply.text)))


def bounded(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return a conversation as it is, or as much of it as is kept: its beginning and its end, of each long text the
    beginning. What is bounded stays as it is."""
    if len(steps) <= _STEPS and sum(len(did) + len(reply) for _, did, reply in steps) <= _SIGNS:
        return steps
    if len(steps) > _STEPS:
        half = _STEPS // 2
        left_out = Step(steps[half].at, "", "(steps are left out here: there were too many)")
        steps = (*steps[:half], left_out, *steps[len(steps) - half + 1 :])
    kept: list[Step] = []
    signs = 0
    for at, did, reply in steps:
        longest = _LONG if signs < _SIGNS // 2 else 100
        kept.append(Step(at, _cut(did, longest), _cut(reply, longest)))
        signs += len(kept[-1].did) + len(kept[-1].reply)
    return tuple(kept)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


class Bundle:
    """The jobs of one message that go to one site together."""

    __slots__ = ("_outcomes", "_rest", "_rounds", "handed_back", "host", "learned", "prepared", "steps", "tls", "works")

    def __init__(self, works: list[Work]) -> None:
        self.works = works
        self.prepared: Prepared | None = None
        self.handed_back = 0
        """How often a dead connection has handed it back."""
        self.learned = 0
        """How many recipients the server took at once, if it found in the last transaction that there were too many."""
        self.steps: tuple[Step, ...] = ()
        self.host = NOWHERE
        self.tls = ""
        self._outcomes: tuple[Outcome, ...] = ()
        self._rest: tuple[JobRecipient, ...] | None = None
        self._rounds = 0

    @property
    def job(self) -> Job:
        """Return the first job: what concerns the message is the same in all."""
        return self.works[0].job

    @property
    def route(self) -> Route:
        """Return the route of all."""
        return self.works[0].route

    @property
    def begun(self) -> bool:
        """Say whether some recipients have their outcome already."""
        return bool(self._outcomes)

    def keep(self, may_go: Callable[[Work], bool]) -> bool:
        """Keep the jobs that may go, before anything has; say whether there is one."""
        if not self._outcomes:
            if len(self.works) == 1:
                return may_go(self.works[0])
            self.works = [work for work in self.works if may_go(work)]
            self._rest = None  # a connection that died may have put back those of all
        return bool(self.works)

    def take(self, recipients: int, domains: int) -> tuple[JobRecipient, ...]:
        """Return the recipients of the next transaction: at most so many, of at most so many domains (0: any)."""
        rest = self._rest
        if rest is None:
            works = self.works
            rest = works[0].job.recipients if len(works) == 1 else tuple(r for w in works for r in w.job.recipients)
        count = min(len(rest), recipients)
        if domains and len(self.works) > 1:
            seen: set[str] = set()
            for number, recipient in enumerate(rest[:count]):
                seen.add(recipient.domain)
                if len(seen) > domains:
                    count = number
                    break
        self._rest = rest[count:]
        return rest[:count]

    def put_back(self, recipients: tuple[JobRecipient, ...]) -> None:
        """Nobody has looked at these: they are first in the next transaction."""
        self._rest = recipients + (self._rest or ())

    def settle(self, recipients: tuple[JobRecipient, ...], result: TransactionResult) -> bool:
        """Keep what became of a transaction with these recipients; say whether all have their outcome."""
        outcomes = outcome.of_transaction(recipients, result)
        if len(recipients) > 1 and self._rounds < _ROUNDS and (first := too_many(result)) is not None:
            self._rounds += 1
            self.learned = sum(reply is not None and reply.ok for reply in result.recipients)
            self.put_back(recipients[first:])
            recipients, outcomes = recipients[:first], outcomes[:first]
        if any(recipient.may_have_arrived for recipient in recipients):
            outcomes = tuple(map(_second, recipients, outcomes))
        self._outcomes = self._outcomes + outcomes if self._outcomes else outcomes
        return not self._rest

    def fail(self, text: str, reason: str, enhanced: str = "") -> None:
        """Give all that have no outcome a deferral, without a reply; or a bounce of ours, if it has a code."""
        rest = self.take(1 << 30, 0)
        self._outcomes += tuple(
            outcome.rejected(recipient, enhanced, text, reason) if enhanced else outcome.failed(recipient, text, reason)
            for recipient in rest
        )

    def ends(self) -> Iterable[tuple[Work, tuple[Outcome, ...], tuple[JobRecipient, ...]]]:
        """Return each job with its outcomes and the recipients that have none."""
        outcomes = self._outcomes
        if len(self.works) == 1 and not self._rest and self._rest is not None:
            return ((self.works[0], outcomes, ()),)
        found = {each.recipient_id: each for each in outcomes}
        return [
            (
                work,
                tuple(found[r.id] for r in work.job.recipients if r.id in found),
                tuple(r for r in work.job.recipients if r.id not in found),
            )
            for work in self.works
        ]


def _second(recipient: JobRecipient, found: Outcome) -> Outcome:
    """Flag a delivery that may be the second: the answer to an earlier one was lost."""
    if not recipient.may_have_arrived or found.status is not Status.DELIVERED:
        return found
    return replace(found, text=f"{found.text} (a possible duplicate: an earlier attempt may have arrived)")


class Waiting:
    """Bundles that wait for a connection: configurations in turn, each in its own order."""

    __slots__ = ("_count", "_queues")

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Bundle]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, bundle: Bundle) -> None:
        """Let a bundle wait, last of its configuration."""
        self._queue(bundle).append(bundle)
        self._count += 1

    def add_first(self, bundle: Bundle) -> None:
        """Let a bundle wait that goes on next."""
        self._queue(bundle).appendleft(bundle)
        self._queues.move_to_end(bundle.job.smtp_config_id, last=False)
        self._count += 1

    def first(self) -> Bundle:
        """Return the bundle whose turn it is."""
        return next(iter(self._queues.values()))[0]

    def pop(self) -> Bundle:
        """Take the bundle whose turn it is; its configuration is last in line then."""
        name, queue = next(iter(self._queues.items()))
        bundle = queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[name]
        elif len(self._queues) > 1:
            self._queues.move_to_end(name)
        return bundle

    def clear(self) -> list[Bundle]:
        """Take all."""
        found = [bundle for queue in self._queues.values() for bundle in queue]
        self._queues.clear()
        self._count = 0
        return found

    def _queue(self, bundle: Bundle) -> deque[Bundle]:
        name = bundle.job.smtp_config_id
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = deque()
        return queue
