"""`outgate smtp`: sending domains, their records and checks, their users.

Standards: RFC 1035 (zone file form of the records to publish).
Promises: records are printed as a zone file takes them; a check that failed or could not be made ends with 1 and
    says why; a new password is printed once, alone on standard output.
Dangers: what prints a password hands it to whoever reads the terminal or its log.
Not here: the authorisation form (`authorization`), what the checks ask (`relay.onboarding`).
"""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from outgate.cli import authorization, rules, signing
from outgate.cli.calling import (
    NOT_AS_WANTED,
    WRONG_USE,
    Configuration,
    Data,
    Json,
    call,
    configuration,
    fail,
    filters,
    given,
    paged,
    print_fields,
    print_json,
    print_table,
    reach,
    zone_line,
)

commands = typer.Typer(no_args_is_help=True, help="Sending domains: records, checks, users, authorisation.")
commands.add_typer(authorization.commands, name="authorization")
commands.add_typer(signing.commands, name="dkim")
rules.register(commands)

_CHECKS = ("spf", "dkim", "en_authorization")
# What a check that passed calls itself, and a person's approval; and a check that could not be made.
_GOOD = ("pass", "ok", "approved")
_UNKNOWN = "temperror"


@commands.command("list")
def listed(
    search: Annotated[str | None, typer.Option(help="Part of the name.", show_default=False)] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List configurations."""
    wanted = filters(search=search)
    api = reach(data)
    found = list(paged(api, api.configurations(), "smtp_configurations", **wanted))
    if as_json:
        print_json({"smtp_configurations": found})
        return
    rows = [(each["domain"], each["id"], each["name"], *_states(each).values()) for each in found]
    print_table(("DOMAIN", "ID", "NAME", "SPF", "DKIM", "AUTHORISATION"), rows)


@commands.command("show")
def show(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Show a configuration: how it stands, and the records to publish, ready to paste into a zone."""
    api = reach(data)
    found = configuration(api, config)
    checks = call(api, "GET", api.configurations(f"{found['id']}/checks"))
    if as_json:
        print_json({**found, "standing": checks["standing"], "standing_since": checks["standing_since"]})
        return
    print_fields([(name, found[name]) for name in ("domain", "id", "name", "description")])
    print_fields([*_standing(checks), *_states(found).items()])
    print()
    for record in (found["config"]["spf"], found["config"]["dkim"]):
        print(zone_line(record))


@commands.command("verify")
def verify(
    config: Configuration,
    types: Annotated[str, typer.Option("--type", help=f"Of {', '.join(_CHECKS)}; comma between.")] = "spf,dkim",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check the records of a configuration now; ends with 1 if a check fails or cannot be made."""
    wanted = [part.strip() for part in types.split(",")]
    wrong = next((part for part in wanted if part not in _CHECKS), None)
    if wrong is not None:
        fail(f"--type is one or several of {', '.join(_CHECKS)}, not {wrong!r}", WRONG_USE)
    api = reach(data)
    found = configuration(api, config)
    status = call(api, "PATCH", api.configurations(f"{found['id']}/verify?type={quote(','.join(wanted))}"))["status"]
    # The state is what was last found for certain; what was found now is in the evidence.
    evidence = _newest(call(api, "GET", api.configurations(f"{found['id']}/checks?limit=100")))
    status = [{**each, **evidence.get(each["type"], {"result": "", "explanation": ""})} for each in status]
    if as_json:
        print_json({"status": status})
    else:
        rows = [
            (each["type"], each["verification"], each["result"], "" if each["result"] in _GOOD else each["explanation"])
            for each in status
        ]
        print_table(("CHECK", "STATE", "RESULT", "WHY"), rows)
    if any(each["verification"] == "FAILED" or each["result"] == _UNKNOWN for each in status):
        raise typer.Exit(NOT_AS_WANTED)


@commands.command("checks")
def checks(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Show how a configuration stands, since when, and the evidence, newest first."""
    api = reach(data)
    found = call(api, "GET", api.configurations(f"{configuration(api, config)['id']}/checks"))
    if as_json:
        print_json(found)
        return
    print_fields([("domain", found["domain"]), *_standing(found)])
    print()
    rows = [(each["at"], each["type"], each["result"], each["explanation"]) for each in found["checks"]]
    print_table(("AT", "CHECK", "RESULT", "EXPLANATION"), rows)


@commands.command("users")
def users(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """List the users of a configuration."""
    api = reach(data)
    found = list(paged(api, api.configurations(f"{configuration(api, config)['id']}/users"), "users"))
    if as_json:
        print_json({"users": found})
        return
    rows = [(each["id"], each["username"], each["created_at"], each["description"]) for each in found]
    print_table(("ID", "USER NAME", "MADE", "DESCRIPTION"), rows)


@commands.command("rotate")
def rotate(
    config: Configuration,
    user_id: Annotated[str, typer.Argument(metavar="USER_ID", help="From `outgate smtp users`.")],
    overlap: Annotated[str, typer.Option(help="How long the password before stays good: 30m, 24h, 0s.")] = "24h",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give a user a new password and print it: this once."""
    from outgate.cli.when import BadTime, seconds

    try:
        length = seconds(overlap)
    except BadTime as error:
        fail(f"--overlap {error}", WRONG_USE)
    user = quote(given(user_id, "the user's id"), safe="")
    api = reach(data)
    path = f"{configuration(api, config)['id']}/users/{user}/rotate"
    made = call(api, "POST", api.configurations(path), {"overlap_s": length})
    if as_json:
        print_json(made)
        return
    print(made["password"])
    until = made["former_valid_until"]
    former = f"is good until {until}" if until else "is void"
    print(f"The password of {made['username']} above is shown only now; the one before {former}.", file=sys.stderr)


@commands.command("endpoints")
def endpoints(data: Data = None, as_json: Json = False) -> None:
    """List where mail is handed in and where it leaves from, by region."""
    api = reach(data)
    found = call(api, "GET", api.endpoints())
    if as_json:
        print_json(found)
        return
    for number, each in enumerate(found["endpoints"]):
        if number:
            print()
        ports = f"{each['submission_port']} (STARTTLS), {each['submissions_port']} (TLS)"
        print_fields(
            [
                ("endpoint", each["id"]),
                ("regions", " ".join(each["regions"])),
                ("public name", each["public_name"]),
                ("private name", each["private_name"]),
                ("ports", ports),
                ("listens at", " ".join(each["addresses"]) or "no address: see the log"),
                ("leaves from", " ".join(each["outgoing_addresses"])),
                ("says EHLO", each["ehlo_name"]),
            ]
        )


def _states(found: dict[str, Any]) -> dict[str, str]:
    return {check: found["config"][check]["verification"] for check in _CHECKS}


def _standing(found: dict[str, Any]) -> list[tuple[str, object]]:
    since = found["standing_since"]
    return [
        ("standing", f"{found['standing']} since {since}" if since else found["standing"]),
        ("failing", found["failing"]),
        ("suspends", found["suspends_at"]),
        ("next check", found["recheck_at"]),
    ]


def _newest(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return what each check came to last, in a word and in words."""
    told = ("result", "explanation")
    return {each["type"]: {name: each[name] for name in told} for each in reversed(found["checks"])}
