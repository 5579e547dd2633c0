"""`outgate smtp`, against the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from outgate.api.event_notifications.authorization import FORM_EXAMPLE
from outgate.connection import Api
from outgate.model.tenancy import Checked, SmtpConfiguration, Verification
from outgate.store.keys import new_dkim_key
from support.api_service import Service, as_it_stood

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
    assert outgate("smtp", "list", "--search", "\udcff").exit_code == 2
    lines = good(outgate("smtp", "list", "--search", "Shop")).splitlines()
    assert lines[0].split()[:3] == ["DOMAIN", "ID", "NAME"]
    assert any(line.split()[:3] == ["shop.test", configuration.id, "Shop"] for line in lines)


def test_endpoints(outgate: Outgate) -> None:
    first, second = document(outgate("smtp", "endpoints", "--json"))["endpoints"]
    assert (first["id"], first["regions"], second["submissions_port"]) == ("fra", ["eu-de", "eu-es"], 2465)
    fields = [line.split(None, 1) for line in good(outgate("smtp", "endpoints")).splitlines() if line]
    told = [line.replace("   ", "  ") for line in good(outgate("smtp", "endpoints")).splitlines()]
    assert fields[:2] == [["endpoint", "fra"], ["regions", "eu-de eu-es"]]
    for words in (
        "smtp.test",
        "private.smtp.test",
        "587 (STARTTLS), 465 (TLS)",
        "192.0.2.10",
        "192.0.2.20 2001:db8::20",
    ):
        assert any(line.endswith(f"  {words}") for line in told), words
    assert any("no address" in line for line in told) and "" in told
    assert outgate("smtp", "endpoints", roles=("runtime",)).exit_code == 1


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
    (status,) = document(outgate("smtp", "verify", configuration.id, "--type", "dkim", "--json"))["status"]
    assert status == {"type": "dkim", "verification": "SUCCESSFUL", "result": "SUCCESSFUL", "explanation": "as told"}
    wrong = outgate("smtp", "verify", "shop.test", "--type", "spf,dmarc")
    assert wrong.exit_code == 2 and "'dmarc'" in wrong.stderr and "en_authorization" in wrong.stderr


def test_a_check_that_could_not_be_made_is_told(
    outgate: Outgate, service: Service, configuration: SmtpConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_ones = [
        Checked("spf", Verification.SUCCESSFUL, "pass", "is as it was"),
        Checked("dkim", Verification.SUCCESSFUL, "ok", "is as it was"),
    ]

    def found(*checked: Checked) -> None:
        async def verify(configuration: SmtpConfiguration, types: object) -> dict[str, Verification]:
            service.store.verification.record([(configuration.id, checked)], as_it_stood)
            return {"spf": Verification.SUCCESSFUL, "dkim": Verification.SUCCESSFUL}

        monkeypatch.setattr(service.verifier, "verify", verify)

    found(*good_ones)
    shown = good(outgate("smtp", "verify", "shop.test"))
    assert "spf    SUCCESSFUL  pass" in shown and "dkim   SUCCESSFUL  ok" in shown and "is as it was" not in shown
    found(Checked("spf", None, "temperror", "TXT of shop.test: servfail; the state is kept"), good_ones[1])
    result = outgate("smtp", "verify", "shop.test")
    assert result.exit_code == 1
    assert "spf    SUCCESSFUL  temperror  TXT of shop.test: servfail; the state is kept" in result.stdout
    assert "is as it was" not in result.stdout
    result = outgate("smtp", "verify", "shop.test", "--json")
    assert result.exit_code == 1
    assert [each["result"] for each in json.loads(result.stdout)["status"]] == ["temperror", "ok"]


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
    for wrong_id in ("", "\udcff"):
        wrong = outgate("smtp", "rotate", "shop.test", wrong_id)
        assert wrong.exit_code == 2 and "the user's id" in wrong.stderr


def test_both_sides_of_the_form(
    outgate: Outgate, service: Service, configuration: SmtpConfiguration, form: Path
) -> None:
    for arguments in (("show", "shop.test"), ("approve", "shop.test")):
        none = outgate("smtp", "authorization", *arguments, roles=("authorizer",))
        assert (none.exit_code, none.stdout) == (1, "")
        assert "(en_authorization PENDING), and nobody has answered" in none.stderr
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


def test_authorised_by_a_setting(outgate: Outgate, service: Service) -> None:
    made = service.store.tenancy.create_configuration(
        service.instance.id,
        name="Given",
        domain="given.test",
        description="",
        key=new_dkim_key(),
        authorization=Verification.SUCCESSFUL,
    )
    for verb in ("show", "approve"):
        none = outgate("smtp", "authorization", verb, made.id, roles=("authorizer",))
        assert (none.exit_code, none.stdout) == (1, "")
        assert "given.test is authorised (en_authorization SUCCESSFUL) by a setting" in none.stderr
    withdrawn = outgate("smtp", "authorization", "reject", made.id, "--reason", "no more", roles=("authorizer",))
    assert "no more" in good(withdrawn)
    assert "FAILED" in good(outgate("smtp", "authorization", "show", made.id))


@pytest.mark.parametrize("verb", [("approve",), ("reject", "--reason", "no")])
def test_answers_submitted_in_between_are_not_decided_on(
    outgate: Outgate, service: Service, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    made = service.store.tenancy.create_configuration(
        service.instance.id, name="x", domain=f"{verb[0]}.test", description="", key=new_dkim_key()
    )
    service.store.verification.submit_form(made.id, FORM_EXAMPLE, "customer")
    tagged = Api.tagged

    def overtaken(api: Api, method: str, url: str, *more: Any) -> tuple[Any, str]:
        found = tagged(api, method, url, *more)
        if url.endswith("/authorization"):
            service.store.verification.submit_form(made.id, FORM_EXAMPLE | {"nature": "marketing"}, "customer")
        return found

    monkeypatch.setattr(Api, "tagged", overtaken)
    result = outgate("smtp", "authorization", verb[0], made.domain, *verb[1:], roles=("authorizer",))
    assert (result.exit_code, result.stdout) == (1, "") and "other answers have been submitted" in result.stderr
    found = service.store.tenancy.configuration(service.instance.id, made.id)
    assert found is not None and found.authorization is Verification.PENDING


def test_wrong_forms(outgate: Outgate, configuration: SmtpConfiguration, tmp_path: Path) -> None:
    def submit(file: Path) -> Result:
        return outgate("smtp", "authorization", "submit", "shop.test", "--file", str(file))

    missing = submit(tmp_path / "none.json")
    assert missing.exit_code == 2 and "none.json cannot be read" in missing.stderr
    for text, says in (
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is nested too deeply"),
    ):
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
        ("", 2, "must not be empty"),
        ("\udcff", 2, "is not UTF-8"),
        ("00000000-0000-0000-0000-000000000000", 1, "no SMTP configuration"),
    ],
)
def test_configurations_that_are_not_there(
    outgate: Outgate, configuration: SmtpConfiguration, name: str, code: int, says: str
) -> None:
    result = outgate("smtp", "show", name)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr and "Traceback" not in result.stderr
