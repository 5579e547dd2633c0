"""The laptop mode's tenant: made once, and given what later releases add."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from outgate.base.clock import FrozenClock
from outgate.sandbox import tenant as tenants
from outgate.store.control import open_control
from outgate.store.secrets import open_box


def test_a_key_from_before_a_role_existed_gets_it(tmp_path: Path) -> None:
    control = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    tenant = tenants.choose(tmp_path / "tenant.json")

    def roles() -> frozenset[str]:
        tenants.make_relay_side(
            control, tenant, domain="example.test", key_pem=None, selector="", verifier="not looked at"
        )
        (key,) = control.identity.api_keys(tenant.account_id)
        return key.roles

    assert roles() == tenants.ALL_ROLES
    (key,) = control.identity.api_keys(tenant.account_id)
    control.identity.replace_api_key(replace(key, roles=key.roles - {"smtp"}))
    assert roles() == tenants.ALL_ROLES
    control.close()


def test_the_vpc_and_its_subnet_are_made_again_but_in_nobodys_place(tmp_path: Path) -> None:
    control = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), FrozenClock())
    tenant = tenants.choose(tmp_path / "tenant.json")
    control.tenancy.create_account(tenant.account_id)
    for _ in range(2):
        tenants.make_private_side(control, tenant)
        ((subnet, held),) = control.vpc.subnets(tenant.account_id)
        assert (subnet.id, subnet.network, held) == (tenant.subnet_id, "127.20.0.0/24", 0)
        assert (subnet.vpc.id, subnet.vpc.crn) == (tenant.vpc_id, tenant.vpc_crn)
    control.vpc.delete_subnet(tenant.account_id, tenant.subnet_id)
    mine = control.vpc.create_subnet(
        tenant.account_id, tenant.vpc_id, name="mine", zone="us-south-1", network="127.20.0.0/25", by="me"
    )
    tenants.make_private_side(control, tenant)
    assert control.vpc.subnets(tenant.account_id) == ((mine, 0),)
    control.vpc.delete_subnet(tenant.account_id, mine.id)
    tenants.make_private_side(control, tenant)
    assert control.vpc.subnet(tenant.account_id, tenant.subnet_id)
    control.close()
