"""Ours beside the vendor's: the signing keys of a configuration, their rotation, and Ed25519 beside RSA.

Standards: RFC 6376 section 3.6.1, RFC 8463 (the records offered).
Promises: every answer shows all keys with their records and says for each what to do now; a rotation changes nothing
    that signs until its record was seen; the vendor's `config.dkim` shows the active RSA key all the while.
Dangers: a record that is removed before `removable_at` makes signatures of mail that is still under way fail.
Not here: rows (`store.signing_keys`), the check that ends a rotation (`configurations`: verify `type=dkim`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from outgate.api.errors import Clash, NotFound
from outgate.api.event_notifications import examples
from outgate.api.event_notifications.models import SigningKeys
from outgate.api.event_notifications.parts import Parts
from outgate.api.identity.tokens import Caller
from outgate.api.openapi import described
from outgate.api.schema import Body, json_body
from outgate.base.clock import rfc3339
from outgate.base.log import Log
from outgate.model.tenancy import KeptKey, KeyState, SmtpConfiguration, Verification
from outgate.store.keys import new_ed25519_key, new_key_like
from outgate.store.signing_keys import is_replacing
from outgate.store.tenancy import Conflict, NotThere

_log = Log("outgate.signing")
_DKIM = "/v1/instances/{instance_id}/smtp/config/{smtp_config_id}/dkim"
_ROTATE = _DKIM + "/rotate"


class SigningBody(Body):
    """What is to change."""

    ed25519: bool


def routes(parts: Parts, keep_s: float) -> APIRouter:
    """Return the operations on signing keys; `keep_s`: how many seconds after its retirement a record must stay."""
    router = APIRouter(redirect_slashes=False)
    _keys(router, parts, keep_s)
    _rotation(router, parts, keep_s)
    return router


def _keys(router: APIRouter, parts: Parts, keep_s: float) -> None:
    @router.get(
        _DKIM,
        **described(
            "get_smtp_dkim",
            "Show the keys that sign a configuration's mail, their records, and what to do with each",
            answer=SigningKeys,
            example=examples.SIGNING_KEYS,
        ),
    )
    def get(configuration: SmtpConfiguration = Depends(parts.configuration("get_smtp_dkim"))) -> JSONResponse:
        return _answer(configuration, parts.store.signing_keys.keys(configuration.id), parts, keep_s)

    @router.patch(
        _DKIM,
        **described(
            "update_smtp_dkim",
            "Sign with an Ed25519 key beside the RSA key, once its record was seen; or with RSA alone",
            answer=SigningKeys,
            body=SigningBody,
            body_example={"ed25519": True},
            example=examples.SIGNING_KEYS,
        ),
    )
    def change(
        configuration: SmtpConfiguration = Depends(parts.configuration("update_smtp_dkim")),
        caller: Caller = Depends(parts.gate.allow("update_smtp_dkim")),
        body: SigningBody = Depends(json_body(SigningBody)),
    ) -> JSONResponse:
        store = parts.store.signing_keys
        keys = _done(
            configuration,
            lambda: (
                store.add_second(configuration.id, new_ed25519_key())
                if body.ed25519
                else store.drop_second(configuration.id)
            ),
        )
        _log.info("dkim.changed", domain=configuration.domain, by=caller.subject, ed25519=body.ed25519)
        return _answer(configuration, keys, parts, keep_s)


def _rotation(router: APIRouter, parts: Parts, keep_s: float) -> None:
    @router.post(
        _ROTATE,
        **described(
            "rotate_smtp_dkim",
            "Make new signing keys; each takes over when its record was seen, by itself or by a check of dkim",
            answer=SigningKeys,
            errors=(409,),
            example=examples.SIGNING_KEYS,
        ),
    )
    def rotate(
        configuration: SmtpConfiguration = Depends(parts.configuration("rotate_smtp_dkim")),
        caller: Caller = Depends(parts.gate.allow("rotate_smtp_dkim")),
    ) -> JSONResponse:
        store = parts.store.signing_keys
        present = store.keys(configuration.id)
        if any(is_replacing(each, present) for each in present):  # asked before the costly key
            raise Clash("rotation", "a rotation is under way: publish its record and verify, or cancel it")
        made = [new_key_like(each.key.algorithm) for each in present if each.state is KeyState.ACTIVE]
        keys = _done(configuration, lambda: store.begin_rotation(configuration.id, made))
        _log.info("dkim.rotation_begun", domain=configuration.domain, by=caller.subject)
        return _answer(configuration, keys, parts, keep_s)

    @router.delete(
        _ROTATE,
        **described(
            "cancel_smtp_dkim_rotation",
            "Cancel a rotation: the keys that were to take over are destroyed",
            answer=SigningKeys,
            errors=(409,),
            example=examples.SIGNING_KEYS,
        ),
    )
    def cancel(
        configuration: SmtpConfiguration = Depends(parts.configuration("cancel_smtp_dkim_rotation")),
        caller: Caller = Depends(parts.gate.allow("cancel_smtp_dkim_rotation")),
    ) -> JSONResponse:
        keys = _done(configuration, lambda: parts.store.signing_keys.cancel_rotation(configuration.id))
        _log.info("dkim.rotation_cancelled", domain=configuration.domain, by=caller.subject)
        return _answer(configuration, keys, parts, keep_s)


def _done(configuration: SmtpConfiguration, change: Callable[[], tuple[KeptKey, ...]]) -> tuple[KeptKey, ...]:
    try:
        return change()
    except NotThere:
        raise NotFound("SMTP configuration", configuration.id) from None
    except Conflict as error:
        raise Clash(error.field, str(error)) from None


def _answer(configuration: SmtpConfiguration, keys: Sequence[KeptKey], parts: Parts, keep_s: float) -> JSONResponse:
    return JSONResponse(keys_document(configuration, keys, keep_s, parts.clock.now()))


def keys_document(
    configuration: SmtpConfiguration, keys: Sequence[KeptKey], keep_s: float, now: float
) -> dict[str, object]:
    """Return all keys of a configuration, active ones first, with what to do about each."""
    in_use = [each for each in keys if each.state is not KeyState.RETIRED]
    return {
        "smtp_config_id": configuration.id,
        "domain": configuration.domain,
        "ed25519": any(each.key.algorithm == "ed25519" for each in in_use),
        "rotating": any(is_replacing(each, keys) for each in keys),
        "keys": [_key_document(each, configuration.domain, is_replacing(each, keys), keep_s, now) for each in keys],
    }


def _key_document(kept: KeptKey, domain: str, replacing: bool, keep_s: float, now: float) -> dict[str, object]:
    removable_at = kept.changed_at + keep_s if kept.state is KeyState.RETIRED else None
    return {
        "algorithm": kept.key.algorithm,
        "selector": kept.key.selector,
        "state": kept.state.value,
        "since": rfc3339(kept.changed_at),
        "txt_name": kept.key.name(domain),
        "txt_value": kept.key.text,
        "verification": kept.published.value,
        "removable_at": None if removable_at is None else rfc3339(removable_at),
        "advice": _advice(kept, replacing, removable_at, now),
    }


def _advice(kept: KeptKey, replacing: bool, removable_at: float | None, now: float) -> str:
    """Say what to do about a key's record."""
    if removable_at is not None:
        if now < removable_at:
            until = rfc3339(removable_at)
            return f"Signs no new mail. Leave its record until {until}: mail that it signed may still be under way."
        return "Signs nothing any more, and nobody needs its record: remove it."
    if kept.state is KeyState.NEXT:
        others = "Leave the other records as they are" if replacing else "It signs beside the RSA key from then on"
        return f"Publish its record, then verify (type=dkim): when it is seen, the key begins to sign. {others}."
    if kept.published is Verification.SUCCESSFUL:
        return "Signs new mail. Leave its record as it is."
    if kept.key.algorithm == "rsa":
        return "Publish its record, then verify (type=dkim): no mail can be sent without it."
    return "Its record was not found: new mail has the RSA signature alone until it is there again."
