"""`outgate access`: who may reach the instance, and why an address may not.

Standards: the vendor's context-based restrictions.
Promises: an explanation ends with 1 if the address may not send, and says of each rule what is missing.
Not here: the decision (`relay.access`), its reasons (`relay.explanation`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from outgate.cli import allow_list
from outgate.cli.calling import (
    NOT_AS_WANTED,
    WRONG_USE,
    Data,
    Json,
    call,
    clean,
    fail,
    filters,
    one_of,
    print_json,
    print_table,
    reach,
)

commands = typer.Typer(no_args_is_help=True, help="Who may reach the instance, and why an address may not.")
commands.add_typer(allow_list.commands, name="allow-list")


class Endpoint(StrEnum):
    """An endpoint that clients dial."""

    PUBLIC = "public"
    PRIVATE = "private"


@commands.command("explain")
def explain(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="IPv4 or IPv6 address of a client.")],
    endpoint: Annotated[
        Endpoint | None,
        typer.Option(
            help="Which endpoint it dials.", parser=one_of(Endpoint), show_default="public; private with --vpc"
        ),
    ] = None,
    vpc: Annotated[
        str | None,
        typer.Option(metavar="CRN", help="The VPC whose endpoint gateway it comes through.", show_default="none"),
    ] = None,
    instance: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this instance.", show_default="all of the account")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Say whether an address may send and manage, which rule decides, and what each other rule lacks."""
    from ipaddress import ip_address

    try:
        asked = {"address": str(ip_address(address))}
    except ValueError:
        fail(f"{address!r} is no IP address: write 192.0.2.1 or 2001:db8::1", WRONG_USE)
    if "%" in address:
        fail(f"{address!r} has a scope, which means something on one machine only: leave it out", WRONG_USE)
    if endpoint is not None:
        asked["endpoint_type"] = endpoint.value
    asked |= filters(vpc=vpc)
    only = {f"{name}_id": text for name, text in filters(instance=instance).items()}
    api = reach(data)
    wanted = {"account_id": api.dev["account_id"], **asked, **only}
    found = call(api, "GET", api.restrictions(f"v1/explain?{urlencode(wanted)}"))
    if as_json:
        print_json(found)
    else:
        if not found["instances"]:
            print("The account has no such instance.")
        for each in found["instances"]:
            _print_instance(each)
    if not any(each["smtp"]["decision"] == "Permit" for each in found["instances"]):
        raise typer.Exit(NOT_AS_WANTED)


@commands.command("zones")
def zones(data: Data = None, as_json: Json = False) -> None:
    """List network zones."""
    api = reach(data)
    found = call(api, "GET", api.restrictions(f"v1/zones?{urlencode({'account_id': api.dev['account_id']})}"))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["id"], each["name"], each["address_count"], each["excluded_count"], each["description"])
        for each in found["zones"]
    ]
    print_table(("ID", "NAME", "ADDRESSES", "EXCLUDED", "DESCRIPTION"), rows)


@commands.command("rules")
def rules(data: Data = None, as_json: Json = False) -> None:
    """List the rules that open instances to zones."""
    api = reach(data)
    found = call(api, "GET", api.restrictions(f"v1/rules?{urlencode({'account_id': api.dev['account_id']})}"))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["id"], each["enforcement_mode"], ",".join(_named(each, "networkZoneId")), each.get("description", ""))
        for each in found["rules"]
    ]
    print_table(("ID", "MODE", "ZONES", "DESCRIPTION"), rows)


def _named(rule: dict[str, Any], name: str) -> list[str]:
    attributes = [each for context in rule["contexts"] for each in context["attributes"]]
    return [str(each["value"]) for each in attributes if each["name"] == name]


def _print_instance(found: dict[str, Any]) -> None:
    print(f"instance {clean(found['instance_id'])}")
    for name, title in (("smtp", "SMTP"), ("control_plane", "control plane")):
        judged = found[name]
        _say(1, f"{title}: {judged['decision']}: {judged['reason']}")
        if judged["remedy"]:
            _say(2, f"remedy: {judged['remedy']}")
        if name == "smtp" and found["allow_list"] is not None:
            _print_allow_list(found["allow_list"])
        for rule in judged["rules"]:
            _print_rule(rule)


def _print_allow_list(found: dict[str, Any]) -> None:
    verdict = "does not allow" if found["missing"] else "allows"
    _say(2, f"allow-list until {found['ends_at']} {verdict}")
    for lack in found["missing"]:
        _say(3, lack)


def _print_rule(rule: dict[str, Any]) -> None:
    verdict = "allows" if rule["allows"] else "does not allow"
    _say(2, f"rule {rule['rule_id']} ({rule['enforcement_mode']}) {verdict}  {rule['description']}")
    for lack in rule["missing"]:
        _say(3, lack)
    for context in rule["contexts"]:
        for lack in context["missing"]:
            _say(3, lack)


def _say(depth: int, text: str) -> None:
    print("  " * depth + clean(text).rstrip())
