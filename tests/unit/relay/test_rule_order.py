"""The rule book's order: each rule alone, and each pair, of which the earlier one decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from outgate.model.flow import Accepted
from outgate.model.tenancy import HtmlCheck, MailRules, Quota, Standing, Verification
from outgate.relay import policy
from outgate.relay.policy import Facts, Refused, Unfinished
from outgate.relay.quota import Quotas
from support.rule_book import NOW, submission
from support.submission import configuration, sender


@dataclass
class World:
    """What a message meets; each rule's breach changes something of it."""

    author: str = "a@shop.test"
    fields: str = ""
    body: str = "hello"
    to: int = 1
    changes: dict[str, object] = field(default_factory=dict)
    rules: MailRules = field(default_factory=MailRules)
    quotas: Quotas = field(default_factory=Quotas)

    def judge(self) -> Accepted | Refused:
        content = f"From: {self.author}\r\n{self.fields}\r\n{self.body}\r\n".encode()
        by = sender(configuration(**self.changes, rules=self.rules))
        verdict = policy.accept(submission(content, to=self.to), Facts(by, "relay.test", "0Q", NOW, 100.0, self.quotas))
        if isinstance(verdict, Unfinished):
            found = verdict.check()
            return found if isinstance(found, Refused) else verdict.accepted
        return verdict


def foreign_author(world: World) -> None:
    world.author = "ceo@bank.test"


def not_authorised(world: World) -> None:
    world.changes["authorization"] = Verification.FAILED


def suspended(world: World) -> None:
    world.changes |= {"standing": Standing.SUSPENDED, "failing": "spf", "spf": Verification.FAILED}


def over_quota(world: World) -> None:
    quota = Quota(per_hour=1, per_day=None)
    world.rules = replace(world.rules, quota=quota)
    world.quotas.take("cfg-shop.test", world.quotas.room_at("cfg-shop.test", quota, NOW), NOW)


def too_many(world: World) -> None:
    world.to = 51


def attached(world: World) -> None:
    world.fields += "Content-Disposition: attachment\r\n"


def bad_html(world: World) -> None:
    world.fields += "Content-Type: text/html\r\n"
    world.body = "<p>a<b>b</p>"
    world.rules = replace(world.rules, html=HtmlCheck.REFUSE)


def no_way_out(world: World) -> None:
    world.rules = replace(world.rules, nature="marketing")


Breach = Callable[[World], None]
BREACHES: list[tuple[str, Breach, str]] = [
    ("5 sender", foreign_author, "550 5.7.1 From address is not in a verified domain of this user"),
    ("6 verified", not_authorised, "450 4.7.1 The domain's authorisation is not verified"),
    ("7 standing", suspended, "450 4.7.1 Sending for the domain is suspended: its SPF fails"),
    ("8 quota", over_quota, "450 4.7.1 The domain's sending quota is used up: there is room again at 2026-11-20 08:04 UTC"),
    ("9 recipients", too_many, "452 4.5.3 Too many recipients"),
    ("10 attachment", attached, "554 5.7.1 Attachments are not allowed"),
    ("10 HTML", bad_html, "554 5.6.0 The HTML of the message is not well-formed (line 1, column 9)"),
    ("10 unsubscribe", no_way_out, "554 5.7.1 A marketing message needs a link to unsubscribe"),
]  # fmt: skip


def refusal(*breaches: Breach) -> Refused:
    world = World()
    for breach in breaches:
        breach(world)
    verdict = world.judge()
    assert isinstance(verdict, Refused), verdict
    return verdict


def test_nothing_is_in_the_way_of_a_message_that_keeps_the_rules() -> None:
    assert isinstance(World().judge(), Accepted)


@pytest.mark.parametrize(
    ("breach", "said"), [(b, said) for _, b, said in BREACHES], ids=[name for name, *_ in BREACHES]
)
def test_each_rule_alone(breach: Breach, said: str) -> None:
    verdict = refusal(breach)
    assert str(verdict.reply) == said
    assert verdict.reason and verdict.remedy
    assert verdict.reason not in said and verdict.remedy not in said


PAIRS = list(itertools.combinations(BREACHES, 2))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{a[0]} and {b[0]}" for a, b in PAIRS])
def test_of_two_the_earlier_decides(first: tuple[str, Breach, str], second: tuple[str, Breach, str]) -> None:
    # In whatever order they are broken.
    for breaches in ((first, second), (second, first)):
        assert str(refusal(*(breach for _, breach, _ in breaches)).reply) == first[2]


def test_size_is_counted_without_transparency_dots() -> None:
    by = sender()
    facts = replace(Facts(by, "relay.test", "0Q", NOW, 100.0), most_octets=60)
    dots = b"From: a@shop.test\r\n\r\n" + b"..\r\n" * 13
    assert len(dots) > 60
    assert isinstance(policy.accept(submission(dots), facts), Accepted)
    verdict = policy.accept(submission(dots + b"x\r\n"), facts)
    assert isinstance(verdict, Refused) and verdict.reply == policy.TOO_LARGE


def test_a_refused_message_uses_no_quota() -> None:
    world = World(rules=MailRules(Quota(1, None)))
    attached(world)
    assert isinstance(world.judge(), Refused)
    world.fields = ""
    assert isinstance(world.judge(), Accepted)
    assert isinstance(world.judge(), Refused)


def test_a_message_that_goes_in_circles() -> None:
    world = World(fields="Received: from a by b; now\r\n" * 50)
    assert isinstance(world.judge(), Accepted)
    world.fields += "Received: from a by b; now\r\n"
    verdict = world.judge()
    assert isinstance(verdict, Refused) and str(verdict.reply) == "554 5.4.6 Too many hops"


@pytest.mark.parametrize("fields", ["X: 1\r\n" * 1001, "X: " + "x" * 300_000 + "\r\n"])
def test_a_header_that_is_too_large(fields: str) -> None:
    verdict = World(fields=fields).judge()
    assert isinstance(verdict, Refused) and str(verdict.reply) == "552 5.3.4 The header of the message is too large"
