"""IBM's own Event Notifications client, unmodified, against our API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import BearerTokenAuthenticator, IAMAuthenticator
from ibm_eventnotifications.event_notifications_v1 import (
    EventNotificationsV1,
    SmtpConfigurationsPager,
    SmtpUsersPager,
)

from outgate.base.clock import rfc3339
from outgate.model.access import Address
from outgate.model.tenancy import Verification
from outgate.store.access import SMTP_API
from support.api_service import Service, api_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with api_service(tmp_path) as running:
        yield running


@pytest.fixture(params=["bearer", "iam"])
def client(service: Service, request: pytest.FixtureRequest) -> EventNotificationsV1:
    """The vendor's client, once with a token of its own and once with an API key that it exchanges for one."""
    authenticator = (
        BearerTokenAuthenticator(service.token())
        if request.param == "bearer"
        else IAMAuthenticator(service.api_key, url=service.base)
    )
    made = EventNotificationsV1(authenticator=authenticator)
    made.set_service_url(service.en_url)
    return made


def create(client: EventNotificationsV1, service: Service, domain: str = "shop.test", name: str = "Shop") -> dict:
    response = client.create_smtp_configuration(instance_id=service.instance.id, name=name, domain=domain)
    assert response.get_status_code() == 201
    return response.get_result()


def test_create_and_get_a_configuration(client: EventNotificationsV1, service: Service) -> None:
    response = client.create_smtp_configuration(
        instance_id=service.instance.id, name="Shop mail", domain="Shop.TEST", description="orders, invoices"
    )
    assert response.get_status_code() == 201
    made = response.get_result()
    assert made.keys() == {"id", "name", "description", "domain", "config", "created_at"}
    assert (made["name"], made["description"], made["domain"]) == ("Shop mail", "orders, invoices", "shop.test")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    config = made["config"]
    assert config["spf"] == {
        "txt_name": "shop.test",
        "txt_value": "v=spf1 include:spf.outgate.test ~all",
        "verification": "PENDING",
    }
    assert re.fullmatch(r"[0-9a-f-]{36}\._domainkey\.shop\.test", config["dkim"]["txt_name"])
    assert config["dkim"]["txt_value"].startswith("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0B")
    assert len(config["dkim"]["txt_value"]) <= 500
    assert config["en_authorization"] == {"verification": "SUCCESSFUL"}

    response = client.get_smtp_configuration(instance_id=service.instance.id, id=made["id"])
    assert response.get_status_code() == 200
    got = response.get_result()
    assert got == {**{k: v for k, v in made.items() if k != "created_at"}, "updated_at": got["updated_at"]}


def test_manual_authorization_is_pending(tmp_path: Path) -> None:
    with api_service(tmp_path, authorization="manual") as service:
        client = EventNotificationsV1(authenticator=BearerTokenAuthenticator(service.token()))
        client.set_service_url(service.en_url)
        made = create(client, service)
        assert made["config"]["en_authorization"] == {"verification": "PENDING"}


def test_pager_walks_every_configuration_once(client: EventNotificationsV1, service: Service) -> None:
    expected = [create(client, service, f"shop{number}.test", f"Shop {number}")["id"] for number in range(5)]
    pager = SmtpConfigurationsPager(client=client, instance_id=service.instance.id, limit=2)
    assert [entry["id"] for entry in pager.get_all()] == expected


def test_list_pages_and_search(client: EventNotificationsV1, service: Service) -> None:
    for number in range(3):
        create(client, service, f"shop{number}.test", f"Shop 100% no {number}")
    create(client, service, "other.test", "Other")
    listed = client.list_smtp_configurations(
        instance_id=service.instance.id, search="100% NO", limit=2, offset=2
    ).get_result()
    assert (listed["total_count"], listed["limit"], listed["offset"]) == (3, 2, 2)
    assert [entry["name"] for entry in listed["smtp_configurations"]] == ["Shop 100% no 2"]
    assert "next" not in listed
    assert "offset=0" in listed["first"]["href"]
    assert "offset=0" in listed["previous"]["href"]
    assert "search=100%25+NO" in listed["first"]["href"]
    past = client.list_smtp_configurations(instance_id=service.instance.id, limit=100, offset=100).get_result()
    assert (past["smtp_configurations"], past["total_count"]) == ([], 4)


def test_verify_one_and_several(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    service.verifier.results = {"spf": Verification.SUCCESSFUL, "en_authorization": Verification.SUCCESSFUL}
    response = client.update_verify_smtp(
        instance_id=service.instance.id, id=made["id"], type="dkim,spf,en_authorization"
    )
    assert response.get_status_code() == 200
    assert response.get_result() == {
        "status": [
            {"type": "dkim", "verification": "FAILED"},
            {"type": "spf", "verification": "SUCCESSFUL"},
            {"type": "en_authorization", "verification": "SUCCESSFUL"},
        ]
    }
    got = client.get_smtp_configuration(instance_id=service.instance.id, id=made["id"]).get_result()
    assert got["config"]["spf"]["verification"] == "SUCCESSFUL"
    assert got["config"]["dkim"]["verification"] == "FAILED"
    client.update_verify_smtp(instance_id=service.instance.id, id=made["id"], type="spf")
    assert service.verifier.asked == [("shop.test", ("dkim", "spf", "en_authorization")), ("shop.test", ("spf",))]


def test_create_users_up_to_five(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    response = client.create_smtp_user(**where, description="the shop")
    assert response.get_status_code() == 201
    user = response.get_result()
    assert user.keys() == {"id", "smtp_config_id", "description", "domain", "username", "created_at", "password"}
    assert (user["smtp_config_id"], user["description"], user["domain"]) == (made["id"], "the shop", "shop.test")
    assert re.fullmatch(r"[a-z0-9]{18}\d{2}", user["username"])
    sender = service.store.tenancy.sender(user["username"])
    assert sender is not None
    assert sender.credential.verifier.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PasswordHasher().verify(sender.credential.verifier, user["password"])
    assert list(sender.configurations) == ["shop.test"]
    for _ in range(4):
        client.create_smtp_user(**where)
    with pytest.raises(ApiException) as refused:
        client.create_smtp_user(**where)
    assert refused.value.status_code == 409
    assert "at most 5 users" in refused.value.message
    assert refused.value.global_transaction_id


def test_clone_shares_name_and_password(client: EventNotificationsV1, service: Service) -> None:
    first, second = create(client, service), create(client, service, "blog.test", "Blog")
    user = client.create_smtp_user(instance_id=service.instance.id, id=first["id"]).get_result()
    clone = client.create_smtp_user(
        instance_id=service.instance.id, id=second["id"], username_to_clone=user["username"]
    ).get_result()
    assert clone["username"] == user["username"]
    assert clone["domain"] == "blog.test"
    assert "password" not in clone
    sender = service.store.tenancy.sender(user["username"])
    assert sender is not None
    assert set(sender.configurations) == {"shop.test", "blog.test"}


def test_update_a_configuration(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    renamed = client.update_smtp_configuration(**where, name="Shop 2")
    assert renamed.get_status_code() == 200
    described = client.update_smtp_configuration(**where, description="orders").get_result()
    assert (described["name"], described["description"], described["domain"]) == ("Shop 2", "orders", "shop.test")
    assert described == client.get_smtp_configuration(**where).get_result()


def test_delete_a_configuration(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    user = client.create_smtp_user(**where).get_result()
    response = client.delete_smtp_configuration(**where)
    assert (response.get_status_code(), response.get_result()) == (204, None)
    assert service.store.tenancy.sender(user["username"]) is None
    for gone in (
        lambda: client.get_smtp_configuration(**where),
        lambda: client.delete_smtp_configuration(**where),
        lambda: client.update_smtp_configuration(**where, name="again"),
        lambda: client.update_verify_smtp(**where, type="spf"),
        lambda: client.create_smtp_user(**where),
        lambda: client.list_smtp_users(**where),
        lambda: client.get_smtp_user(**where, user_id=user["id"]),
        lambda: client.get_smtp_allowed_ips(**where),
    ):
        with pytest.raises(ApiException) as refused:
            gone()
        assert refused.value.status_code == 404
    assert create(client, service)["id"] != made["id"]  # the domain is free again
    assert service.store.verification.holds([made["id"]]) == {made["id"]: "deleted"}


def test_users_from_list_to_deletion(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    users = [client.create_smtp_user(**where, description=f"no {number}").get_result() for number in range(5)]
    pager = SmtpUsersPager(client=client, **where, limit=2)
    listed = pager.get_all()
    assert [user["id"] for user in listed] == [user["id"] for user in users]
    assert all("password" not in user for user in listed)
    found = client.list_smtp_users(**where, search="NO 3").get_result()
    assert (found["total_count"], [user["id"] for user in found["users"]]) == (1, [users[3]["id"]])
    got = client.get_smtp_user(**where, user_id=users[0]["id"]).get_result()
    assert got.keys() == {"id", "smtp_config_id", "description", "domain", "username", "created_at", "updated_at"}
    changed = client.update_smtp_user(**where, user_id=users[0]["id"], description="the first").get_result()
    assert (changed["description"], changed["username"]) == ("the first", got["username"])
    response = client.delete_smtp_user(**where, user_id=users[0]["id"])
    assert (response.get_status_code(), response.get_result()) == (204, None)
    for gone in (
        lambda: client.get_smtp_user(**where, user_id=users[0]["id"]),
        lambda: client.update_smtp_user(**where, user_id=users[0]["id"], description="x"),
        lambda: client.delete_smtp_user(**where, user_id=users[0]["id"]),
    ):
        with pytest.raises(ApiException) as refused:
            gone()
        assert refused.value.status_code == 404
    assert client.create_smtp_user(**where).get_status_code() == 201  # its place is free


def test_no_description_is_an_empty_one(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    user = client.create_smtp_user(**where).get_result()
    assert client.get_smtp_user(**where, user_id=user["id"]).get_result()["description"] == ""
    assert client.update_smtp_user(**where, user_id=user["id"]).get_result()["description"] == ""
    assert client.get_smtp_configuration(**where).get_result()["description"] == ""


def test_allowed_ips_are_the_zones_of_the_rules(client: EventNotificationsV1, service: Service) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    assert client.get_smtp_allowed_ips(**where).get_result()["subnets"] == []
    let_in(service, "192.0.2.0/25", "2001:db8::/64")
    allowed = client.get_smtp_allowed_ips(**where).get_result()
    assert allowed["subnets"] == ["192.0.2.0/25", "2001:db8::/64"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", allowed["updated_at"])


def test_allowed_ips_list_an_allow_list_beside_the_zones_until_it_ends(
    client: EventNotificationsV1, service: Service
) -> None:
    made = create(client, service)
    where = {"instance_id": service.instance.id, "id": made["id"]}
    let_in(service, "192.0.2.0/25")
    ends_at = float(int(service.clock.now())) + 60
    service.store.allow_lists.create(
        service.account_id,
        service.instance.id,
        networks=(Address("ipAddress", "198.51.100.7"), Address("subnet", "192.0.2.128/25")),
        ends_at=ends_at,
        note="",
        by="test",
    )
    assert client.get_smtp_allowed_ips(**where).get_result()["subnets"] == ["192.0.2.0/24", "198.51.100.7/32"]
    service.clock.advance(61)
    allowed = client.get_smtp_allowed_ips(**where).get_result()
    assert allowed == {"subnets": ["192.0.2.0/25"], "updated_at": rfc3339(ends_at)}


def let_in(service: Service, *subnets: str) -> None:
    zone = service.store.access.create_zone(
        service.account_id,
        name="office",
        description="",
        addresses=tuple(Address("subnet", subnet) for subnet in subnets),
        excluded=(),
        by="test",
    )
    resource = [
        {"name": "accountId", "value": service.account_id},
        {"name": "serviceName", "value": "event-notifications"},
    ]
    document = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone.id}]}],
        "resources": [{"attributes": resource}],
        "operations": {"api_types": [{"api_type_id": SMTP_API}]},
    }
    service.store.access.create_rule(
        service.account_id, description="", document=document, enforcement="enabled", by="test"
    )


def test_unknown_configuration_is_404(client: EventNotificationsV1, service: Service) -> None:
    with pytest.raises(ApiException) as refused:
        client.get_smtp_configuration(instance_id=service.instance.id, id="00000000-0000-0000-0000-000000000000")
    assert refused.value.status_code == 404


def test_gzip_bodies(client: EventNotificationsV1, service: Service) -> None:
    client.set_enable_gzip_compression(True)
    assert create(client, service)["domain"] == "shop.test"


def test_iam_authenticator_exchanges_an_api_key(service: Service) -> None:
    for url in (service.base, f"{service.base}/iam"):
        authenticator = IAMAuthenticator(service.api_key, url=url)
        client = EventNotificationsV1(authenticator=authenticator)
        client.set_service_url(service.en_url)
        listed = client.list_smtp_configurations(instance_id=service.instance.id).get_result()
        assert listed["total_count"] == 0


def test_iam_authenticator_with_a_wrong_key(service: Service) -> None:
    client = EventNotificationsV1(authenticator=IAMAuthenticator("nobodys-key", url=service.base))
    client.set_service_url(service.en_url)
    with pytest.raises(ApiException) as refused:
        client.list_smtp_configurations(instance_id=service.instance.id)
    assert refused.value.status_code == 400
    assert refused.value.message == "Provided API key could not be found."
