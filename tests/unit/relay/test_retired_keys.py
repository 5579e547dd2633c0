"""Private halves of keys go when nothing can need them: not while mail that names them is in the queue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.flow import SigningKey
from outgate.relay.retired_keys import RetiredKeys
from outgate.store.control import open_control
from outgate.store.keys import NewKey, new_dkim_key
from outgate.store.secrets import open_box
from outgate.store.tenancy import NotThere
from support.queue_mail import NOW, Desk, accepted, attempt

KEEP = 1000.0


@pytest.mark.parametrize("place", ["first", "second"])
async def test_a_key_waits_for_the_last_message_that_names_it(tmp_path: Path, place: str) -> None:
    clock = FrozenClock(NOW)
    control = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    desk = Desk(tmp_path, clock)
    instance = control.tenancy.create_instance(control.tenancy.create_account(), "eu-de", "test")
    made = control.tenancy.create_configuration(
        instance.id, name="n", domain="shop.test", description="", key=NewKey("rsa", "public", b"private")
    )
    control.tenancy.import_key(made.id, new_dkim_key().pem, "new")
    old = made.key.id
    key = SigningKey(old, "shop.test", "s") if place == "first" else SigningKey("k", "shop.test", "s", old, "t")
    message = replace(accepted(), signing_key=key)
    (job,) = desk.store_all(message)
    assert job.signing_key == key
    record = desk.store.message(message.queue_id)
    assert record is not None and record.signing_key == key
    forgotten: list[str] = []
    retired = RetiredKeys(control.signing_keys, desk.store.keys_needed, clock, keep_s=KEEP, destroyed=forgotten.append)
    clock.advance(KEEP - 1)
    await retired.look()
    assert forgotten == []
    clock.advance(2)
    await retired.look()
    assert forgotten == [] and control.tenancy.signing_key_pem(old) == b"private"
    # A retry, taken from the rows, signs with the same keys.
    desk.store.release(job, clock.now())
    desk.store.flush()
    (again,) = desk.store.claim(clock.now(), 10)
    assert again.signing_key == key
    desk.store.record(attempt(again))
    desk.store.flush()
    await retired.look()
    assert forgotten == [old]
    with pytest.raises(NotThere):
        control.tenancy.signing_key_pem(old)
    await retired.look()
    assert forgotten == [old]
    clock.advance(31 * 86_400)
    await retired.look()
    assert [kept.key.selector for kept in control.signing_keys.keys(made.id)] == ["new"]
    desk.store.close()
    control.close()


async def test_nothing_is_destroyed_while_the_queue_cannot_be_asked() -> None:
    class Failing:
        def unneeded(self, before: float, limit: int = 500) -> list[str]:
            return ["a"]

        def destroy(self, key_ids: object) -> None:
            raise AssertionError("nobody said that it is not needed")

        def forget(self, before: float) -> None: ...

    def needed(key_ids: object) -> set[str]:
        raise OSError("disk")

    retired = RetiredKeys(Failing(), needed, FrozenClock(NOW), keep_s=1, destroyed=print)
    with pytest.raises(OSError, match="disk"):
        await retired.look()
