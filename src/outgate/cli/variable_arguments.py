"""Spell out the options that take a name and a value, as the vendor's command line reads them.

Standards: oclif's options that may be given several values: `--variable A 1 B 2` are two.
Promises: pure; a value may be anything, also `-abc`, `--abc` and "", but not the very spelling of one of the command's
    options: that is a value that was forgotten. No error repeats an argument: it may be a piece of a secret.
Not here: what the names and values mean (`variable_plan`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

_ENVIRONMENT = re.compile(r"e?[0-9]+")


class BadArguments(Exception):
    """The arguments cannot be read; `values` if it is about names and values."""

    def __init__(self, text: str, *, values: bool) -> None:
        super().__init__(text)
        self.values = values


@dataclass(frozen=True, slots=True)
class Options:
    """A command's options by every spelling: `lists` have several values (how many belong together), `valued` one, and
    all else in `all` none. What a spelling stands for is its long one."""

    all: Mapping[str, str]
    lists: Mapping[str, int]
    valued: frozenset[str] = field(default_factory=frozenset[str])


def spelled_out(arguments: Sequence[str], options: Options) -> list[str]:
    """Return the arguments with each value in one with its option: `--variable=A --variable=1`. Raises
    `BadArguments`."""
    rest = list(arguments)
    out: list[str] = []
    places: list[str] = []
    current = ""
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            places += rest
            break
        option, glued = _split(argument, options)
        if option in options.lists:
            current = option
            if glued is not None:
                rest.insert(0, glued)
            _take(option, rest, options, out)
        elif option:
            current = ""
            if option in options.valued:
                glued = _next(option, rest, options, "a value", option + " VALUE") if glued is None else glued
                argument = f"{option}={glued}"
            out.append(argument)
        elif argument.startswith("-") and argument != "-":
            raise BadArguments(_unknown(argument, options), values=False)
        elif not places and _ENVIRONMENT.fullmatch(argument):
            # No name begins with a digit.
            places.append(argument)
        elif current:
            rest.insert(0, argument)
            _take(current, rest, options, out)
        else:
            places.append(argument)
    if len(places) > 1:
        raise BadArguments("more is given than one environment: a value with blanks needs quotes", values=False)
    return [*out, "--", *places]


def _take(option: str, rest: list[str], options: Options, out: list[str]) -> None:
    """Move what belongs together from `rest` to `out`."""
    pair = options.lists[option] > 1
    usage = f"{option} NAME VALUE" if pair else f"{option} NAME"
    name = _next(option, rest, options, "a name", usage)
    if pair and "=" in name:
        raise BadArguments(f"{option}: put a blank between name and value: {usage}", values=True)
    out.append(f"{option}={name}")
    if pair:
        out.append(f"{option}={_next(option, rest, options, 'a value', usage)}")


def _next(option: str, rest: list[str], options: Options, what: str, usage: str) -> str:
    """Take what comes next as something of an option."""
    values = option in options.lists
    if not rest:
        raise BadArguments(f"{option} lacks {what}: {usage}", values=values)
    found = rest.pop(0)
    spelling = found.partition("=")[0] if found.startswith("--") else found
    if spelling in options.all:
        told = f"{option} lacks {what}: the option {spelling} stands there"
        hint = "; a value that is spelled like an option can come from a file (--secretFile, --jsonFile)"
        raise BadArguments(told + (hint if values and what == "a value" else ""), values=values)
    return found


def _split(argument: str, options: Options) -> tuple[str, str | None]:
    """Return the option that an argument is and what is glued to it; "" if it is none."""
    if argument.startswith("--"):
        name, sign, value = argument.partition("=")
        return options.all.get(name, ""), value if sign else None
    if argument in options.all:
        return options.all[argument], None
    option = options.all.get(argument[:2], "") if argument.startswith("-") else ""
    takes = option in options.lists or option in options.valued
    return (option, argument[2:].removeprefix("=")) if takes else ("", None)


def _unknown(argument: str, options: Options) -> str:
    long = [spelling for spelling in options.all if spelling.startswith("--")]
    near = get_close_matches(argument.partition("=")[0], long, 1, 0.75)
    hint = f"did you mean {near[0]}?" if near else "--help shows those it has"
    return f"there is an option that this command does not have: {hint}"
