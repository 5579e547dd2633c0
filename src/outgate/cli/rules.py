"""`outgate smtp limits`, `html`, `marketing` and `attachments`: what an operator holds a customer's mail to.

Standards: none.
Promises: without an option or word the present state is shown and nothing is changed.
Not here: what the rules do (`relay.policy`), the call (`api.event_notifications.rules`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from outgate.cli.calling import (
    Configuration,
    Data,
    Json,
    call,
    configuration,
    one_of,
    print_fields,
    print_json,
    reach,
)
from outgate.connection import Api
from outgate.model.tenancy import HtmlCheck, OverQuota


class Marketing(StrEnum):
    """Whether mail counts as marketing: an operator's word, or the form's."""

    YES = "yes"
    NO = "no"
    FORM = "form"


class Attachments(StrEnum):
    """Whether mail may carry attachments."""

    ALLOW = "allow"
    REFUSE = "refuse"


_MARKETING = {Marketing.YES: True, Marketing.NO: False, Marketing.FORM: None}
_Limit = Annotated[int | None, typer.Option(min=0, help="Messages at most; 0: as many as come.", show_default=False)]


def register(commands: typer.Typer) -> None:
    """Add the commands to `outgate smtp`."""
    commands.command("limits")(limits)
    commands.command("html")(html)
    commands.command("marketing")(marketing)
    commands.command("attachments")(attachments)


def limits(
    config: Configuration,
    per_hour: _Limit = None,
    per_day: _Limit = None,
    over: Annotated[
        OverQuota | None,
        typer.Option(
            parser=one_of(OverQuota),
            metavar="refuse|hold",
            help="What becomes of a message too many: refused for now, or taken and sent when there is room.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change how many messages a configuration may send (to change: role operator)."""
    wanted: dict[str, object] = {}
    for name, most in (("per_hour", per_hour), ("per_day", per_day)):
        if most is not None:
            wanted[name] = most or None
    if over is not None:
        wanted["over"] = over.value
    _rules(config, wanted, data, as_json)


def html(
    config: Configuration,
    check: Annotated[
        HtmlCheck | None,
        typer.Argument(
            parser=one_of(HtmlCheck),
            metavar="off|warn|refuse",
            help="Without it the rule is shown.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change what becomes of mail whose HTML is not well-formed (to change: role operator)."""
    _rules(config, {} if check is None else {"html": check.value}, data, as_json)


def marketing(
    config: Configuration,
    counts: Annotated[
        Marketing | None,
        typer.Argument(
            parser=one_of(Marketing),
            metavar="yes|no|form",
            help="form: as the authorisation form answers. Without it the rule is shown.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change whether mail counts as marketing, which needs a link to unsubscribe (to change: role operator)."""
    _rules(config, {} if counts is None else {"marketing": _MARKETING[counts]}, data, as_json)


def attachments(
    may: Annotated[
        Attachments | None,
        typer.Argument(
            parser=one_of(Attachments), metavar="allow|refuse", help="Without it the rule is shown.", show_default=False
        ),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change whether the instance's mail may carry attachments (to change: role operator)."""
    api = reach(data)
    body = None if may is None else {"attachments": may is Attachments.ALLOW}
    found = call(api, "GET" if body is None else "PATCH", api.mail_settings(), body)
    if as_json:
        print_json(found)
        return
    print_fields([("attachments", "allowed" if found["attachments"] else "refused")])


def _rules(config: str, wanted: dict[str, object], data: Any, as_json: bool) -> None:
    api = reach(data)
    found = _change(api, configuration(api, config)["id"], wanted)
    if as_json:
        print_json(found)
        return
    limited = found["per_hour"] is not None or found["per_day"] is not None
    print_fields(
        [
            ("domain", found["domain"]),
            ("per hour", found["per_hour"] or "no limit"),
            ("per day", found["per_day"] or "no limit"),
            ("over it", found["over"] if limited else ""),
            ("html", found["html"]),
            ("marketing", _said(found)),
        ]
    )


def _change(api: Api, smtp_config_id: str, wanted: dict[str, object]) -> dict[str, Any]:
    url = api.configurations(f"{smtp_config_id}/rules")
    return call(api, "PATCH" if wanted else "GET", url, wanted or None)


def _said(found: dict[str, Any]) -> str:
    word = "yes" if found["unsubscribe_required"] else "no"
    by = "an operator's word" if found["marketing"] is not None else "the form's word"
    return f"{word} ({by if found['marketing'] is not None or found['nature'] else 'no form is answered'})"
