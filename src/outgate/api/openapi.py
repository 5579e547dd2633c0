"""The published description of an API: each route says what it takes and answers, one document gathers it.

Standards: OpenAPI 3.1, JSON Schema 2020-12, RFC 6750 (bearer).
Promises: the document is at `openapi.json` below each API's own base, needs no token and holds no secret; every
    status that an operation may answer is listed; a test drives every operation by it.
Dangers: schemas of answers describe, they do not filter: what an answer holds is decided by its document function.
Not here: reading requests (`schema`), refusing (`errors`).
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, WithJsonSchema
from pydantic.json_schema import JsonSchemaMode

from outgate import __version__

REF = "#/components/schemas/{model}"
_SAID = {
    400: "The request is wrong; `errors[].target` names the field.",
    401: "There is no bearer token, or not a good one.",
    403: "The caller lacks the role, or a restriction refuses the caller's address.",
    404: "There is no such thing, or it belongs to another account.",
    409: "Something stands in the way: a name or domain is taken, or a limit is reached.",
    412: "`If-Match` is not the current ETag: get the thing anew.",
    413: "The body is too long.",
    415: "The body is in another form than this operation reads, or in a coding other than gzip.",
    503: "Nothing was stored; the same request may succeed later.",
}
_ALWAYS = (400, 401, 403, 404, 503)
_WITH_BODY = (413, 415)


class Shown(BaseModel):
    """The shape of an answer, for the document and for those who check answers against it."""

    model_config = ConfigDict(extra="forbid")


Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T07:03:00Z"]})]
"""RFC 3339 in UTC, with `Z`."""


class Target(Shown):
    """The part of the request that is wrong."""

    type: str
    name: str


class ErrorEntry(Shown):
    """One thing that is wrong."""

    code: str
    message: str
    more_info: str
    target: Target | None = None


class Error(Shown):
    """The vendor's error body."""

    status_code: int
    trace: str
    errors: list[ErrorEntry]


def described(
    operation: str,
    summary: str,
    *,
    answer: type[BaseModel] | None = None,
    status: int = 200,
    body: type[BaseModel] | None = None,
    body_optional: bool = False,
    errors: tuple[int, ...] = (),
    example: object = None,
    body_example: object = None,
    headers: tuple[str, ...] = (),
    public: bool = False,
    refusal: type[BaseModel] = Error,
    body_type: str = "application/json",
) -> dict[str, Any]:
    """Return what a route's decorator needs so that the document tells all of it.

    `answer` is the shape of success (None: empty), `errors` are statuses beside 400, 401, 403, 404 and 503 (and 413,
    415 with a body), `headers` are names of answer headers, `public` needs no token; `refusal` is the shape of every
    error, `body_type` the media type that its body is shown as."""
    success: dict[str, Any] = {"description": "Done."}
    if answer is not None:
        success["content"] = shape(answer)
        if example is not None:
            success["content"]["application/json"]["example"] = json.dumps(example)
    if headers:
        success["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    responses: dict[int | str, dict[str, Any]] = {status: success}
    statuses = (*((400, 404, 503) if public else _ALWAYS), *(_WITH_BODY if body is not None else ()), *errors)
    for code in sorted(set(statuses)):
        responses[code] = {"description": _SAID[code], "content": shape(refusal)}
    extra: dict[str, Any] = {} if public else {"security": [{"bearer": []}]}
    if body is not None:
        content = shape(body, body_type)
        if body_example is not None:
            content[body_type]["example"] = json.dumps(body_example)
        extra["requestBody"] = {"required": not body_optional, "content": content}
    return {
        "operation_id": operation,
        "summary": summary,
        "status_code": status,
        "responses": responses,
        "openapi_extra": extra,
        "response_model": None,
    }


def shape(model: type[BaseModel], media_type: str = "application/json") -> dict[str, Any]:
    """Return the `content` of a request or an answer that has this shape.

    The framework is told of no models: it would make a serializer of each for each status of each route, which nobody
    uses; that, and making schemas which nobody asks for, took half of the time that an API needs to start."""
    reference = f"{model.__module__}.{model.__qualname__}"
    _shapes[reference] = model
    return {media_type: {"schema": {"$ref": reference}}}


_shapes: dict[str, type[BaseModel]] = {}
"""What is referred to, by the reference that stands in descriptions until a document is made of them."""


def publish(app: FastAPI, title: str, description: str) -> None:
    """Have `app` answer `GET openapi.json` with the description of its routes."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, title, description)
        return app.openapi_schema

    app.openapi = document
    app.openapi_url = "/openapi.json"
    app.setup()


def _document(app: FastAPI, title: str, description: str) -> dict[str, Any]:
    made = get_openapi(title=title, version=__version__, description=description, routes=app.routes)
    components: dict[str, Any] = made.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    answers: dict[str, type[BaseModel]] = {}
    for path in made.get("paths", {}).values():
        for operation in path.values():
            # Ours answers 400 in the vendor's form where the framework would say 422 in its own.
            operation["responses"].pop("422", None)
            request = operation.get("requestBody", {})
            for holder in (request, *operation["responses"].values()):
                for media in holder.get("content", {}).values():
                    if isinstance(media.get("example"), str):  # so far: the framework takes every null out of others
                        media["example"] = json.loads(media["example"])
                    model = _shapes.get(media.get("schema", {}).get("$ref"))
                    if model is not None and holder is request:
                        media["schema"] = _schema(model, "validation", schemas)
                    elif model is not None:
                        assert answers.setdefault(model.__name__, model) is model, f"two shapes named {model.__name__}"
                        media["schema"]["$ref"] = REF.format(model=model.__name__)
    for name, model in answers.items():
        schemas[name] = _schema(model, "serialization", schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token from `POST /identity/token` for an API key.",
        }
    }
    return made


def _schema(model: type[BaseModel], mode: JsonSchemaMode, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema; those that it refers to go to `schemas`."""
    # Without nulls, as the framework writes: `"default": null` would say that an answer may leave a field out.
    schema: dict[str, Any] = jsonable_encoder(model.model_json_schema(ref_template=REF, mode=mode), exclude_none=True)
    schemas.update(schema.pop("$defs", {}))
    return schema
