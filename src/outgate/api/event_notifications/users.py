"""Operation 8: make an SMTP user, new or cloned.

Standards: the vendor's contract (user name pattern, five users per configuration, one look at the password).
Promises: a password is 32 random letters and digits, kept as an argon2id verifier only.
Dangers: the answer holds the password in clear: it is marked not to be stored by caches.
Not here: checking passwords (`relay.credentials`).
"""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.event_notifications.documents import NewUser, created_user_document
from outgate.api.event_notifications.parts import Parts
from outgate.api.schema import json_body
from outgate.base import ids
from outgate.model.tenancy import SmtpConfiguration, SmtpUser
from outgate.store.tenancy import Conflict, NotThere, TooMany

_LIST = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/users"
_USERNAME = re.compile(r"[a-z0-9]{18}\d{2}", re.ASCII)


def routes(parts: Parts) -> APIRouter:
    """Return the operations on users."""
    router = APIRouter(redirect_slashes=False)
    tenancy = parts.store.tenancy

    @router.post(_LIST, response_model=None)
    async def create(
        configuration: SmtpConfiguration = Depends(parts.configuration("create_smtp_user")),
        username_to_clone: str | None = Query(None),
        body: NewUser = Depends(json_body(NewUser, optional=True)),
    ) -> JSONResponse:
        try:
            if username_to_clone is not None:
                user = await asyncio.to_thread(clone, configuration, username_to_clone, body.description)
                return JSONResponse(created_user_document(user, None), 201)
            password = ids.password()
            verifier = await parts.hasher.hash(password)
            user = await asyncio.to_thread(add, configuration, verifier, body.description)
        except NotThere:
            raise NotFound("SMTP configuration", configuration.id) from None
        except TooMany as error:
            raise Clash("", str(error)) from None
        except Conflict as error:
            raise BadRequest(error.field, f"cannot be used: {error}") from None
        return JSONResponse(created_user_document(user, password), 201, {"Cache-Control": "no-store"})

    def add(configuration: SmtpConfiguration, verifier: str, description: str) -> SmtpUser:
        return tenancy.create_user(
            configuration.instance_id, configuration.id, description=description, verifier=verifier
        )

    def clone(configuration: SmtpConfiguration, username: str, description: str) -> SmtpUser:
        if _USERNAME.fullmatch(username) is None:
            raise BadRequest("username_to_clone", "must be a user name: 18 of a-z and 0-9, then two digits")
        return tenancy.clone_user(
            configuration.instance_id, configuration.id, username=username, description=description
        )

    return router
