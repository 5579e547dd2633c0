"""Evidence, standings and forms in the control database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Checked, Instance, NewStanding, SmtpConfiguration, Standing, Verification
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import NewKey
from outgate.store.secrets import open_box
from outgate.store.tenancy import NotThere
from outgate.store.verification import NoForm

SUCCESSFUL, FAILED, PENDING = Verification.SUCCESSFUL, Verification.FAILED, Verification.PENDING
ANSWERS = {"nature": "transactional"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(tmp_path: Path, clock: FrozenClock) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    yield opened
    opened.close()


@pytest.fixture
def instance(store: ControlStore) -> Instance:
    return store.tenancy.create_instance(store.tenancy.create_account(), "eu-de", "test")


def configure(store: ControlStore, instance: Instance, domain: str = "a.test") -> SmtpConfiguration:
    key = NewKey("rsa", "public", b"private")
    return store.tenancy.create_configuration(instance.id, name="n", domain=domain, description="", key=key)


def now_is(store: ControlStore, configuration: SmtpConfiguration) -> SmtpConfiguration:
    found = store.tenancy.configuration(configuration.instance_id, configuration.id)
    assert found is not None
    return found


def stands(standing: Standing, recheck_at: float | None = None, failing: str = ""):  # type: ignore[no-untyped-def]
    def decide(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
        return NewStanding(standing, now, failing, recheck_at)

    return decide


def test_findings_states_and_standing_are_kept_together(
    store: ControlStore, instance: Instance, clock: FrozenClock
) -> None:
    made = configure(store, instance)
    clock.advance(5)
    seen: list[SmtpConfiguration] = []

    def decide(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
        seen.append(configuration)
        return NewStanding(Standing.WARNING, now, "dkim", now + 10)

    checked = (
        Checked("a", SUCCESSFUL, "ok", "has an address", "a.test"),
        Checked("spf", SUCCESSFUL, "pass", "passes", "a.test", ({"name": "a.test"},)),
        Checked("dkim", FAILED, "missing", "is not there", "s._domainkey.a.test"),
        Checked("dmarc", None, "none", "publish one", "_dmarc.a.test"),
    )
    (transition,) = store.verification.record([(made.id, checked)], decide)
    assert (seen[0].spf, seen[0].dkim) == (SUCCESSFUL, FAILED)
    assert transition.before == made
    assert transition.after == now_is(store, made)
    after = transition.after
    assert (after.standing, after.standing_since, after.failing, after.recheck_at) == (
        Standing.WARNING,
        made.created_at + 5,
        "dkim",
        made.created_at + 15,
    )
    assert after.updated_at == made.updated_at + 5
    evidence = store.verification.evidence(made.id)
    assert [(each.type, each.result, each.record) for each in evidence] == [
        ("dmarc", "none", "_dmarc.a.test"),
        ("dkim", "missing", "s._domainkey.a.test"),
        ("spf", "pass", "a.test"),
        ("a", "ok", "a.test"),
    ]
    assert evidence[2].asked == ({"name": "a.test"},)
    assert evidence[2].at == made.created_at + 5


def test_a_look_up_that_failed_keeps_the_state(store: ControlStore, instance: Instance) -> None:
    made = configure(store, instance)
    keep = store.verification.record
    keep([(made.id, [Checked("spf", SUCCESSFUL, "pass", "")])], stands(Standing.UNVERIFIED))
    keep([(made.id, [Checked("spf", None, "temperror", "SERVFAIL")])], stands(Standing.UNVERIFIED))
    assert now_is(store, made).spf is SUCCESSFUL


def test_of_equal_results_the_first_and_the_last_are_kept(
    store: ControlStore, instance: Instance, clock: FrozenClock
) -> None:
    made = configure(store, instance)
    for result in ("pass", "pass", "pass", "softfail", "softfail", "softfail", "pass"):
        clock.advance(10)
        store.verification.record([(made.id, [Checked("spf", None, result, "")])], stands(Standing.VERIFIED))
    kept = [(each.result, each.at - made.created_at) for each in store.verification.evidence(made.id)]
    assert kept == [("pass", 70), ("softfail", 60), ("softfail", 40), ("pass", 30), ("pass", 10)]


def test_evidence_is_bounded(store: ControlStore, instance: Instance) -> None:
    made = configure(store, instance)
    for number in range(130):
        checked = [Checked("spf", None, f"result {number}", ""), Checked("dkim", None, f"result {number}", "")]
        store.verification.record([(made.id, checked)], stands(Standing.VERIFIED))
    evidence = store.verification.evidence(made.id, limit=1000)
    assert 200 <= len(evidence) <= 202
    assert evidence[0].result == "result 129"


def test_only_what_matters_moves_the_revision_on(store: ControlStore, instance: Instance) -> None:
    made = configure(store, instance)
    good = [Checked("spf", SUCCESSFUL, "pass", ""), Checked("dkim", SUCCESSFUL, "ok", "")]
    store.verification.record([(made.id, good)], stands(Standing.VERIFIED))
    version, revision = store.data_version(), store.revision()
    store.verification.record([(made.id, good)], stands(Standing.VERIFIED, 99.0), quiet=True)
    assert now_is(store, made).recheck_at == 99.0
    assert store.data_version() != version
    assert store.revision() == revision
    bad = [Checked("spf", FAILED, "softfail", "")]
    store.verification.record([(made.id, bad)], stands(Standing.WARNING, failing="spf"), quiet=True)
    assert store.revision() == revision + 1
    store.verification.record([(made.id, bad)], stands(Standing.SUSPENDED, failing="spf"), quiet=True)
    assert store.revision() == revision + 2
    store.tenancy.update_configuration(instance.id, made.id, name="other")
    assert store.revision() == revision + 3


def test_due_ones_come_longest_due_first_and_deleted_ones_never(store: ControlStore, instance: Instance) -> None:
    made = [configure(store, instance, f"{name}.test") for name in "abcd"]
    for configuration, due in zip(made, (30.0, 10.0, 20.0, None), strict=True):
        store.verification.record([(configuration.id, [])], stands(Standing.VERIFIED, due))
    assert [each.domain for each in store.verification.due(25.0, 10)] == ["b.test", "c.test"]
    assert [each.domain for each in store.verification.due(99.0, 2)] == ["b.test", "c.test"]
    assert store.verification.next_due() == 10.0
    store.tenancy.delete_configuration(instance.id, made[1].id)
    assert store.verification.next_due() == 20.0
    assert [each.domain for each in store.verification.due(99.0, 10)] == ["c.test", "a.test"]
    assert store.verification.record([(made[1].id, []), ("nobody", [])], stands(Standing.VERIFIED)) == []


def test_who_is_held_and_why(store: ControlStore, instance: Instance) -> None:
    fine, suspended, deleted, withdrawn = (configure(store, instance, f"{name}.test") for name in "abcd")
    for each in (fine, suspended, deleted, withdrawn):
        store.verification.submit_form(each.id, ANSWERS, "customer")
        store.verification.decide_form(each.id, "approved", "boss")
    store.verification.record([(suspended.id, [])], stands(Standing.SUSPENDED))
    store.tenancy.delete_configuration(instance.id, deleted.id)
    store.verification.decide_form(withdrawn.id, "rejected", "boss", "complaints")
    asked = [fine.id, suspended.id, deleted.id, withdrawn.id, "unknown"]
    assert store.verification.holds(asked) == {
        suspended.id: "suspended",
        deleted.id: "deleted",
        withdrawn.id: "withdrawn",
        "unknown": "deleted",
    }
    assert len(store.verification.holds([f"no {number}" for number in range(1203)])) == 1203


def test_a_form_from_its_answers_to_its_withdrawal(store: ControlStore, instance: Instance, clock: FrozenClock) -> None:
    made = configure(store, instance)
    forms = store.verification
    assert forms.form(made.id) is None
    with pytest.raises(NoForm):
        forms.decide_form(made.id, "approved", "boss")
    submitted = forms.submit_form(made.id, ANSWERS, "customer")
    assert (submitted.answers, submitted.submitted_by, submitted.decision) == (ANSWERS, "customer", None)
    assert forms.form(made.id) == submitted
    assert now_is(store, made).authorization is PENDING
    clock.advance(60)
    rejected, after = forms.decide_form(made.id, "rejected", "boss", "the website is empty")
    assert (rejected.decision, rejected.reason, rejected.decided_by) == ("rejected", "the website is empty", "boss")
    assert after.authorization is FAILED
    again = forms.submit_form(made.id, {**ANSWERS, "website": "a.test"}, "customer")
    assert (again.decision, now_is(store, made).authorization) == (None, PENDING)
    approved, after = forms.decide_form(made.id, "approved", "boss")
    assert (approved.decision, approved.answers["website"], after.authorization) == ("approved", "a.test", SUCCESSFUL)
    _, after = forms.decide_form(made.id, "rejected", "boss", "complaints")
    assert after.authorization is FAILED
    told = [(each.type, each.explanation) for each in forms.evidence(made.id)]
    assert told[0] == ("en_authorization", "rejected by boss: complaints")
    for change in (forms.submit_form,):
        with pytest.raises(NotThere):
            change("nobody", ANSWERS, "customer")
    with pytest.raises(NotThere):
        forms.decide_form("nobody", "approved", "boss")


def test_what_is_approved_by_setting_may_be_withdrawn_without_a_form(store: ControlStore, instance: Instance) -> None:
    key = NewKey("rsa", "public", b"private")
    made = store.tenancy.create_configuration(
        instance.id, name="n", domain="a.test", description="", key=key, authorization=SUCCESSFUL
    )
    form = store.verification.submit_form(made.id, ANSWERS, "customer")
    assert (form.decision, form.decided_by) == ("approved", "automatic")
    other = store.tenancy.create_configuration(
        instance.id, name="n", domain="b.test", description="", key=key, authorization=SUCCESSFUL
    )
    form, after = store.verification.decide_form(other.id, "rejected", "boss", "complaints")
    assert (form.answers, form.reason, after.authorization) == ({}, "complaints", FAILED)
    with pytest.raises(NoForm):
        store.verification.decide_form(other.id, "approved", "boss")


def test_a_check_that_began_before_a_newer_one_was_kept_counts_for_nothing(
    store: ControlStore, instance: Instance, clock: FrozenClock
) -> None:
    made = configure(store, instance)
    begun = clock.now()
    clock.advance(5)
    now = Checked("spf", SUCCESSFUL, "pass", "asked for by hand", begun=clock.now())
    store.verification.record([(made.id, [now])], stands(Standing.VERIFIED))
    clock.advance(5)
    heard: list[Sequence[Checked]] = []

    def decide(configuration: SmtpConfiguration, checked: Sequence[Checked], now: float) -> NewStanding:
        heard.append(checked)
        return NewStanding(Standing.VERIFIED, now, "", None)

    late = [Checked("spf", FAILED, "softfail", "", begun=begun), Checked("dkim", FAILED, "missing", "", begun=begun)]
    store.verification.record([(made.id, late)], decide)
    found = now_is(store, made)
    assert (found.spf, found.dkim) == (SUCCESSFUL, FAILED)  # nobody has looked at DKIM since
    assert [one.check for one in heard[0]] == ["dkim"]
    assert [each.result for each in store.verification.evidence(made.id)] == ["missing", "pass"]


def test_names_are_searched_in_any_case(store: ControlStore, instance: Instance) -> None:
    key = NewKey("rsa", "public", b"private")
    store.tenancy.create_configuration(instance.id, name="Ärger 100%", domain="a.test", description="", key=key)
    for text, total in (("ärger", 1), ("ÄRGER", 1), ("ARGER", 0), ("GER 100%", 1), ("ger_100", 0), ("%", 1)):
        assert store.tenancy.configurations(instance.id, search=text).total == total, text
