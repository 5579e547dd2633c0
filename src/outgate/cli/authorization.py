"""`outgate smtp authorization`: the form that lets a domain send, from both sides of the desk.

Standards: the vendor's questionnaire.
Promises: every answer that is wrong is named; who may not decide is told which role may.
Dangers: the answers are a stranger's: they are printed as text.
Not here: the questions (`api.event_notifications.authorization`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from outgate.cli.calling import (
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
)

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
    _decided(config, "", answers, data, as_json)


@commands.command("show")
def show(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Show the form and what was decided."""
    api = reach(data)
    _print(call(api, "GET", api.configurations(f"{configuration(api, config)['id']}/authorization")), as_json)


@commands.command("approve")
def approve(config: Configuration, data: Data = None, as_json: Json = False) -> None:
    """Let a configuration send (role authorizer)."""
    _decided(config, "/approve", None, data, as_json)


@commands.command("reject")
def reject(
    config: Configuration,
    reason: Annotated[str, typer.Option(help="What the customer is told.", show_default=False)],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Refuse a configuration, or withdraw what was approved (role authorizer)."""
    _decided(config, "/reject", {"reason": reason}, data, as_json)


def _decided(config: str, step: str, body: object, data: Path | None, as_json: bool) -> None:
    api = reach(data)
    url = api.configurations(f"{configuration(api, config)['id']}/authorization{step}")
    _print(call(api, "POST", url, body), as_json)


def _answers(file: Path) -> object:
    try:
        answers: object = json.loads(file.read_text("utf-8"))
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", WRONG_USE)
    except ValueError as error:
        fail(f"{file} is not JSON: {error}", WRONG_USE)
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
