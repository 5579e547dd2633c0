"""What goes together: who is one too many, whose turn it is, and an outcome for each recipient."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.flow import Job, JobRecipient, Location, Route, SigningKey, Status
from outgate.relay.bundles import Bundle, Offer, Waiting, Work, bounded, offered, too_many
from outgate.smtp.reply import Reply, reply
from outgate.smtp.transaction import Step, Transaction, TransactionResult

OK = reply(250, "2.1.5", "Ok")
LIMIT = reply(452, "4.5.3", "Too many recipients")
FULL = reply(452, "4.2.2", "Mailbox full")
STORAGE = reply(452, "4.3.1", "Insufficient system storage")
BARE = reply(452, "", "Too many recipients received this hour")
NOBODY = reply(550, "5.1.1", "Nobody")


def job(name: str, *paths: str, configuration: str = "cfg", first: int = 0) -> Job:
    domain = paths[0].partition("@")[2]
    recipients = tuple(JobRecipient(first + n, path, domain, 0) for n, path in enumerate(paths))
    key = SigningKey("k", "shop.test", "s")
    place = Location(0, 0, 0, 0)
    return Job(name, "inst", configuration, key, "a@shop.test", domain, recipients, place, 0, 1e12, False, False)


def work(*args: str, **options: object) -> Work:
    return Work(job(*args, **options), Route("mx.test", (), ""), 0.0)  # type: ignore[arg-type]


def said(*replies: Reply, final: Reply | None = OK) -> TransactionResult:
    transaction = Transaction("", tuple("x@y.test" for _ in replies), (b"",))
    return TransactionResult(transaction, OK, replies, reply(354, "", "go"), final, final is not None)


def test_who_is_one_too_many() -> None:
    assert too_many(said(OK, OK, LIMIT, LIMIT)) == 2
    assert too_many(said(OK, NOBODY, LIMIT)) == 2
    assert too_many(said(OK, BARE)) == 1
    assert too_many(said(OK, reply(550, "5.5.3", "Too many recipients"))) == 1
    assert too_many(said(LIMIT, LIMIT)) is None  # nobody was taken: asking again would be for ever
    assert too_many(said(NOBODY, LIMIT)) is None
    assert too_many(said(OK, LIMIT, OK)) is None  # not at the end: it is about that recipient
    assert too_many(said(OK, FULL)) is None
    assert too_many(said(OK, STORAGE, STORAGE)) is None
    assert too_many(said(OK, OK)) is None
    assert too_many(TransactionResult(Transaction("", ("a@b",), (b"",)))) is None


def test_limits_are_read_and_nonsense_is_not() -> None:
    assert offered("RCPTMAX=50 MAILMAX=5 RCPTDOMAINMAX=1") == Offer(50, 1, 5)
    assert offered("rcptmax=7 RCPTMAX=9 X= =3 MAILMAX=-1 RCPTDOMAINMAX=99999999999") == Offer(7, 0, 0)
    assert offered("") == Offer()


@given(st.text())
def test_any_limits_are_bounded(text: str) -> None:
    found = offered(text)
    assert min(found.recipients, found.domains, found.mails) >= 0 and max(found.recipients, found.mails) < 1_000_000


def test_two_domains_share_a_transaction_and_each_job_has_its_own_outcomes() -> None:
    bundle = Bundle([work("m", "a@one.test", "b@one.test"), work("m", "c@two.test", first=10)])
    recipients = bundle.take(100, 0)
    assert [each.mailbox for each in recipients] == ["a@one.test", "b@one.test", "c@two.test"]
    assert bundle.settle(recipients, said(OK, NOBODY, OK))
    first, second = bundle.ends()
    assert [o.status for o in first[1]] == [Status.DELIVERED, Status.BOUNCED] and first[2] == ()
    assert [o.recipient_id for o in second[1]] == [10]


def test_who_may_not_go_any_more_is_not_sent_to_after_a_connection_died() -> None:
    bundle = Bundle([work("m", "a@one.test"), work("m", "b@two.test", first=5)])
    bundle.put_back(bundle.take(100, 0))
    assert bundle.keep(lambda each: each.job.domain == "one.test")
    assert [each.mailbox for each in bundle.take(100, 0)] == ["a@one.test"]


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 100_000)), max_size=400))
def test_of_an_endless_conversation_beginning_and_end_are_kept(lengths: list[tuple[int, int]]) -> None:
    steps = tuple(Step(float(at), "d" * said, "r" * heard) for at, (said, heard) in enumerate(lengths))
    kept = bounded(steps)
    signs = sum(len(step.did) + len(step.reply) for step in steps)
    assert len(kept) <= 100 and sum(len(step.did) + len(step.reply) for step in kept) <= 84_000
    assert (kept is steps) == (len(steps) <= 100 and signs <= 64_000)
    assert [step.at for step in (*kept[:1], *kept[-1:])] == [step.at for step in (*steps[:1], *steps[-1:])]
    assert bounded(kept) == kept


def test_a_limit_of_domains_is_kept() -> None:
    bundle = Bundle([work("m", "a@one.test"), work("m", "c@two.test", first=10)])
    assert [each.mailbox for each in bundle.take(100, 1)] == ["a@one.test"]
    assert [each.mailbox for each in bundle.take(100, 1)] == ["c@two.test"]


@given(st.integers(1, 300), st.integers(1, 150), st.integers(1, 50))
def test_each_recipient_has_one_outcome_whatever_the_limit(count: int, ours: int, theirs: int) -> None:
    bundle = Bundle([work("m", *(f"u{n}@one.test" for n in range(count)))])
    rounds, whole = 0, False
    while not whole:
        recipients = bundle.take(ours, 0)
        assert recipients
        whole = bundle.settle(recipients, said(*(OK if n < theirs else LIMIT for n in range(len(recipients)))))
        rounds += 1
        if bundle.learned:
            assert bundle.learned == theirs
        assert rounds <= count
    ((_, outcomes, rest),) = bundle.ends()
    assert sorted(each.recipient_id for each in outcomes) == list(range(count)) and not rest


def test_a_server_that_takes_one_each_time_is_not_asked_for_ever() -> None:
    bundle = Bundle([work("m", *(f"u{n}@one.test" for n in range(50)))])
    rounds, whole = 0, False
    while not whole:
        recipients = bundle.take(100, 0)
        whole = bundle.settle(recipients, said(OK, *(LIMIT for _ in recipients[1:])))
        rounds += 1
    ((_, outcomes, _),) = bundle.ends()
    assert rounds == 13
    assert sum(each.status is Status.DEFERRED for each in outcomes) == 50 - 13


def test_a_second_delivery_is_told_as_such() -> None:
    it = work("m", "a@one.test")
    doubtful = JobRecipient(0, "a@one.test", "one.test", 1, may_have_arrived=True)
    bundle = Bundle([Work(job("m", "a@one.test"), it.route, 0.0)])
    assert bundle.take(100, 0)
    bundle.settle((doubtful,), said(OK))
    ((_, (outcome,), _),) = bundle.ends()
    assert outcome.status is Status.DELIVERED and "possible duplicate" in outcome.text


def test_configurations_take_turns_a_message_each() -> None:
    waiting = Waiting()
    for number in range(4):
        waiting.add(Bundle([work(f"large{number}", "a@x.test", configuration="large")]))
    for name in ("small", "other"):
        waiting.add(Bundle([work(name, "a@x.test", configuration=name)]))
    assert waiting.first().job.queue_id == "large0"
    again = waiting.pop()
    waiting.add_first(again)
    assert len(waiting) == 6
    order = [waiting.pop().job.queue_id for _ in range(6)]
    assert order == ["large0", "small", "other", "large1", "large2", "large3"] and not waiting
