"""Examples for the published description: what the operations of configurations and users answer.

Standards: none.
Promises: each is a valid answer by the models (a test checks).
Not here: the models (`models`).
"""

from __future__ import annotations

_ID = "3f1c7f0e-6f0b-4d56-9d6e-2c8f6f1f6a11"
_USER_ID = "9a6d3c52-0b58-4b43-8a0c-4b2f5a3d7e10"
_AT = "2026-11-21T07:03:00Z"
_BASE = "http://127.0.0.1:8025/event-notifications/v1/instances/5d6e0b1c-7a3f-4c0e-8a57-0f3b6f7c9d21/smtp/config"

NEW_CONFIGURATION = {"name": "Shop", "domain": "shop.example.com", "description": "Orders and invoices"}
_CONFIGURATION: dict[str, object] = {
    "id": _ID,
    **NEW_CONFIGURATION,
    "config": {
        "spf": {
            "txt_name": "shop.example.com",
            "txt_value": "v=spf1 include:spf.outgate.test ~all",
            "verification": "SUCCESSFUL",
        },
        "dkim": {
            "txt_name": "1f0a2a5e-5f6e-4bb5-9f5b-0a1c2d3e4f50._domainkey.shop.example.com",
            "txt_value": "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
            "verification": "PENDING",
        },
        "en_authorization": {"verification": "PENDING"},
    },
}
CREATED_CONFIGURATION = {**_CONFIGURATION, "created_at": _AT}
CONFIGURATION = {**_CONFIGURATION, "updated_at": _AT}
CONFIGURATIONS = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "smtp_configurations": [CONFIGURATION],
    "first": {"href": f"{_BASE}?limit=10&offset=0"},
}
CHECKS = {
    "smtp_config_id": _ID,
    "domain": "shop.example.com",
    "standing": "warning",
    "standing_since": _AT,
    "failing": "spf",
    "suspends_at": "2026-11-24T07:03:00Z",
    "recheck_at": "2026-11-21T13:03:00Z",
    "checks": [
        {
            "type": "spf",
            "result": "softfail",
            "explanation": "SPF of shop.example.com for 192.0.2.1 is softfail, not pass: ~all",
            "record": "shop.example.com",
            "at": _AT,
            "asked": [
                {
                    "name": "shop.example.com",
                    "type": "TXT",
                    "status": "ok",
                    "records": ["v=spf1 ~all"],
                    "ttl": 300,
                    "server": "198.51.100.53:53",
                }
            ],
        }
    ],
}
SIGNING_KEYS = {
    "smtp_config_id": _ID,
    "domain": "shop.example.com",
    "ed25519": False,
    "rotating": True,
    "keys": [
        {
            "algorithm": "rsa",
            "selector": "1f0a2a5e-5f6e-4bb5-9f5b-0a1c2d3e4f50",
            "state": "active",
            "since": "2026-05-02T10:00:00Z",
            "txt_name": "1f0a2a5e-5f6e-4bb5-9f5b-0a1c2d3e4f50._domainkey.shop.example.com",
            "txt_value": "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
            "verification": "SUCCESSFUL",
            "removable_at": None,
            "advice": "Signs new mail. Leave its record as it is.",
        },
        {
            "algorithm": "rsa",
            "selector": "7c1d9f3a-2b64-4e0d-8a9b-5f6071829304",
            "state": "next",
            "since": _AT,
            "txt_name": "7c1d9f3a-2b64-4e0d-8a9b-5f6071829304._domainkey.shop.example.com",
            "txt_value": "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8B",
            "verification": "PENDING",
            "removable_at": None,
            "advice": "Publish its record, then verify (type=dkim): when it is seen, the key begins to sign."
            " Leave the other records as they are.",
        },
    ],
}
_USER: dict[str, object] = {
    "id": _USER_ID,
    "smtp_config_id": _ID,
    "description": "the shop",
    "domain": "shop.example.com",
    "username": "k3v9x0a7t2m5q8w1b642",
    "created_at": _AT,
}
CREATED_USER = {**_USER, "password": "shown only now, never again"}
USER = {**_USER, "updated_at": _AT}
USERS = {
    "total_count": 1,
    "offset": 0,
    "limit": 10,
    "users": [USER],
    "first": {"href": f"{_BASE}/{_ID}/users?limit=10&offset=0"},
}
ROTATED_USER = {**USER, "password": "shown only now, never again", "former_valid_until": "2026-11-22T07:03:00Z"}

ENDPOINTS = {
    "endpoints": [
        {
            "id": "eu-de",
            "regions": ["eu-de", "eu-es"],
            "public_name": "smtp.eu-de.example.com",
            "private_name": "private.smtp.eu-de.example.com",
            "submission_port": 587,
            "submissions_port": 465,
            "addresses": ["192.0.2.10", "2001:db8::10"],
            "outgoing_addresses": ["192.0.2.20", "192.0.2.21"],
            "ehlo_name": "out.eu-de.example.com",
        }
    ]
}
