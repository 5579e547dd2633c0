"""Read and judge what clients send to make programs and environments, and which page of a list they want.

Standards: the vendor's OpenAPI constraints on NewProgram and NewEnvironment, and its BadRequestError for parameters.
Promises: pure; a body is read whole or refused with every field that is wrong, in the vendor's spelling.
Dangers: fields that are not read are ignored: clients newer than we are send some (goLive, solutionNames).
Not here: rules that need what is stored: taken names, the one production environment (`store.places`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from outgate.api.cloud_manager.problems import BadParameters, Invalid, Violation, printable
from outgate.store.places import NewEnvironment

PROGRAM_NAME = 64
ENVIRONMENT_NAME = 64
DESCRIPTION = 1024
PROGRAM_TYPE = "aem_cloud_service"
NEW_TYPES = ("dev", "stage", "prod", "rde")
TYPES = (*NEW_TYPES, "preprod")
# The vendor's client reads one page of programs and no more: so the usual page holds them all.
PAGE = 1000
_PROGRAM = "addProgram.arg1"
_ENVIRONMENT = "createEnvironment.arg1"


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    start: int
    limit: int


def new_program(body: object) -> tuple[str, bool]:
    """Return the name of a new program and whether it is a sandbox. Raises `Invalid`."""
    document, wrong = _object(body, _PROGRAM), list[Violation]()
    name = _text(f"{_PROGRAM}.name", document.get("name"), range(PROGRAM_NAME + 1), wrong)
    kind = document.get("type")
    if kind != PROGRAM_TYPE:
        message = f"must be {PROGRAM_TYPE}: no other can be made here"
        wrong.append(Violation(f"{_PROGRAM}.type", "required" if kind is None else "enum", message, kind))
    place, capabilities = f"{_PROGRAM}.capabilities", document.get("capabilities", {})
    sandbox: object = False
    if isinstance(capabilities, dict):
        sandbox = cast("dict[str, object]", capabilities).get("sandbox", False)
        if not isinstance(sandbox, bool):
            wrong.append(Violation(f"{place}.sandbox", "type", "must be true or false", sandbox))
    else:
        wrong.append(Violation(place, "type", 'must be an object: {"sandbox": true}', capabilities))
    if wrong:
        raise Invalid(wrong)
    return name, bool(sandbox)


def new_environment(body: object, regions: Collection[str]) -> NewEnvironment:
    """Return what is asked for; `regions` are those that there are. Raises `Invalid`."""
    document, wrong = _object(body, _ENVIRONMENT), list[Violation]()
    name = _text(f"{_ENVIRONMENT}.name", document.get("name"), range(1, ENVIRONMENT_NAME + 1), wrong)
    given = document.get("description", "")
    description = _text(f"{_ENVIRONMENT}.description", given, range(DESCRIPTION + 1), wrong)
    kind = document.get("type")
    if kind not in NEW_TYPES:
        message = f"must be one of {', '.join(NEW_TYPES)}"
        wrong.append(Violation(f"{_ENVIRONMENT}.type", "required" if kind is None else "enum", message, kind))
    region = _region(f"{_ENVIRONMENT}.region", document.get("region"), regions, wrong)
    place = f"{_ENVIRONMENT}.secondaryRegionDeployments"
    further = _further(place, document.get("secondaryRegionDeployments", []), region, regions, wrong)
    if wrong:
        raise Invalid(wrong)
    return NewEnvironment(name, str(kind), region, description, further)


def environment_type(query: Mapping[str, str]) -> str:
    """Return which type of environments is wanted, "" for all. Raises `BadParameters`."""
    kind = query.get("type", "")
    if kind and kind not in TYPES:
        raise BadParameters({"type": f"must be one of {', '.join(TYPES)}"})
    return kind


def page(query: Mapping[str, str]) -> Page:
    """Return which page of a list is wanted. Raises `BadParameters`."""
    wrong: dict[str, str] = {}
    start = _number("start", query.get("start", "0"), range(2**31), wrong)
    limit = _number("limit", query.get("limit", str(PAGE)), range(1, PAGE + 1), wrong)
    if wrong:
        raise BadParameters(wrong)
    return Page(start, limit)


def _number(name: str, given: str, allowed: range, wrong: dict[str, str]) -> int:
    # Ten digits at most: longer ones are not read at all.
    number = int(given) if given.isascii() and given.isdigit() and len(given) <= 10 else -1
    if number not in allowed:
        wrong[name] = f"must be a whole number from {allowed.start} to {allowed.stop - 1}"
    return number


def _object(body: object, place: str) -> dict[str, object]:
    if not isinstance(body, dict):
        raise Invalid([Violation(place, "type", "must be an object", body)])
    return cast("dict[str, object]", body)


def _text(field: str, given: object, length: range, wrong: list[Violation]) -> str:
    if not isinstance(given, str):
        code = "required" if given is None else "type"
        wrong.append(Violation(field, code, "must be a string", given))
        return ""
    if len(given) not in length:
        message = f"size must be between {length.start} and {length.stop - 1}"
        wrong.append(Violation(field, "size", message, printable(given[:200])))
    elif printable(given) != given or any(ord(sign) < 32 or ord(sign) == 127 for sign in given if sign not in "\n\t"):
        message = "must be text without control characters and unpaired surrogates"
        wrong.append(Violation(field, "pattern", message, printable(given[:200])))
    return given


def _region(field: str, given: object, regions: Collection[str], wrong: list[Violation]) -> str:
    if not isinstance(given, str) or given not in regions:
        message = f"must be one of {', '.join(regions)}"
        wrong.append(Violation(field, "required" if given is None else "enum", message, given))
        return ""
    return given


def _further(
    place: str, given: object, primary: str, regions: Collection[str], wrong: list[Violation]
) -> tuple[str, ...]:
    if not isinstance(given, list):
        wrong.append(Violation(place, "type", 'must be an array: [{"region": "deu6"}]', given))
        return ()
    entries: Sequence[object] = cast("list[object]", given)
    if len(entries) > len(regions):
        wrong.append(Violation(place, "size", f"must not hold more than the {len(regions)} regions", len(entries)))
        return ()
    found: list[str] = []
    for index, entry in enumerate(entries):
        field = f"{place}[{index}]"
        if not isinstance(entry, dict):
            wrong.append(Violation(field, "type", "must be an object with region", entry))
            continue
        region = _region(f"{field}.region", cast("dict[str, object]", entry).get("region"), regions, wrong)
        if region and (region == primary or region in found):
            message = "must not be given twice, nor be the environment's own region"
            wrong.append(Violation(f"{field}.region", "duplicate", message, region))
        found.append(region)
    return tuple(found)
