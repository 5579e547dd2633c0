"""Mail templates: the corpus, files and charsets, and what comes out on the wire."""

from __future__ import annotations

import json
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from outgate.mailer import MessageError, Template, TemplateError
from outgate.mailer.sending.wire import letter
from outgate.mailer.template import charset_from
from outgate.mailer.template.html_text import plain_text
from outgate.mailer.values import ConfigError

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "corpora" / "templates.json").read_text("utf-8"),
)


def body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else part.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_corpus(case: dict[str, Any]) -> None:
    options = case.get("options", {})
    try:
        template = Template(case["template"])
        message = template.message(case.get("variables"), **options)
    except TemplateError as error:
        assert str(error) == case.get("error")
        return
    assert "error" not in case
    for name, value in case.get("fields", {}).items():
        assert (str(message[name]) if name in message else None) == value
    assert body(message, "plain") == case["body"]
    assert body(message, "html") == case.get("html")
    if "bounce_to" in case:
        assert template.bounce_to(case["variables"]) == case["bounce_to"]
    kind = {"html": "multipart/alternative", "HtmlEmail": "multipart/alternative", "MultiPartEmail": "multipart/mixed"}
    assert message.get_content_type() == kind.get(options.get("kind", ""), "text/plain")


def test_without_an_address_for_bounces_the_fields_say_it() -> None:
    """None, for "" would be the null sender."""
    assert Template("To: a@x.test\n\n").bounce_to() is None
    assert Template("Bounce-To: ${b}\n\n").bounce_to({"b": ""}) is None
    with pytest.raises(TemplateError, match="line 1, column 1: Bounce-To: expected one address"):
        Template("Bounce-To: a@x.test, b@x.test\n\n").bounce_to()


def test_no_name_of_a_case_is_there_twice() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 90


def test_the_variables_of_a_template() -> None:
    template = Template("To: ${a}\nX-${b}: c\n\n${d}\n ${a}\n")
    assert [(each.name, each.line, each.column) for each in template.variables] == [
        ("a", 1, 5),
        ("b", 2, 3),
        ("d", 4, 1),
        ("a", 5, 2),
    ]


@pytest.mark.parametrize(
    "field",
    [
        '"${n}" <fix@x.test>',
        "${n} <fix@x.test>",
        '"a\\${n}" <fix@x.test>',
        '\\"${n}" <fix@x.test>',
        "a (${n}) <fix@x.test>",
        "(a\\${n}) fix@x.test",
        '(") ${n} <fix@x.test>',
        "(<) ${n} <fix@x.test>",
        "fix@x.test (${n})",
        "A <a@x.test>, ${n} <fix@x.test>",
        "fix@x.test,\n ${n}",
        "<fix@x.test> ${n}",
        '"a" ${n} "b" <fix@x.test>',
    ],
)
def test_no_value_takes_the_place_of_a_recipient(field: str) -> None:
    """Whatever a name is: the mail goes to those whom the template names, and to one whom the value names at most where
    it stands alone."""
    template = Template(f"From: f@x.test\nTo: {field}\n\n")
    evil = "evil@y.test"
    signs = ['"', "<", ">", "(", ")", "\\", ",", ";", ":", " ", "x"]
    pairs = [f"{a}{b}" for a in signs for b in ('"', ")", "")]
    values = [f"{pair} <{evil}>{c} {d}" for pair in pairs for c in ('"', "(", ",", ";", "") for d in ("(", '"x')]
    for value in (*values, evil, f"{evil} {evil}", f"{evil}; z@y.test", f") {evil} (", "Anna"):
        try:
            recipients = letter(template.message({"n": value}), "").recipients
        except TemplateError:
            continue
        assert "fix@x.test" in recipients, value
        allowed = {"fix@x.test", "a@x.test"} | ({evil} if "\n" in field else set())
        assert allowed.issuperset(recipients), value


@pytest.mark.parametrize("list_", ["a@x.test b@x.test", "a@x.test; b@x.test", "a@x.test:b@x.test", "Anna a@x.test"])
def test_a_list_that_is_none_loses_nobody(list_: str) -> None:
    """The `email` package reads the first of them, or another address, and says nothing."""
    for template, value in ((f"To: {list_}\n\n", ""), ("To: ${a}\n\n", list_), ("To: ${a}\n\n", [list_])):
        with pytest.raises(TemplateError, match="they are written name@domain"):
            Template(template).message({"a": value})


@pytest.mark.parametrize("name", ["Message-ID", "In-Reply-To", "Resent-To", "Date", "Content-ID", "Content-Language"])
@pytest.mark.parametrize("value", ["<a@[", "<", "<@", '"', "(" * 40, "=?", "9" * 5000, "a@", "<" * 3000])
def test_a_field_that_python_stumbles_over(name: str, value: str) -> None:
    try:
        message = Template(f"To: a@x.test\n{name}: ${{v}}\n\n").message({"v": value})
        letter(message, "f@x.test").wire({})
    except (TemplateError, MessageError) as error:
        assert value in ("<", '"') or value not in str(error)


def test_a_continued_list() -> None:
    message = Template("To: ${a},\n ${b},\n\t${c}\n\n").message(
        {"a": "a@x.test", "b": ["b@x.test", "B <c@x.test>"]} | {"c": ""}
    )
    assert letter(message, "f@x.test").recipients == ("a@x.test", "b@x.test", "c@x.test")


def test_what_says_how_it_is_written_in_html_is_asked() -> None:
    class Link:
        def __str__(self) -> str:
            return "<script>"

        def __html__(self) -> str:
            return "<b>safe</b>"

    template = Template("To: a@x.test\n\n${link}")
    assert body(template.message({"link": Link()}, kind="html"), "html") == "<b>safe</b>\n"
    assert body(template.message({"link": Link()}), "plain") == "<script>\n"


def test_what_is_html_already_is_not_escaped() -> None:
    class Markup(str):
        def __html__(self) -> str:
            return self

    message = Template("\n<p>${n}</p>\n").message({"n": Markup("<b>x</b>")}, kind="html")
    assert body(message, "html") == "<p><b>x</b></p>\n"


def test_a_multipart_mail_takes_attachments_and_goes_on_the_wire() -> None:
    template = Template("From: s@shop.test\nTo: ${to}\nBcc: b@x.test\nSubject: Grüße\n\n.dot\nGrüße\n")
    message = template.message({"to": ["a@x.test", "c@x.test"]}, kind="multipart")
    message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="a.bin")
    ready = letter(message, "")
    assert ready.recipients == ("a@x.test", "c@x.test", "b@x.test")
    data = ready.wire({})
    read = message_from_bytes(data, policy=policy.SMTP)
    assert read["Subject"] == "Grüße" and read["Bcc"] is None and data.isascii()
    assert [part.get_content_type() for part in read.walk()] == [
        "multipart/mixed",
        "text/plain",
        "application/octet-stream",
    ]


class TestFiles:
    def test_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "order.txt"
        file.write_bytes("Subject: Grüße\r\n\r\nfür ${n}\r\n".encode("iso-8859-1"))
        message = Template.load(file, charset="ISO-8859-1").message({"n": "dich"})
        assert message["Subject"] == "Grüße"
        assert message.get_content_charset() == "iso-8859-1" and message.get_content() == "für dich\n"

    def test_a_sign_that_the_charset_lacks_makes_the_mail_utf_8(self) -> None:
        message = Template("\n${n}\n", charset="us-ascii").message({"n": "☃"})
        assert message.get_content_charset() == "utf-8" and message.get_content() == "☃\n"

    def test_errors_name_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "order.txt"
        with pytest.raises(TemplateError, match=r"order\.txt: the template cannot be read: No such file"):
            Template.load(file)
        file.write_bytes(b"Subject: a\nX-A: \xe9\n\nx")
        with pytest.raises(TemplateError, match=r"order\.txt: line 2, column 6: expected text in utf-8"):
            Template.load(file)
        file.write_bytes(b"Hello\n")
        with pytest.raises(TemplateError, match=r"order\.txt: line 1, column 1: expected `Name: value`"):
            Template.load(file)
        file.write_bytes(b"To: ${to}\n\n${x}\n")
        with pytest.raises(TemplateError, match=r"order\.txt: line 1, column 5: no value is given for \$\{to\}"):
            Template.load(file).message()
        with pytest.raises(TemplateError, match=r"order\.txt: line 1, column 7: no value is given for \$\{bounce\}"):
            file.write_bytes(b"${a}: ${bounce}\n\n")
            Template.load(file).bounce_to({"a": "Bounce-To"})
        file.write_bytes(b"\n" + b"x" * 1_048_576)
        with pytest.raises(TemplateError, match="larger than 1048576 octets"):
            Template.load(file)
        with pytest.raises(TemplateError, match=r"mailer\.email\.charset: no charset is called so"):
            Template.load(file, charset="latein")

    def test_the_charset_of_the_configuration(self, tmp_path: Path) -> None:
        assert charset_from(tmp_path) == "utf-8"
        folder = tmp_path / "config.author"
        folder.mkdir()
        file = folder / "com.day.cq.mailer.impl.email.CqEmailTemplateFactory.cfg.json"
        file.write_text('{\n  "mailer.email.charset": "$[env:CHARSET;default=iso-8859-15]"\n}')
        assert charset_from(tmp_path, ["author"]) == "iso-8859-15"
        assert charset_from(tmp_path, ["author"], env={"CHARSET": " "}) == "utf-8"
        assert charset_from(tmp_path, ["publish"]) == "utf-8"
        with pytest.raises(ConfigError, match=r"line 2, column \d+: mailer\.email\.charset: no charset is called so"):
            charset_from(tmp_path, ["author"], env={"CHARSET": "base64"})
        file.write_text('{"other": 1}')
        assert charset_from(tmp_path, ["author"]) == "utf-8"


class TestLimits:
    def test_values_have_an_end(self) -> None:
        template = Template("\n" + "${n}" * 100)
        with pytest.raises(TemplateError, match="longer than 16777216 signs"):
            template.message({"n": "x" * 1_000_000})
        with pytest.raises(TemplateError, match="longer than 20000 signs"):
            Template("Subject: ${n}\n\n").message({"n": "x" * 20_001})
        with pytest.raises(TemplateError, match="longer than 20000 signs"):
            Template("Subject: ${n}${n}\n\n").message({"n": "x" * 10_001})
        for field in ("${n}", "${n} <a@x.test>", '"${n}" <a@x.test>', "<${n}@x.test>"):
            with pytest.raises(TemplateError, match="longer than 1000 signs"):
                Template(f"To: {field}\n\n").message({"n": "x" * 1001})

    def test_brackets_within_brackets(self) -> None:
        for text in ("(" * 900, "[" * 900, '"' * 901, "<" * 900, "a" + ".a" * 400 + "@x", "@" * 900, "\\" * 900):
            with pytest.raises(TemplateError, match="the value of"):
                Template("To: ${n}\n\n").message({"n": text})

    def test_fields(self) -> None:
        with pytest.raises(TemplateError, match="line 1001, column 1: more than 1000 fields"):
            Template("X-A: b\n" * 1001 + "\nx")
        for text in ("X-A: " + "b" * 20_000, "To: a\n" + " ${b}\n" * 4000):
            with pytest.raises(TemplateError, match="a field longer than 20000 signs"):
                Template(text)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", "\n"),
        ("plain", "plain\n"),
        ("<head><title>T</title><meta x='<'><body title=\"a > b\"><p>a < b <3", "a < b <3\n"),
        ("<title>never closed<p>a", "\n"),
        ("a<!-- never closed <p>b", "a\n"),
        ("<a\nhref = 'https://x.test/?a=1&amp;b=2' class=x>c</A>", "c <https://x.test/?a=1&b=2>\n"),
        ("<p>a<p>b", "a\n\nb\n"),
        ("<script>x</script>a<style>y", "a\n"),
        ("<pre>  a\n  b</pre>c", "a\nb\n\nc\n"),
        ("<table><tr><td>1<td>2</tr><tr><td>3</table>", "1 2\n3\n"),
        ("<img alt=Logo src=x> a&nbsp;b &amp; c", "Logo a b & c\n"),
        ('<a href="https://x.test/">https://x.test/</a> <a href="#top">top</a> <a>b</a>', "https://x.test/ top b\n"),
        ('<a href="mailto:a@x.test">Anna</a>', "Anna <a@x.test>\n"),
        ("</p></a></pre></script>x", "x\n"),
        ("<!-- a --><![CDATA[b]]><!DOCTYPE html>c", "c\n"),
        (f"&#{'0' * 5000}65;&#65&#0;&#;&#x{'0' * 5000}42;", "A" + "A\ufffd&#;B\n"),
        (f"<img alt='&#{'1' * 5000};'>x&#{'1' * 5000};y", "\ufffdx\ufffdy\n"),  # Python raises ValueError for these
    ],
)
def test_plain_text_beside_html(html: str, text: str) -> None:
    assert plain_text(html) == text


@pytest.mark.parametrize(
    "piece", ["<", "<a", "<!", "<![", "<!--", "<a b='", "&#", "a=", '="x" ', "<script></script", " ", "a "]
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    for text in (piece * 60_000, f"<a {piece.replace('<', '') * 60_000}>"):
        before = time.process_time()
        plain_text(text)
        assert time.process_time() - before < 2.0  # the square of it takes many


def test_links_within_links_take_linear_time() -> None:
    before = time.process_time()
    plain_text("<a href=x>" * 40_000 + "y" * 4_000_000 + "<b>x</b>" + "</a>" * 40_000)
    assert time.process_time() - before < 4.0


def test_a_field_of_many_lines_takes_linear_time() -> None:
    lines = ("X-{}: b\n" + " \n" * 19_900).format
    before = time.process_time()
    Template("".join(map(lines, range(20))) + "\n")
    template = Template("To: " + "${a}" * 4900 + "\n\n")
    with pytest.raises(TemplateError):
        template.message({"a": "a"})
    assert time.process_time() - before < 4.0
