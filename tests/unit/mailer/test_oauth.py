"""From a project's files to an OAuth configuration: all eight properties, the names pages get wrong, errors with places."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from outgate.mailer import oauth
from outgate.mailer.folders import open_configurations
from outgate.mailer.oauth import PID, OAuthConfig, google, load, microsoft, misnamed
from outgate.mailer.osgi import OsgiError
from outgate.mailer.values import ConfigError

BASE = "https://login.microsoftonline.com/contoso.test/oauth2/v2.0"
WHOLE: dict[str, object] = {
    "authUrl": f"{BASE}/authorize",
    "tokenUrl": f"{BASE}/token",
    "clientId": "11111111-2222",
    "clientSecret": "$[secret:SECRET_SMTP_OAUTH_CLIENT_SECRET]",
    "scopes": ["https://outlook.office.com/SMTP.Send", "offline_access"],
    "authCodeRedirectUrl": "http://localhost",
    "refreshUrl": f"{BASE}/token",
    "refreshToken": "$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]",
}
SECRETS = {"SECRET_SMTP_OAUTH_CLIENT_SECRET": "the-secret", "SECRET_SMTP_OAUTH_REFRESH_TOKEN": "the-refresh-token"}


def project(tmp_path: Path, properties: dict[str, object] | str, name: str = PID, folder: str = "config") -> Path:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    text = properties if isinstance(properties, str) else json.dumps(properties, indent=2)
    (place / f"{name}.cfg.json").write_text(text)
    return tmp_path


def loaded(place: Path, *, secrets: dict[str, str] = SECRETS, run_modes: Iterable[str] = ()) -> OAuthConfig:
    return load(open_configurations(place), run_modes, env={}, secrets=secrets)


def error_of(tmp_path: Path, properties: dict[str, object] | str, name: str = PID) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(project(tmp_path, properties, name))
    return str(caught.value).replace(str(tmp_path), "")


def test_all_eight(tmp_path: Path) -> None:
    found = loaded(project(tmp_path, WHOLE))
    assert found == OAuthConfig(
        token_url=f"{BASE}/token",
        client_id="11111111-2222",
        client_secret="the-secret",
        refresh_token="the-refresh-token",
        scopes=("https://outlook.office.com/SMTP.Send", "offline_access"),
        auth_url=f"{BASE}/authorize",
        redirect_url="http://localhost",
    )
    assert "the-secret" not in repr(found) and "the-refresh-token" not in repr(found)
    assert {name.lower() for name in WHOLE} == {name.lower() for name in oauth.PROPERTIES}


def test_run_modes_choose_the_file(tmp_path: Path) -> None:
    project(tmp_path, WHOLE)
    project(tmp_path, WHOLE | {"clientId": "of-prod"}, folder="config.prod")
    assert loaded(tmp_path).client_id == "11111111-2222"
    assert loaded(tmp_path, run_modes=("author", "prod")).client_id == "of-prod"
    assert loaded(tmp_path, run_modes="author,prod").client_id == "of-prod"


def test_the_refresh_address_beats_the_token_address(tmp_path: Path) -> None:
    assert (
        loaded(project(tmp_path, WHOLE | {"refreshUrl": "https://x.test/refresh"})).token_url
        == "https://x.test/refresh"
    )
    assert loaded(project(tmp_path, WHOLE | {"refreshUrl": ""})).token_url == f"{BASE}/token"


@pytest.mark.parametrize("scopes", [["a", "b"], "a b", ["a b"], [" a", "b "]])
def test_scopes_in_any_form(tmp_path: Path, scopes: object) -> None:
    assert loaded(project(tmp_path, WHOLE | {"scopes": scopes})).scopes == ("a", "b")


def test_a_public_client_has_no_secret(tmp_path: Path) -> None:
    properties = {name: value for name, value in WHOLE.items() if name != "clientSecret"}
    assert loaded(project(tmp_path, properties)).client_secret == ""


FILE = f"/config/{PID}.cfg.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"refreshToken": ""}, "line 12, column 19: refreshToken: is empty: a value is needed"),
        ({"refreshToken": None}, "refreshToken: is missing: the configuration needs refreshToken"),
        ({"clientId": "  "}, "line 4, column 15: clientId: is empty: a value is needed"),
        ({"clientSecret": ""}, "line 5, column 19: clientSecret: is empty: give a value, or leave"),
        ({"refreshUrl": "http://x.test/token"}, "refreshUrl: expected https://: a secret is sent there"),
        ({"refreshUrl": "https://u:p@x.test/"}, "refreshUrl: an address holds no user name and no password"),
        ({"refreshUrl": "https://x.test:99999/"}, "refreshUrl: expected an https:// address"),
        ({"refreshUrl": "ftp://x.test/"}, "refreshUrl: expected an https:// address"),
        ({"refreshUrl": "https://login.test/<tenantID>/token"}, "refreshUrl: still has <tenantID> of the example"),
        ({"refreshUrl": None, "tokenUrl": None}, "tokenUrl: is missing"),
        ({"refreshUrl": "", "tokenUrl": "file:///etc/passwd"}, "line 3, column 15: tokenUrl: expected an https://"),
        ({"clientId": ["a", "b"]}, "clientId: expected one value, not a list"),
        ({"scopes": ["a", "b\tc"]}, "scopes: expected a list with one scope in each element"),
        (
            {"refreshToken": None, "refresh.token": "x"},
            "refresh.token: is no property of this configuration: did you mean",
        ),
        ({"clientId": "$[env:NOT_SET]"}, "clientId: nothing is set for $[env:NOT_SET]"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, change: dict[str, object], said: str) -> None:
    properties = {name: value for name, value in (WHOLE | change).items() if value is not None}
    text = error_of(tmp_path, properties)
    assert text.startswith(f"{FILE}: ") and said in text, text


def test_a_secret_that_is_not_set(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"line 12, column 19: refreshToken: nothing is set for \$\[secret:SECRET_SMTP"
    ):
        loaded(project(tmp_path, WHOLE), secrets={"SECRET_SMTP_OAUTH_CLIENT_SECRET": "x"})


def test_a_secret_with_a_line_end_within_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refreshToken: holds a line end") as caught:
        loaded(project(tmp_path, WHOLE), secrets=SECRETS | {"SECRET_SMTP_OAUTH_REFRESH_TOKEN": "first\nsecond-part"})
    assert "second-part" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        f"called {PID}",
        "com.day.cq.mailer.impl.OAuthConfigurationProviderImpl",
        "com.day.cq.mailer.oauth.OAuthConfigurationProvider",
        f"{PID}~outlook",
        f"{PID}-outlook",
        "OAuthConfigurationProviderImpl",
        PID.lower(),
    ],
)
def test_a_file_that_is_nearly_named_right(tmp_path: Path, name: str) -> None:
    text = error_of(tmp_path, WHOLE, name)
    assert text == f"/config/{name}.cfg.json: is not read: oauth.flow needs a file with the name {PID}.cfg.json"
    assert [file.pid for file in misnamed(open_configurations(tmp_path))] == [name.replace("Impl-", "Impl~")]


def test_no_file_at_all(tmp_path: Path) -> None:
    text = error_of(tmp_path, {}, "com.day.cq.mailer.DefaultMailService")
    assert text == f"no config folder in  has {PID}.cfg.json"
    assert misnamed(open_configurations(tmp_path)) == []


def test_the_vendors_own_sample_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(OsgiError) as caught:
        loaded(project(tmp_path, '{\n    authUrl: "<Authorization Url>",\n    tokenUrl: "<Token Url>"\n}\n'))
    assert (caught.value.line, caught.value.column) == (2, 5) and caught.value.file.endswith(FILE)


class TestPresets:
    def test_microsoft(self) -> None:
        found = microsoft("contoso.test", "id", "secret", "refresh")
        assert found.token_url == f"{BASE}/token" and found.auth_url == f"{BASE}/authorize"
        assert found.scopes == oauth.MICROSOFT_SCOPES and "offline_access" in found.scopes

    def test_google(self) -> None:
        found = google("id", "secret", "refresh", scopes=["https://mail.google.com/"])
        assert found.token_url == "https://accounts.google.com/o/oauth2/token"
        assert found.scopes == ("https://mail.google.com/",)

    @pytest.mark.parametrize("tenant", ["", "<tenant>", "a/b", "../x", "tenant?x", "x.test#"])
    def test_a_tenant_that_would_be_another_address(self, tenant: str) -> None:
        with pytest.raises(ConfigError, match="tenant: expected the directory"):
            microsoft(tenant, "id", "secret", "refresh")

    def test_nothing_is_empty(self) -> None:
        with pytest.raises(ConfigError, match="refreshToken: a value is needed"):
            google("id", "secret", "")
