"""`outgate smtp dkim`, against the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outgate.model.tenancy import SmtpConfiguration
from outgate.store.keys import new_dkim_key
from support.api_service import Service

from .conftest import Outgate


@pytest.fixture(scope="module")
def configuration(service: Service) -> SmtpConfiguration:
    tenancy = service.store.tenancy
    return tenancy.create_configuration(service.instance.id, name="n", domain="keys.test", description="", key=new_dkim_key())  # fmt: skip


def said(outgate: Outgate, *arguments: str) -> Any:
    result = outgate("smtp", "dkim", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_whole_way(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    name = configuration.key.name("keys.test")
    shown = outgate("smtp", "dkim", "show", "keys.test").stdout
    assert "rotation  none" in shown and f'{name}. IN TXT "v=DKIM1; k=rsa; p=' in shown
    assert "Publish its record" in shown
    found = said(outgate, "rotate", configuration.id)
    assert found["rotating"] and [key["state"] for key in found["keys"]] == ["active", "next"]
    again = outgate("smtp", "dkim", "rotate", "keys.test")
    assert again.exit_code == 1 and "a rotation is under way" in again.output
    shown = outgate("smtp", "dkim", "show", "keys.test").stdout
    assert "rotation  under way" in shown
    assert f"{found['keys'][1]['txt_name']}. IN TXT" in shown
    assert not said(outgate, "cancel", "keys.test")["rotating"]
    nothing = outgate("smtp", "dkim", "cancel", "keys.test")
    assert nothing.exit_code == 1 and "no rotation" in nothing.output
    assert said(outgate, "ed25519", "keys.test", "on")["keys"][1]["algorithm"] == "ed25519"
    assert len(said(outgate, "ed25519", "keys.test", "off")["keys"]) == 1
    wrong = outgate("smtp", "dkim", "ed25519", "keys.test", "perhaps")
    assert wrong.exit_code == 2 and "not one of on, off" in wrong.output
