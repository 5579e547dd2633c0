"""Examples of bodies and answers of the identity API, for its published description.

Standards: none.
Promises: each is what a call could send or get: a test validates them against the models; no secret is one.
Not here: the models (`documents`).
"""

from __future__ import annotations

NEW: dict[str, object] = {
    "name": "nightly report",
    "iam_id": "iam-ServiceId-laptop",
    "description": "reads what became of last night's mail",
    "expires_at": "2035-12-31T23:59+0000",
    "roles": ["reader"],
}

CHANGED: dict[str, object] = {"description": "also reads the zones", "expires_at": ""}

SHOWN: dict[str, object] = {
    "id": "ApiKey-7f3bb44c-9ac6-4d6b-a5b1-6c2ea7fc0dc1",
    "entity_tag": "0b9c7c1fd9a14be8b9ad5e7f4f34bbd4",
    "crn": "crn:v1:bluemix:public:iam-identity::a/4a1f::apikey:ApiKey-7f3bb44c-9ac6-4d6b-a5b1-6c2ea7fc0dc1",
    "locked": False,
    "disabled": False,
    "created_at": "2026-11-21T07:03:00Z",
    "created_by": "iam-ServiceId-laptop",
    "modified_at": "2026-11-21T07:03:00Z",
    "name": "nightly report",
    "description": "reads what became of last night's mail",
    "iam_id": "iam-ApiKey-7f3bb44c-9ac6-4d6b-a5b1-6c2ea7fc0dc1",
    "account_id": "4a1f",
    "apikey": "",
    "roles": ["reader"],
    "expires_at": "2035-12-31T23:59+0000",
}

CREATED: dict[str, object] = {**SHOWN, "apikey": "<the key's text, 43 signs, shown in this answer only>"}

LISTED: dict[str, object] = {
    "offset": 0,
    "limit": 20,
    "first": "http://127.0.0.1:8025/iam/v1/apikeys?pagesize=20&pagetoken=0",
    "apikeys": [SHOWN],
}

TOKEN: dict[str, object] = {
    "access_token": "<header>.<claims>.<signature>",
    "refresh_token": "not_supported",
    "token_type": "Bearer",
    "expires_in": 3600,
    "expiration": 1795248180,
    "scope": "ibm openid",
}

PUBLIC_KEYS: dict[str, object] = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            "kid": "8f4c2b52-1f0d-4c55-8d63-0a5b6ffb6c1e",
            "alg": "ES256",
            "use": "sig",
        }
    ]
}

REFUSED: dict[str, object] = {
    "errorCode": "BXNIM0415E",
    "errorMessage": "Provided API key could not be found.",
    "context": {
        "requestId": "3f0e4b6a-1f5a-4d0c-8a53-0d1f4f5c2c11",
        "requestType": "incoming.Identity_Token",
        "url": "http://127.0.0.1:8025/iam/identity/token",
        "host": "127.0.0.1",
    },
}
