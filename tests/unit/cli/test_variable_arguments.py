"""Options that take a name and a value, as the vendor's command line reads them."""

from __future__ import annotations

import pytest

from outgate.cli.variable_arguments import BadArguments, Options, spelled_out

OPTIONS = Options(
    {
        "--variable": "--variable", "-v": "--variable", "--secret": "--secret", "-s": "--secret",
        "--delete": "--delete", "-d": "--delete", "--programId": "--programId", "-p": "--programId",
        "--json": "--json", "-j": "--json", "--help": "--help",
    },
    {"--variable": 2, "--secret": 2, "--delete": 1},
    frozenset({"--programId"}),
)  # fmt: skip


def spelled(*arguments: str) -> list[str]:
    return spelled_out(arguments, OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--"]),
        (["10"], ["--", "10"]),
        (["--programId=4", "10", "-j"], ["--programId=4", "-j", "--", "10"]),
        (["-p", "4", "e10"], ["--programId=4", "--", "e10"]),
        (["-p4", "10"], ["--programId=4", "--", "10"]),
        (["-p=4", "10"], ["--programId=4", "--", "10"]),
        (["-p", "-4"], ["--programId=-4", "--"]),
        (["-v", "AB", "1"], ["--variable=AB", "--variable=1", "--"]),
        (["--variable=AB", "1"], ["--variable=AB", "--variable=1", "--"]),
        (["-vAB", "1"], ["--variable=AB", "--variable=1", "--"]),
        # One option, several pairs; a number that comes first is the environment, later a value.
        (["-v", "AB", "1", "CD", "2", "10"], ["--variable=AB", "--variable=1", "--variable=CD", "--variable=2", "--", "10"]),
        (["10", "-v", "AB", "10", "-d", "CD", "EF"], ["--variable=AB", "--variable=10", "--delete=CD", "--delete=EF", "--", "10"]),
        # Values are what they are.
        (["-s", "AB", "-abc"], ["--secret=AB", "--secret=-abc", "--"]),
        (["-s", "AB", "--abc"], ["--secret=AB", "--secret=--abc", "--"]),
        (["-s", "AB", "-pX9"], ["--secret=AB", "--secret=-pX9", "--"]),
        (["-s", "AB", "-jx"], ["--secret=AB", "--secret=-jx", "--"]),
        (["-s", "AB", "-p=x"], ["--secret=AB", "--secret=-p=x", "--"]),
        (["-s", "AB", "--"], ["--secret=AB", "--secret=--", "--"]),
        (["-s", "AB", "-"], ["--secret=AB", "--secret=-", "--"]),
        (["-s", "AB", ""], ["--secret=AB", "--secret=", "--"]),
        (["-s", "AB", "a=b"], ["--secret=AB", "--secret=a=b", "--"]),
        (["-s", "AB", "pässwörd ✓\n"], ["--secret=AB", "--secret=pässwörd ✓\n", "--"]),
        (["-v", "AB", "1", "--", "10"], ["--variable=AB", "--variable=1", "--", "10"]),
        (["--help"], ["--help", "--"]),
    ],
)  # fmt: skip
def test_what_is_read(arguments: list[str], expected: list[str]) -> None:
    assert spelled(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "words", "values"),
    [
        (["-v"], "--variable lacks a name: --variable NAME VALUE", True),
        (["-v", "AB"], "--variable lacks a value: --variable NAME VALUE", True),
        (["-v", "AB", "1", "CD"], "--variable lacks a value", True),
        (["-d"], "--delete lacks a name: --delete NAME", True),
        (["-v", "AB", "--secret", "CD", "s3cr3t"], "--variable lacks a value: the option --secret stands there", True),
        (["-v", "AB", "--secret=CD", "s3cr3t"], "--variable lacks a value: the option --secret stands there", True),
        (["-v", "-j"], "--variable lacks a name: the option -j stands there", True),
        (["-s", "AB=s3cr3t"], "--secret: put a blank between name and value", True),
        (["-s", "AB=s3cr3t", "CD"], "--secret: put a blank between name and value", True),
        (["-s", "AB", "my", "s3cr3t"], "--secret lacks a value", True),
        (["10", "s3cr3t"], "more is given than one environment", False),
        (["--", "10", "s3cr3t"], "more is given than one environment", False),
        (["--secrte", "AB", "s3cr3t"], "did you mean --secret?", False),
        (["-s", "AB", "x", "-s3cr3t"], "--secret lacks a value: --secret NAME VALUE", True),
        (["-s", "AB", "x", "--s3cr3t-word"], "an option that this command does not have: --help", False),
        (["-x"], "an option that this command does not have", False),
        (["10", "-p"], "--programId lacks a value: --programId VALUE", False),
        (["-p", "-v", "AB", "s3cr3t"], "--programId lacks a value: the option -v stands there", False),
    ],
)
def test_what_cannot_be_read(arguments: list[str], words: str, values: bool) -> None:
    with pytest.raises(BadArguments) as wrong:
        spelled(*arguments)
    assert words in str(wrong.value) and "s3cr3t" not in str(wrong.value)
    assert wrong.value.values is values
