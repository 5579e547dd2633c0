"""The options of `outgate cloudmanager:…`, spelled as the vendor's command line spells them, and how they are read.

Standards: the vendor's plugin 4.2, whose options they are but for `--secretFile`, `--wait` and `--data`.
Promises: a mistake in them ends with 3 if it is about names and values, else with 2.
Not here: the reading itself (`variable_arguments`), what the commands do (`cloud_manager`).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from outgate.cli.calling import WRONG_USE, fail
from outgate.cli.variable_arguments import BadArguments, Options, spelled_out

VALIDATION = 3

Texts = list[str] | None
_PAIR, _FILE = "NAME VALUE", "NAME PATH"

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

Variable = Annotated[Texts, typer.Option("--variable", "-v", metavar=_PAIR, help="Set a plain variable.")]
Secret = Annotated[
    Texts,
    typer.Option("--secret", "-s", metavar=_PAIR, help="Set a secret. Others see the command: rather --secretFile."),
]
SecretFile = Annotated[
    Texts,
    typer.Option("--secretFile", metavar=_FILE, help="Set a secret to what a file holds; -: standard input."),
]
Delete = Annotated[Texts, typer.Option("--delete", "-d", metavar="NAME", help="Delete a variable or secret.")]

_ONE = "For one service only"
AuthorVariable = Annotated[
    Texts,
    typer.Option("--authorVariable", metavar=_PAIR, help="Set a plain variable of author only.", rich_help_panel=_ONE),
]
AuthorSecret = Annotated[
    Texts, typer.Option("--authorSecret", metavar=_PAIR, help="Set a secret of author only.", rich_help_panel=_ONE)
]
AuthorSecretFile = Annotated[
    Texts,
    typer.Option(
        "--authorSecretFile",
        metavar=_FILE,
        help="Set a secret, from a file, of author only.",
        rich_help_panel=_ONE,
    ),
]
AuthorDelete = Annotated[
    Texts,
    typer.Option("--authorDelete", metavar="NAME", help="Delete what is there of author only.", rich_help_panel=_ONE),
]
PublishVariable = Annotated[
    Texts,
    typer.Option(
        "--publishVariable", metavar=_PAIR, help="Set a plain variable of publish only.", rich_help_panel=_ONE
    ),
]
PublishSecret = Annotated[
    Texts, typer.Option("--publishSecret", metavar=_PAIR, help="Set a secret of publish only.", rich_help_panel=_ONE)
]
PublishSecretFile = Annotated[
    Texts,
    typer.Option(
        "--publishSecretFile",
        metavar=_FILE,
        help="Set a secret, from a file, of publish only.",
        rich_help_panel=_ONE,
    ),
]
PublishDelete = Annotated[
    Texts,
    typer.Option("--publishDelete", metavar="NAME", help="Delete what is there of publish only.", rich_help_panel=_ONE),
]
PreviewVariable = Annotated[
    Texts,
    typer.Option(
        "--previewVariable", metavar=_PAIR, help="Set a plain variable of preview only.", rich_help_panel=_ONE
    ),
]
PreviewSecret = Annotated[
    Texts, typer.Option("--previewSecret", metavar=_PAIR, help="Set a secret of preview only.", rich_help_panel=_ONE)
]
PreviewSecretFile = Annotated[
    Texts,
    typer.Option(
        "--previewSecretFile",
        metavar=_FILE,
        help="Set a secret, from a file, of preview only.",
        rich_help_panel=_ONE,
    ),
]
PreviewDelete = Annotated[
    Texts,
    typer.Option("--previewDelete", metavar="NAME", help="Delete what is there of preview only.", rich_help_panel=_ONE),
]

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
    int, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until the environment has them, at most so long.")
]


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
