"""API keys are made, changed and deleted; they become tokens; tokens are checked by signature, issuer, time and key."""

from __future__ import annotations

import base64
import gzip
import hmac
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from outgate.api import cloud_manager
from outgate.api.errors import Unauthorized
from outgate.api.identity import examples
from outgate.api.identity.documents import (
    ApiKeyListShown,
    ApiKeyShown,
    ChangedApiKey,
    NewApiKey,
    PublicKeysShown,
    TokenRefused,
    TokenShown,
)
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.base.clock import FrozenClock
from outgate.store.control import ControlStore, open_control
from outgate.store.identity import MOST_KEYS
from outgate.store.secrets import open_box
from outgate.store.tenancy import TooMany
from support.api_service import Service, api_service
from support.egress_store import GROUNDS

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("identity")) as running:
        yield running


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(tmp_path: Path, clock: FrozenClock) -> Iterator[ControlStore]:
    opened = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), clock)
    yield opened
    opened.close()


def post(service: Service, **fields: str) -> httpx2.Response:
    return httpx2.post(f"{service.base}/identity/token", data=fields, trust_env=False)


def keys_url(service: Service, key_id: str = "") -> str:
    return f"{service.base}/iam/v1/apikeys" + (f"/{key_id}" if key_id else "")


def make_key(service: Service, *, by: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = httpx2.post(
        keys_url(service), json={"name": "k", **body}, headers=by or service.headers(), trust_env=False
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def token_of(service: Service, api_key: str) -> str:
    return post(service, grant_type=GRANT, apikey=api_key).json()["access_token"]


def refused_everywhere(service: Service, token: str, says: str = "") -> None:
    """Check that both APIs answer 401 with the envelope, and nothing more."""
    for url in (f"{service.smtp_url}/config", f"{service.cbr_url}/v1/zones", keys_url(service)):
        answer = httpx2.get(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert answer.status_code == 401, answer.text
        body = answer.json()
        assert body.keys() == {"status_code", "trace", "errors"}
        (error,) = body["errors"]
        assert (body["status_code"], error["code"]) == (401, "unauthorized")
        assert says in error["message"]
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-global-transaction-id"] == body["trace"]


def accepted(service: Service, token: str) -> bool:
    url = f"{service.smtp_url}/config"
    return httpx2.get(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200


def test_token_answer_and_claims(service: Service) -> None:
    answer = post(service, grant_type=GRANT, apikey=service.api_key, response_type="cloud_iam")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "refresh_token", "token_type", "expires_in", "expiration", "scope"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    jwks = httpx2.get(f"{service.base}/identity/keys", trust_env=False).json()
    assert "d" not in jwks["keys"][0]
    claims = jwt.decode(body["access_token"], KeySet.import_key_set(jwks), algorithms=["ES256"]).claims
    assert claims["exp"] == claims["iat"] + 3600 == body["expiration"]
    assert claims["account"]["bss"] == service.account_id
    assert claims["id"] == claims["iam_id"] == claims["sub"]
    assert claims["id"].startswith("iam-ApiKey-")
    assert sorted(claims["roles"]) == ["manager", "reader", "writer"]
    assert (claims["client_id"], claims["scope"]) == ("default", "ibm openid")
    assert claims["iss"] == "https://iam.outgate.test/identity"
    assert accepted(service, body["access_token"])


def test_the_client_of_a_token_is_who_asked_for_it(service: Service) -> None:
    def client(authorization: str) -> str:
        form = {"grant_type": GRANT, "apikey": service.api_key}
        headers = {"Authorization": authorization} if authorization else {}
        answer = httpx2.post(f"{service.base}/identity/token", data=form, headers=headers, trust_env=False)
        return json.loads(base64.urlsafe_b64decode(answer.json()["access_token"].split(".")[1] + "=="))["client_id"]

    basic = base64.b64encode(b"bx:bx").decode()
    assert client(f"Basic {basic}") == "bx"
    for other in ("", "Basic ???", "Basic " + base64.b64encode(b"\xff:x").decode(), "Bearer x"):
        assert client(other) == "default"


async def test_one_token_serves_both_vendors(service: Service) -> None:
    """Cloud Manager wants its client in x-api-key: the token's `client_id`, or the very key it was got with."""
    store = service.store
    program = store.egress.add_program("org@AdobeOrg", service.account_id, "Shop")
    api: FastAPI = cloud_manager.build(
        store=store.egress,
        places=store.places,
        grounds=GROUNDS,
        infrastructures=store.infrastructures,
        authenticator=Authenticator(store, service.clock),
        changed=lambda: None,
        shared_addresses=[],
        account_of_key=lambda clear: (key := store.identity.find_api_key(clear)) and key.account_id,
    )
    headers = {"Authorization": f"Bearer {token_of(service, service.api_key)}", "x-gw-ims-org-id": "org@AdobeOrg"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=api), base_url="http://outgate.test") as client:
        for given, status in (("default", 200), (service.api_key, 200), ("another", 403)):
            answer = await client.get(f"/api/program/{program.id}", headers={**headers, "x-api-key": given})
            assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"apikey": "x"}, "BXNIM0109E"),
        ({"grant_type": GRANT}, "BXNIM0109E"),
        ({"grant_type": GRANT, "apikey": ""}, "BXNIM0109E"),
        ({"grant_type": "password", "apikey": "x"}, "BXNIM0108E"),
        ({"grant_type": GRANT, "apikey": "unknown"}, "BXNIM0415E"),
        ({"grant_type": GRANT, "apikey": "x", "response_type": "code"}, "BXNIM0108E"),
    ],
)
def test_refusals_have_the_iam_body(service: Service, fields: dict[str, str], code: str) -> None:
    answer = post(service, **fields)
    assert answer.status_code == 400
    body = answer.json()
    assert body.keys() == {"errorCode", "errorMessage", "context"}
    assert body["errorCode"] == code
    assert body["context"]["requestId"] == answer.headers["x-global-transaction-id"]


def test_other_media_and_long_forms_are_refused(service: Service) -> None:
    url = f"{service.base}/identity/token"
    assert httpx2.post(url, json={"apikey": "x"}, trust_env=False).status_code == 415
    long = httpx2.post(url, data={"apikey": "x" * 20_000}, trust_env=False)
    assert (long.status_code, long.json()["errorCode"]) == (413, "BXNIM0113E")
    assert httpx2.get(url, trust_env=False).status_code == 405
    packed = {"Content-Encoding": "gzip"}
    whole = gzip.compress(f"grant_type={GRANT}&apikey={service.api_key}".encode())
    form = {"Content-Type": "application/x-www-form-urlencoded", **packed}
    assert httpx2.post(url, content=whole, headers=form, trust_env=False).status_code == 200
    for content in (b"no gzip", whole[:-4], whole + whole):
        broken = httpx2.post(url, content=content, headers=form, trust_env=False)
        assert broken.status_code == 400
        TokenRefused.model_validate(broken.json())
        assert broken.json()["errorCode"] == "BXNIM0110E" and "gzip" in broken.json()["errorMessage"]


def test_expired_api_key_is_unknown(store: ControlStore, clock: FrozenClock) -> None:
    account = store.tenancy.create_account()
    _, clear = store.identity.create_api_key(account, "short", ["reader"], expires_at=clock.now() + 60)
    found = store.identity.find_api_key(clear)
    assert found is not None
    assert found.roles == {"reader"}
    clock.advance(60)
    assert store.identity.find_api_key(clear) is None


def test_api_key_is_stored_as_a_digest_only(store: ControlStore, tmp_path: Path) -> None:
    account = store.tenancy.create_account()
    key, clear = store.identity.create_api_key(account, "k", ["reader"])
    store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("control.db*"))
    assert key.id.encode() in stored
    assert clear.encode() not in stored


async def test_token_expires_by_the_injected_clock(store: ControlStore, clock: FrozenClock) -> None:
    issuer, authenticator = TokenIssuer(store, clock), Authenticator(store, clock)
    token = issuer.issue("me", "account", ["writer"], "test", 3600)
    forever = issuer.issue("me", "account", ["writer"], "test", None)
    caller = await authenticator.authenticate(f"Bearer {token}")
    assert (caller.subject, caller.account_id, caller.roles, caller.client_id) == (
        "me",
        "account",
        {"writer"},
        "test",
    )
    clock.advance(3599)
    assert await authenticator.authenticate(f"bearer  {token}") == caller
    clock.advance(1)
    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.authenticate(f"Bearer {token}")
    clock.advance(50 * 365 * 86_400)
    assert (await authenticator.authenticate(f"Bearer {forever}")).subject == "me"


async def test_deleted_key_voids_its_tokens_at_once_and_rotation_keeps_them(
    store: ControlStore, clock: FrozenClock
) -> None:
    issuer, authenticator = TokenIssuer(store, clock), Authenticator(store, clock)
    old = issuer.issue("me", "a", [], "test")
    first = store.identity.token_keys()[0]
    clock.advance(1)
    second = store.identity.add_token_key()
    new = issuer.issue("me", "a", [], "test")
    assert json.loads(base64.urlsafe_b64decode(new.split(".")[0] + "=="))["kid"] == second.id
    await authenticator.authenticate(f"Bearer {old}")
    await authenticator.authenticate(f"Bearer {new}")
    assert store.identity.delete_token_key(first.id)
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {old}")
    await authenticator.authenticate(f"Bearer {new}")


CLAIMS: dict[str, Any] = {"sub": "x", "roles": ["reader"], "client_id": "c"}


class Forger:
    """Makes tokens as they should not be."""

    def __init__(self, service: Service) -> None:
        self.key = service.store.identity.token_keys()[0]
        self.own = ECKey.import_key(self.key.pem)
        now = int(service.clock.now())
        self.claims = CLAIMS | {
            "iss": "https://iam.outgate.test/identity",
            "account": {"bss": service.account_id},
            "iat": now,
            "exp": now + 3600,
        }

    def signed(self, signer: ECKey | None = None, header: dict[str, Any] | None = None, **changed: Any) -> str:
        claims = {name: value for name, value in {**self.claims, **changed}.items() if value != "absent"}
        return jwt.encode(header or {"alg": "ES256", "kid": self.key.id}, claims, signer or self.own)

    def raw(self, header: object, payload: object = None, signature: str = "") -> str:
        texts = [json.dumps(part).encode() for part in (header, self.claims if payload is None else payload)]
        return ".".join([*(base64.urlsafe_b64encode(text).decode().rstrip("=") for text in texts), signature])

    def with_public_key_as_secret(self) -> str:
        unsigned = self.raw({"alg": "HS256", "kid": self.key.id}).rstrip(".")
        digest = hmac.digest(self.own.as_pem(private=False), unsigned.encode(), "sha256")
        return f"{unsigned}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    def tampered(self) -> str:
        head, payload, signature = self.signed().split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**claims, "roles": ["manager"]}).encode()).decode().rstrip("=")
        return f"{head}.{other}.{signature}"


FORGED: dict[str, Callable[[Forger], str]] = {
    "signed with another key": lambda forger: forger.signed(ECKey.generate_key("P-256")),
    "no algorithm": lambda forger: forger.raw({"alg": "none", "kid": forger.key.id}),
    "no algorithm, spelt otherwise": lambda forger: forger.raw({"alg": "None", "kid": forger.key.id}),
    "our algorithm, no signature": lambda forger: forger.raw({"alg": "ES256", "kid": forger.key.id}),
    "a signature of zeros": lambda forger: forger.raw({"alg": "ES256", "kid": forger.key.id}, signature="A" * 86),
    "HMAC with the public key": lambda forger: forger.with_public_key_as_secret(),
    "tampered claims": lambda forger: forger.tampered(),
    "another issuer": lambda forger: forger.signed(iss="https://iam.cloud.ibm.com/identity"),
    "no issuer": lambda forger: forger.signed(iss="absent"),
    "no subject": lambda forger: forger.signed(sub="absent"),
    "no account": lambda forger: forger.signed(account="absent"),
    "an account that is a text": lambda forger: forger.signed(account="a"),
    "no roles": lambda forger: forger.signed(roles="absent"),
    "roles that are none": lambda forger: forger.signed(roles=None),
    "no client": lambda forger: forger.signed(client_id="absent"),
    "no expiry": lambda forger: forger.signed(exp="absent"),
    "an expiry in words": lambda forger: forger.signed(exp="soon"),
    "an expiry without end": lambda forger: forger.signed(exp=10**400),
    "an expiry that is no number": lambda forger: forger.signed(exp=float("nan")),
    "expired": lambda forger: forger.signed(exp=forger.claims["iat"] - 1),
    "an unknown kid": lambda forger: forger.signed(header={"alg": "ES256", "kid": "unknown"}),
    "no kid": lambda forger: forger.signed(header={"alg": "ES256"}),
    "a kid that is a list": lambda forger: forger.raw({"alg": "ES256", "kid": [1]}, signature="A" * 86),
    "a header that is a list": lambda forger: forger.raw([]),
    "claims that are a list": lambda forger: forger.raw({"alg": "ES256", "kid": forger.key.id}, []),
    "nested deeply": lambda _: base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.AA",
    "a key id of nobody's": lambda forger: forger.signed(sub="iam-ApiKey-00000000-0000-0000-0000-000000000000"),
    "five parts": lambda forger: forger.signed() + ".a.b",
    "garbage": lambda _: "garbage",
    "dots": lambda _: "..",
    "no base64": lambda _: "!!.??.**",
    "over-long": lambda forger: forger.signed(more="x" * 9000),
    "huge": lambda _: "x" * 30_000,
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED)
def test_forged_tokens_are_refused_alike_by_every_api(service: Service, forged: str) -> None:
    forger = Forger(service)
    assert accepted(service, forger.signed())
    refused_everywhere(
        service,
        FORGED[forged](forger),
        "expired" if forged == "expired" else "not one of ours" if "key id" not in forged else "",
    )


def test_a_token_from_the_future_is_good(service: Service) -> None:
    """Processes' clocks differ, and nobody but us signs."""
    forger = Forger(service)
    assert accepted(service, forger.signed(iat=forger.claims["iat"] + 3000))


def test_headers_without_a_bearer_token(service: Service) -> None:
    for header in ("", "Bearer", "Basic eDp5", "Token x", "Bearer \u00e4\u00f6"):
        sent = {"Authorization": header.encode("latin-1")} if header else {}
        answer = httpx2.get(f"{service.smtp_url}/config", headers=sent, trust_env=False)
        assert (answer.status_code, answer.json()["status_code"]) == (401, 401)


def test_tokens_expire_when_the_clock_says_so(tmp_path: Path) -> None:
    with api_service(tmp_path) as own:
        token = token_of(own, own.api_key)
        assert accepted(own, token)
        own.clock.advance(3600)
        refused_everywhere(own, token, "expired")


def test_a_deleted_key_voids_its_tokens_at_once(service: Service) -> None:
    made = make_key(service)
    token = token_of(service, made["apikey"])
    assert accepted(service, token)
    answer = httpx2.delete(keys_url(service, made["id"]), headers=service.headers(), trust_env=False)
    assert (answer.status_code, answer.content) == (204, b"")
    refused_everywhere(service, token, "deleted")
    assert post(service, grant_type=GRANT, apikey=made["apikey"]).json()["errorCode"] == "BXNIM0415E"


def test_a_key_that_another_process_deletes_voids_its_tokens_at_once(tmp_path: Path) -> None:
    with api_service(tmp_path) as own:
        made = make_key(own)
        token = token_of(own, made["apikey"])
        assert accepted(own, token)
        other = open_control(tmp_path / "control.db", open_box(tmp_path / "master.key"), own.clock)
        assert other.identity.delete_api_key(made["id"])
        other.close()
        refused_everywhere(own, token, "deleted")


def test_no_token_outlives_its_key(tmp_path: Path) -> None:
    with api_service(tmp_path) as own:
        now = own.clock.now()
        key, clear = own.store.identity.create_api_key(own.account_id, "short", ["reader"], expires_at=now + 600)
        answer = post(own, grant_type=GRANT, apikey=clear).json()
        assert 590 <= answer["expires_in"] <= 600
        assert answer["expiration"] <= now + 600
        # A token from when the key had no end is cut short by the end date it has got since.
        older = own.tokens.issue(key.subject, own.account_id, ["reader"], "c")
        assert accepted(own, older)
        own.clock.advance(601)
        refused_everywhere(own, older, "expired")
        refused_everywhere(own, answer["access_token"], "expired")
        assert post(own, grant_type=GRANT, apikey=clear).status_code == 400


def test_a_key_of_its_last_second_gets_no_token(tmp_path: Path) -> None:
    with api_service(tmp_path) as own:
        _, clear = own.store.identity.create_api_key(own.account_id, "k", [], expires_at=int(own.clock.now()) + 0.99)
        assert post(own, grant_type=GRANT, apikey=clear).json()["errorCode"] == "BXNIM0415E"


def test_a_role_taken_away_voids_tokens_and_one_given_does_not(service: Service) -> None:
    made = make_key(service, roles=["reader", "writer"])
    token = token_of(service, made["apikey"])
    headers = {**service.headers(), "If-Match": made["entity_tag"]}

    def change(roles: list[str]) -> None:
        answer = httpx2.put(keys_url(service, made["id"]), json={"roles": roles}, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        headers["If-Match"] = answer.json()["entity_tag"]

    change(["reader", "writer", "manager"])
    assert accepted(service, token)
    change(["reader"])
    refused_everywhere(service, token, "lost a role")
    assert accepted(service, token_of(service, made["apikey"]))


async def test_a_token_for_another_account_than_its_keys(store: ControlStore, clock: FrozenClock) -> None:
    account, other = store.tenancy.create_account(), store.tenancy.create_account()
    key, _ = store.identity.create_api_key(account, "k", ["reader"])
    issuer, authenticator = TokenIssuer(store, clock), Authenticator(store, clock)
    assert await authenticator.authenticate(f"Bearer {issuer.issue(key.subject, account, ['reader'], 'c')}")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {issuer.issue(key.subject, other, ['reader'], 'c')}")


# -- the operations on keys --------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_belongs_to_its_account(service: Service) -> None:
    made = make_key(service, description="d", roles=["writer"], expires_at="2033-05-06T07:08+0000", iam_id="whoever")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", made["apikey"])
    assert (made["iam_id"], made["created_by"]) == (f"iam-{made['id']}", "iam-tester")
    assert (made["expires_at"], made["disabled"], made["locked"]) == ("2033-05-06T07:08+0000", False, False)
    shown = httpx2.get(keys_url(service, made["id"]), headers=service.headers("reader"), trust_env=False)
    assert shown.json() == {**made, "apikey": ""}
    stranger = service.headers(*("reader", "manager"), account_id=service.store.tenancy.create_account())
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        answer = httpx2.request(
            method, keys_url(service, made["id"]), json=body, headers={**stranger, "If-Match": "*"}, trust_env=False
        )
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "not_found")
    details = {**stranger, "IAM-ApiKey": made["apikey"]}
    answer = httpx2.get(keys_url(service, "details"), headers=details, trust_env=False)
    assert answer.status_code == 404
    assert made["apikey"] not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        ({"name": ""}, 400, "name"),
        ({"name": "a\nb"}, 400, "name"),
        ({"name": "x" * 251}, 400, "name"),
        ({"description": "\x1b[2J"}, 400, "description"),
        ({"roles": []}, 400, "roles"),
        ({"roles": ["admin"]}, 400, "roles.0"),
        ({"roles": "reader"}, 400, "roles"),
        ({"roles": ["reader", "operator"]}, 403, None),
        ({"account_id": "another"}, 403, None),
        ({"apikey": "chosen by a person, and long enough for it"}, 400, "apikey"),
        ({"store_value": True}, 400, "store_value"),
        ({"support_sessions": True}, 400, "support_sessions"),
        ({"action_when_leaked": "delete"}, 400, "action_when_leaked"),
        ({"expires_at": "tomorrow"}, 400, "expires_at"),
        ({"expires_at": "2033-05-06"}, 400, "expires_at"),
        ({"expires_at": "2033-05-06T07:08"}, 400, "expires_at"),
        ({"expires_at": "2020-05-06T07:08Z"}, 400, "expires_at"),
        ({"expires_at": "2099-05-06T07:08Z"}, 400, "expires_at"),
        ({"expires_at": "9999-12-31T23:59-1400"}, 400, "expires_at"),
    ],
)
def test_bad_keys(service: Service, body: dict[str, Any], status: int, names: str | None) -> None:
    answer = httpx2.post(keys_url(service), json={"name": "k", **body}, headers=service.headers(), trust_env=False)
    assert answer.status_code == status, answer.text
    error = answer.json()["errors"][0]
    assert error.get("target", {}).get("name") == names
    assert str(body.get("apikey", "?none")) not in answer.text


def test_what_the_vendors_clients_send_beside_is_taken(service: Service) -> None:
    headers = {**service.headers(), "Entity-Lock": "false", "Entity-Disable": "false"}
    make_key(service, by=headers, store_value=False, action_when_leaked="none", account_id=service.account_id)
    for name in ("Entity-Lock", "Entity-Disable"):
        answer = httpx2.post(keys_url(service), json={"name": "k"}, headers={**headers, name: "true"}, trust_env=False)
        assert (answer.status_code, answer.json()["errors"][0]["target"]["name"]) == (400, name)


def test_nobody_gives_a_key_a_role_that_he_lacks(service: Service) -> None:
    manager = service.headers("manager")
    assert make_key(service, by=manager)["roles"] == ["reader"]  # a manager may do what a reader may
    made = make_key(service, by=service.headers("manager", "operator"), roles=["manager", "operator"])

    def change(roles: list[str]) -> int:
        headers = {**manager, "If-Match": "*"}
        return httpx2.put(keys_url(service, made["id"]), json={"roles": roles}, headers=headers, trust_env=False).status_code  # fmt: skip

    assert change(["manager", "operator", "writer"]) == 200  # what it had already is not given
    assert change(["operator", "runtime"]) == 403
    assert change(["manager"]) == 200
    assert change(["manager", "operator"]) == 403


def test_nobody_gives_more_time_to_a_role_that_he_lacks(service: Service) -> None:
    both = service.headers("manager", "authorizer")
    made = make_key(service, by=both, roles=["authorizer", "reader"], expires_at="2033-05-06T07:08:09Z")

    def change(by: dict[str, str], **body: Any) -> httpx2.Response:
        return httpx2.put(keys_url(service, made["id"]), json=body, headers={**by, "If-Match": "*"}, trust_env=False)

    manager = service.headers("manager")
    for later in ("2033-05-06T07:08:10Z", ""):
        refused = change(manager, expires_at=later)
        assert refused.status_code == 403 and "more time with it: authorizer" in refused.text
    assert change(manager, name="n", expires_at=made["expires_at"]).status_code == 200
    assert change(manager, expires_at="2033-05-05T07:08:09Z").json()["expires_at"] == "2033-05-05T07:08:09+0000"
    assert change(both, expires_at="2033-05-07T07:08:09Z").status_code == 200
    # Without the role that he lacks it is his to prolong; and a key without end has none that could move.
    assert change(manager, expires_at="", roles=["reader"]).status_code == 200
    endless = make_key(service, by=both, roles=["authorizer"])
    url = keys_url(service, endless["id"])
    short = {"expires_at": "2033-05-06T07:08:09Z"}
    assert httpx2.put(url, json=short, headers={**manager, "If-Match": "*"}, trust_env=False).status_code == 200


def test_nobody_gives_more_instances_to_a_role_that_he_lacks(service: Service) -> None:
    other = service.store.tenancy.create_instance(service.account_id, "eu-de", "other").id
    both, manager = service.headers("manager", "authorizer"), service.headers("manager")
    made = make_key(service, by=both, roles=["authorizer", "smtp"], instances=[service.instance.id])

    def change(by: dict[str, str], *instances: str) -> httpx2.Response:
        body = {"instances": list(instances)}
        return httpx2.put(keys_url(service, made["id"]), json=body, headers={**by, "If-Match": "*"}, trust_env=False)

    for wider in ((service.instance.id, other), (other,), ("*",)):
        assert change(manager, *wider).status_code == 403
    assert change(manager, service.instance.id).status_code == 200
    assert change(both, service.instance.id, other).status_code == 200
    assert change(manager, other).json()["instances"] == [other]  # fewer are his to leave


def test_a_key_is_bound_to_instances_and_widened_only_in_words(service: Service) -> None:
    other = service.store.tenancy.create_instance(service.account_id, "eu-de", "other").id
    here = service.instance.id
    made = make_key(service, roles=["smtp"], instances=[here])
    assert (made["roles"], made["instances"]) == (["smtp"], [here])
    url = keys_url(service, made["id"])

    def change(**body: Any) -> httpx2.Response:
        headers = {**service.headers(), "If-Match": "*"}
        return httpx2.put(url, json=body, headers=headers, trust_env=False)

    def opens(instance_id: str) -> bool:
        key = service.store.identity.find_api_key(made["apikey"])
        assert key is not None
        return key.opens(service.account_id, instance_id, service.clock.now())

    assert (opens(here), opens(other)) == (True, False)
    for leaves_it in ({"name": "n"}, {"instances": None}):
        assert change(**leaves_it).json()["instances"] == [here]
    assert change(instances=[]).status_code == 400
    assert change(instances=[other, here]).json()["instances"] == sorted([here, other])
    assert change(instances=[other]).json()["instances"] == [other]
    assert (opens(here), opens(other)) == (False, True)
    assert "instances" not in change(instances=["*"]).json()
    assert opens(here) and opens(other)
    assert "instances" not in make_key(service, roles=["smtp"])
    change(roles=["reader"])
    assert not opens(here)


def test_what_a_key_cannot_be_bound_to(service: Service) -> None:
    foreign = service.store.tenancy.create_instance(service.store.tenancy.create_account(), "eu-de", "foreign").id
    made = make_key(service, roles=["reader"])
    for body, names in (
        ({"roles": ["smtp"], "instances": [service.instance.id, foreign]}, "instances[1]"),
        ({"roles": ["smtp"], "instances": ["unknown"]}, "instances[0]"),
        ({"roles": ["smtp"], "instances": [service.instance.id] * 101}, "instances"),
        ({"roles": ["reader"], "instances": [service.instance.id]}, "instances"),
    ):
        answer = httpx2.post(keys_url(service), json={"name": "k", **body}, headers=service.headers(), trust_env=False)
        assert (answer.status_code, answer.json()["errors"][0]["target"]["name"]) == (400, names)
        headers = {**service.headers(), "If-Match": "*"}
        answer = httpx2.put(keys_url(service, made["id"]), json=body, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["errors"][0]["target"]["name"]) == (400, names)


def test_a_key_for_smtp_alone_gets_a_token_that_opens_nothing(service: Service) -> None:
    made = make_key(service, roles=["smtp"])
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": made["apikey"]}
    token = httpx2.post(f"{service.base}/identity/token", data=form, trust_env=False).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    for url in (f"{service.smtp_url}/config", keys_url(service), f"{service.base}/context-based-restrictions/v1/zones"):
        assert httpx2.get(url, headers=headers, trust_env=False).status_code == 403, url


def test_a_given_text_that_is_no_random_key_is_refused(store: ControlStore) -> None:
    account = store.tenancy.create_account()
    with pytest.raises(ValueError, match="43"):
        store.identity.create_api_key(account, "chosen", ["smtp"], clear="correct horse battery staple")
    assert store.identity.api_keys(account) == ()


def test_changes_name_the_version_they_were_made_from(service: Service) -> None:
    made = make_key(service, description="before", expires_at="2033-05-06T07:08:09Z")
    assert made["expires_at"] == "2033-05-06T07:08:09+0000"
    url = keys_url(service, made["id"])

    def change(tag: str | None, body: dict[str, Any]) -> httpx2.Response:
        headers = service.headers() | ({} if tag is None else {"If-Match": tag})
        return httpx2.put(url, json=body, headers=headers, trust_env=False)

    first = change(made["entity_tag"], {"description": ""}).json()
    assert (first["description"], first["name"], first["expires_at"]) == ("", "k", made["expires_at"])
    assert first["entity_tag"] != made["entity_tag"]
    assert change(made["entity_tag"], {"name": "late"}).status_code == 409
    assert change(None, {"name": "blind"}).json()["errors"][0]["target"]["name"] == "If-Match"
    second = change(f'"{first["entity_tag"]}"', {"name": "new", "expires_at": ""}).json()
    assert second["name"] == "new" and "expires_at" not in second
    assert change("*", {"name": ""}).status_code == 400
    assert change("*", {}).status_code == 200


def test_a_change_that_another_overtakes_is_not_stored(store: ControlStore) -> None:
    account = store.tenancy.create_account()
    key, _ = store.identity.create_api_key(account, "k", ["reader"])
    assert store.identity.replace_api_key(replace(key, name="first")) is not None
    assert store.identity.replace_api_key(replace(key, name="second")) is None
    found = store.identity.api_key(key.id)
    assert found is not None and found.name == "first"


def test_lists_have_pages_and_order(tmp_path: Path) -> None:
    with api_service(tmp_path) as own:
        for name in ("c", "a", "b"):
            own.clock.advance(1)
            make_key(own, name=name)

        def listed(url: str = "", **query: object) -> dict[str, Any]:
            answer = httpx2.get(url or keys_url(own), params=query or None, headers=own.headers("reader"), trust_env=False)  # fmt: skip
            assert answer.status_code == 200, answer.text
            return answer.json()

        def names(found: dict[str, Any]) -> list[str]:
            return [key["name"] for key in found["apikeys"]]

        assert names(listed()) == ["test", "c", "a", "b"]
        assert names(listed(sort="name", order="desc")) == ["test", "c", "b", "a"]
        assert names(listed(iam_id="iam-tester", account_id=own.account_id)) == ["c", "a", "b"]
        one = listed(iam_id=listed()["apikeys"][1]["iam_id"])
        assert names(one) == ["c"] and {key["apikey"] for key in listed()["apikeys"]} == {""}
        first = listed(pagesize=2, sort="name")
        assert (names(first), first["offset"], first["limit"]) == (["a", "b"], 0, 2)
        assert "previous" not in first
        second = listed(first["next"])
        assert (names(second), second["offset"]) == (["c", "test"], 2)
        assert "next" not in second and second["first"] == first["first"]
        assert names(listed(second["previous"])) == ["a", "b"]
        for wrong in (
            {"pagesize": 0},
            {"pagesize": 101},
            {"sort": "roles"},
            {"pagetoken": "x"},
            {"filter": "name eq a"},
        ):
            assert httpx2.get(keys_url(own), params=wrong, headers=own.headers(), trust_env=False).status_code == 400
        foreign = httpx2.get(keys_url(own), params={"account_id": "x"}, headers=own.headers(), trust_env=False)
        assert foreign.status_code == 403


def test_an_account_has_a_limited_number_of_keys(store: ControlStore, clock: FrozenClock) -> None:
    account, other = store.tenancy.create_account(), store.tenancy.create_account()
    for number in range(MOST_KEYS):
        key, _ = store.identity.create_api_key(account, str(number), ["reader"])
    with pytest.raises(TooMany, match="delete one first"):
        store.identity.create_api_key(account, "one more", ["reader"])
    store.identity.create_api_key(other, "of another account", ["reader"])
    assert store.identity.delete_api_key(key.id) and not store.identity.delete_api_key(key.id)
    store.identity.create_api_key(account, "in its place", ["reader"])


def test_a_given_text_takes_the_place_of_an_expired_key(store: ControlStore, clock: FrozenClock) -> None:
    account = store.tenancy.create_account()
    store.identity.create_api_key(account, "old", [], clear="given" * 9, expires_at=clock.now() + 1)
    clock.advance(2)
    store.identity.create_api_key(account, "new", [], clear="given" * 9)
    assert [key.name for key in store.identity.api_keys(account)] == ["new"]


def test_the_published_description_is_whole(service: Service) -> None:
    document = httpx2.get(f"{service.base}/iam/openapi.json", trust_env=False).json()
    assert document["openapi"].startswith("3.1")
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    for name, operation in operations.items():
        public = name in ("get_token", "get_keys")
        assert ("security" in operation) is not public
        for status, answer in operation["responses"].items():
            if status in ("200", "201"):
                assert "example" in answer["content"]["application/json"], name
    for model, example in (
        (NewApiKey, examples.NEW),
        (ChangedApiKey, examples.CHANGED),
        (ApiKeyShown, examples.SHOWN),
        (ApiKeyShown, examples.CREATED),
        (ApiKeyListShown, examples.LISTED),
        (TokenShown, examples.TOKEN),
        (TokenRefused, examples.REFUSED),
        (PublicKeysShown, examples.PUBLIC_KEYS),
    ):
        model.model_validate(example)


def test_answers_are_as_described(service: Service) -> None:
    made = make_key(service, **examples.NEW)
    ApiKeyShown.model_validate(made)
    listed = httpx2.get(keys_url(service), headers=service.headers(), trust_env=False).json()
    ApiKeyListShown.model_validate(listed)
    TokenShown.model_validate(post(service, grant_type=GRANT, apikey=made["apikey"]).json())
    TokenRefused.model_validate(post(service, grant_type=GRANT, apikey="x").json())
    PublicKeysShown.model_validate(httpx2.get(f"{service.base}/identity/keys", trust_env=False).json())
