"""What can go wrong with a call of a Cloud Manager API, and what the API says then.

Standards: RFC 9457 (application/problem+json) with the vendor's three shapes of `errors`, its BadRequestError, and the
    gateway's `{error_code, message}`.
Promises: pure; a body of any kind gives a line of text; an invalid value is never in it, but for a name.
Not here: making calls (`client`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

_MASK = "****"
_TELLING = 3
"""A value shorter than this tells nothing and would be found in every sentence."""


class NotReachable(Exception):
    """Nobody could be asked, or what answered makes no sense; the text says cause and remedy."""


class Misconfigured(NotReachable):
    """Nobody was asked: an address or a setting cannot be used."""


class BadToken(Misconfigured):
    """Nobody was asked: the access token is missing, expired, or of the wrong kind."""


class Refused(Exception):
    """Cloud Manager answered, but not with success. `status` is the HTTP status, `text` what it said in one line."""

    def __init__(self, status: int, text: str, request_id: str = "") -> None:
        told = f" (x-request-id {request_id})" if request_id else ""
        super().__init__(f"Cloud Manager refused ({status}): {text}{told}")
        self.status = status
        self.text = text
        self.request_id = request_id

    def remedy(self, role: str, *, ours: bool = False) -> str:
        """Return what to do about it; `role` is what the call needs, `ours`: that the vendor does not have it."""
        if 300 <= self.status < 400:
            return "Check the address: it leads elsewhere, and the token is not taken there"
        return {
            400: "Correct that and try again",
            401: "Get a new token",
            403: f"The token needs the role for it ({role}), and must belong to the organization and the client",
            404: f"Check the numbers of program and environment, and the address{', which must be Outgate' * ours}",
            409: "Try again once that has changed",
        }.get(self.status, "Try again later")

    def without(self, values: Iterable[str]) -> Refused:
        """Return this refusal with a mask in place of each of `values`, as it is or as JSON writes it."""
        spellings = {
            " ".join(written.split())
            for value in values
            for written in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
        }
        text, request_id = self.text, self.request_id
        for spelling in sorted(spellings, key=len, reverse=True):
            if len(spelling) >= _TELLING:
                text, request_id = text.replace(spelling, _MASK), request_id.replace(spelling, _MASK)
        return Refused(self.status, text, request_id)


def words(raw: bytes) -> str:
    """Return what the body of a refusal says in one line, whichever of the vendor's bodies it has; "" if it is none."""
    try:
        return " ".join(_said(json.loads(raw)).split())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def _said(body: Any) -> str:
    """Return what the body of a refusal says, "" if nothing. Raises anything for a body of another kind."""
    if "error_code" in body:
        # The gateway: token, client, organization, role.
        return f"{body['message']} (Code: {body['error_code']})"
    errors = body.get("errors") or []
    entries = list(errors.values()) if isinstance(errors, dict) else errors
    said = [each if isinstance(each, str) else _violation(each) for each in entries]
    if not said:
        said = [f"{each['name']} is missing" for each in body.get("missingParams") or []]
        said += [f"{each['name']} {each['reason']}" for each in body.get("invalidParams") or []]
    return "; ".join(said) or str(body.get("title", ""))


def _violation(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with a field, and which: "[0].name (1X) must match …". A value is never shown."""
    field = str(entry.get("field", "")).removeprefix("patchEnvironmentVariables.arg2").rpartition("arg2.")[2]
    shown = entry.get("invalidValue")
    told = f" ({shown})" if field.endswith(".name") and isinstance(shown, str) else ""
    return f"{field}{told} {entry['message']}".strip()
