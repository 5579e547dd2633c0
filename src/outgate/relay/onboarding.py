"""Is a configuration's domain ready to send through us? Asked over DNS, answered with evidence.

Standards: RFC 7208 (SPF), RFC 6376 (DKIM), RFC 9989 (DMARC), the vendor's three verifications.
Promises: SPF holds only if every outgoing address of the instance's endpoint passes and the domain has an A record; a
look-up that fails keeps the state as it is and says so; every check leaves its evidence: what was asked, whom, what was
answered and when, what follows; DMARC is advice; a check ends, in time and in packets, whatever a domain publishes.
Dangers: `en_authorization` is reported here and granted elsewhere, by a person.
Not here: grace and suspension after success, HTTP (`api.event_notifications`), whom to ask (`net.authority`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outgate.base.clock import Clock, rfc3339
from outgate.base.log import Log
from outgate.domains.ask import Answer, Asked, Question, documents, witnessed
from outgate.domains.dkim_key import check_key
from outgate.domains.dmarc import advise_dmarc
from outgate.domains.spf import SpfResult, check_host
from outgate.model.tenancy import Checked, KeptKey, NewStanding, SmtpConfiguration, Standing, Verification
from outgate.net.allowance import Allowance
from outgate.net.dns import Asker, answer_all
from outgate.relay.endpoints import Endpoint
from outgate.relay.standing import Schedule, after
from outgate.store.signing_keys import check_name
from outgate.store.verification import Decide, Transition

_log = Log("outgate.onboarding")
_SCHEDULE = Schedule()
_PACKETS = {"spf": 400, "dkim": 150, "dmarc": 150}
"""What each check may send. A policy that needs all its ten look-ups, from providers of four servers each (by IPv4 and
IPv6, and all of them asked), takes some 300; a hostile one would take tens of thousands."""


class Records(Protocol):
    """Where states and evidence are kept (`store.verification`); blocks."""

    def keys_in_use(self, smtp_config_id: str) -> Sequence[KeptKey]: ...

    def record(
        self, findings: Sequence[tuple[str, Sequence[Checked]]], decide: Decide, *, quiet: bool = False
    ) -> list[Transition]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check ("a", "spf", "dmarc", "dkim" or what `check_name` calls another key's) came to: the state that
    follows, None for what cannot be said now and for advice; the class word and the words that explain it; the DNS name
    of the record that it is about, and the signing key."""

    check: str
    state: Verification | None
    result: str
    explanation: str
    record: str
    asked: tuple[Asked, ...]
    key_id: str = ""

    def checked(self, begun: float | None = None) -> Checked:
        """Return it as it is kept; `begun` is when the check began."""
        asked = documents(self.asked)
        return Checked(self.check, self.state, self.result, self.explanation, self.record, asked, begun, self.key_id)


class Verifier:
    """Run the checks of configurations."""

    def __init__(
        self,
        asker: Asker,
        records: Records,
        *,
        endpoint_of: Callable[[str], Endpoint],
        clock: Clock,
        schedule: Schedule = _SCHEDULE,
        limit_s: float = 60.0,
        at_once: int = 8,
    ) -> None:
        """`endpoint_of` tells from which endpoint an instance's mail leaves; `schedule` decides what follows for a
        domain that was verified before; a check that takes longer than `limit_s` seconds is given up, and then nothing
        is known; `at_once` configurations are verified at a time, the others wait."""
        self._asker = asker
        self._records = records
        self._endpoint_of = endpoint_of
        self._clock = clock
        self._schedule = schedule
        self._limit_s = limit_s
        self._places = asyncio.Semaphore(at_once)
        self._turns: dict[str, _Turn] = {}

    async def examine(
        self, configuration: SmtpConfiguration, types: Sequence[str], *, fresh: bool
    ) -> tuple[Finding, ...]:
        """Find out, and keep nothing: "spf" comes to the two findings "a" and "spf", "dkim" to one for each key in use,
        "dmarc" to one.

        `fresh` looks past every memory of before. Raises `ValueError` for another type, before anything is asked."""
        for check in types:
            if check not in _PACKETS:
                raise ValueError(f"there is no check {check!r}")
        # Side by side: servers that do not answer are waited for once, not once for each check.
        found = await asyncio.gather(*(self._check(configuration, check, fresh=fresh) for check in types))
        return tuple(finding for findings in found for finding in findings)

    async def _check(self, configuration: SmtpConfiguration, check: str, *, fresh: bool) -> tuple[Finding, ...]:
        allowance = Allowance(_PACKETS[check])
        try:
            async with asyncio.timeout(self._limit_s):
                if check == "spf":
                    return await self._spf(configuration, allowance, fresh=fresh)
                if check == "dkim":
                    return await self._dkim(configuration, allowance, fresh=fresh)
                return (await self._dmarc(configuration.domain, allowance, fresh=fresh),)
        except TimeoutError:
            words = f"the name servers took more than {self._limit_s:.0f} seconds for it; the state is kept"
            late = ("a", "spf") if check == "spf" else (check,)
            return tuple(Finding(each, None, "temperror", words, configuration.domain, ()) for each in late)

    async def verify(self, configuration: SmtpConfiguration, types: Sequence[str]) -> dict[str, Verification]:
        """Run the checks named in `types` ("spf", "dkim", "en_authorization"; "dmarc" for its evidence alone), past
        any memory; keep the findings, advice on DMARC with them, and return the states.

        Of one configuration it is done once at a time: who asks for the same types meanwhile gets the same states.
        Raises `ValueError` for another type, `LookupError` if the configuration is gone, and what the store raises."""
        turn = self._turns.setdefault(configuration.id, _Turn())
        came, wanted = turn.ended, frozenset(types)
        turn.users += 1
        try:
            async with turn.lock:
                number, states = turn.found.get(wanted, (0, {}))
                if number <= came:  # none ended meanwhile: there was none, or it was given up
                    states = await self._verify(configuration, types)
                    turn.ended += 1
                    turn.found[wanted] = (turn.ended, states)
                return dict(states)
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[configuration.id]

    async def _verify(self, configuration: SmtpConfiguration, types: Sequence[str]) -> dict[str, Verification]:
        asked = [check for check in types if check != _GRANTED]
        if asked and "dmarc" not in asked:
            asked.append("dmarc")
        if asked:
            async with self._places:
                begun = self._clock.now()
                findings = await self.examine(configuration, asked, fresh=True)
            configuration = await self._keep(configuration, [finding.checked(begun) for finding in findings])
        states = {"spf": configuration.spf, "dkim": configuration.dkim, _GRANTED: configuration.authorization}
        return {check: states[check] for check in types if check in states}

    async def _keep(self, configuration: SmtpConfiguration, checked: Sequence[Checked]) -> SmtpConfiguration:
        def decide(found: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
            return after(found, checked, now, self._schedule)

        kept = await asyncio.to_thread(self._records.record, [(configuration.id, checked)], decide)
        if not kept:
            raise LookupError(f"configuration {configuration.id} is gone")
        tell(kept[0], self._schedule.grace)
        return kept[0].after

    # -- the checks -----------------------------------------------------------------------------------------

    async def _spf(
        self, configuration: SmtpConfiguration, allowance: Allowance, *, fresh: bool
    ) -> tuple[Finding, Finding]:
        domain = configuration.domain
        address, (results, asked) = await asyncio.gather(
            self._address(domain, allowance, fresh=fresh), self._policies(configuration, allowance, fresh=fresh)
        )
        return address, self._judge_policies(domain, address, results, asked)

    async def _address(self, domain: str, allowance: Allowance, *, fresh: bool) -> Finding:
        question = Question(domain, "A")
        answer = await self._asker.ask(question, fresh=fresh, allowance=allowance)
        return _judge_address(domain, answer, (Asked(question, answer, self._clock.now()),))

    def _judge_policies(
        self, domain: str, address: Finding, results: Sequence[tuple[str, SpfResult]], asked: tuple[Asked, ...]
    ) -> Finding:
        """Put the results for all outgoing addresses together: a failure is definite, whatever else is unknown."""
        failures = [(at, result) for at, result in results if result.result not in ("pass", "temperror")]
        unknown = [result.cause for _, result in results if result.result == "temperror"]
        if failures:
            at, result = failures[0]
            explanation = f"SPF of {domain} for {at} is {result.result}, not pass: {result.cause}"
            return Finding("spf", Verification.FAILED, result.result, explanation, domain, asked)
        if address.state is Verification.FAILED:
            return Finding("spf", Verification.FAILED, "no-address", address.explanation, domain, asked)
        if unknown or address.state is None:
            why = unknown[0] if unknown else address.explanation
            return Finding("spf", None, "temperror", f"{why}; the state is kept", domain, asked)
        addresses = ", ".join(at for at, _ in results)
        explanation = f"SPF of {domain} passes for {addresses}: {results[0][1].cause}"
        return Finding("spf", Verification.SUCCESSFUL, "pass", explanation, domain, asked)

    async def _policies(
        self, configuration: SmtpConfiguration, allowance: Allowance, *, fresh: bool
    ) -> tuple[list[tuple[str, SpfResult]], tuple[Asked, ...]]:
        """Evaluate the domain's policy for each address that its mail leaves from; what two of them have in common is
        asked once."""
        domain, endpoint = configuration.domain, self._endpoint_of(configuration.instance_id)
        known: dict[Question, Asked] = {}
        results: list[tuple[str, SpfResult]] = []
        for address in endpoint.outgoing_addresses:
            evaluation = witnessed(
                check_host(
                    address,
                    domain,
                    f"postmaster@{domain}",
                    endpoint.ehlo_name,
                    receiver=endpoint.ehlo_name,
                    now=int(self._clock.now()),
                ),
                self._clock.now,
            )
            try:
                question = next(evaluation)
                while True:
                    if question not in known:
                        answer = await self._asker.ask(question, fresh=fresh, allowance=allowance)
                        known[question] = Asked(question, answer, self._clock.now())
                    question = evaluation.send(known[question].answer)
            except StopIteration as end:
                result, asked = end.value
                results.append((address, _doubted(result, asked)))
        return results, tuple(known.values())

    async def _dkim(
        self, configuration: SmtpConfiguration, allowance: Allowance, *, fresh: bool
    ) -> tuple[Finding, ...]:
        keys = await asyncio.to_thread(self._records.keys_in_use, configuration.id)
        return tuple(
            await asyncio.gather(*(self._key(configuration.domain, kept, allowance, fresh=fresh) for kept in keys))
        )

    async def _key(self, domain: str, kept: KeptKey, allowance: Allowance, *, fresh: bool) -> Finding:
        key, check = kept.key, check_name(kept)
        evaluation = check_key(domain, key.selector, key.public, key.algorithm)
        result, asked = await answer_all(
            witnessed(evaluation, self._clock.now), self._asker, fresh=fresh, allowance=allowance
        )
        state, words = None, f"{result.explanation}; the state is kept"
        if result.result != "temperror":
            state = Verification.SUCCESSFUL if result.result == "ok" else Verification.FAILED
            words = result.explanation
        return Finding(check, state, result.result, words, key.name(domain), asked, key.id)

    async def _dmarc(self, domain: str, allowance: Allowance, *, fresh: bool) -> Finding:
        evaluation = witnessed(advise_dmarc(domain), self._clock.now)
        advice, asked = await answer_all(evaluation, self._asker, fresh=fresh, allowance=allowance)
        return Finding("dmarc", None, advice.result, advice.explanation, f"_dmarc.{advice.domain}", asked)


class _Turn:
    """The verifications of one configuration: one at a time, and what those found that ended while others waited (by
    their types: the how-manieth it was, and the states)."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.ended = 0
        self.found: dict[frozenset[str], tuple[int, dict[str, Verification]]] = {}


def _doubted(result: SpfResult, asked: Sequence[Asked]) -> SpfResult:
    """Return a result as "temperror" if a look-up that failed may be why it is not "pass".

    check_host passes over failing look-ups of host names (ptr, RFC 7208 section 5.5): right for a receiver, but the
    domain is not to suffer from them here. A text that failed is an error already, or only an explanation's."""
    failed = [one for one in asked if one.answer.failed and one.question.rdtype != "TXT"]
    if result.result in ("pass", "temperror") or not failed:
        return result
    question, status = failed[0].question, failed[0].answer.status
    return SpfResult("temperror", f"{question.rdtype} of {question.name}: {status}")


def _judge_address(domain: str, answer: Answer, asked: tuple[Asked, ...]) -> Finding:
    if answer.failed:
        words = f"A of {domain} could not be asked: {answer.status}"
        return Finding("a", None, "temperror", words, domain, asked)
    if answer.void:
        words = f"{domain} has no A record: add one, for receivers distrust senders without (AAAA does not replace it)"
        return Finding("a", Verification.FAILED, "missing", words, domain, asked)
    words = f"{domain} has the address {', '.join(str(record) for record in answer.records)}"
    return Finding("a", Verification.SUCCESSFUL, "ok", words, domain, asked)


_GRANTED = "en_authorization"


def tell(transition: Transition, grace: float) -> bool:
    """Log what checks of a configuration came to; say whether a state or its standing has changed.

    A check that failed is told each time, with its record and what to do; one that passed only if it did not before."""
    before, now = transition.before, transition.after
    changed = transition.differs
    for one in transition.checked:
        write = _log.info if changed or one.state is not Verification.SUCCESSFUL else _log.debug
        write(
            "domain.checked",
            domain=now.domain,
            check=one.check,
            result=one.result,
            record=one.record,
            explanation=one.explanation,
        )
    for former, key in ((before.key, now.key), (before.second, now.second)):
        if former != key:
            _log.info(
                "domain.signed_with",
                domain=now.domain,
                smtp_config_id=now.id,
                algorithm=(key or former or now.key).algorithm,
                selector=key.selector if key else "",
                before=former.selector if former else "",
            )
    if before.standing is now.standing:
        return changed
    failed = next((one for one in transition.checked if one.check == now.failing), None)
    fields = {
        "domain": now.domain,
        "smtp_config_id": now.id,
        "check": now.failing,
        "record": failed.record if failed else "",
        "explanation": failed.explanation if failed else "",
    }
    if now.standing is Standing.WARNING:
        _log.warning("domain.warning", suspends_at=rfc3339(now.standing_since + grace), **fields)
    elif now.standing is Standing.SUSPENDED:
        _log.warning("domain.suspended", remedy="put the record back: a pass restores the domain by itself", **fields)
    elif before.standing is Standing.UNVERIFIED:
        _log.info("domain.verified", domain=now.domain, smtp_config_id=now.id)
    else:
        _log.info("domain.restored", domain=now.domain, smtp_config_id=now.id, before=before.standing.value)
    return changed
