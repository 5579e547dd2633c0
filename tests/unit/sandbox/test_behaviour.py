"""Reading behaviours and using up their turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.sandbox.behaviour import BadBehaviour, Behaviours

LATER = {"recipient": "*@slow.test", "at": "rcpt", "reply": "451 4.7.1 later", "times": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {},
        "x",
        [1],
        [{"at": "rcpt"}],
        [{**LATER, "at": "helo"}],
        [{**LATER, "reply": "later"}],
        [{**LATER, "reply": "199 x"}],
        [{**LATER, "reply": "451 4.7.1 a\r\nb"}],
        [{**LATER, "reply": 451}],
        [{**LATER, "drop": True}],
        [{**LATER, "times": -1}],
        [{**LATER, "times": True}],
        [{**LATER, "recipient": ""}],
        [{**LATER, "replies": "x"}],
        [{"at": "dot", "drop": False}],
        [{"at": "dot", "delay_s": -1}],
        [{"at": "dot", "delay_s": "3"}],
    ],
)
def test_what_cannot_be_read_changes_nothing(bad: object) -> None:
    behaviours = Behaviours()
    behaviours.put([LATER])
    with pytest.raises(BadBehaviour):
        behaviours.put(bad)
    assert behaviours.documents() == [LATER]


def test_the_place_of_the_mistake_is_named() -> None:
    with pytest.raises(BadBehaviour, match="behaviour 1: 'at' is one of connect, mail, rcpt, data, dot"):
        Behaviours().put([LATER, {"at": "x", "drop": True}])


def test_the_first_that_fits_and_has_turns_left() -> None:
    behaviours = Behaviours()
    behaviours.put([LATER, {"recipient": "b@*", "at": "rcpt", "drop": True}])
    first = behaviours.take("rcpt", ["B@slow.test"])
    assert first is not None and str(first.reply) == "451 4.7.1 later"
    second = behaviours.take("rcpt", ["b@slow.test"])
    assert second is not None and second.drop
    assert behaviours.take("rcpt", ["a@slow.test"]) is None
    assert behaviours.take("dot", ["b@slow.test"]) is None


def test_turns_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "behaviour.json"
    behaviours = Behaviours(file)
    behaviours.put([{**LATER, "times": 2}])
    behaviours.take("rcpt", ["a@slow.test"])
    again = Behaviours(file)
    assert again.documents() == [LATER]
    assert again.take("rcpt", ["a@slow.test"]) is not None
    assert again.take("rcpt", ["a@slow.test"]) is None
