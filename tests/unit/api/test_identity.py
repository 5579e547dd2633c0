"""API keys become tokens; tokens are checked by signature, issuer, time and the key's existence."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from outgate.api.errors import Unauthorized
from outgate.api.identity.tokens import Authenticator, TokenIssuer
from outgate.base.clock import FrozenClock
from outgate.store.control import ControlStore, open_control
from outgate.store.secrets import open_box
from support.api_service import Service, api_service

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


async def test_tokens_of_others_are_refused(store: ControlStore, clock: FrozenClock) -> None:
    issuer, authenticator = TokenIssuer(store, clock), Authenticator(store, clock)
    key = store.identity.token_keys()[0]
    own = ECKey.import_key(key.pem)
    claims = {"iat": 1, "exp": 4_000_000_000, "iss": issuer._issuer, "sub": "x", "account": {"bss": "a"}, "roles": [], "client_id": "c"}  # fmt: skip

    def signed(signer: ECKey, kid: str = key.id, **changed: object) -> str:
        return "Bearer " + jwt.encode({"alg": "ES256", "kid": kid}, {**claims, **changed}, signer)

    assert (await authenticator.authenticate(signed(own))).subject == "x"
    stranger = ECKey.generate_key("P-256")
    for token in (
        signed(stranger),
        signed(own, kid="unknown"),
        signed(own, iss="https://iam.cloud.ibm.com/identity"),
        signed(own, exp="soon"),
        signed(own, account="a"),
        signed(own, roles=None),
    ):
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(token)
