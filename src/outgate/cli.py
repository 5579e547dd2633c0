"""The `outgate` command: every verb, each importing what it needs only when it runs.

Standards: exit codes 0 done, 1 not as wanted, 2 wrong use or configuration, 3 not reachable.
Promises: an error says cause and remedy, never a stack trace; every list has `--json`.
Not here: what the verbs do (`app`, `sandbox.demo`, `environment`, the HTTP API).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from outgate import __version__
from outgate.connection import Api, NotReachable, Refusal, default_data, read_dev_json

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Outgate: the controlled way out for an organisation's mail.",
)
environment = typer.Typer(no_args_is_help=True, help="Environments and what runs in them.")
message = typer.Typer(no_args_is_help=True, help="Messages and what became of them.")
cli.add_typer(environment, name="environment")
cli.add_typer(message, name="message")

_Data = Annotated[Path | None, typer.Option("--data", help="Data directory of `outgate dev`.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(text: str, code: int) -> NoReturn:
    """Print an error and exit."""
    print(f"outgate: {text}", file=sys.stderr)
    raise typer.Exit(code)


def _api(data: Path | None) -> Api:
    try:
        return Api(read_dev_json(data or default_data()))
    except NotReachable as error:
        fail(str(error), 3)


def _call(api: Api, method: str, url: str) -> Any:
    try:
        return api.call(method, url)
    except NotReachable as error:
        fail(str(error), 3)
    except Refusal as error:
        fail(_words(error), 1)


def _words(error: Refusal) -> str:
    try:
        body = json.loads(error.body)
        return str(body["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return str(error)


@cli.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Outgate: the controlled way out for an organisation's mail."""
    if version:
        print(f"outgate {__version__}")
        raise typer.Exit


_Port = Annotated[int, typer.Option(min=0, max=65535)]


@cli.command()
def dev(
    data: _Data = None,
    http_port: _Port = 8025,
    submission_port: _Port = 2587,
    submissions_port: _Port = 2465,
    dns_port: _Port = 2053,
    inbox_port: _Port = 2525,
    proxy_port: _Port = 3128,
    config: Annotated[Path | None, typer.Option("--config", help="Settings (TOML).", show_default=False)] = None,
) -> None:
    """Run everything on loopback: relay, egress, DNS, inbox, a ready tenant. Port 0 means any free port."""
    from outgate.app import StartFailed
    from outgate.laptop import DevPorts, run_dev

    ports = DevPorts(http_port, submission_port, submissions_port, dns_port, inbox_port, proxy_port)
    try:
        run_dev(data or default_data(), ports, config)
    except StartFailed as error:
        fail(str(error), 2)


@cli.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the data in this directory.", show_default=False)] = None,
) -> None:
    """Send one mail the whole way, from an application's configuration to a receiving server, and show its trail."""
    from outgate.sandbox.demo import main as run_demo

    raise typer.Exit(run_demo(keep=keep))


@environment.command("run")
def environment_run(
    program: Annotated[str, typer.Argument(help="Program id.")],
    environment_id: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Environment id.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="What to run, behind a `--`.")],
    service: Annotated[str, typer.Option(help="author, publish or preview.")] = "author",
    data: _Data = None,
) -> None:
    """Start a command with what its environment gives it: `outgate environment run P E -- COMMAND …`."""
    from outgate.environment import run

    api = _api(data)
    raise typer.Exit(
        run(
            cloud_manager_url=str(api.dev["cloud_manager_url"]),
            token=str(api.dev["token"]),
            org_id=str(api.dev["org_id"]),
            client_id=api.client_id,
            program_id=program,
            environment_id=environment_id,
            service=service,
            command=command,
        )
    )


@message.command("show")
def message_show(queue_id: str, data: _Data = None, as_json: _Json = False) -> None:
    """Show one message by its queue id: every hop, every attempt with its conversation."""
    api = _api(data)
    found = _call(api, "GET", api.messages(queue_id))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from outgate.trail import lines

    for line in lines(found):
        print(line)


@message.command("list")
def message_list(
    recipient: Annotated[str | None, typer.Option(help="Only messages to this address.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="Only messages with a recipient in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    data: _Data = None,
    as_json: _Json = False,
) -> None:
    """List messages, newest first."""
    from urllib.parse import urlencode

    api = _api(data)
    wanted = {key: value for key, value in (("recipient", recipient), ("status", status)) if value}
    found = _call(api, "GET", f"{api.messages()}?{urlencode({'limit': limit, **wanted})}")
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for item in found["messages"]:
        states = ", ".join(f"{r['mailbox']} {r['status']}" for r in item["recipients"])
        print(f"{item['queue_id']}  {item['accepted_at']}  {item['header_from']}  {states}  {item['subject']}")
    print(f"{len(found['messages'])} of {found['total_count']}")


def main() -> None:
    """Run the command line."""
    try:
        cli()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
