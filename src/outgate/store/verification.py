"""What is known of a domain's right to send: evidence of checks, standing, authorisation forms.

Standards: none; design section 5, rules 6 and 7.
Promises: evidence and what follows from it are one transaction; of a run of equal results the first and the last
    are kept, so each change of a domain can be told with its time; a re-check that changes nothing is `quiet`.
Dangers: what follows from findings is decided by a function that the caller brings: it runs inside the transaction.
Not here: what is asked (`relay.onboarding`), what follows (`relay.standing`), JSON (`api.event_notifications`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from outgate.base.clock import Clock
from outgate.model.tenancy import (
    AuthorizationForm,
    Checked,
    Evidence,
    KeptKey,
    KeyState,
    NewStanding,
    SmtpConfiguration,
    Standing,
    Verification,
)
from outgate.store.database import Database, note
from outgate.store.signing_keys import follow_records, keys_of
from outgate.store.tables import authorization_forms, evidence, smtp_configurations
from outgate.store.tenancy_rows import NotThere, configuration_of, configuration_query

_COLUMNS = {"spf": "spf", "dkim": "dkim", "en_authorization": "authorization"}
_MOST_EVIDENCE = 200
"""Rows of evidence kept for one configuration; the oldest go."""
_ASKED_AT_ONCE = 500
_AUTOMATIC = "automatic"
"""Who approves when the setting does."""


Decide = Callable[[SmtpConfiguration, Sequence[Checked], float], NewStanding]
"""Says what follows: takes the configuration with its new states, the findings, and the time."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A configuration before and after findings were kept."""

    before: SmtpConfiguration
    after: SmtpConfiguration
    checked: tuple[Checked, ...]

    @property
    def differs(self) -> bool:
        """Say whether more has changed than when to look again."""
        before, after = self.before, self.after
        return any(
            getattr(before, name) != getattr(after, name)
            for name in ("spf", "dkim", "authorization", "standing", "failing", "key", "second")
        )


class VerificationQueries:
    """Read and change what is known of domains. Synchronous and thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # -- checks ------------------------------------------------------------------------------------

    def record(
        self, findings: Sequence[tuple[str, Sequence[Checked]]], decide: Decide, *, quiet: bool = False
    ) -> list[Transition]:
        """Keep findings of configurations (by id), with the states and the standing that follow; one transaction.

        A configuration that is gone is left out of what is returned, and so is a finding of a check that has been
        made anew since that one began. `quiet`: the revision moves on only if a
        state or a standing has changed."""
        now = self._clock.now()
        made: list[Transition] = []
        with self._database.writing(noted=not quiet) as connection:
            for smtp_config_id, checked in findings:
                before = _configuration(connection, smtp_config_id)
                if before is None:
                    continue
                known = _kept(connection, smtp_config_id)
                news = [one for one in checked if not _outdated(known, one)]
                keyed, news = follow_records(connection, before, news, now)
                for one in news:
                    _keep(connection, smtp_config_id, one, now, known)
                after = _follow(connection, keyed, news, decide, now)
                made.append(Transition(before, after, tuple(news)))
            if quiet and any(each.differs for each in made):
                note(connection)
        return made

    def evidence(self, smtp_config_id: str, limit: int = 20) -> tuple[Evidence, ...]:
        """Return the latest evidence of a configuration, newest first."""
        query = select(evidence).where(evidence.c.smtp_config_id == smtp_config_id)
        query = query.order_by(evidence.c.at.desc(), evidence.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return tuple(
                Evidence(
                    row.smtp_config_id, row.type, row.result, row.explanation, tuple(row.asked), row.at, row.record
                )
                for row in connection.execute(query)
            )

    def due(self, now: float, limit: int) -> tuple[SmtpConfiguration, ...]:
        """Return configurations that are to be looked at again by `now`, the longest due first."""
        query = (
            configuration_query(smtp_configurations.c.recheck_at <= now, smtp_configurations.c.deleted_at.is_(None))
            .order_by(smtp_configurations.c.recheck_at)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple(configuration_of(row) for row in connection.execute(query))

    def next_due(self) -> float | None:
        """Return when the next configuration is to be looked at again, or None."""
        query = (
            select(smtp_configurations.c.recheck_at)
            .where(smtp_configurations.c.recheck_at.is_not(None))
            .order_by(smtp_configurations.c.recheck_at)
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.scalar(query)

    def holds(self, smtp_config_ids: Sequence[str]) -> Mapping[str, str]:
        """Return why queued mail of configurations is held, by id: "deleted", "withdrawn" (its authorisation) or
        "suspended"; those that are not held are left out, those unknown count as deleted."""
        columns = (
            smtp_configurations.c.id,
            smtp_configurations.c.deleted_at,
            smtp_configurations.c.authorization,
            smtp_configurations.c.standing,
        )
        found: dict[str, str] = {}
        with self._database.reading() as connection:
            for at in range(0, len(smtp_config_ids), _ASKED_AT_ONCE):
                asked = smtp_config_ids[at : at + _ASKED_AT_ONCE]
                found |= dict.fromkeys(asked, "deleted")
                query = select(*columns).where(smtp_configurations.c.id.in_(asked))
                for row in connection.execute(query):
                    found[row.id] = _hold(row.deleted_at, row.authorization, row.standing)
        return {smtp_config_id: why for smtp_config_id, why in found.items() if why}

    def keys_in_use(self, smtp_config_id: str) -> tuple[KeptKey, ...]:
        """Return the signing keys whose records have to be there, or are waited for: active and next."""
        with self._database.reading() as connection:
            found = keys_of(connection, smtp_config_id)
        return tuple(each for each in found if each.state is not KeyState.RETIRED)

    # -- authorisation -----------------------------------------------------------------------------

    def form(self, smtp_config_id: str) -> AuthorizationForm | None:
        """Return the form of a configuration, or None if none was submitted nor decided on."""
        with self._database.reading() as connection:
            return _form(connection, smtp_config_id)

    def submit_form(self, smtp_config_id: str, answers: Mapping[str, object], by: str) -> AuthorizationForm:
        """Keep a form; a rejection of an earlier one is void, and the configuration is pending again.

        Raises `NotThere`; `Decided` if a person has approved other answers: those must not be replaced."""
        now = self._clock.now()
        with self._database.writing() as connection:
            before = _configuration(connection, smtp_config_id)
            if before is None:
                raise NotThere(f"configuration {smtp_config_id}")
            approved = before.authorization is Verification.SUCCESSFUL
            earlier = _form(connection, smtp_config_id)
            if approved and earlier is not None and earlier.decided_by != _AUTOMATIC:
                raise Decided(f"{earlier.decided_by} has approved the answers that are there")
            connection.execute(
                delete(authorization_forms).where(authorization_forms.c.smtp_config_id == smtp_config_id)
            )
            form = AuthorizationForm(smtp_config_id, dict(answers), now, by)
            if approved:  # at its creation, by the setting: the answers are kept all the same
                form = AuthorizationForm(smtp_config_id, dict(answers), now, by, "approved", now, _AUTOMATIC, "")
            connection.execute(insert(authorization_forms).values(**_form_values(form)))
            connection.execute(
                update(smtp_configurations)
                .where(smtp_configurations.c.id == smtp_config_id)
                .values(nature=str(answers.get("nature", "")))
            )
            if not approved:
                _authorize(connection, smtp_config_id, Verification.PENDING, now)
        return form

    def decide_form(
        self, smtp_config_id: str, decision: str, by: str, reason: str = "", *, seen: float | None = None
    ) -> tuple[AuthorizationForm, SmtpConfiguration]:
        """Approve ("approved") or reject ("rejected") a configuration; rejecting one that was approved withdraws it.
        `seen` is when the form was submitted that the decision is about, None for whichever is there.

        A rate that was answered as a number, messages an hour, becomes the quota with the approval, if there is none.
        Raises `NotThere`; `NoForm` if there is no form to approve; `Decided` if the form is another one by now."""
        now = self._clock.now()
        state = Verification.SUCCESSFUL if decision == "approved" else Verification.FAILED
        with self._database.writing() as connection:
            if _configuration(connection, smtp_config_id) is None:
                raise NotThere(f"configuration {smtp_config_id}")
            form = _form(connection, smtp_config_id)
            if decision == "approved" and (form is None or not form.answers):
                raise NoForm("no form has been submitted for this configuration")
            if seen is not None and (form is None or form.submitted_at != seen):
                raise Decided("other answers have been submitted since")
            form = form or AuthorizationForm(smtp_config_id, {}, now, by)
            decided = AuthorizationForm(
                smtp_config_id, form.answers, form.submitted_at, form.submitted_by, decision, now, by, reason
            )
            connection.execute(
                delete(authorization_forms).where(authorization_forms.c.smtp_config_id == smtp_config_id)
            )
            connection.execute(insert(authorization_forms).values(**_form_values(decided)))
            _authorize(connection, smtp_config_id, state, now)
            if decision == "approved":
                _limit(connection, smtp_config_id, form.answers.get("sending_rate"))
            explanation = f"{decision} by {by}" + (f": {reason}" if reason else "")
            found = Checked("en_authorization", state, decision, explanation)
            _keep(connection, smtp_config_id, found, now, _kept(connection, smtp_config_id))
            after = _configuration(connection, smtp_config_id)
            assert after is not None
        return decided, after


class Decided(Exception):
    """The form is not, or no more, the one that this is about; the message says why."""


class NoForm(LookupError):
    """There is nothing to approve: nobody has answered the questions."""


def _hold(deleted_at: float | None, authorization: str, standing: str) -> str:
    if deleted_at is not None:
        return "deleted"
    if authorization != Verification.SUCCESSFUL:
        return "withdrawn"
    return "suspended" if standing == Standing.SUSPENDED else ""


def _configuration(connection: Connection, smtp_config_id: str) -> SmtpConfiguration | None:
    query = configuration_query(smtp_configurations.c.id == smtp_config_id, smtp_configurations.c.deleted_at.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else configuration_of(row)


def _follow(
    connection: Connection, before: SmtpConfiguration, checked: Sequence[Checked], decide: Decide, now: float
) -> SmtpConfiguration:
    """Write the states that findings lead to and what follows from them; return the configuration as it is then."""
    states = {_COLUMNS[one.check]: one.state for one in checked if one.state is not None and one.check in _COLUMNS}
    if any(getattr(before, name) is not state for name, state in states.items()):
        before = replace(before, updated_at=now)
    found = replace(before, **states)
    change = decide(found, checked, now)
    after = replace(
        found,
        standing=change.standing,
        standing_since=change.since,
        failing=change.failing,
        recheck_at=change.recheck_at,
    )
    written = ("updated_at", "standing", "standing_since", "failing", "recheck_at", *states)
    connection.execute(
        update(smtp_configurations)
        .where(smtp_configurations.c.id == after.id)
        .values({name: getattr(after, name) for name in written})
    )
    return after


def _kept(connection: Connection, smtp_config_id: str) -> list[Any]:
    """Return what the evidence of a configuration says, newest first: few rows, in one statement for all checks."""
    columns = (evidence.c.id, evidence.c.type, evidence.c.result, evidence.c.record, evidence.c.at)
    query = select(*columns).where(evidence.c.smtp_config_id == smtp_config_id)
    return list(connection.execute(query.order_by(evidence.c.at.desc(), evidence.c.id.desc())))


def _outdated(known: Sequence[Any], checked: Checked) -> bool:
    """Say whether that check has been made, and kept, since this one began."""
    begun = checked.begun
    return begun is not None and any(row.type == checked.check and row.at > begun for row in known)


def _keep(connection: Connection, smtp_config_id: str, checked: Checked, now: float, known: list[Any]) -> None:
    """Keep a finding: in place of the last of its check, if that and the one before it say the same. `known` is what
    was kept before; the oldest goes from it when there are too many."""
    news: dict[str, Any] = {"explanation": checked.explanation, "asked": list(checked.asked), "at": now}
    latest = [row for row in known if row.type == checked.check][:2]
    said = (checked.result, checked.record)
    # A person's decision is never like the one before.
    alike = checked.check != "en_authorization" and len(latest) == 2
    if alike and all((row.result, row.record) == said for row in latest):
        connection.execute(update(evidence).where(evidence.c.id == latest[0].id).values(**news))
        return
    if len(known) >= _MOST_EVIDENCE:
        connection.execute(delete(evidence).where(evidence.c.id == known.pop().id))
    row = {"smtp_config_id": smtp_config_id, "type": checked.check, "result": checked.result, "record": checked.record}
    connection.execute(insert(evidence).values(**row, **news))


def _authorize(connection: Connection, smtp_config_id: str, state: Verification, now: float) -> None:
    column = smtp_configurations.c.authorization
    connection.execute(
        update(smtp_configurations)
        .where(smtp_configurations.c.id == smtp_config_id, column != state)
        .values(authorization=state, updated_at=now)
    )


def _limit(connection: Connection, smtp_config_id: str, rate: object) -> None:
    """Make the rate that was approved, messages an hour, the quota of a configuration that has none."""
    if isinstance(rate, int):
        none = (smtp_configurations.c.per_hour.is_(None), smtp_configurations.c.per_day.is_(None))
        connection.execute(
            update(smtp_configurations).where(smtp_configurations.c.id == smtp_config_id, *none).values(per_hour=rate)
        )


def _form(connection: Connection, smtp_config_id: str) -> AuthorizationForm | None:
    query = select(authorization_forms).where(authorization_forms.c.smtp_config_id == smtp_config_id)
    row: Any = connection.execute(query).one_or_none()
    if row is None:
        return None
    return AuthorizationForm(
        row.smtp_config_id,
        dict(row.answers),
        row.submitted_at,
        row.submitted_by,
        row.decision,
        row.decided_at,
        row.decided_by,
        row.reason,
    )


def _form_values(form: AuthorizationForm) -> dict[str, object]:
    return {
        "smtp_config_id": form.smtp_config_id,
        "answers": form.answers,
        "submitted_at": form.submitted_at,
        "submitted_by": form.submitted_by,
        "decision": form.decision,
        "decided_at": form.decided_at,
        "decided_by": form.decided_by,
        "reason": form.reason,
    }
