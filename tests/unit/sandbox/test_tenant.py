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
