"""Which Cloud Manager is asked, and with which token.

Standards: the vendor's client (aio and its plugin): the names of its settings, and whose token it takes; tokens are
    JWTs (RFC 7519) that are not checked.
Promises: settings of the vendor and of a running `outgate dev` are never mixed: the token of one would go to the other.
Not here: where settings are written (`settings`), calls (`client`), finding `dev.json` (`connection`).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from outgate.cloud_manager.client import CloudManager
from outgate.cloud_manager.refusals import BadToken, Misconfigured
from outgate.cloud_manager.settings import vendor_settings

VENDOR_URL = "https://cloudmanager.adobe.io"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A Cloud Manager to ask, the program and environment that are meant if nobody names others ("" if none are
    known), and where all this was found, for people; `of_vendor`: by the vendor's settings, which may also say that
    names of variables are to be taken strictly."""

    api: CloudManager
    program: str
    environment: str
    source: str
    of_vendor: bool
    strict: bool = False


def from_environment(
    env: Mapping[str, str],
    dev_json: Callable[[], Mapping[str, Any]],
    *,
    context: str = "",
    ca_file: str | None = None,
    timeout: float | None = None,
    now: Callable[[], float] = time.time,
) -> Chosen:
    """Choose as the vendor's client is told to, by `AIO_` variables and the file `AIO_CONFIG_FILE`; if these name
    neither a base URL nor a token, what `dev_json` returns: the `dev.json` of a running `outgate dev`. `context` is the
    vendor's IMS context to take the token from ("": a person's login if it has chosen an organization, else a service).
    `timeout` is how long an answer may take (None: as `CloudManager` has it).

    Raises `BadToken` (missing, expired), `Misconfigured`, and what `dev_json` raises. Settings of the two are never
    mixed: the token of one would go to the other."""
    settings = vendor_settings(env)
    context = context.lower()
    org_id = settings.get("cloudmanager_orgid", "") or settings.get("console.org.code", "")
    usual = (context,) if context else (_LOGIN, _SERVICE) if org_id else (_SERVICE, _LOGIN)
    held = next((name for name in usual if _token_of(settings, name)), "")
    if not (held or context or settings.get("cloudmanager.base_url")):
        return from_dev_json(dev_json(), ca_file=ca_file, timeout=timeout)
    source = f"the AIO_ variables and {env['AIO_CONFIG_FILE']}" if env.get("AIO_CONFIG_FILE") else "the AIO_ variables"
    if not held:
        wanted = f"ims.contexts.{context or _LOGIN}.access_token.token"
        raise BadToken(f"there is no access token ({wanted}) in {source}: set AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN")
    token = _token_of(settings, held)
    _check_expiry(settings.get(f"ims.contexts.{held}.access_token.expiry", ""), token, now())
    # A service's context names its client; of a person's, the token does.
    client_id = settings.get(f"ims.contexts.{held}.client_id", "") or client_id_of(token)
    org_id = settings.get(f"ims.contexts.{held}.ims_org_id", "") or org_id
    if not client_id:
        raise BadToken("the access token names no client_id: it must be one of the vendor's login (a JWT)")
    if not org_id:
        raise Misconfigured(f"{source} name no organization: set AIO_CLOUDMANAGER__ORGID")
    return Chosen(
        CloudManager(settings.get("cloudmanager.base_url") or VENDOR_URL, org_id, client_id, token, ca_file, timeout),
        settings.get("cloudmanager_programid", ""),
        settings.get("cloudmanager_environmentid", ""),
        source,
        of_vendor=True,
        strict=settings.get(_STRICT, "").lower() not in _NO,
    )


def from_dev_json(dev: Mapping[str, Any], *, ca_file: str | None = None, timeout: float | None = None) -> Chosen:
    """Choose the Cloud Manager of a running `outgate dev`. Raises `Misconfigured`."""
    token = str(dev["token"])
    api = CloudManager(str(dev["cloud_manager_url"]), str(dev["org_id"]), client_id_of(token), token, ca_file, timeout)
    program, environment = str(dev.get("program_id", "")), str(dev.get("environment_id", ""))
    return Chosen(api, program, environment, "the dev.json of outgate dev", of_vendor=False)


def client_id_of(token: str) -> str:
    """Return the `client_id` claim of a JWT, read without checking it; "" if there is none."""
    return str(_claims(token).get("client_id") or "")


_LOGIN, _SERVICE = "cli", "aio-cli-plugin-cloudmanager"
"""The contexts of the vendor's client that it takes a token from: of the person who logged in, of a service account."""
_STRICT = "cloudmanager.environmentvariables.strictvalidation"
_NO = frozenset({"", "0", "false"})


def _token_of(settings: Mapping[str, str], context: str) -> str:
    place = f"ims.contexts.{context}.access_token"
    return (settings.get(f"{place}.token") or settings.get(place) or "").strip()


def _check_expiry(expiry: str, token: str, now: float) -> None:
    """Raise `BadToken` if the token is over: as the setting beside it says (ms), else as it says itself (s)."""
    said = _claims(token).get("exp")
    try:
        until = float(expiry) / 1000 if expiry else float(said) if isinstance(said, int | float) else now + 1
        if until > now:
            return
        when = datetime.fromtimestamp(until, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadToken("the access token's expiry is not a time in milliseconds") from None
    raise BadToken(f"the access token is over since {when:%Y-%m-%d %H:%M} UTC: log in again and set the new one")


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else {}
