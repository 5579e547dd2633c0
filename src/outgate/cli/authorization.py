"""`outgate smtp authorization`: the form that lets a domain send, from both sides of the desk.

Standards: the vendor's questionnaire.
Promises: every answer that is wrong is named; who may not decide is told which role may; a decision is about the
    answers that were there when it was made.
Dangers: the answers are a stranger's: they are printed as text.
Not here: the questions (`api.event_notifications.authorization`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from outgate.cli.calling import (
    NOT_AS_WANTED,
    WRONG_USE,
    Configuration,
    Data,
    Json,
    call,
    configuration,
    fail,
    print_fields,
    print_json,
    reach,
    tagged,
)
from outgate.connection import Api

commands = typer.Typer(no_args_is_help=True, help="The form that lets a domain send: answered, then decided on.")


@commands.command("submit")
def submit(
    config: Configuration,
    file: Annotated[Path, typer.Option("--file", help="The answers, as a JSON object.", show_default=False)],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Answer the questions that authorise a configuration."""
    answers = _answers(file)
    api = reach(data)
    _print(call(api, "POST", _url(api, configuration(api, config)), answers), as_json)


@commands.command("show")
def show(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Show the form and what was decided."""
    api = reach(data)
    found = configuration(api, config)
    form, _ = tagged(api, "GET", _url(api, found), optional=True)
    if form is None:
        _unanswered(found)
    _print(form, as_json)


@commands.command("approve")
def approve(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Let a configuration send (role authorizer)."""
    _decide(config, "approve", None, data, as_json)


@commands.command("reject")
def reject(
    config: Configuration,
    reason: Annotated[str, typer.Option(help="What the customer is told.", show_default=False)],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Refuse a configuration, or withdraw what was approved (role authorizer)."""
    _decide(config, "reject", {"reason": reason}, data, as_json)


def _decide(config: str, step: str, body: object, data: Path | None, as_json: bool) -> None:
    """Send a decision on the answers there are now: others that come in between are not decided on."""
    api = reach(data)
    found = configuration(api, config)
    form, tag = tagged(api, "GET", _url(api, found), optional=True)
    # What was authorised without a form can be withdrawn; there is nothing to approve without answers.
    if form is None and step == "approve":
        _unanswered(found)
    decided, _ = tagged(api, "POST", f"{_url(api, found)}/{step}", body, tag)
    _print(decided, as_json)


def _url(api: Api, found: dict[str, Any]) -> str:
    return api.configurations(f"{found['id']}/authorization")


def _unanswered(found: dict[str, Any]) -> NoReturn:
    domain, state = found["domain"], found["config"]["en_authorization"]["verification"]
    if state == "SUCCESSFUL":
        fail(f"{domain} is authorised (en_authorization {state}) by a setting: there is no form", NOT_AS_WANTED)
    fail(
        f"{domain} is not authorised (en_authorization {state}), and nobody has answered the form: "
        "`outgate smtp authorization submit` does",
        NOT_AS_WANTED,
    )


def _answers(file: Path) -> object:
    try:
        answers: object = json.loads(file.read_text("utf-8"))
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", WRONG_USE)
    except ValueError as error:
        fail(f"{file} is not JSON: {error}", WRONG_USE)
    except RecursionError:
        fail(f"{file} is nested too deeply: write a JSON object with the answers", WRONG_USE)
    if not isinstance(answers, dict):
        fail(f"{file} is not a JSON object with the answers", WRONG_USE)
    return answers


def _print(form: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(form)
        return
    print_fields([(name.replace("_", " "), _text(value)) for name, value in form.items()])


def _text(value: object) -> object:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else value
