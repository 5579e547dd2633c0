"""Bodies of network infrastructures as clients send them, and the fields that a refusal names."""

from __future__ import annotations

import secrets
from typing import Any

import httpx2

POLICY = {
    "dhGroup": "ECP256",
    "ikeEncryption": "AES256",
    "ikeIntegrity": "SHA256",
    "ipsecEncryption": "AES256",
    "ipsecIntegrity": "SHA256",
    "pfsGroup": "ECP256",
    "saDatasize": 102400000,
    "saLifetime": 3600,
}


def shared_key() -> str:
    """Make a key that no other text contains."""
    return "key-" + secrets.token_urlsafe(18)


def connection(**change: object) -> dict[str, Any]:
    """Return a connection whose gateway has three ranges behind it."""
    return {
        "name": "connection-1",
        "gateway": {"address": "203.0.113.78", "addressSpace": ["10.151.0.0/16", "10.152.0.0/16", "fd12::/32"]},
        "sharedKey": shared_key(),
        "ipsecPolicy": dict(POLICY),
        **change,
    }


def vpn(**change: object) -> dict[str, Any]:
    """Return the body of a VPN, as the vendor's tutorial has it."""
    return {
        "kind": "vpn",
        "region": "va7",
        "addressSpace": ["10.104.182.64/26"],
        "dns": {"resolvers": ["10.151.201.22", "10.152.202.22"], "domains": ["shop.example", "shop.test"]},
        "connections": [connection()],
        **change,
    }


def without_key(body: dict[str, Any]) -> dict[str, Any]:
    """Return what of a VPN's body is shown again."""
    shown = [{name: value for name, value in each.items() if name != "sharedKey"} for each in body["connections"]]
    return {**body, "connections": shown}


def fields_of(answer: httpx2.Response, operation: str) -> list[str]:
    """Return the fields that a refusal names, below the operation's body, after checking its shape."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert all(field == entry["field"] and entry["invalidValue"] for field, entry in errors.items())
    assert all(field.startswith(operation) for field in errors)
    return [field.removeprefix(operation).removeprefix(".") for field in errors]
