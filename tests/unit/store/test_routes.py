"""Routes as they are stored: order, sealed passwords, what keeps a password, and forwards as ways out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.base.clock import FrozenClock
from outgate.model.egress import Mode, PortForward
from outgate.model.routes import DIRECT, RouteSpec, RouteTls, RouteType
from outgate.model.tenancy import SmtpConfiguration
from outgate.store.control import ControlStore, open_control
from outgate.store.keys import new_dkim_key
from outgate.store.routes import PasswordMissing
from outgate.store.secrets import open_box
from outgate.store.tenancy import NotThere

SMART = RouteSpec(
    "", "primary", RouteType.SMART_HOST, "smtp.example.net", 587, username="shop", password="correct horse",
    names=("smtp.example.net",),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    made = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    yield made
    made.close()


@pytest.fixture
def configuration(store: ControlStore) -> SmtpConfiguration:
    tenancy = store.tenancy
    instance = tenancy.create_instance(tenancy.create_account(), "eu-de", "x")
    return tenancy.create_configuration(instance.id, name="n", domain="r.test", description="", key=new_dkim_key())


def put(store: ControlStore, it: SmtpConfiguration, *wanted: RouteSpec) -> tuple[RouteSpec, ...]:
    return store.routes.replace(it.instance_id, it.id, wanted, by="tester")


def test_an_order_is_replaced_as_a_whole(store: ControlStore, configuration: SmtpConfiguration) -> None:
    assert store.routes.of(configuration.id) == ()
    after = put(store, configuration, SMART, DIRECT)
    assert store.routes.of(configuration.id) == after
    assert [spec.name for spec in after] == ["primary", "direct"] and after[0].password == "correct horse"
    again = put(store, configuration, DIRECT, SMART)
    assert [spec.id for spec in again] == [after[1].id, after[0].id], "what is as it was keeps its id"
    assert put(store, configuration, replace(SMART, port=2525))[0].id != after[0].id
    assert put(store, configuration) == () == store.routes.of(configuration.id)


def test_names(store: ControlStore, configuration: SmtpConfiguration) -> None:
    put(store, configuration, SMART, DIRECT)
    assert store.routes.names([configuration.id]) == store.routes.names([]) == ("direct", "primary")
    assert store.routes.names(["other"]) == ()


def test_a_change_is_noticed(store: ControlStore, configuration: SmtpConfiguration) -> None:
    before = store.revision()
    put(store, configuration, DIRECT)
    assert store.revision() > before


def test_a_password_is_sealed_and_shown_by_nothing(
    store: ControlStore, configuration: SmtpConfiguration, tmp_path: Path
) -> None:
    (spec,) = put(store, configuration, SMART)
    assert "correct horse" not in repr(spec)
    with closing(sqlite3.connect(tmp_path / "control.db")) as connection:
        assert "correct horse" not in "\n".join(connection.iterdump())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"correct horse" not in (tmp_path / "control.db").read_bytes()


def test_a_password_is_kept_for_the_same_login_at_the_same_place_only(
    store: ControlStore, configuration: SmtpConfiguration
) -> None:
    put(store, configuration, SMART)
    bare = replace(SMART, password="")
    assert put(store, configuration, DIRECT, bare)[1].password == "correct horse"
    elsewhere = [
        replace(bare, host="smtp.evil.example"), replace(bare, port=25), replace(bare, username="other"),
        replace(bare, verify=False, names=()), replace(bare, names=("smtp.evil.example",)),
        replace(bare, authorities="x"), replace(bare, tls=RouteTls.IMPLICIT), replace(bare, name="renamed"),
    ]  # fmt: skip
    for wanted in elsewhere:
        with pytest.raises(PasswordMissing) as caught:
            put(store, configuration, DIRECT, wanted)
        assert caught.value.index == 1
    assert store.routes.of(configuration.id)[1].password == "correct horse", "what was refused changed nothing"
    assert put(store, configuration, replace(bare, username=""))[0].password == ""


def test_a_configuration_that_is_gone_takes_none_and_keeps_its_own(
    store: ControlStore, configuration: SmtpConfiguration
) -> None:
    put(store, configuration, SMART)
    store.tenancy.delete_configuration(configuration.instance_id, configuration.id)
    with pytest.raises(NotThere):
        put(store, configuration, DIRECT)
    assert store.routes.of(configuration.id)[0].password == "correct horse"


def test_forwards_as_ways_out(store: ControlStore) -> None:
    egress, routes = store.egress, store.routes
    program = egress.add_program("org", "account", "p")
    environment = egress.add_environment(
        program.id, "e", kind="prod", region="x", tunnel_address="127.1.0.1", client_networks=["127.0.0.0/8"]
    )

    def found(port: int = 5025, program_id: str = program.id) -> str:
        forward = routes.forward(program_id, environment.id, port)
        return forward.trouble or f"{forward.address} {forward.name}:{forward.port_dest}"

    assert "not enabled" in found()
    way = egress.add_infrastructure(program.id, Mode.FLEXIBLE, "x")
    egress.put_networking(environment.id, way.id, [PortForward("smtp.example.net", 5025, 587)], [], actor="t")
    assert found() == "127.1.0.1 smtp.example.net:587", "what is on its way to be open may be tried"
    egress.settle(environment.id, 1, "")
    assert found() == "127.1.0.1 smtp.example.net:587"
    assert "no forward at portOrig 5026 (there are: 5025)" in found(5026)
    assert "there is no environment" in found(program_id="other")
    assert routes.owner_of(program.id, environment.id) == "account"
    assert routes.owner_of("other", environment.id) is None
    egress.settle(environment.id, 1, "the port is taken")
    assert "failed, not ready: the port is taken" in found()
    other = egress.add_environment(
        program.id, "f", kind="dev", region="x", tunnel_address="127.1.0.2", client_networks=[]
    )
    broken = egress.add_infrastructure(program.id, Mode.DEDICATED, "y")
    egress.put_networking(other.id, broken.id, [PortForward("smtp.example.net", 5025, 587)], [], actor="t")
    store.infrastructures.settle_infrastructure(broken.id, 1, "failed", "no address")
    assert f"network infrastructure {broken.id} is failed" in routes.forward(program.id, other.id, 5025).trouble
