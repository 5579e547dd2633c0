"""Endpoints as data, and which of them a login belongs to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from outgate.model.flow import Client
from outgate.relay import policy
from outgate.relay.endpoints import Door, Endpoints
from support.submission import DALLAS, ENDPOINTS, FRANKFURT, USER, Desk, desk, sender


def test_every_region_has_one_endpoint() -> None:
    assert ENDPOINTS.of_region("eu-de") is FRANKFURT
    assert ENDPOINTS.of_region("us-south") is ENDPOINTS.of_region("nowhere") is ENDPOINTS.of_region("") is DALLAS
    with pytest.raises(ValueError, match="region eu-de is in fra and in x: leave it in one of them"):
        Endpoints((FRANKFURT, replace(DALLAS, id="x", regions=("eu-de",))))
    with pytest.raises(ValueError, match="listening address"):
        Endpoints((FRANKFURT, replace(DALLAS, listen=FRANKFURT.listen)))
    with pytest.raises(ValueError, match=r"name private\.fra\.test"):
        Endpoints((FRANKFURT, replace(DALLAS, public_name="private.fra.test")))
    with pytest.raises(ValueError, match="one endpoint at least"):
        Endpoints(())
    with pytest.raises(ValueError, match="no outgoing address"):
        Endpoints((replace(DALLAS, outgoing_addresses=()),))


def test_the_private_name_of_each_region() -> None:
    assert ENDPOINTS.private_names() == {
        region: each.private_name for each in (FRANKFURT, DALLAS) for region in each.regions or (each.id,)
    }
    alone = Endpoints((replace(DALLAS, regions=()),))
    assert alone.private_names() == {DALLAS.id: DALLAS.private_name}
    assert alone.of_region(DALLAS.id).private_name == DALLAS.private_name


def test_a_door_says_what_it_is() -> None:
    public, private = Door("submission", "public", FRANKFURT), Door("submissions", "private", FRANKFURT, "crn:vpc")
    assert (public.host_name, private.host_name) == ("fra.test", "private.fra.test")
    assert public.greeting.wire == b"220 fra.test ESMTP Outgate\r\n"
    assert (public.vpc, private.vpc) == ("", "crn:vpc")


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The fields of each refusal."""
    found: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "login.endpoint":
                found.append(record.fields)  # type: ignore[attr-defined]

    logger, handler, level = logging.getLogger("outgate.session"), Kept(), logging.getLogger("outgate.session").level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def at(door: Door, region: str) -> Desk:
    known = sender()
    known = replace(known, instance=replace(known.instance, region=region))
    return desk(known=known, door=door, client=Client("127.0.0.1", 1, door.endpoint, door.listener, vpc=door.vpc))


@pytest.mark.parametrize("kind", ["public", "private"])
def test_mail_is_taken_at_the_endpoint_of_its_region_only(kind: str, logged: list[dict[str, Any]]) -> None:
    frankfurt, dallas = Door("submissions", kind, FRANKFURT), Door("submissions", kind, DALLAS)
    d = at(frankfurt, "eu-de")
    assert d.pump() == f"220 {frankfurt.host_name} ESMTP Outgate\r\n"
    assert frankfurt.host_name in d.say("EHLO client.example").splitlines()[0]
    assert d.login().startswith("235 ") and logged == []
    d.mail("From: a@shop.test", "", "text")
    assert f"by {frankfurt.host_name} ".encode() in d.queue.taken[0].trace
    for door, region, right in (
        (dallas, "eu-de", frankfurt),
        (frankfurt, "us-south", dallas),
        (frankfurt, "x", dallas),
    ):
        d = at(door, region)
        d.pump()
        assert d.login() == "550 5.7.1 Not authorised\r\n"
        assert d.say("MAIL FROM:<a@shop.test>").startswith("530 ")  # nobody is logged in
        fields = logged[-1]
        assert fields["remedy"] == f"connect to {right.host_name} instead"
        assert region in fields["reason"] and right.of.id in fields["reason"] and fields["username"] == USER
    assert len(logged) == 3


def test_an_address_that_closes_lets_a_message_be_finished_and_begins_no_other() -> None:
    d = at(Door("submissions", "private", DALLAS, "crn:vpc"), "us-south")
    d.pump()
    d.login()
    assert not d.session.leave()  # nothing is under way: whoever asks ends the connection

    d = at(Door("submissions", "private", DALLAS, "crn:vpc"), "us-south")
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>")
    assert d.session.leave()
    assert d.say("DATA").startswith("354 ")
    assert d.say("From: a@shop.test", "", "text", ".") == ""
    d.queue.store()
    assert (
        d.pump()
        == f"250 2.0.0 Ok: queued as {d.queue.taken[0].queue_id}\r\n421 4.3.2 Service closing, please try again\r\n"
    )

    d = at(Door("submissions", "private", DALLAS, "crn:vpc"), "us-south")
    d.pump()
    d.login()
    d.say("MAIL FROM:<a@shop.test>", "RCPT TO:<b@other.test>")
    assert d.session.leave()
    assert d.say("RSET", "MAIL FROM:<a@shop.test>") == "250 2.0.0 Ok\r\n" + policy.CLOSING.wire.decode()
