"""A message's trail in lines."""

from __future__ import annotations

from typing import Any

import pytest

from outgate.trail import Hop, hops, line, lines

FORWARD = {"portOrig": 30465, "name": "smtp.mymail.com", "portDest": 465}
MESSAGE: dict[str, Any] = {
    "queue_id": "0QUEUE", "accepted_at": "2026-11-21T07:03:01.000Z", "username": "user", "size": 123,
    "client": {"address": "127.0.0.1", "port": 5, "via": "127.0.0.2", "listener": "submissions", "endpoint": "public", "tls": "TLSv1.3 X"},
    "header_from": "a@shop.test", "reverse_path": "r@shop.test", "subject": "hi", "message_id": "<1@x>",
    "egress": [
        {"at": 1795244580.0, "event": "open", "forward": FORWARD, "client": "127.0.0.1:5", "target": "127.0.0.1:465", "source": "127.0.0.2", "proxy_header": True},
        {"at": 1795244589.0, "event": "close", "forward": FORWARD, "bytes_up": 10, "bytes_down": 20, "duration_s": 9.0, "reason": "client closed"},
        {"at": 1795244520.0, "event": "open", "forward": FORWARD, "client": "192.0.2.1:5", "target": "", "reason": "not a client network"},
    ],
    "attempts": [
        {
            "started_at": "2026-11-21T07:03:02.000Z", "finished_at": "2026-11-21T07:03:03.000Z", "host": "mx.test", "address": "127.0.0.1:25", "source": "127.0.0.9",
            "route_reason": "MX 10 mx.test", "tls": "", "conversation": [{"at": "2026-11-21T07:03:02.500Z", "did": "MAIL FROM:<r@shop.test>", "reply": "250 hi"}],
            "outcomes": [{"mailbox": "b@x.test", "status": "delivered", "code": 250, "enhanced": "2.0.0", "text": "Ok"}],
        },
        {
            "started_at": "2026-11-21T07:03:04.000Z", "finished_at": "2026-11-21T07:03:04.000Z", "host": "", "address": "",
            "route_reason": "MX of y: servfail", "tls": "", "conversation": [],
            "outcomes": [{"mailbox": "c@y.test", "status": "deferred", "code": 0, "enhanced": "", "text": "no answer"}],
        },
    ],
    "recipients": [{"mailbox": "b@x.test", "status": "delivered", "attempts": 1, "next_attempt_at": None}, {"mailbox": "c@y.test", "status": "deferred", "attempts": 1, "next_attempt_at": "2026-11-21T07:04:04.123Z", "reason": "dns", "reply": "no answer"}],
}  # fmt: skip


def test_hops_are_in_order_of_time_and_say_who_and_what() -> None:
    found = hops(MESSAGE)
    assert [(hop.hop, hop.result) for hop in found] == [
        ("forwarder", "refused"), ("forwarder", "carried"), ("relay", "accepted"), ("delivery", "attempt"), ("delivery", "said"),
        ("delivery", "delivered"), ("delivery", "attempt"), ("delivery", "deferred"), ("forwarder", "closed"),
    ]  # fmt: skip
    told = {hop.result: hop.detail for hop in found}
    assert "not a client network" in told["refused"]
    assert "PROXY v2 header" in told["carried"] and "from 127.0.0.2" in told["carried"]
    assert "127.0.0.1:5 via 127.0.0.2" in told["accepted"] and "queued as 0QUEUE" in told["accepted"]
    assert told["delivered"] == "b@x.test: 250 2.0.0 Ok (in the clear)"
    assert told["deferred"] == "c@y.test: no answer"  # nothing was said, so nothing was in the clear
    attempts = [hop.detail for hop in found if hop.result == "attempt"]
    assert attempts == ["mx.test [127.0.0.1:25] from 127.0.0.9 by MX 10 mx.test", "MX of y: servfail"]


def test_what_the_proxy_carried_and_what_was_noticed_is_told_as_that() -> None:
    about = {"client": "127.0.0.1:5", "proxy_header": False, "proxy": {"listen": 3128}}
    asked = {**about, "proxy": {"listen": 3128, "method": "CONNECT", "name": "smtp.example", "port": 465}}
    carried = [
        {
            **about,
            "at": 1795244500.0,
            "event": "decision",
            "refusal": "request",
            "target": "",
            "reason": "no request line",
        },
        {
            **asked,
            "at": 1795244510.0,
            "event": "decision",
            "refusal": "",
            "target": "192.0.2.1:465",
            "source": "127.0.0.2:6",
        },
        {**asked, "at": 1795244511.0, "event": "notice", "code": "mail.clear-auth", "reason": "a login in the clear"},
        {
            **asked,
            "at": 1795244519.0,
            "event": "close",
            "bytes_up": 1,
            "bytes_down": 2,
            "duration_s": 9.0,
            "notices": ["mail.clear-auth"],
            "reason": "finished",
        },
    ]
    found = [hop for hop in hops({**MESSAGE, "egress": carried, "attempts": []}) if hop.hop == "proxy"]
    assert [(hop.result, hop.detail) for hop in found] == [
        ("refused", "proxy for 127.0.0.1:5: no request line"),
        ("carried", "CONNECT smtp.example:465 for 127.0.0.1:5, to 192.0.2.1:465 from 127.0.0.2:6"),
        ("noticed", "mail.clear-auth: a login in the clear"),
        ("closed", "1 octets up, 2 down in 9.000 s: finished; noticed: mail.clear-auth"),
    ]


def test_a_message_that_came_without_the_forwarder() -> None:
    bare = {key: value for key, value in MESSAGE.items() if key not in ("egress", "attempts")}
    assert [hop.result for hop in hops(bare)] == ["accepted"]


def test_a_line_can_be_cut() -> None:
    hop = Hop("2026-11-21T07:03:01.000Z", "relay", "accepted", "x" * 100)
    assert line(hop).startswith("07:03:01.000  relay      accepted   xxx")
    assert len(line(hop, 40)) == 40 and line(hop, 40).endswith("…")
    assert line(hop, 500) == line(hop)


def test_the_whole_story() -> None:
    told = lines(MESSAGE)
    assert told[0] == "0QUEUE  2026-11-21T07:03:01Z"
    assert "  From:       a@shop.test  (reverse-path <r@shop.test>)" in told
    assert told[-2:] == [
        "  b@x.test: delivered after 1 attempt",
        "  c@y.test: deferred after 1 attempt; dns: no answer; next attempt 2026-11-21 07:04:04 UTC",
    ]


def test_a_transaction_for_several_domains_is_told_once_with_all_that_came_of_it() -> None:
    first, second = MESSAGE["attempts"]
    other = {**first, "outcomes": [{**first["outcomes"][0], "mailbox": "d@z.test"}]}
    found = hops({**MESSAGE, "attempts": [first, other, second, second]})
    assert [hop.result for hop in found].count("said") == 1
    assert [hop.detail.split(":")[0] for hop in found if hop.result == "delivered"] == ["b@x.test", "d@z.test"]
    assert len(first["outcomes"]) == 1  # what was given is as it was
    assert [hop.result for hop in found].count("deferred") == 2  # nothing was said in either: they are two
    step = {"at": second["started_at"], "did": "look up MX of y", "reply": second["route_reason"]}
    told = hops({**MESSAGE, "attempts": [{**second, "conversation": [step]}]})
    assert [hop.result for hop in told[-3:-1]] == ["said", "deferred"]  # not said twice


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        ({"status": "held", "attempts": 0, "reason": "operator", "reply": ""}, "held; reason operator"),
        ({"status": "held", "attempts": 1, "reason": "quota", "reply": "450"}, "held after 1 attempt; reason quota"),
        ({"status": "suppressed", "attempts": 0, "reason": "suppressed", "reply": ""}, "suppressed"),
        ({"status": "bounced", "attempts": 2, "reason": "", "reply": "550 no"}, "bounced after 2 attempts; 550 no"),
        ({"status": "delivered", "attempts": 1, "reason": "accepted", "reply": "250 Ok"}, "delivered after 1 attempt"),
    ],
)
def test_where_a_recipient_stands(stands: dict[str, Any], said: str) -> None:
    recipient = {"mailbox": "e@x.test", "next_attempt_at": None, **stands}
    assert lines({**MESSAGE, "recipients": [recipient]})[-1] == f"  e@x.test: {said}"


def test_another_day_is_said_and_reports_and_parents_are_named() -> None:
    first, second = MESSAGE["attempts"]
    late = {**second, "started_at": "2026-11-22T00:00:01.000Z", "finished_at": "2026-11-22T00:00:01.000Z"}
    told = lines({**MESSAGE, "attempts": [first, late], "reports": ["0REPORT"]})
    assert "  Report:     0REPORT, to its sender" in told
    day = told.index("  2026-11-22")
    assert told[day + 1].startswith("  00:00:01.000  delivery   attempt")
    assert sum(each.startswith("  2026-") for each in told) == 1
    assert "  About:      0PARENT" in lines({**MESSAGE, "parent": "0PARENT"})


def test_what_befell_recipients_without_an_attempt_is_told_of_the_relay() -> None:
    def befell(event: str, words: str, second: int, *mailboxes: str, actor: str = "") -> list[dict[str, Any]]:
        at = f"2026-11-21T07:03:{second:02}.000Z"
        return [
            {"at": at, "event": event, "recipient": each, "detail": words, "attempt": None, "actor": actor}
            for each in mailboxes
        ]

    both = ("b@x.test", "c@x.test")
    timeline = [
        *befell("accepted", "from 127.0.0.1 as user", 1, ""),
        *befell("held", "held: the domain is suspended", 10, *both),
        *befell("released", "released: it may send again", 11, *both, actor="key 7"),
        {**befell("delivered", "250 Ok", 12, "b@x.test")[0], "attempt": 1},
        {**befell("warning", "delivered, too late to count: Ok", 13, "b@x.test")[0], "attempt": 1},
        *befell("report", "told <r@shop.test>: 0REPORT", 14, ""),
    ]
    found = hops({**MESSAGE, "egress": [], "attempts": [], "timeline": timeline})
    assert [(hop.hop, hop.result, hop.detail) for hop in found[1:]] == [
        ("relay", "held", "b@x.test, c@x.test: held: the domain is suspended"),
        ("relay", "released", "b@x.test, c@x.test: released: it may send again (by key 7)"),
        ("relay", "warning", "b@x.test: delivered, too late to count: Ok"),
        ("relay", "report", "told <r@shop.test>: 0REPORT"),
    ]


def test_a_warning_is_told_where_the_message_was_taken() -> None:
    told = hops({**MESSAGE, "warning": "HTML is not well-formed: line 3, column 7"})
    assert Hop(MESSAGE["accepted_at"], "relay", "warning", "HTML is not well-formed: line 3, column 7") in told
    assert all(hop.result != "warning" for hop in hops(MESSAGE))
