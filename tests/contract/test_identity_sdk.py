"""IBM's own IAM Identity client, unmodified, against our API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator
from ibm_cloud_sdk_core.utils import get_query_param, string_to_datetime
from ibm_platform_services.iam_identity_v1 import ApiKey, ApiKeyList, IamIdentityV1

from support.api_service import Service, api_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


def client_of(service: Service, *roles: str, account_id: str | None = None) -> IamIdentityV1:
    made = IamIdentityV1(authenticator=BearerTokenAuthenticator(service.token(*roles, account_id=account_id)))
    made.set_service_url(f"{service.base}/iam")
    return made


@pytest.fixture
def client(service: Service) -> IamIdentityV1:
    return client_of(service)


def create(client: IamIdentityV1, service: Service, name: str = "ci", **more: str) -> dict:
    return client.create_api_key(name=name, iam_id="iam-tester", account_id=service.account_id, **more).get_result()


def test_an_api_key_from_its_making_to_its_end(client: IamIdentityV1, service: Service) -> None:
    answer = client.create_api_key(
        name="ci",
        iam_id="iam-tester",
        description="for the pipeline",
        account_id=service.account_id,
        store_value=False,
        expires_at="2033-12-31T23:59+0000",
        entity_lock="false",
    )
    assert answer.get_status_code() == 201
    made = ApiKey.from_dict(answer.get_result())
    assert made.apikey and made.entity_tag and made.crn.startswith("crn:v1:")
    assert (made.name, made.description, made.account_id) == ("ci", "for the pipeline", service.account_id)
    assert (made.created_by, made.locked, made.disabled) == ("iam-tester", False, False)
    assert made.expires_at == "2033-12-31T23:59+0000"
    assert string_to_datetime(made.expires_at).year == 2033

    shown = ApiKey.from_dict(client.get_api_key(made.id, include_history=True, include_activity=True).get_result())
    assert shown.apikey == ""
    assert (shown.entity_tag, shown.created_at, shown.iam_id) == (made.entity_tag, made.created_at, made.iam_id)
    by_text = client.get_api_keys_details(iam_api_key=made.apikey, include_history=False).get_result()
    assert by_text == shown.to_dict() | {"created_at": by_text["created_at"], "modified_at": by_text["modified_at"], "roles": ["reader"]}  # fmt: skip

    changed = ApiKey.from_dict(
        client.update_api_key(
            id=made.id, if_match=made.entity_tag, name="cd", description="", expires_at=""
        ).get_result()
    )
    assert (changed.name, changed.description, changed.expires_at) == ("cd", "", None)
    assert changed.entity_tag != made.entity_tag
    with pytest.raises(ApiException) as stale:
        client.update_api_key(id=made.id, if_match=made.entity_tag, name="late")
    assert stale.value.status_code == 409

    deleted = client.delete_api_key(made.id)
    assert (deleted.get_status_code(), deleted.get_result()) == (204, None)
    for call in (client.get_api_key, client.delete_api_key):
        with pytest.raises(ApiException) as gone:
            call(made.id)
        assert gone.value.status_code == 404
        assert "no API key" in gone.value.message
        assert gone.value.global_transaction_id


def test_lists_page_by_the_token_of_the_link(client: IamIdentityV1, service: Service) -> None:
    made = [create(client, service, name=f"key-{number}")["id"] for number in range(5)]
    ids: list[str] = []
    token = None
    while True:
        answer = client.list_api_keys(
            account_id=service.account_id,
            iam_id="iam-tester",
            pagesize=2,
            pagetoken=token,
            sort="created_at",
            order="asc",
        ).get_result()
        ids += [key.id for key in ApiKeyList.from_dict(answer).apikeys]
        if "next" not in answer:
            break
        token = get_query_param(answer["next"], "pagetoken")
        assert parse_qs(urlsplit(answer["next"]).query)["pagesize"] == ["2"]
    assert ids == made
    whole = client.list_api_keys(scope="account", type="serviceid", include_history=True).get_result()
    assert {key["apikey"] for key in whole["apikeys"]} == {""}
    assert len(whole["apikeys"]) == 6  # and the service's own


def test_the_key_authenticates_the_vendors_client(client: IamIdentityV1, service: Service) -> None:
    made = create(client, service)
    own = IamIdentityV1(authenticator=IAMAuthenticator(made["apikey"], url=f"{service.base}/iam"))
    own.set_service_url(f"{service.base}/iam")
    assert own.get_api_key(made["id"]).get_result()["name"] == "ci"
    with pytest.raises(ApiException) as refused:
        own.create_api_key(name="more", iam_id=made["iam_id"])
    assert refused.value.status_code == 403
    assert "manager" in refused.value.message
    client.delete_api_key(made["id"])
    with pytest.raises(ApiException) as void:
        own.get_api_key(made["id"])
    assert void.value.status_code == 401


def test_keys_of_another_account_read_like_none(client: IamIdentityV1, service: Service) -> None:
    made = create(client, service)
    stranger = client_of(service, account_id=service.store.tenancy.create_account())
    for call in (
        lambda: stranger.get_api_key(made["id"]),
        lambda: stranger.update_api_key(made["id"], "*", name="mine"),
        lambda: stranger.delete_api_key(made["id"]),
        lambda: stranger.get_api_keys_details(iam_api_key=made["apikey"]),
    ):
        with pytest.raises(ApiException) as refused:
            call()
        assert refused.value.status_code == 404
    assert stranger.list_api_keys().get_result()["apikeys"] == []
    assert client.get_api_key(made["id"]).get_result()["name"] == "ci"
