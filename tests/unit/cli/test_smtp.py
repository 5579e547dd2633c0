"""`outgate smtp`, against the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from outgate.model.tenancy import SmtpConfiguration, Verification
from outgate.store.keys import new_dkim_key
from support.api_service import Service

from .conftest import Outgate


@pytest.fixture(scope="module")
def configuration(service: Service) -> SmtpConfiguration:
    tenancy = service.store.tenancy
    for number in range(3):
        tenancy.create_configuration(
            service.instance.id,
            name=f"n{number}",
            domain=f"sub{number}.shop.test",
            description="",
            key=new_dkim_key(),
        )
    return tenancy.create_configuration(
        service.instance.id, name="Shop", domain="shop.test", description="Orders", key=new_dkim_key()
    )


@pytest.fixture
def form(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "form.json"
    file.write_text(json.dumps(FORM_EXAMPLE))
    yield file


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def document(result: Result) -> Any:
    return json.loads(good(result))


def test_lists(outgate: Outgate, configuration: SmtpConfiguration) -> None:
    assert len(document(outgate("smtp", "list", "--json"))["smtp_configurations"]) == 4
    lines = good(outgate("smtp", "list", "--search", "Shop")).splitlines()
    assert lines[0].split()[:3] == ["DOMAIN", "ID", "NAME"]
    assert any(line.split()[:3] == ["shop.test", configuration.id, "Shop"] for line in lines)


@pytest.mark.parametrize("by", ["id", "domain", "capitals"])
def test_the_records_are_ready_to_paste(outgate: Outgate, configuration: SmtpConfiguration, by: str) -> None:
    name = {"id": configuration.id, "domain": "shop.test", "capitals": "Shop.Test"}[by]
    shown = good(outgate("smtp", "show", name))
    assert 'shop.test. IN TXT "v=spf1 include:spf.outgate.test ~all"' in shown
    (dkim,) = [line for line in shown.splitlines() if "_domainkey" in line]
    owner, *rest = dkim.split(" ", 3)
    assert owner == f"{configuration.key.selector}._domainkey.shop.test."
    strings = rest[-1].strip('"').split('" "')
    assert "".join(strings) == f"v=DKIM1; k=rsa; p={configuration.key.public}"
    assert len(strings) == 2 and max(map(len, strings)) <= 255
    assert "standing" in shown and "PENDING" in shown
    assert document(outgate("smtp", "show", name, "--json"))["id"] == configuration.id


def test_verify_says_each_state_and_fails_with_one(
    outgate: Outgate, service: Service, configuration: SmtpConfiguration
) -> None:
    service.verifier.results = {"spf": Verification.SUCCESSFUL, "dkim": Verification.FAILED}
    result = outgate("smtp", "verify", "shop.test")
    assert result.exit_code == 1
    assert "spf    SUCCESSFUL" in result.stdout and "dkim   FAILED" in result.stdout
    assert "as told" in result.stdout  # why
    assert service.verifier.asked[-1] == ("shop.test", ("spf", "dkim"))
    service.verifier.results["dkim"] = Verification.SUCCESSFUL
    assert document(outgate("smtp", "verify", configuration.id, "--type", "dkim", "--json")) == {
        "status": [{"type": "dkim", "verification": "SUCCESSFUL"}]
    }
    wrong = outgate("smtp", "verify", "shop.test", "--type", "spf,dmarc")
    assert wrong.exit_code == 2 and "'dmarc'" in wrong.stderr and "en_authorization" in wrong.stderr


def test_checks(outgate: Outgate, service: Service, configuration: SmtpConfiguration) -> None:
    service.verifier.results = {"spf": Verification.FAILED}
    outgate("smtp", "verify", "shop.test", "--type", "spf")
    shown = good(outgate("smtp", "checks", "shop.test"))
    assert "standing" in shown and "as told" in shown
    assert document(outgate("smtp", "checks", "shop.test", "--json"))["domain"] == "shop.test"


def test_users_and_a_new_password(outgate: Outgate, service: Service, configuration: SmtpConfiguration) -> None:
    user = service.store.tenancy.create_user(
        service.instance.id, configuration.id, description="the shop", verifier="none"
    )
    assert user.username in good(outgate("smtp", "users", "shop.test"))
    assert document(outgate("smtp", "users", "shop.test", "--json"))["users"][0]["id"] == user.id
    made = outgate("smtp", "rotate", "shop.test", user.id, "--overlap", "30m")
    password = good(made).strip()
    assert "\n" not in password and len(password) >= 20
    assert "shown only now" in made.stderr and "good until" in made.stderr and password not in made.stderr
    at_once = outgate("smtp", "rotate", "shop.test", user.id, "--overlap", "0s")
    assert good(at_once) != good(made) and "is void" in at_once.stderr
    assert document(outgate("smtp", "rotate", "shop.test", user.id, "--json"))["former_valid_until"]
    wrong = outgate("smtp", "rotate", "shop.test", user.id, "--overlap", "a day")
    assert wrong.exit_code == 2 and "24h" in wrong.stderr
    long = outgate("smtp", "rotate", "shop.test", user.id, "--overlap", "8w")
    assert long.exit_code == 1 and "overlap_s" in long.stderr
    missing = outgate("smtp", "rotate", "shop.test", "nobody")
    assert missing.exit_code == 1 and "no SMTP user" in missing.stderr


def test_both_sides_of_the_form(
    outgate: Outgate, service: Service, configuration: SmtpConfiguration, form: Path
) -> None:
    none = outgate("smtp", "authorization", "show", "shop.test")
    assert none.exit_code == 1 and "authorisation form" in none.stderr
    shown = good(outgate("smtp", "authorization", "submit", "shop.test", "--file", str(form)))
    assert "nature" in shown and "transactional" in shown
    for verb in (("approve",), ("reject", "--reason", "no")):
        refused = outgate("smtp", "authorization", verb[0], "shop.test", *verb[1:])
        assert refused.exit_code == 1 and "authorizer" in refused.stderr
    rejected = good(
        outgate("smtp", "authorization", "reject", "shop.test", "--reason", "whose list?", roles=("authorizer",))
    )
    assert "rejected" in rejected and "whose list?" in rejected
    approved = document(outgate("smtp", "authorization", "approve", "shop.test", "--json", roles=("authorizer",)))
    assert approved["verification"] == "SUCCESSFUL"
    found = service.store.tenancy.configuration(service.instance.id, configuration.id)
    assert found is not None and found.authorization is Verification.SUCCESSFUL


def test_wrong_forms(outgate: Outgate, configuration: SmtpConfiguration, tmp_path: Path) -> None:
    def submit(file: Path) -> Result:
        return outgate("smtp", "authorization", "submit", "shop.test", "--file", str(file))

    missing = submit(tmp_path / "none.json")
    assert missing.exit_code == 2 and "none.json cannot be read" in missing.stderr
    for text, says in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        (tmp_path / "wrong.json").write_text(text)
        wrong = submit(tmp_path / "wrong.json")
        assert wrong.exit_code == 2 and says in wrong.stderr
    (tmp_path / "wrong.json").write_text('{"nature": "spam"}')
    refused = submit(tmp_path / "wrong.json")
    assert refused.exit_code == 1 and "'nature'" in refused.stderr and "'website' is required" in refused.stderr
    unsaid = outgate("smtp", "authorization", "reject", "shop.test")
    assert unsaid.exit_code == 2 and "--reason" in unsaid.stderr


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("elsewhere.test", 1, "outgate smtp list"),
        ("a b", 2, "neither"),
        ("00000000-0000-0000-0000-000000000000", 1, "no SMTP configuration"),
    ],
)
def test_configurations_that_are_not_there(
    outgate: Outgate, configuration: SmtpConfiguration, name: str, code: int, says: str
) -> None:
    result = outgate("smtp", "show", name)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr and "Traceback" not in result.stderr
