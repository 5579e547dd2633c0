"""Figures per rule and environment, and the document that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.egress.audit import Audit, Connection
from outgate.egress.figures import Figures
from outgate.egress.gate import Limits
from outgate.egress.ledger import Ledger
from outgate.egress.plan import Proxy, Rule
from outgate.egress.refusal import Refused
from outgate.egress.status import Standing, Status
from support.egress_peers import forward
from support.egress_side import Budget, Live

RULE = forward("127.1.0.1", 30465, "smtp.example", 465)
PROXY = Proxy("10", "4", "127.1.0.1", 3128, RULE.way, ("127.0.0.0/8",))


class World:
    def __init__(self, directory: Path, *, most: int = 1000) -> None:
        self.clock = FrozenClock()
        self.audit = Audit(directory / "audit.jsonl")
        self.ledger = Ledger(self.audit, self.clock, Figures(most=most))
        self.rules: list[Rule] = [PROXY, RULE]
        self.live: list[Live] = []
        self.counted: dict[str, int] = {}
        self.budgets: list[Budget] = []
        self.status = Status(
            self.ledger.figures,
            self.clock,
            Limits(connections_per_environment=10, connections_alert=2),
            standings=lambda: [
                Standing("10", "4", "flexiblePortEgress", self.rules),
                Standing("11", "4", "none", (), "127.1.0.2:30465 is taken by another program on this host"),
            ],
            counted=lambda environment: self.counted.get(environment, 2),
            live=lambda: self.live,
            budgets=lambda: self.budgets,
            lines_lost=lambda: self.audit.lost,
        )
        self.count = 0

    def opened(self, rule: Rule = RULE) -> Connection:
        self.count += 1
        connection = Connection(f"c{self.count}", rule, f"127.0.0.1:{self.count}", "smtp.example", 465)
        self.ledger.opened(connection, reason="leaves")
        return connection

    def closed(self, connection: Connection) -> None:
        self.ledger.closed(connection, bytes_up=10, bytes_down=200, duration_s=1.0, reason="finished")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_live_and_total_figures_of_a_rule(world: World) -> None:
    first, second = world.opened(), world.opened()
    world.clock.advance(30)
    world.opened()
    world.closed(first)
    world.live = [Live(RULE, 5, 7), Live(RULE, 1, 0)]
    world.clock.advance(5)
    asked = Connection("r", RULE, "127.0.0.1:9")
    world.ledger.refused(asked, Refused("guard", "smtp.example is 10.0.0.1: private address"))
    world.ledger.refused(asked, Refused("refused", "connection refused"))
    document = world.status.document()
    json.dumps(document)
    environment, failed = document["environments"]
    assert [rule["type"] for rule in environment["rules"]] == ["forward", "proxy"]
    rule = environment["rules"][0]
    assert (rule["listen"], rule["target"], rule["mode"]) == (
        "127.1.0.1:30465",
        "smtp.example:465",
        "flexiblePortEgress",
    )
    assert (rule["open"], rule["opened"], rule["refused"]) == (2, 3, {"guard": 1, "refused": 1})
    assert (rule["octets_up"], rule["octets_down"]) == (16, 207)
    assert rule["longest_open_s"] == 35.0
    assert rule["last_refusal"] == {"at": "2027-01-15T08:00:35Z", "kind": "refused", "reason": "connection refused"}
    assert (environment["open"], environment["opened"], environment["octets_down"]) == (2, 3, 207)
    assert environment["alert"] and document["open"] == 2 and document["since"] < document["at"]
    assert failed["reason"].startswith("127.1.0.2:30465 is taken") and failed["rules"] == []
    idle = environment["rules"][1]
    assert (idle["open"], idle["opened"], idle["last_refusal"], idle["longest_open_s"]) == (0, 0, None, None)
    world.closed(second)
    assert world.status.document()["environments"][0]["rules"][0]["longest_open_s"] == 5.0
    # What does not count towards the limit is no reason for an alert, however much it is.
    world.counted["10"] = 1
    environment = world.status.document()["environments"][0]
    assert (environment["counted"], environment["alert"]) == (1, False)


def test_figures_stay_while_environment_and_port_stay(world: World) -> None:
    world.closed(world.opened())
    world.opened(PROXY)
    changed = replace(RULE, name="other.example", port=587, client_networks=("10.0.0.0/8",))
    world.rules = [changed]
    world.opened(changed)
    environment = world.status.document()["environments"][0]
    (rule,) = environment["rules"]
    assert (rule["target"], rule["open"], rule["opened"], rule["octets_up"]) == ("other.example:587", 1, 2, 10)
    # What a withdrawn rule carried, and still carries while it drains, is the environment's as before.
    assert (environment["open"], environment["opened"]) == (2, 3)


def test_notices_count_once_a_connection_and_stand_in_the_closing_line(world: World) -> None:
    connection = world.opened()
    for _ in range(3):
        world.ledger.noticed(connection, code="tls-expected", reason="clear text to 465")
    world.ledger.noticed(connection, code="clear-auth", reason="AUTH outside TLS")
    world.closed(connection)
    world.closed(world.opened())
    assert world.status.document()["environments"][0]["rules"][0]["notices"] == {"clear-auth": 1, "tls-expected": 1}
    lines = world.audit.find("127.0.0.1", 1, world.clock.now())
    assert [line["event"] for line in lines] == ["decision", "notice", "notice", "close"]
    assert lines[-1]["notices"] == ["tls-expected", "clear-auth"]
    assert world.audit.recent(1)[0]["notices"] == []


def test_memory_is_bounded_and_what_is_open_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path, most=40)
    kept = world.opened(replace(RULE, listen_port=1))
    for port in range(2, 200):
        world.closed(world.opened(replace(RULE, listen_port=port)))
    known = dict(world.ledger.figures.all())
    assert len(known) <= 40 and ("10", 199) in known
    assert known["10", 1].open == {kept.id: world.clock.now()}
    for number in range(200):
        world.ledger.noticed(kept, code=f"code {number}", reason="")
    assert len(known["10", 1].notices) == 16
    assert len(world.audit.recent(1000)) == 1 + 2 * 198 + 16


def test_the_fullest_budgets_come_first_and_say_that_they_are_full(world: World) -> None:
    world.budgets = [Budget("127.0.0.2", f"192.0.2.{number}", 465, number, 200) for number in range(150)]
    found = world.status.document()["source_ports"]
    assert len(found) == 100
    assert found[0] == {
        "source": "127.0.0.2", "target": "192.0.2.149:465", "used": 149, "ports": 200, "share": 0.745, "alert": True,
    }  # fmt: skip
    assert [each["alert"] for each in found].count(True) == 10
