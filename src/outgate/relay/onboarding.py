"""Is a configuration's domain ready to send through us? Asked over DNS, answered with evidence.

Standards: RFC 7208 (SPF), RFC 6376 (DKIM), the vendor's three verifications.
Promises: SPF holds only if every address we send from passes; a look-up that fails keeps the state as it is and
says so; every check leaves its evidence: what was asked, what was answered, what follows.
Dangers: `en_authorization` is reported here and granted elsewhere, by a person.
Not here: grace and suspension after success, HTTP (`api.event_notifications`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from outgate.base.clock import Clock
from outgate.base.log import Log
from outgate.domains.ask import Answer, Asked, Question, witnessed
from outgate.domains.dkim_key import check_key
from outgate.domains.spf import SpfResult, check_host
from outgate.model.tenancy import SmtpConfiguration, Verification
from outgate.net.dns import Resolver, answer_all

_log = Log("outgate.onboarding")


class Records(Protocol):
    """Where states and evidence are kept (`store.tenancy`)."""

    def record_verification(
        self,
        smtp_config_id: str,
        check: str,
        state: Verification | None,
        *,
        result: str,
        explanation: str,
        asked: Sequence[object] = (),
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one check came to. `state` None keeps what was."""

    check: str
    state: Verification | None
    result: str
    explanation: str
    asked: tuple[Asked, ...]


class Verifier:
    """Run the checks of configurations."""

    def __init__(
        self,
        resolver: Resolver,
        records: Records,
        *,
        outgoing_addresses: Sequence[str],
        ehlo_name: str,
        clock: Clock,
    ) -> None:
        """`outgoing_addresses` are all addresses that deliveries leave from, `ehlo_name` what they say."""
        if not outgoing_addresses:
            raise ValueError("without an outgoing address no SPF record can pass")
        self._resolver = resolver
        self._records = records
        self._addresses = tuple(outgoing_addresses)
        self._ehlo_name = ehlo_name
        self._clock = clock

    async def verify(self, configuration: SmtpConfiguration, types: Sequence[str]) -> dict[str, Verification]:
        """Run the checks named in `types` ("spf", "dkim", "en_authorization"), past any cache; keep and return states.

        Raises `ValueError` for another type, and what the store raises."""
        states: dict[str, Verification] = {}
        for check in types:
            if check == "spf":
                states[check] = await self._conclude(configuration, configuration.spf, await self._spf(configuration))
            elif check == "dkim":
                states[check] = await self._conclude(configuration, configuration.dkim, await self._dkim(configuration))
            elif check == "en_authorization":
                states[check] = configuration.authorization
            else:
                raise ValueError(f"there is no check {check!r}")
        return states

    async def _conclude(
        self, configuration: SmtpConfiguration, before: Verification, findings: Sequence[_Finding]
    ) -> Verification:
        """Keep the findings and return the state that holds now: the last finding is the check's own."""
        for finding in findings:
            await asyncio.to_thread(
                self._records.record_verification,
                configuration.id,
                finding.check,
                finding.state,
                result=finding.result,
                explanation=finding.explanation,
                asked=[asked.document() for asked in finding.asked],
            )
            _log.info(
                "domain.checked",
                domain=configuration.domain,
                check=finding.check,
                result=finding.result,
                explanation=finding.explanation,
            )
        return findings[-1].state or before

    # -- the checks -----------------------------------------------------------------------------------------

    async def _spf(self, configuration: SmtpConfiguration) -> tuple[_Finding, _Finding]:
        domain = configuration.domain
        question = Question(domain, "A")
        address = await self._resolver.ask(question, fresh=True)
        has_address = _Finding("a", None, *_words_of_a(domain, address), (Asked(question, address),))
        results, asked = await self._policies(domain)
        failures = [(at, result) for at, result in results if result.result not in ("pass", "temperror")]
        unknown = [(at, result) for at, result in results if result.result == "temperror"]
        if failures:
            at, result = failures[0]
            explanation = f"SPF of {domain} for {at} is {result.result}, not pass: {result.cause}"
            return has_address, _Finding("spf", Verification.FAILED, result.result, explanation, asked)
        if address.void:
            return has_address, _Finding("spf", Verification.FAILED, "no-address", has_address.explanation, asked)
        if unknown or address.failed:
            why = unknown[0][1].cause if unknown else has_address.explanation
            return has_address, _Finding("spf", None, "temperror", f"{why}; the state is kept", asked)
        addresses = ", ".join(at for at, _ in results)
        explanation = f"SPF of {domain} passes for {addresses}: {results[0][1].cause}"
        return has_address, _Finding("spf", Verification.SUCCESSFUL, "pass", explanation, asked)

    async def _policies(self, domain: str) -> tuple[list[tuple[str, SpfResult]], tuple[Asked, ...]]:
        """Evaluate the domain's policy for each outgoing address; what two have in common is asked once."""
        known: dict[Question, Answer] = {}
        results: list[tuple[str, SpfResult]] = []
        for address in self._addresses:
            evaluation = witnessed(
                check_host(
                    address,
                    domain,
                    f"postmaster@{domain}",
                    self._ehlo_name,
                    receiver=self._ehlo_name,
                    now=int(self._clock.now()),
                )
            )
            try:
                question = next(evaluation)
                while True:
                    if question not in known:
                        known[question] = await self._resolver.ask(question, fresh=True)
                    question = evaluation.send(known[question])
            except StopIteration as end:
                results.append((address, end.value[0]))
        return results, tuple(Asked(question, answer) for question, answer in known.items())

    async def _dkim(self, configuration: SmtpConfiguration) -> tuple[_Finding]:
        key = configuration.key
        evaluation = witnessed(check_key(configuration.domain, key.selector, key.public))
        result, asked = await answer_all(evaluation, self._resolver, fresh=True)
        if result.result == "temperror":
            return (_Finding("dkim", None, result.result, f"{result.explanation}; the state is kept", asked),)
        state = Verification.SUCCESSFUL if result.result == "ok" else Verification.FAILED
        return (_Finding("dkim", state, result.result, result.explanation, asked),)


def _words_of_a(domain: str, answer: Answer) -> tuple[str, str]:
    if answer.failed:
        return "temperror", f"A of {domain} could not be asked: {answer.status}"
    if answer.void:
        return "missing", f"{domain} has no A record: add one, for receivers distrust senders without"
    return "ok", f"{domain} has the address {', '.join(str(record) for record in answer.records)}"
