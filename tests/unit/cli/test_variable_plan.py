"""What is sent for which wishes, and what is said before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outgate.cli.variable_plan import Plan, Unfit, Wish, plan, together

NOW = [
    {"name": "PLAIN", "type": "string", "value": "old", "status": "ready"},
    {"name": "HIDDEN", "type": "secretString", "status": "ready"},
    {"name": "PLAIN", "type": "secretString", "service": "author"},
]


def wish(name: str, value: str = "s3cr3t", kind: str = "string", service: str = "", where: str = "--x") -> Wish:
    return Wish(name, value, kind, service, where)


def reasons(*wishes: Wish, current: list[dict[str, str]] | None = None, strict: bool = False) -> str:
    with pytest.raises(Unfit) as wrong:
        plan(NOW if current is None else current, wishes, strict=strict)
    assert "s3cr3t" not in str(wrong.value)
    return str(wrong.value)


def warned(*wishes: Wish) -> str:
    found = "; ".join(plan(NOW, wishes).warnings)
    assert "s3cr3t" not in found
    return found


def test_changes_are_those_of_the_vendors_client() -> None:
    wishes = [
        wish("NEW_ONE", "1"),
        wish("HIDDEN", "x", "secretString"),
        wish("PLAIN", "", ""),
        wish("PLAIN", "", "", "author"),
        wish("KEPT_TYPE", "x", ""),
        wish("HIDDEN", "y", "", "publish"),
    ]
    assert plan(NOW, wishes) == Plan(
        (
            {"name": "NEW_ONE", "type": "string", "value": "1"},
            {"name": "HIDDEN", "type": "secretString", "value": "x"},
            # The type that it has: a secret cannot be deleted without.
            {"name": "PLAIN", "type": "string", "value": ""},
            {"name": "PLAIN", "type": "secretString", "value": "", "service": "author"},
            {"name": "KEPT_TYPE", "type": "string", "value": "x"},
            {"name": "HIDDEN", "type": "string", "value": "y", "service": "publish"},
        ),
        (),
    )
    assert plan(NOW, [wish("HIDDEN", "new", "")]).changes[0]["type"] == "secretString"
    assert "s3cr3t" not in repr(plan(NOW, [wish("ANY_ONE")])) + repr(wish("ANY_ONE"))


def test_a_deletion_of_nothing_is_a_warning_only() -> None:
    found = plan(NOW, [wish("NOBODY", "", ""), wish("PLAIN", "", "", "publish"), wish("HIDDEN", "", "", "author")])
    assert found.changes == ()
    assert found.warnings == (
        "NOBODY is not there and will not be deleted",
        "PLAIN (publish) is not there and will not be deleted; it is there otherwise: --delete or --authorDelete PLAIN",
        "HIDDEN (author) is not there and will not be deleted; it is there otherwise: --delete HIDDEN",
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (wish("1ST"), "what stands as a name is none"),
        (wish("s3cr3t words"), "what stands as a name is none"),
        (wish("A"), "what stands as a name is none"),
        (wish("A" * 101), "what stands as a name is none"),
        (wish("ÄÖ"), "what stands as a name is none"),
        (wish("", ""), "what stands as a name is none"),
        (wish("ABC", service="Author"), "must be one of author, publish, preview"),
        (wish("ABC", kind="secret"), "the type must be string or secretString"),
        (wish("ABC", "s3cr3t" * 400), "ABC: a string has at most 2048 characters, this one 2400"),
        (wish("ABC", "x" * 500, "secretString"), "ABC: a secretString has at most 499 characters, this one 500"),
        (wish("ABC", "s3cr3t\0"), "not UTF-8 text without NUL"),
        (wish("ABC", "s3cr3t\udc80"), "not UTF-8 text without NUL"),
        (wish("HIDDEN"), "HIDDEN is a secretString, and a type cannot be changed: delete it first (--delete HIDDEN)"),
        (wish("PLAIN", service="author"), "delete it first (--authorDelete PLAIN)"),
        (wish("ABC", "****", "secretString"), "the mask that stands for a secret in lists"),
        (wish("HIDDEN", "****", ""), "the mask that stands for a secret in lists"),
    ],
)
def test_what_the_server_would_refuse_is_not_sent(wrong: Wish, words: str) -> None:
    said = reasons(wish("GOOD"), wrong)
    assert said.startswith("--x: ") and words in said


def test_limits_themselves_are_fine() -> None:
    wishes = [wish("AB", "x" * 2048), wish("A" * 100, "x" * 499, "secretString"), wish("STARS", "****")]
    assert len(plan(NOW, wishes).changes) == 3


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert reasons(wish("1ST"), wish("2ND")).count("what stands as a name") == 2


def test_two_hundred_variables() -> None:
    many = [{"name": f"V_{n}", "type": "string"} for n in range(199)]
    assert plan(many, [wish("ONE_MORE"), wish("V_0"), wish("NOBODY", "", "")]).changes
    assert "would have 201 variables, and 200 are the limit" in reasons(wish("AA"), wish("BB"), current=many)
    assert plan(many, [wish("AA"), wish("BB"), wish("V_0", "", "")]).changes
    # Who has more already may change and delete what there is.
    more = [{"name": f"V_{n}", "type": "string"} for n in range(205)]
    assert plan(more, [wish("V_0"), wish("V_1", "", "")]).changes


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (wish("INTERNAL_X"), "names that begin with INTERNAL_ are reserved, and its value will be ignored"),
        (wish("ADOBE_X"), "names that begin with ADOBE_"),
        (wish("CONST_X"), "names that begin with CONST_"),
        (wish("AEM_PROXY_HOST"), "AEM_PROXY_HOST is set by the environment's tunnel and must not be set by hand"),
    ],
)
def test_names_that_are_others(one: Wish, words: str) -> None:
    assert words in warned(one)
    assert words in reasons(one, strict=True)
    defined = wish("AEM_DEFINED")
    assert "names that begin with AEM_ are the product's" in plan(NOW, [defined], strict=True).warnings[0]
    # Deleting them is always well.
    current = [{"name": one.name, "type": "string"}]
    assert plan(current, [wish(one.name, "", "")], strict=True).warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        "EMAIL_PASSWORD",
        "SMTP_PASS",
        "DBPASSWORD",
        "PWD",
        "API_KEY",
        "APIKEY",
        "CLIENT_SECRET",
        "GITHUB_TOKEN",
        "my_password",
        "SECRET_X",
    ],
)
def test_a_plain_variable_that_looks_like_a_secret(name: str) -> None:
    assert "looks like a secret" in warned(wish(name)) and "--secret" in warned(wish(name))
    assert "--authorSecret" in warned(wish(name, service="author"))
    assert warned(wish(name, kind="secretString")) == ""


@pytest.mark.parametrize(
    "name", ["EMAIL_USERNAME", "COMPASS", "PASSAGE", "KEYBOARD", "TOKENIZER", "SECRETARY", "MONKEY", "BYPASS_CACHE"]
)
def test_one_that_does_not(name: str) -> None:
    assert warned(wish(name)) == ""


def test_a_secret_that_an_application_will_not_find_or_not_as_it_is() -> None:
    said = warned(wish("EMAIL_USERNAME", kind="secretString"))
    assert (
        said == "EMAIL_USERNAME is a secret: $[env:EMAIL_USERNAME] does not see it, only $[secret:EMAIL_USERNAME] does"
    )
    assert "white space" in warned(wish("EMAIL_PASSWORD", "s3cr3t\n", "secretString"))
    quoted = Wish("EMAIL_PASSWORD", '"s3cr3t"', "secretString", "author", "--authorSecret")
    assert "the quotes at its ends are a part of the value" in warned(quoted)
    assert plan(NOW, [replace(quoted, where="vars.json: line 1")]).warnings == ()


def test_options_count_more_than_a_document() -> None:
    options = [wish("AB", "1"), wish("CD", "", "")]
    document = [wish("AB", "2"), wish("AB", "3", service="author"), wish("CD", "4")]
    assert together(options, document) == [*options, document[1]]


@pytest.mark.parametrize("documented", [False, True])
def test_one_variable_twice(documented: bool) -> None:
    twice = [wish("AB", where="f: line 1"), wish("AB", service="author"), wish("AB", where="f: line 3")]
    with pytest.raises(Unfit) as wrong:
        together([], twice) if documented else together(twice, [])
    assert str(wrong.value) == "f: line 3: AB stands twice (f: line 1): say once what it is to be"
