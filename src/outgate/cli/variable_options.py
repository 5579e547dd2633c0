"""The options of `outgate cloudmanager:…`, spelled as the vendor's command line spells them, and how they are read.

Standards: the vendor's plugin 4.2, whose options they are but for `--secretFile`, `--wait` and `--data`.
Promises: a mistake in them ends with 3 if it is about names and values, else with 2.
Not here: the reading itself (`variable_arguments`), what the commands do (`cloud_manager`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from outgate.cli.calling import WRONG_USE, fail
from outgate.cli.variable_arguments import BadArguments, Options, spelled_out
from outgate.cli.variable_plan import SERVICES, option

VALIDATION = 3

Pairs = Mapping[tuple[str, str], Sequence[str]]
"""What was given to the options that set and delete, by service ("" for all) and word, in the vendor's order."""
_PAIR, _FILE = "NAME VALUE", "NAME PATH"
_WORDS = {
    "variable": ("-v", _PAIR, "Set a plain variable", ""),
    "secret": ("-s", _PAIR, "Set a secret", " Others see the command: rather --secretFile."),
    "secretFile": ("", _FILE, "Set a secret to what a file holds", " -: standard input."),
    "delete": ("-d", "NAME", "Delete a variable or secret", ""),
}

Environment = Annotated[
    str, typer.Argument(metavar="ENVIRONMENT_ID", help="The environment's number.", show_default=False)
]
Program = Annotated[
    str, typer.Option("--programId", "-p", metavar="ID", help="The program's number.", show_default=False)
]
Context = Annotated[
    str,
    typer.Option("--imsContextName", metavar="NAME", help="Take the token of this IMS context.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", "-j", help="Print JSON.")]
Yaml = Annotated[bool, typer.Option("--yaml", "-y", help="Print YAML.")]

_MANY = "Many at once: an array of variables, each with name, value and perhaps type and service"
JsonStdin = Annotated[bool, typer.Option("--jsonStdin", help="Read JSON from standard input.", rich_help_panel=_MANY)]
YamlStdin = Annotated[bool, typer.Option("--yamlStdin", help="Read YAML from standard input.", rich_help_panel=_MANY)]
JsonFile = Annotated[
    str | None, typer.Option("--jsonFile", metavar="PATH", help="Read a JSON file.", rich_help_panel=_MANY)
]
YamlFile = Annotated[
    str | None, typer.Option("--yamlFile", metavar="PATH", help="Read a YAML file.", rich_help_panel=_MANY)
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse names that are reserved, instead of a warning.")]
Wait = Annotated[
    int,
    typer.Option(
        "--wait", metavar="SECONDS", min=0, help="Wait until the environment takes and has them, at most so long."
    ),
]


def with_pairs(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that set and delete variables, behind its first two; it gets `pairs` from them."""
    added = {key: _parameter(*key) for key in ((service, word) for service in ("", *SERVICES) for word in _WORDS)}

    @wraps(command)
    def called(**given: Any) -> None:
        command(pairs={key: given.pop(each.name) or () for key, each in added.items()}, **given)

    signature = inspect.signature(command, eval_str=True)
    own = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in signature.parameters.values() if each.name != "pairs"]
    called.__signature__ = signature.replace(parameters=[*own[:2], *added.values(), *own[2:]])  # type: ignore[attr-defined]
    return called


def _parameter(service: str, word: str) -> Parameter:
    short, metavar, does, note = _WORDS[word]
    spellings = [option(word, service)] + ([short] if short and not service else [])
    said = f"{does}, for {service} only." if service else f"{does}.{note}"
    panel = "For one service only" if service else None
    kind = typer.Option(*spellings, metavar=metavar, help=said, rich_help_panel=panel, show_default=False)
    annotation = Annotated[list[str] | None, kind]
    return Parameter(f"{service}_{word}", Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


class WithPairs(TyperCommand):
    """A command whose options take names and values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        every = {
            spelling: max(param.opts, key=len) for param in self.params for spelling in param.opts if spelling[0] == "-"
        }
        every["--help"] = "--help"
        lists, valued = dict[str, int](), set[str]()
        for param in self.params:
            name = max(param.opts, key=len)
            if getattr(param, "multiple", False):
                lists[name] = 2 if getattr(param, "metavar", "") in (_PAIR, _FILE) else 1
            elif not getattr(param, "is_flag", True):
                valued.add(name)
        try:
            args = spelled_out(args, Options(every, lists, frozenset(valued)))
        except BadArguments as error:
            fail(str(error), VALIDATION if error.values else WRONG_USE)
        return super().parse_args(ctx, args)
