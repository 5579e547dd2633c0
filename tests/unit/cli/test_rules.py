"""`outgate smtp limits`, `html`, `marketing`, `attachments`, against the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outgate.model.tenancy import SmtpConfiguration
from outgate.store.keys import new_dkim_key
from support.api_service import Service

from .conftest import Outgate

OPERATOR = ("reader", "operator")


@pytest.fixture(scope="module")
def configuration(service: Service) -> SmtpConfiguration:
    tenancy = service.store.tenancy
    return tenancy.create_configuration(service.instance.id, name="n", domain="rules.test", description="", key=new_dkim_key())  # fmt: skip


def said(outgate: Outgate, *arguments: str) -> Any:
    result = outgate("smtp", *arguments, "--json", roles=OPERATOR)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_limits(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    assert said(outgate, "limits", "rules.test")["per_hour"] is None
    found = said(outgate, "limits", "rules.test", "--per-hour", "5", "--per-day", "50", "--over", "hold")
    assert (found["per_hour"], found["per_day"], found["over"]) == (5, 50, "hold")
    assert said(outgate, "limits", configuration.id, "--per-day", "0")["per_day"] is None
    shown = outgate("smtp", "limits", "rules.test", roles=OPERATOR).stdout
    lines = [line.split(maxsplit=2) for line in shown.splitlines()]
    assert ["per", "hour", "5"] in lines and ["per", "day", "no limit"] in lines and ["over", "it", "hold"] in lines


def test_html_and_marketing(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    assert said(outgate, "html", "rules.test", "warn")["html"] == "warn"
    assert said(outgate, "html", "rules.test")["html"] == "warn"
    assert said(outgate, "marketing", "rules.test", "yes")["unsubscribe_required"] is True
    assert "marketing  yes (an operator's word)" in outgate("smtp", "marketing", "rules.test", roles=OPERATOR).stdout
    assert said(outgate, "marketing", "rules.test", "form")["marketing"] is None
    assert "no (no form is answered)" in outgate("smtp", "marketing", "rules.test", roles=OPERATOR).stdout


def test_attachments(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    assert outgate("smtp", "attachments", roles=OPERATOR).stdout == "attachments  refused\n"
    assert outgate("smtp", "attachments", "allow", roles=OPERATOR).stdout == "attachments  allowed\n"
    assert said(outgate, "attachments", "refuse")["attachments"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("limits", "rules.test", "--per-hour", "-1"), 2, "--per-hour"), (("limits", "rules.test", "--over", "bounce"), 2, "refuse, hold"),
        (("html", "rules.test", "strict"), 2, "off, warn, refuse"), (("attachments", "some"), 2, "allow, refuse"), (("limits", "none.test"), 1, "there is no configuration of none.test"),
    ],
)  # fmt: skip
def test_wrong_use(
    outgate: Outgate, configuration: SmtpConfiguration, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = outgate("smtp", *arguments, roles=OPERATOR)
    assert result.exit_code == code and words in result.output


def test_who_may_not(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    result = outgate("smtp", "limits", "rules.test", "--per-hour", "5", roles=("manager",))
    assert result.exit_code == 1 and "operator" in result.output
