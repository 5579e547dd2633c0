"""Operations 8 to 12: make an SMTP user, new or cloned; list, get, change, delete; rotate its password.

Standards: the vendor's contract (user name pattern, five users per configuration, one look at the password).
Promises: a password is 32 random letters and digits, kept as an argon2id verifier only; rotation acts on the
    credential, which clones share, and keeps the former password good for as long as was asked.
Dangers: two answers hold a password in clear: they are marked not to be stored by caches.
Not here: checking passwords (`relay.credentials`).
"""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from outgate.api.errors import BadRequest, Clash, NotFound
from outgate.api.event_notifications import examples
from outgate.api.event_notifications.documents import (
    ChangedUser,
    NewUser,
    Rotation,
    created_user_document,
    user_document,
)
from outgate.api.event_notifications.models import RotatedUser, SMTPUser, SMTPUserResponse, SMTPUsersList
from outgate.api.event_notifications.parts import Parts
from outgate.api.openapi import described
from outgate.api.schema import Page, json_body, page
from outgate.base import ids
from outgate.base.clock import rfc3339
from outgate.model.tenancy import SmtpConfiguration, SmtpUser
from outgate.store.tenancy import Conflict, NotThere, TooMany

_LIST = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/users"
_ONE = _LIST + "/{user_id}"
_USERNAME = re.compile(r"[a-z0-9]{18}\d{2}", re.ASCII)
_SECRET = {"Cache-Control": "no-store"}


def routes(parts: Parts) -> APIRouter:
    """Return the operations on users."""
    router = APIRouter(redirect_slashes=False)
    _creates(router, parts)
    _rotates(router, parts)
    _reads(router, parts)
    _changes(router, parts)
    return router


def _creates(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.post(
        _LIST,
        **described(
            "create_smtp_user",
            "Make a user; its password is shown only in this answer",
            answer=SMTPUserResponse,
            status=201,
            body=NewUser,
            body_optional=True,
            errors=(409,),
            body_example={"description": "the shop"},
            example=examples.CREATED_USER,
        ),
    )
    async def create(
        configuration: SmtpConfiguration = Depends(parts.configuration("create_smtp_user")),
        username_to_clone: str | None = Query(
            None, description="A user of another configuration of the instance: the new one shares name and password."
        ),
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
        return JSONResponse(created_user_document(user, password), 201, _SECRET)

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


def _rotates(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.post(
        _ONE + "/rotate",
        **described(
            "rotate_smtp_user",
            "Give a user, and its clones, a new password; the one before stays good for `overlap_s` seconds",
            answer=RotatedUser,
            body=Rotation,
            body_optional=True,
            errors=(409,),
            body_example={"overlap_s": 86_400},
            example=examples.ROTATED_USER,
        ),
    )
    async def rotate(
        user_id: str,
        configuration: SmtpConfiguration = Depends(parts.configuration("rotate_smtp_user")),
        body: Rotation = Depends(json_body(Rotation, optional=True)),
    ) -> JSONResponse:
        found = await asyncio.to_thread(tenancy.user, configuration.id, user_id)
        if found is None:
            raise NotFound("SMTP user", user_id)
        password = ids.password()
        # While both passwords are good, a wrong one must not take longer than a wrong one of nobody.
        beside = await asyncio.to_thread(tenancy.credential, found.username) if body.overlap_s else None
        verifier = await parts.hasher.hash(password, None if beside is None else beside[0].verifier)
        try:
            user = await asyncio.to_thread(
                tenancy.rotate_user, configuration.id, user_id, verifier=verifier, overlap_s=body.overlap_s
            )
        except NotThere:
            raise NotFound("SMTP user", user_id) from None
        except Conflict as error:
            raise Clash(error.field, f"must be 0 now: {error}, and both passwords would end") from None
        until = rfc3339(user.updated_at + body.overlap_s) if body.overlap_s else None
        answer = {**user_document(user), "password": password, "former_valid_until": until}
        return JSONResponse(answer, headers=_SECRET)


def _reads(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.get(
        _LIST,
        **described(
            "list_smtp_users",
            "List users, oldest first; `search` is part of the user name or the description",
            answer=SMTPUsersList,
            example=examples.USERS,
        ),
    )
    def find(
        request: Request,
        configuration: SmtpConfiguration = Depends(parts.configuration("list_smtp_users")),
        wanted: Page = Depends(page),
    ) -> JSONResponse:
        found = tenancy.users(configuration.id, search=wanted.search, limit=wanted.limit, offset=wanted.offset)
        items = [user_document(user) for user in found.items]
        return JSONResponse(wanted.document(request.url, found.total, "users", items))

    @router.get(_ONE, **described("get_smtp_user", "Show a user", answer=SMTPUser, example=examples.USER))
    def get(
        user_id: str, configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_user"))
    ) -> JSONResponse:
        user = tenancy.user(configuration.id, user_id)
        if user is None:
            raise NotFound("SMTP user", user_id)
        return JSONResponse(user_document(user))


def _changes(router: APIRouter, parts: Parts) -> None:
    tenancy = parts.store.tenancy

    @router.patch(
        _ONE,
        **described(
            "update_smtp_user",
            "Change a user's description",
            answer=SMTPUser,
            body=ChangedUser,
            body_example={"description": "the shop's invoices"},
            example=examples.USER,
        ),
    )
    def change(
        user_id: str,
        configuration: SmtpConfiguration = Depends(parts.configuration("update_smtp_user")),
        body: ChangedUser = Depends(json_body(ChangedUser)),
    ) -> JSONResponse:
        try:
            user = tenancy.update_user(configuration.id, user_id, description=body.description)
        except NotThere:
            raise NotFound("SMTP user", user_id) from None
        return JSONResponse(user_document(user))

    @router.delete(
        _ONE, **described("delete_smtp_user", "Delete a user: no new mail; what is queued goes on", status=204)
    )
    def delete(
        user_id: str, configuration: SmtpConfiguration = Depends(parts.configuration("delete_smtp_user"))
    ) -> Response:
        try:
            tenancy.delete_user(configuration.id, user_id)
        except NotThere:
            raise NotFound("SMTP user", user_id) from None
        return Response(status_code=204)
