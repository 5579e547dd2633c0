"""Which Cloud Manager is asked, and with which token.

Standards: the settings of the vendor's client (aio): variables `AIO_…`, where "_" parts the key and "__" is the sign
    itself, and the file that AIO_CONFIG_FILE names, in its JSON form; tokens are JWTs (RFC 7519) that are not checked.
Promises: settings of the vendor and of a running `outgate dev` are never mixed: the token of one would go to the other.
Not here: calls (`client`), finding `dev.json` (`connection`).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from outgate.cloud_manager.client import CloudManager
from outgate.cloud_manager.refusals import BadToken, Misconfigured

VENDOR_URL = "https://cloudmanager.adobe.io"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A Cloud Manager to ask, the program and environment that are meant if nobody names others ("" if none are
    known), and where all this was found, for people; `of_vendor`: by the vendor's settings."""

    api: CloudManager
    program: str
    environment: str
    source: str
    of_vendor: bool


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
    vendor's IMS context to take the token from ("": the first of the usual ones that has one). `timeout` is how long an
    answer may take (None: as `CloudManager` has it).

    Raises `BadToken` (missing, expired), `Misconfigured`, and what `dev_json` raises. Settings of the two are never
    mixed: the token of one would go to the other."""
    settings = _vendor_settings(env)
    usual = (context,) if context else _CONTEXTS
    held = next((name for name in usual if _token_of(settings, name)), "")
    if not (held or context or settings.get("cloudmanager.base_url")):
        return from_dev_json(dev_json(), ca_file=ca_file, timeout=timeout)
    source = f"the AIO_ variables and {env['AIO_CONFIG_FILE']}" if env.get("AIO_CONFIG_FILE") else "the AIO_ variables"
    if not held:
        wanted = f"ims.contexts.{context or 'cli'}.access_token.token"
        raise BadToken(f"there is no access token ({wanted}) in {source}: set AIO_IMS_CONTEXTS_CLI_ACCESS__TOKEN_TOKEN")
    token = _token_of(settings, held)
    _check_expiry(settings.get(f"ims.contexts.{held}.access_token.expiry", ""), token, now())
    # A service's context names its client; of a person's, the token does.
    client_id = settings.get(f"ims.contexts.{held}.client_id", "") or client_id_of(token)
    org_id = settings.get(f"ims.contexts.{held}.ims_org_id", "")
    if not client_id:
        raise BadToken("the access token names no client_id: it must be one of the vendor's login (a JWT)")
    org_id = org_id or settings.get("cloudmanager_orgid", "") or settings.get("console.org.code", "")
    if not org_id:
        raise Misconfigured(f"{source} name no organization: set AIO_CLOUDMANAGER__ORGID")
    return Chosen(
        CloudManager(settings.get("cloudmanager.base_url") or VENDOR_URL, org_id, client_id, token, ca_file, timeout),
        settings.get("cloudmanager_programid", ""),
        settings.get("cloudmanager_environmentid", ""),
        source,
        of_vendor=True,
    )


def from_dev_json(dev: Mapping[str, Any], *, ca_file: str | None = None, timeout: float | None = None) -> Chosen:
    """Choose the Cloud Manager of a running `outgate dev`. Raises `Misconfigured`."""
    token = str(dev["token"])
    api = CloudManager(str(dev["cloud_manager_url"]), str(dev["org_id"]), client_id_of(token), token, ca_file, timeout)
    program, environment = str(dev.get("program_id", "")), str(dev.get("environment_id", ""))
    return Chosen(api, program, environment, "the dev.json of outgate dev", of_vendor=False)


def client_id_of(token: str) -> str:
    """Return the `client_id` claim of a JWT, read without checking it; "" if there is none."""
    return str(_claims(token).get("client_id", ""))


_CONTEXTS = ("aio-cli-plugin-cloudmanager", "cli")
"""Contexts of the vendor's client that may hold a token, the one it takes first first."""
_SETTINGS_OCTETS = 1024 * 1024


def _vendor_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return the vendor's settings by dotted key: what the file has, and before it what variables say."""
    found: dict[str, str] = {}
    name = env.get("AIO_CONFIG_FILE")
    if name:
        try:
            with Path(name).open("rb") as file:
                raw = file.read(_SETTINGS_OCTETS + 1)
            if len(raw) > _SETTINGS_OCTETS:
                raise ValueError("is too long")
            _flatten(json.loads(raw), "", found)
        except OSError as error:
            raise Misconfigured(f"AIO_CONFIG_FILE: {name} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise Misconfigured(f"AIO_CONFIG_FILE: {name} is not JSON{at}") from None
    for variable, text in env.items():
        if variable.startswith("AIO_"):
            # "_" parts the key, "__" is the sign itself.
            key = ".".join(part.replace("\0", "_") for part in variable[4:].lower().replace("__", "\0").split("_"))
            found[key] = text
    return found


def _flatten(value: object, key: str, into: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            _flatten(each, f"{key}.{name}" if key else name, into)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        into[key] = str(value)


def _token_of(settings: Mapping[str, str], context: str) -> str:
    place = f"ims.contexts.{context}.access_token"
    return (settings.get(f"{place}.token") or settings.get(place) or "").strip()


def _check_expiry(expiry: str, token: str, now: float) -> None:
    """Raise `BadToken` if the token is over: as the setting beside it says (ms), else as it says itself (s)."""
    said = _claims(token).get("exp")
    try:
        until = int(expiry) / 1000 if expiry else float(said) if isinstance(said, int | float) else now + 1
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
