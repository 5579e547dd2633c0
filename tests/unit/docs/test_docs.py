"""The documents say what is so."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from outgate.model.flow import Status
from outgate.settings import Settings

ROOT = Path(__file__).parents[3]


def test_the_diagrams_are_drawn_from_the_tables() -> None:
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "draw.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    assert (ROOT / "docs" / "sessions.md").read_text("utf-8") == draw.page(), "run `make docs`"


def test_every_setting_has_its_sentence() -> None:
    for name, section in Settings.model_fields.items():
        for key, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description and field.description.endswith("."), f"{name}.{key}"
            for part in get_args(field.annotation):
                for inner, described in getattr(part, "model_fields", {}).items():
                    assert described.description and described.description.endswith("."), f"{name}.{key}.{inner}"


def test_the_settings_of_delivery_are_on_the_operators_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `(relay|store|log)\.(\w+)` \| (\S*) ?\| (.+) \|$", page, re.MULTILINE)
    assert {"retry_first_s", "dane_resolver", "sites", "routes", "status_file", "retention_s"} <= {
        row[1] for row in rows
    }
    for section, name, default, said in rows:
        field = Settings.model_fields[section].annotation.model_fields[name]  # type: ignore[union-attr]
        assert field.description == said, name
        value = str(field.default).lower().removesuffix(".0") if field.default not in ([], {}) else ""
        assert value == default, name


def test_the_tables_of_the_egress_are_the_programs(tmp_path: Path) -> None:
    from outgate.api.operations.egress_models import StatusAnswer
    from outgate.base.clock import FrozenClock
    from outgate.egress.audit import Audit, Connection
    from outgate.egress.ledger import Ledger
    from outgate.egress.plan import Proxy
    from outgate.egress.refusal import Kind, Refused
    from support.egress_peers import forward

    page = (ROOT / "docs" / "egress.md").read_text("utf-8")
    rows = re.findall(r"^\| `egress\.(\w+)` \| (?:([^|]*) )?\| (.+) \|$", page, re.MULTILINE)
    assert {"guard_exceptions", "connections_per_environment", "drain_s", "port_budget_alert"} <= {
        row[0] for row in rows
    }
    for name, default, said in rows:
        field = Settings.model_fields["egress"].annotation.model_fields[name]  # type: ignore[union-attr]
        value = field.default if isinstance(field.default, list) else [str(field.default).lower().removesuffix(".0")]
        assert (", ".join(value), field.description) == (default, said), name

    classes = page.partition("### Why a connection was refused")[2].partition("## Status")[0]
    assert re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \|$", classes, re.MULTILINE) == list(get_args(Kind))

    audit = Audit(tmp_path / "audit.jsonl")
    ledger = Ledger(audit, FrozenClock())
    rule = forward("127.1.0.1", 30465, "smtp.example", 465)
    asked = Connection(
        "p", Proxy("10", "4", "127.1.0.1", 3128, rule.way, ()), "127.0.0.1:1", "a.example", 443, "CONNECT"
    )
    for connection in (Connection("f", rule, "127.0.0.1:1"), asked):
        ledger.opened(connection, reason="")
        ledger.noticed(connection, code="mail.clear-auth", reason="")
        ledger.closed(connection, bytes_up=0, bytes_down=0, duration_s=0.0, reason="")
        ledger.refused(connection, Refused("guard", ""))
    section = page.partition("## The audit")[2].partition("### Why a connection")[0]
    table = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    lines = audit.recent()
    assert {name for cell in table for name in re.findall(r"`(\w+)`", cell)} == {key for line in lines for key in line}
    inner = {key for line in lines for part in ("forward", "proxy") for key in line.get(part, ())}
    assert inner <= set(re.findall(r"`(\w+)`", section))
    audit.close()

    told = set(re.findall(r"`(\w+)`", page.partition("## Status")[2].partition("## What to do when")[0]))
    schema = StatusAnswer.model_json_schema()
    assert {name for part in (schema, *schema["$defs"].values()) for name in part["properties"]} <= told


def test_every_status_has_its_row_on_the_operators_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes)? ?\|$", page, re.MULTILINE)
    assert dict(rows) == {status.value: "yes" if status.final else "" for status in Status}


def test_every_module_opens_with_what_it_is() -> None:
    for module in (ROOT / "src" / "outgate").rglob("*.py"):
        text = module.read_text("utf-8")
        if not text.strip() or "migrations" in module.parts:
            continue
        assert text.startswith('"""'), module
        if module.name not in ("__init__.py", "__main__.py"):
            head = text.split('"""')[1]
            assert "Promises:" in head and "Not here:" in head, module


def test_the_pages_that_are_named_exist() -> None:
    for page in ROOT.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (ROOT / link).exists(), f"{page.name}: {link}"
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py|[a-z_]+\.py)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")):
        assert (ROOT / "src" / "outgate" / path).exists() or (ROOT / path).exists(), path


def test_every_test_that_the_table_of_attacks_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test is named for: {row.split('|')[1]}"
        for file, test in named:
            assert re.search(rf"^ *(?:async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), (
                f"{file}::{test}"
            )


def test_the_tables_of_outcomes_are_the_programs() -> None:
    from outgate.relay import outcome

    def grouped(table: Mapping[object, str]) -> list[str]:
        by_word: dict[str, list[str]] = {}
        for code, word in table.items():
            by_word.setdefault(word, []).append(str(code))
        return [f"| `{word}` | {', '.join(codes)} |" for word, codes in by_word.items()]

    expected = [f"| `{each.word}` | {each.meaning} | {each.advice} |" for each in outcome.REASONS]
    expected += grouped(outcome.EXACT)
    expected += [f"| `{word}` | {', '.join(phrases)} |" for word, phrases in outcome.WORDING]
    expected += [f"| `{word}` | {code} with {detail} |" for (code, detail), word in outcome.TOGETHER.items()]
    expected += grouped(outcome.HINT) + grouped({f"{subject}.*": word for subject, word in outcome.SUBJECT.items()})
    expected += grouped(outcome.BASIC)
    expected += [f"| `{kind}` | {status.value} |" for kind, status in outcome.FAILURES.items()]
    page = (ROOT / "docs" / "delivery.md").read_text("utf-8").partition("## When it is tried again")[0].splitlines()
    assert [row for row in page if row.startswith("| `")] == expected


def test_every_notice_about_mail_is_on_the_page_of_the_egress() -> None:
    from outgate.egress.mail_watch import NOTICES

    page = (ROOT / "docs" / "egress.md").read_text("utf-8")
    assert dict(re.findall(r"^\| `(mail\.[a-z-]+)` \| (.+) \|$", page, re.MULTILINE)) == NOTICES


def test_the_table_of_lints_rules_is_the_programs() -> None:
    from outgate.doctor.traps.rules import RULES

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "\\<")

    corpus = ROOT / "tests" / "corpora" / "lint"
    expected: list[str] = []
    for rule in RULES.values():
        known = " (*known*)" if (corpus / rule.id / "known.json").exists() and rule.id != "tls-mismatch" else ""
        expected.append(
            f"| `{rule.id}` | {rule.level} | {cell(rule.title)}{known} | {cell(rule.why)} | {cell(rule.remedy)} |"
        )
    page = (ROOT / "docs" / "lint.md").read_text("utf-8")
    assert [row for row in page.splitlines() if row.startswith("| `")] == expected
    sample = (corpus / "port-real" / "expected.txt").read_text("utf-8").partition("\n\n")[0]
    assert sample in page


def test_the_files_on_the_oauth_page_are_ready_to_paste() -> None:
    from outgate.doctor import lint
    from outgate.mailer import config, oauth, osgi
    from outgate.mailer.folders import ConfigFile, Configurations

    page = (ROOT / "docs" / "oauth.md").read_text("utf-8")
    microsoft, google, mail, pieces = (text.encode() for text in re.findall(r"^```json\n(.*?)^```", page, re.M | re.S))
    files = (ConfigFile(oauth.PID, (), "a", microsoft), ConfigFile(config.PID, (), "b", mail))
    assert lint.of(Configurations("page", files)).findings == []
    env = {"SMTP_OAUTH_TENANT": "shop.test", "SMTP_OAUTH_CLIENT_ID": "id", "EMAIL_USERNAME": "mailer@shop.test"}
    secrets = {"SECRET_SMTP_OAUTH_CLIENT_SECRET": "s", "SECRET_SMTP_OAUTH_REFRESH_TOKEN": "r"}

    def load(data: bytes) -> oauth.OAuthConfig:
        place = Configurations("page", (ConfigFile(oauth.PID, (), "page", data),))
        return oauth.load(place, env=env, secrets=secrets)

    redirect = {"redirect_url": "http://localhost"}
    assert load(microsoft) == replace(oauth.microsoft("shop.test", "id", "s", "r"), **redirect)
    assert load(google) == replace(oauth.google("id", "s", "r"), **redirect)
    settled = config.settle(osgi.read(mail.decode()), env=env, secrets=secrets)
    assert (settled.oauth, settled.tls, settled.port, settled.user) == (True, "required", 30587, "mailer@shop.test")
    secrets = {"SECRET_SMTP_OAUTH_REFRESH_TOKEN_1": "a" * 499, "SECRET_SMTP_OAUTH_REFRESH_TOKEN_2": "b" * 499}
    joined = microsoft.replace(b'"$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]"', pieces.split(b": ")[1].split(b"\n")[0])
    secrets["SECRET_SMTP_OAUTH_CLIENT_SECRET"] = "s"
    assert load(joined).refresh_token == "a" * 499 + "b" * 499


def test_the_errors_on_the_oauth_page_are_the_programs() -> None:
    from outgate.mailer import oauth
    from outgate.mailer.folders import ConfigFile, Configurations
    from outgate.mailer.form_post import Answer
    from outgate.smtp.login import choose

    tokens = oauth.Tokens(oauth.google("id", "s", "r"), env={})
    errors = {400: "invalid_scope", 404: "", 302: "", 503: "", 401: "invalid_client", 403: "invalid_grant"}
    told = [str(tokens._refused(Answer(status, "", b""), {"error": error})) for status, error in errors.items()]
    misnamed = Configurations("", (ConfigFile(f"called {oauth.PID}", (), "", b"{}"),))
    for fails in (
        lambda: choose(("XOAUTH2",), {"AUTH": "PLAIN"}, tls=True),
        lambda: oauth.load(misnamed, env={}, secrets={}),
        lambda: oauth.load(
            Configurations("", (ConfigFile(oauth.PID, (), "", b'{"clientId": "$[secret:X]"}'),)), env={}, secrets={}
        ),
    ):
        with pytest.raises(Exception) as caught:  # their texts are what is compared
            fails()
        told.append(str(caught.value))
    page = (ROOT / "docs" / "oauth.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)[1:]
    found = [row for row in rows if any(re.split(r" …|`", row)[0] in text for text in told)]
    assert len(found) == len(told) == len(rows) - 3, set(rows) - set(found)
