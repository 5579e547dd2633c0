"""The control store: tenants, keys, users and what the relay reads of them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Checked, Instance, NewStanding, SmtpConfiguration, Standing, Verification
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import BadKey, NewKey, new_dkim_key, read_dkim_key
from outgate.store.secrets import SealError, open_box
from outgate.store.tenancy import Conflict, NotThere, TooMany


@pytest.fixture(scope="module")
def key() -> NewKey:
    return new_dkim_key()


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
    return store.tenancy.create_instance(store.tenancy.create_account("acc"), "eu-de", "first")


def configure(store: ControlStore, instance: Instance, key: NewKey, domain: str = "a.test") -> SmtpConfiguration:
    return store.tenancy.create_configuration(
        instance.id, name=f"name of {domain}", domain=domain, description="", key=key
    )


def test_everything_survives_a_restart(tmp_path: Path, clock: FrozenClock, key: NewKey) -> None:
    for _ in range(2):
        store = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
        store.tenancy.create_account("acc")
        if not store.tenancy.instances("acc"):
            made = store.tenancy.create_instance("acc", "eu-de", "first", attachments=True)
            configuration = configure(store, made, key)
        assert store.tenancy.instances("acc") == (made,)
        assert store.tenancy.configuration(made.id, configuration.id) == configuration
        assert store.tenancy.signing_key_pem(configuration.key.id) == key.pem
        store.close()


def test_private_key_is_never_on_disk_in_clear(
    tmp_path: Path, store: ControlStore, instance: Instance, key: NewKey
) -> None:
    configure(store, instance, key)
    numbers = load_pem_private_key(key.pem, None).private_numbers()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("control.db*"))
    assert b"name of a.test" in stored
    assert b"PRIVATE KEY" not in stored
    assert numbers.p.to_bytes(128, "big") not in stored


def test_sealed_key_cannot_be_moved_to_another_row(store: ControlStore, instance: Instance, key: NewKey) -> None:
    one, two = configure(store, instance, key), configure(store, instance, key, "b.test")
    with store.tenancy._database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE dkim_keys SET sealed = (SELECT sealed FROM dkim_keys WHERE id = ?) WHERE id = ?",
            (one.key.id, two.key.id),
        )
    with pytest.raises(SealError):
        store.tenancy.signing_key_pem(two.key.id)
    with pytest.raises(NotThere):
        store.tenancy.signing_key_pem("nobody's")


def test_domain_once_per_instance_until_deleted(store: ControlStore, instance: Instance, key: NewKey) -> None:
    first = configure(store, instance, key)
    with pytest.raises(Conflict) as refused:
        configure(store, instance, key)
    assert refused.value.field == "domain"
    other = store.tenancy.create_instance("acc", "eu-de", "other")
    assert configure(store, other, key).domain == "a.test"
    store.tenancy.delete_configuration(instance.id, first.id)
    assert store.tenancy.configuration(instance.id, first.id) is None
    second = configure(store, instance, key)
    assert store.tenancy.configuration_by_domain(instance.id, "a.test") == second
    # Queued mail of the deleted one still has to be signed.
    assert store.tenancy.signing_key_pem(first.key.id) == key.pem
    with pytest.raises(NotThere):
        store.tenancy.delete_configuration(instance.id, first.id)


def test_search_takes_wildcards_literally(store: ControlStore, instance: Instance, key: NewKey) -> None:
    for name, domain in (("100% Shop", "a.test"), ("100 Shops", "b.test"), ("a_b", "c.test"), ("axb", "d.test")):
        store.tenancy.create_configuration(instance.id, name=name, domain=domain, description="", key=key)

    def names(search: str) -> list[str]:
        return [item.name for item in store.tenancy.configurations(instance.id, search=search).items]

    assert names("100%") == ["100% Shop"]
    assert names("a_b") == ["a_b"]
    assert sorted(names("SHOP")) == ["100 Shops", "100% Shop"]


def test_update_keeps_what_is_not_given(
    store: ControlStore, instance: Instance, key: NewKey, clock: FrozenClock
) -> None:
    made = configure(store, instance, key)
    clock.advance(5)
    changed = store.tenancy.update_configuration(instance.id, made.id, description="new")
    assert (changed.name, changed.description, changed.updated_at) == (made.name, "new", made.updated_at + 5)
    assert store.tenancy.update_instance(instance.id, attachments=True).attachments
    with pytest.raises(NotThere):
        store.tenancy.update_configuration("other", made.id, name="x")


def test_import_key_replaces_the_signer_and_keeps_the_old_key(
    store: ControlStore, instance: Instance, key: NewKey
) -> None:
    made = configure(store, instance, key)
    verified = NewStanding(Standing.VERIFIED, 1.0, "", 2.0)
    found = [Checked(check, Verification.SUCCESSFUL, "ok", "") for check in ("spf", "dkim")]
    store.verification.record([(made.id, found)], lambda *_: verified)
    imported = new_dkim_key()
    stored = store.tenancy.import_key(made.id, imported.pem, "bench")
    found = store.tenancy.configuration(instance.id, made.id)
    assert found is not None
    assert found.key == stored
    assert (found.key.selector, found.key.public, found.dkim) == ("bench", imported.public, Verification.PENDING)
    assert (found.standing, found.recheck_at) == (Standing.UNVERIFIED, None)
    assert store.tenancy.signing_key_pem(stored.id) == imported.pem
    assert store.tenancy.signing_key_pem(made.key.id) == key.pem


def test_only_plain_rsa_keys_are_read() -> None:
    small = rsa.generate_private_key(65537, 1024)
    pkcs1 = small.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert read_dkim_key(pkcs1).algorithm == "rsa"
    locked = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    long = rsa.generate_private_key(65537, 3072).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem, says in ((locked, "unencrypted"), (b"rubbish", "PEM"), (curve, "not an RSA"), (long, "3072 bits")):
        with pytest.raises(BadKey, match=says):
            read_dkim_key(pem)
    assert "PRIVATE" not in repr(read_dkim_key(pkcs1))


def test_sender_knows_every_domain_of_a_shared_name(store: ControlStore, instance: Instance, key: NewKey) -> None:
    one, two = configure(store, instance, key), configure(store, instance, key, "b.test")
    user = store.tenancy.create_user(instance.id, one.id, description="d", verifier="$argon2id$x")
    clone = store.tenancy.clone_user(instance.id, two.id, username=user.username, description="")
    sender = store.tenancy.sender(user.username)
    assert sender is not None
    assert sender.configurations == {"a.test": one, "b.test": two}
    assert (sender.instance, sender.credential.verifier) == (instance, "$argon2id$x")
    assert store.tenancy.user(two.id, clone.id) == clone
    assert store.tenancy.users(one.id, search=user.username[3:9].upper()).items == (user,)
    rotated = store.tenancy.rotate_user(two.id, clone.id, verifier="$argon2id$y", overlap_s=60.0)
    assert rotated == clone  # nothing of it is the user's own
    with pytest.raises(NotThere):
        store.tenancy.rotate_user(one.id, clone.id, verifier="v", overlap_s=0.0)
    store.tenancy.delete_user(one.id, user.id)
    sender = store.tenancy.sender(user.username)
    assert sender is not None
    assert (list(sender.configurations), sender.credential.verifier) == (["b.test"], "$argon2id$y")
    credential = sender.credential
    assert (credential.former_verifier, credential.former_until) == ("$argon2id$x", rotated.updated_at + 60)
    store.tenancy.rotate_user(two.id, clone.id, verifier="$argon2id$z", overlap_s=0.0)
    sender = store.tenancy.sender(user.username)
    assert sender is not None
    assert (sender.credential.former_verifier, sender.credential.former_until) == (None, None)
    store.tenancy.delete_user(two.id, clone.id)
    assert store.tenancy.sender(user.username) is None
    assert store.tenancy.sender("nobody") is None


def test_many_senders_are_read_together(store: ControlStore, instance: Instance, key: NewKey) -> None:
    one, two = configure(store, instance, key), configure(store, instance, key, "b.test")
    first, second = (
        store.tenancy.create_user(instance.id, made.id, description="", verifier="v") for made in (one, two)
    )
    store.tenancy.clone_user(instance.id, two.id, username=first.username, description="")
    names = [f"nobody{number}" for number in range(1200)]
    found = store.tenancy.senders([*names[:600], first.username, *names[600:], second.username])
    assert found == {name: store.tenancy.sender(name) for name in (first.username, second.username)}
    assert [sorted(each.configurations) for each in found.values()] == [["a.test", "b.test"], ["b.test"]]
    assert store.tenancy.senders(()) == {}


def test_deleting_a_configuration_deletes_its_users(store: ControlStore, instance: Instance, key: NewKey) -> None:
    made = configure(store, instance, key)
    user = store.tenancy.create_user(instance.id, made.id, description="", verifier="v")
    store.tenancy.delete_configuration(instance.id, made.id)
    assert store.tenancy.sender(user.username) is None


def test_clone_refusals(store: ControlStore, instance: Instance, key: NewKey) -> None:
    made = configure(store, instance, key)
    user = store.tenancy.create_user(instance.id, made.id, description="", verifier="v")
    other = store.tenancy.create_instance("acc", "eu-de", "other")
    elsewhere = configure(store, other, key)
    for instance_id, config_id in ((instance.id, made.id), (other.id, elsewhere.id)):
        with pytest.raises(Conflict) as refused:
            store.tenancy.clone_user(instance_id, config_id, username=user.username, description="")
        assert refused.value.field == "username_to_clone"


def test_five_users_at_most_even_when_all_come_at_once(
    tmp_path: Path, store: ControlStore, instance: Instance, key: NewKey
) -> None:
    made = configure(store, instance, key)
    # A second store stands for a second process: only the file's own lock is between the two.
    second = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    together = threading.Barrier(12)

    def create(number: int) -> bool:
        tenancy = (store, second)[number % 2].tenancy
        together.wait()
        try:
            tenancy.create_user(instance.id, made.id, description=str(number), verifier="v")
        except TooMany:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(create, range(12))) == 5
    second.close()
    assert store.tenancy.users(made.id).total == 5


def test_a_writer_shuts_others_out_from_its_first_statement(tmp_path: Path, store: ControlStore) -> None:
    with (
        store.tenancy._database.writing() as connection,
        closing(sqlite3.connect(tmp_path / "control.db", timeout=0)) as other,
    ):
        connection.exec_driver_sql("SELECT count(*) FROM accounts")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    with (
        store.tenancy._database.reading() as connection,
        closing(sqlite3.connect(tmp_path / "control.db", timeout=0)) as other,
    ):
        connection.exec_driver_sql("SELECT count(*) FROM accounts")
        other.execute("BEGIN IMMEDIATE")


def test_a_deleted_user_s_slot_is_free_again(
    store: ControlStore, instance: Instance, key: NewKey, clock: FrozenClock
) -> None:
    made = configure(store, instance, key)
    for number in range(5):
        store.tenancy.create_user(instance.id, made.id, description=str(number), verifier="v")
        clock.advance(1)
    first, second = store.tenancy.users(made.id).items[:2]
    store.tenancy.update_user(made.id, first.id, description="kept")
    store.tenancy.delete_user(made.id, second.id)
    store.tenancy.create_user(instance.id, made.id, description="new", verifier="v")
    assert {user.description for user in store.tenancy.users(made.id).items} == {"kept", "2", "3", "4", "new"}
    with pytest.raises(NotThere):
        store.tenancy.delete_user(made.id, second.id)


def test_data_version_tells_of_changes_here_and_in_other_processes(tmp_path: Path, store: ControlStore) -> None:
    before = store.data_version()
    assert store.data_version() == before
    store.tenancy.instances()
    assert store.data_version() == before
    store.tenancy.create_account("here")
    after = store.data_version()
    assert after != before
    code = (
        "import sys, pathlib; from outgate.base.clock import FrozenClock; from outgate.store.control import open_control;"
        " from outgate.store.secrets import open_box; d = pathlib.Path(sys.argv[1]);"
        " open_control(d / 'control.db', open_box(d / 'master.key'), FrozenClock()).tenancy.create_account('there')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert store.data_version() != after


def test_snapshot_generation_moves_with_access_alone(store: ControlStore, instance: Instance, key: NewKey) -> None:
    snapshot = store.access.snapshot()
    assert snapshot.instances == ((instance.id, instance.account_id, "eu-de"),)
    assert snapshot.generation == store.access.revision()
    configure(store, instance, key)
    assert store.access.revision() == snapshot.generation
    store.tenancy.create_instance(instance.account_id, "eu-de", "another")
    assert store.access.snapshot().generation == store.access.revision() > snapshot.generation


def test_a_failed_write_is_undone(store: ControlStore) -> None:
    with pytest.raises(RuntimeError), store.tenancy._database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO accounts VALUES ('half', 1.0)")
        raise RuntimeError
    with store.tenancy._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM accounts").scalar() == 0
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_page_of_many_is_read_from_an_index_alone(store: ControlStore, instance: Instance, key: NewKey) -> None:
    made = sorted(configure(store, instance, key, f"{number}.test").id for number in range(5))  # all at one time
    statements: list[str] = []
    sa.event.listen(store._database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    found = store.tenancy.configurations(instance.id, limit=2, offset=2)
    assert (found.total, [each.id for each in found.items]) == (5, made[2:4])
    store.tenancy.delete_configuration(instance.id, made[0])
    assert store.tenancy.configurations(instance.id, limit=2, offset=2).total == 4
    counted = [each for each in statements if "count(" in each]
    assert len(counted) == 2  # once, and once more after the change
    with store._database.reading() as connection:
        for statement in (counted[0], next(each for each in statements if "IN (SELECT" in each)):
            values = ("x",) * statement.count("?")
            plan = " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
            assert "COVERING INDEX smtp_configurations_listed" in plan, plan


def test_an_error_tells_no_values(store: ControlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are logged, and the values of a statement are digests of passwords, verifiers, sealed keys."""
    monkeypatch.setattr("outgate.store.identity._digest", lambda clear: f"digest of {clear}")
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO elsewhere")
    with pytest.raises(sa.exc.OperationalError) as caught:
        store.identity.find_api_key("hunter2")
    assert "no such table: api_keys" in str(caught.value) and "hunter2" not in str(caught.value)
