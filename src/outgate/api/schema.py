"""Read what a request carries: JSON bodies within limits, paging, and the texts the vendor allows.

Standards: RFC 8259 (JSON, UTF-8), RFC 9110 (content coding gzip), RFC 1952.
Promises: at most `limit` bytes are held, also after decompression; nesting is limited; a name given twice, a
    number that is none and any type but the documented one are refused with the field's name.
Dangers: unknown fields are ignored on purpose: clients newer than we are send some.
Not here: error bodies (`errors`), who may call (`identity`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.datastructures import URL

from outgate.api.errors import ApiError, BadRequest, TooLarge, UnsupportedMedia, validation_problems

BODY_LIMIT = 64 * 1024
_DEPTH = 16
_SIGNS = frozenset(" -_/.?:'\";,+=!#@$%^&*()")

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request's body: strict types, unknown fields ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def _plain(text: str) -> str:
    """Accept letters, digits, space and the documented punctuation."""
    wrong = next((sign for sign in text if not (sign.isalnum() or sign in _SIGNS)), None)
    if wrong is not None:
        raise ValueError(f"must not contain {wrong!r}: letters, digits, space and {''.join(sorted(_SIGNS))} may be")
    return text


PlainText = Annotated[str, AfterValidator(_plain)]


def json_body(model: type[M], *, limit: int = BODY_LIMIT, optional: bool = False) -> Callable[[Request], Awaitable[M]]:
    """Return a dependency that reads the body as `model`; an empty body is `{}` if `optional`.

    Raises `BadRequest`, `TooLarge`, `UnsupportedMedia`.
    """

    async def read(request: Request) -> M:
        raw = await read_body(request, limit)
        if not raw and optional:
            raw = b"{}"
        elif not raw:
            raise BadRequest("", "the request needs a JSON body")
        else:
            _check_type(request)
        value = parse_json(raw)
        _check_text(value)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise _invalid(error) from None

    return read


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body, decompressed if it came as gzip. Raises `TooLarge`, `UnsupportedMedia`."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", ""):
        raise UnsupportedMedia("the content coding must be gzip or none")
    given = request.headers.get("content-length", "")
    if given.isdecimal() and int(given) > limit:
        raise TooLarge(limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(limit)
    return _gunzip(bytes(body), limit) if coding in ("gzip", "x-gzip") and body else bytes(body)


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text. Raises `BadRequest` that says where it is wrong."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadRequest("", "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise BadRequest("", f"the body is not JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise BadRequest("", f"the body is nested deeper than {_DEPTH}") from None
    except ValueError as error:
        raise BadRequest("", f"the body is not JSON: {str(error).partition(';')[0]}") from None
    if _depth(value) > _DEPTH:
        raise BadRequest("", f"the body is nested deeper than {_DEPTH}")
    return value


def _check_text(value: Any, place: str = "") -> None:
    """Refuse half a surrogate pair: it is no character, and cannot be stored. The depth is bounded by now."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, place)
            _check_text(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _check_text(inner, f"{place}.{at}".lstrip("."))
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            field = place.encode("ascii", "backslashreplace").decode("ascii")
            raise BadRequest(field, "has half a character, a lone surrogate") from None


def _check_type(request: Request) -> None:
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia("the content type must be application/json")


def _gunzip(packed: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        # One byte more than allowed tells a bomb from a body that just fits, at no more memory than that.
        clear = inflater.decompress(packed, limit + 1)
    except zlib.error:
        raise BadRequest("", "the body is not gzip") from None
    if len(clear) > limit:
        raise TooLarge(limit)
    if not inflater.eof or inflater.unused_data:
        raise BadRequest("", "the body is not one whole gzip member")
    return clear


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(name[:100], "is given twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        containers = [entry for entry in level if isinstance(entry, (dict, list))]
        if not containers:
            break
        deepest += 1
        level = [
            inner
            for container in containers
            for inner in (container.values() if isinstance(container, dict) else container)
        ]
    return deepest


def _invalid(error: ValidationError) -> ApiError:
    refusal = BadRequest("", "the body is not valid")
    problems = validation_problems(error.errors(include_url=False, include_input=False))
    refusal.problems = problems[:20]
    return refusal


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    offset: int
    search: str | None = None

    def links(self, url: URL, total: int) -> dict[str, dict[str, str]]:
        """Return `first`, and `previous` and `next` where there are such pages, for the list at `url`."""
        found = {"first": self._link(url, 0)}
        if self.offset > 0:
            found["previous"] = self._link(url, max(0, self.offset - self.limit))
        if self.offset + self.limit < total:
            found["next"] = self._link(url, self.offset + self.limit)
        return found

    def _link(self, url: URL, offset: int) -> dict[str, str]:
        return {"href": str(url.include_query_params(limit=self.limit, offset=offset))}

    def document(self, url: URL, total: int, name: str, items: Sequence[object]) -> dict[str, object]:
        """Return the vendor's list: counts, items under `name`, links."""
        counts: dict[str, object] = {"total_count": total, "offset": self.offset, "limit": self.limit}
        return {**counts, name: list(items), **self.links(url, total)}


def page(
    limit: int = Query(10, ge=1, le=100),
    offset: int = Query(0, ge=0, le=2**31),
    search: str | None = Query(None, min_length=1, max_length=100),
) -> Page:
    """Read `limit` (1 to 100, 10 if absent), `offset` and `search` from the query."""
    return Page(limit, offset, search)
