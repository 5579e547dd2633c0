"""A message's trail in lines for people: every hop with its time and result, from what the API tells.

Standards: none; standard library only.
Promises: nothing is made up: each line comes from the egress' audit or the relay's record; the lines are
in the order things happened.
Not here: asking the API (`connection`), the page (`console`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outgate.base.clock import rfc3339


@dataclass(frozen=True, slots=True)
class Hop:
    """One line: RFC 3339 time, who ("forwarder", "proxy", "relay", "delivery"), what came of it, and the details."""

    at: str
    hop: str
    result: str
    detail: str


def hops(message: dict[str, Any]) -> list[Hop]:
    """Return the hops of a message as `GET …/smtp/messages/{queue_id}` gives it, in order of time."""
    found = [_carried(line) for line in message.get("egress", [])]
    client = message["client"]
    if message.get("parent"):
        about = f"report about {message['parent']}, {message['size']} octets, queued as {message['queue_id']}"
        found.append(Hop(message["accepted_at"], "relay", "accepted", about))
        return _with_attempts(found, message)
    via = f" via {client['via']}" if client["via"] else ""
    found.append(
        Hop(
            message["accepted_at"],
            "relay",
            "accepted",
            f"{client['address']}:{client['port']}{via}, {client['listener']} ({client['endpoint']}), {client['tls']}, "
            f"user {message['username']}, {message['size']} octets, 250 queued as {message['queue_id']}",
        )
    )
    if message.get("warning"):
        found.append(Hop(message["accepted_at"], "relay", "warning", message["warning"]))
    return _with_attempts(found, message)


def _with_attempts(found: list[Hop], message: dict[str, Any]) -> list[Hop]:
    for attempt in _together(message.get("attempts", [])):
        found.extend(_attempt(attempt))
    found.extend(_untried(message))
    return sorted(found, key=lambda hop: hop.at)


def leads(line: dict[str, Any]) -> str:
    """Return where a line of the egress' audit leads: by which forward, or what the proxy was asked for."""
    forward = line.get("forward")
    if forward is not None:
        return f"{forward['portOrig']} → {forward['name']}:{forward['portDest']}"
    asked = line["proxy"]
    return f"{asked['method']} {asked['name']}:{asked['port']}" if asked.get("name") else "proxy"


def ended(line: dict[str, Any]) -> str:
    """Return what a closing line of the egress' audit says of its connection."""
    said = f"{line['bytes_up']} octets up, {line['bytes_down']} down in {line['duration_s']:.3f} s: {line['reason']}"
    return f"{said}; noticed: {', '.join(line['notices'])}" if line.get("notices") else said


def _carried(line: dict[str, Any]) -> Hop:
    who, at = "proxy" if "proxy" in line else "forwarder", rfc3339(line["at"], milliseconds=True)
    if line["event"] == "close":
        return Hop(at, who, "closed", ended(line))
    if line["event"] == "notice":
        return Hop(at, who, "noticed", f"{line['code']}: {line['reason']}")
    where = f"{leads(line)} for {line['client']}"
    if line.get("refusal") or not line.get("target"):
        return Hop(at, who, "refused", f"{where}: {line['reason']}")
    header = ", PROXY v2 header" if line["proxy_header"] else ""
    return Hop(at, who, "carried", f"{where}, to {line['target']} from {line['source']}{header}")


def _together(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return attempts that were one transaction (recipient domains of one site) as one, with all their outcomes."""
    found: list[dict[str, Any]] = []
    for attempt in attempts:
        said = attempt["conversation"]
        same = next((each for each in found if said and each["conversation"] == said), None)
        if same is None:
            found.append({**attempt, "outcomes": list(attempt["outcomes"])})
        else:
            same["outcomes"] += attempt["outcomes"]
    return found


def _attempt(attempt: dict[str, Any]) -> list[Hop]:
    source = f"from {attempt['source']} " if attempt.get("source") else ""
    where = f"{attempt['host']} [{attempt['address']}] {source}by ".lstrip() if attempt["address"] else ""
    mailed = any(step["did"].startswith("MAIL FROM") for step in attempt["conversation"])
    tls = f" ({attempt['tls'] or 'in the clear'})" if mailed or attempt["tls"] else ""
    found: list[Hop] = []
    if where or all(step["reply"] != attempt["route_reason"] for step in attempt["conversation"]):
        # Where no host was found, the look-up's line says it.
        found.append(Hop(attempt["started_at"], "delivery", "attempt", f"{where}{attempt['route_reason']}"))
    found.extend(
        Hop(step["at"], "delivery", "said", f"{step['did']}  ⇒  {step['reply']}") for step in attempt["conversation"]
    )
    found.extend(
        Hop(
            attempt["finished_at"],
            "delivery",
            outcome["status"],
            f"{outcome['mailbox']}: {_reply(outcome)}{tls}",
        )
        for outcome in attempt["outcomes"]
    )
    return found


def _untried(message: dict[str, Any]) -> list[Hop]:
    """Tell what befell recipients without speaking to any server: held, released, cancelled, suppressed, …"""
    states: dict[tuple[str, str, str, str], list[str]] = {}
    for moment in message.get("timeline", []):
        warning = moment["event"] == "warning" and (moment["recipient"] or moment["detail"] != message.get("warning"))
        if warning or (moment["attempt"] is None and moment["event"] not in ("accepted", "warning")):
            key = (moment["at"], moment["event"], moment["detail"], moment["actor"])
            states.setdefault(key, []).append(moment["recipient"])
    found: list[Hop] = []
    for (at, event, detail, actor), mailboxes in states.items():
        who = ", ".join(mailbox for mailbox in mailboxes if mailbox)
        said = f"{who}: {detail}" if who else detail
        found.append(Hop(at, "relay", event, f"{said} (by {actor})" if actor else said))
    return found


def _reply(outcome: dict[str, Any]) -> str:
    words = [str(outcome["code"]) if outcome["code"] else "", outcome["enhanced"], outcome["text"]]
    return " ".join(word for word in words if word)


def line(hop: Hop, width: int = 0) -> str:
    """Return a hop as one line; cut to `width` signs if that is greater than 0."""
    text = f"{hop.at[11:23]}  {hop.hop:<10} {hop.result:<10} {hop.detail}"
    return text if width <= 0 or len(text) <= width else text[: width - 1] + "…"


def lines(message: dict[str, Any]) -> list[str]:
    """Return the whole story of a message: head, hops, and where each recipient stands."""
    told = [
        f"{message['queue_id']}  {message['accepted_at'][:19]}Z",
        f"  From:       {message['header_from']}  (reverse-path <{message['reverse_path']}>)",
        f"  Subject:    {message['subject']}",
        f"  Message-ID: {message['message_id']}",
        "",
    ]
    for number, reported in enumerate(message.get("reports", [])):
        told.insert(4 + number, f"  Report:     {reported}, to its sender")
    if message.get("parent"):
        told.insert(4, f"  About:      {message['parent']}")
    day = message["accepted_at"][:10]
    for hop in hops(message):
        if hop.at[:10] != day:
            day = hop.at[:10]
            told.append(f"  {day}")
        told.append(f"  {line(hop)}")
    told.append("")
    told += [f"  {recipient['mailbox']}: {stands(recipient)}" for recipient in message["recipients"]]
    return told


def stands(recipient: dict[str, Any]) -> str:
    """Return where a recipient stands, why if it waits or came to nothing, and when it is tried again."""
    tries, text = recipient["attempts"], recipient["status"]
    if tries:
        text += f" after {tries} attempt{'' if tries == 1 else 's'}"
    # What a server said before is not why it is held.
    reason, reply = recipient.get("reason"), "" if text.startswith("held") else recipient.get("reply")
    if recipient["status"] != "delivered" and reason != recipient["status"] and (reason or reply):
        text += f"; {reason}: {reply}" if reason and reply else f"; reason {reason}" if reason else f"; {reply}"
    return f"{text}; next attempt {moment(recipient['next_attempt_at'])}" if recipient["next_attempt_at"] else text


def moment(at: str) -> str:
    """Return an RFC 3339 time in UTC as people read it, to the second."""
    return f"{at[:10]} {at[11:19]} UTC"
