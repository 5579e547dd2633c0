"""The page at `/` in a real browser: what a first-time user sees, what a mail may do there, what is pasted."""

from __future__ import annotations

import json
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright

from support.ports import forward_port
from support.running import Running, wait_for

pytestmark = [pytest.mark.scenario, pytest.mark.browser]

EVIL = '"\'><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">{{ 7 * 7 }}'
QUIET = ("--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One `outgate dev` for this module, on a directory whose name needs quoting in every recipe."""
    service = Running(tmp_path_factory.mktemp("dev") / "it's $my data").start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "chromium is missing: run `make packages` as root"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", *QUIET])
        yield opened
        opened.close()


class Visit:
    """A page in the browser, and all it complained about, asked for and was answered."""

    def __init__(self, running: Running, context: BrowserContext) -> None:
        self.url = running.dev["console_url"].rstrip("/")
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.responses: list[Response] = []
        self.asked: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def check(self) -> None:
        """Nothing was complained of, nobody else was asked, every answer had a policy."""
        assert self.complaints == []
        assert [url for url in self.asked if not url.startswith((f"{self.url}/", "data:"))] == []
        assert self.responses
        for response in self.responses:
            if not response.url.startswith("data:"):
                assert "default-src 'none'" in response.headers.get("content-security-policy", ""), response.url


@pytest.fixture
def visit(running: Running, browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield Visit(running, context)
    context.close()


def letter(running: Running, subject: str, to: str = "you@customer.test") -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"Shop <orders@{running.dev['domain']}>"
    message["To"] = to
    message["Subject"] = subject
    message.set_content("Thank you for your order.\n")
    return message


def submit(running: Running, message: EmailMessage) -> None:
    host, port = running.address("submission")
    with smtplib.SMTP(host, port, timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=running.dev["ca_file"]))
        client.login(running.dev["smtp_user"], running.dev["smtp_password"])
        client.send_message(message)


def deliver(running: Running, message: EmailMessage) -> str:
    """Hand a mail to the inbox as any server on the Internet could; return its id."""
    with smtplib.SMTP(*running.address("inbox"), timeout=30) as client:
        client.send_message(message)
    return next(item["id"] for item in reversed(running.inbox()) if item["subject"] == message["Subject"])


def pasted(page: Page, recipe: str) -> dict[str, str]:
    """Return a recipe's texts as a user would copy them, by where they go."""
    details = page.locator(f"details.recipe:has(summary:text-is('{recipe}'))")
    blocks = details.locator(".block")
    return {
        blocks.nth(number).locator(".where").text_content() or "": blocks.nth(number).locator("pre").text_content()
        or ""
        for number in range(blocks.count())
    }


def run(command: list[str], **kwargs: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_visit_says_what_to_do_and_then_shows_it_happen(running: Running, visit: Visit) -> None:
    page, dev = visit.open("/"), running.dev
    expect(page.locator("#inbox")).to_contain_text("Nothing here yet. Send the first mail:")
    expect(page.locator("#sent")).to_contain_text("Nothing sent yet.")
    for key in ("submission", "submissions", "smtp_user", "smtp_password", "smtp_host_name", "ca_file"):
        expect(page.locator("#connect dl").first).to_contain_text(dev[key])
    expect(page.locator(".lead")).to_contain_text(f"anything@{dev['domain']}")
    assert page.locator("#paste summary").all_text_contents() == [
        "Python",
        "swaks",
        "Django",
        "Django, as configured",
        "AEM",
        "SDK",
    ]
    expect(page.locator("#paste pre").first).to_contain_text("smtplib.SMTP(")
    expect(page.locator("#environment")).to_contain_text(f"Environment {dev['environment_id']}")
    expect(page.locator("#environment")).to_contain_text("PUT …/advancedNetworking")
    assert dev["token"] not in page.content()
    weight = sum(len(response.body()) for response in visit.responses if response.status == 200)
    assert weight < 100_000

    page.evaluate("window.notReloaded = true")
    submit(running, letter(running, "Your order 1001"))
    expect(page.locator("#inbox tbody tr")).to_have_count(1)
    row = page.locator("#inbox tbody tr")
    expect(row).to_contain_text("Your order 1001")
    expect(row.locator(".verdict.pass")).to_have_text(["SPF pass", "DKIM pass"])
    expect(page.locator("#sent tbody tr")).to_contain_text("delivered")
    assert page.evaluate("window.notReloaded") is True

    # What has not changed is not sent again: what a user has in focus stays.
    row.locator("a").focus()
    for part in ("inbox", "messages"):
        with page.expect_response(lambda answer, part=part: f"/part/{part}?seen=" in answer.url) as answer:
            pass
        assert answer.value.status == 204
    expect(row.locator("a")).to_be_focused()
    visit.check()


def test_the_environment_shows_what_the_api_sets(running: Running, visit: Visit) -> None:
    page, api = visit.open("/"), running.api
    page.evaluate("window.notReloaded = true")
    api.call(
        "PATCH",
        api.environment("variables"),
        [
            {"name": "GREETING", "value": EVIL, "service": "author"},
            {"name": "HIDDEN", "value": "never on a page", "type": "secretString"},
        ],
    )
    forward = {"name": "smtp.mymail.test", "portDest": 465, "portOrig": 30900}
    api.call("PUT", api.environment("advancedNetworking"), {"portForwards": [forward]})
    section = page.locator("#environment")
    expect(section).to_contain_text("smtp.mymail.test:465")
    expect(section).to_contain_text("127.0.0.1:30900")
    expect(section.locator("tr", has_text="GREETING")).to_contain_text(EVIL)
    expect(section.locator("tr", has_text="GREETING")).to_contain_text("author")
    expect(section.locator("tr", has_text="HIDDEN")).to_contain_text("secret, not shown")
    assert "never on a page" not in page.content()
    assert page.evaluate("[window.pwned, window.notReloaded]") == [None, True]
    visit.check()


def test_a_mails_html_runs_nothing_and_reaches_nobody(running: Running, visit: Visit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as remote:
        remote.setblocking(False)
        url = f"http://127.0.0.1:{remote.getsockname()[1]}"
        message = letter(running, "Newsletter")
        message.add_alternative(
            f"""<html><head><meta http-equiv="refresh" content="0;url={url}/refresh"><base href="{url}/">
            <link rel="preconnect" href="{url}"><link rel="dns-prefetch" href="{url}"><link rel="prefetch" href="{url}/p">
            <link rel="stylesheet" href="{url}/style.css"><style>@import "{url}/i.css"; p {{ background: url({url}/b.png) }}</style>
            </head><body onload="parent.document.title='pwned'"><h1>News</h1><p>of the day</p>
            <script>document.body.textContent = "ran"; fetch("{url}/fetch"); top.location = "{url}/top"</script>
            <img src="{url}/x.png" alt="remote" onerror="document.body.textContent='ran'"><img src="cid:logo" alt="logo">
            <iframe src="{url}/frame"></iframe><object data="{url}/object"></object><video src="{url}/v" autoplay></video>
            <form action="{url}/form"><button id="send">send</button></form><a id="away" href="{url}/away">away</a></body></html>""",
            subtype="html",
        )
        pixel = bytes.fromhex("47494638396101000100800000ff000000000021f90400000000002c00000000010001000002024401003b")
        html = message.get_payload()[1]  # type: ignore[index]
        assert isinstance(html, EmailMessage)
        html.add_related(pixel, "image", "gif", cid="<logo>")
        submit(running, message)

        page = visit.open("/")
        page.locator("#inbox a", has_text="Newsletter").click()
        frame = page.frame_locator("iframe.mail")
        expect(frame.locator("h1")).to_have_text("News")
        expect(frame.locator("body")).not_to_have_text("ran")
        assert frame.locator("img[alt=logo]").evaluate("picture => picture.naturalWidth") == 1
        assert page.locator("iframe.mail").get_attribute("sandbox") == ""
        assert page.title().startswith("Newsletter")
        expect(page.locator("aside h3")).to_have_text(["SPF pass", "DKIM pass"])
        frame.locator("#send").click()
        frame.locator("#away").click(force=True)
        expect(frame.locator("h1")).to_have_text("News")
        page.locator("summary", has_text="Its links (1)").click()
        expect(page.locator("li a")).to_have_attribute("href", f"{url}/away")
        page.wait_for_load_state("networkidle")

        # On a page of its own, too.
        item_id = page.url.rpartition("/")[2]
        page.goto(f"{visit.url}/inbox/{item_id}/html")
        expect(page.locator("h1")).to_have_text("News")
        assert page.title() == ""
        page.wait_for_load_state("networkidle")
        with pytest.raises(BlockingIOError):
            remote.accept()
    # What the browser reports on that page is each thing it kept the mail from doing, and nothing of our own.
    kept_from = ("blocked", "Blocked", "Refused", "Unsafe attempt", "violates", "sandboxed")
    assert visit.complaints
    assert [text for text in visit.complaints if not any(word in text for word in kept_from)] == []
    assert [text for text in visit.complaints if "console" in text] == []


def test_strangers_words_are_shown_as_words(running: Running, visit: Visit) -> None:
    dev, api = running.dev, running.api
    evil = letter(running, EVIL)
    del evil["From"]
    evil["From"] = f'"{EVIL.replace(chr(34), "")}" <orders@{dev["domain"]}>'
    evil.add_attachment(b"x", "application", "pdf", filename=f"{EVIL}.pdf")
    evil["Message-ID"] = f"<{EVIL.split('=')[0].replace(' ', '')}@x>"
    item_id = deliver(running, evil)
    behaviour = [{"recipient": "evil@*", "at": "rcpt", "reply": f"550 5.1.1 {EVIL}"}]
    api.call("PUT", api.sandbox("inbox/behaviour"), behaviour)
    submit(running, letter(running, EVIL, to="evil@customer.test, fine@customer.test"))

    page = visit.open("/")
    expect(page.locator("#inbox")).to_contain_text(EVIL)
    bounced = page.locator("#sent tr", has_text="evil@customer.test")
    expect(bounced).to_contain_text(EVIL)
    expect(bounced).to_contain_text("bounced")
    bounced.locator("a").click()
    expect(page.locator("h1")).to_contain_text(EVIL)
    expect(page.locator("dd", has_text="evil@customer.test")).to_contain_text(EVIL)
    expect(page.locator(".trail li.delivery", has_text="bounced")).to_contain_text(EVIL)
    assert page.evaluate("window.pwned") is None

    visit.open(f"/inbox/{item_id}")
    expect(page.locator("h1")).to_have_text(EVIL)
    expect(page.locator("dl").first).to_contain_text("<script>window.pwned = 1</script>")
    expect(page.locator("li", has_text="application/pdf")).to_contain_text("<script>window.pwned = 1</script>")
    page.locator("summary", has_text="Raw source").click()
    expect(page.locator("pre.source")).to_contain_text("application/pdf")
    assert page.evaluate("window.pwned") is None
    visit.check()


def test_a_trail_is_found_by_queue_id(running: Running, visit: Visit, tmp_path: Path) -> None:
    """The AEM recipe, pasted: PATCH, PUT and a mail through the tunnel; its trail has every hop."""
    page = visit.open("/")
    blocks = pasted(page, "AEM")
    # The one change to what is pasted: another Outgate on this machine may hold the port.
    port = str(forward_port())
    config, calls, send = (text.replace("30465", port) for text in blocks.values())
    name = next(iter(blocks))
    json.loads(config)
    (tmp_path / name).write_text(config)
    run(["bash", "-ec", calls], cwd=tmp_path)
    environment = running.api.environment("").rstrip("/")
    wait_for(lambda: running.api.call("GET", environment)["status"], lambda status: status in ("ready", "failed"))
    assert running.api.call("GET", environment)["status"] == "ready"
    told = run(["bash", "-ec", send], cwd=tmp_path)
    queue_id = told.rpartition("queue id: ")[2].strip()
    running.settled(queue_id)

    page.get_by_label("Queue id").fill(f" {queue_id.lower()} ")
    page.get_by_role("button", name="Show trail").click()
    expect(page.locator("h1")).to_contain_text("Hello")
    hops = page.locator(".trail li b")
    expect(hops.first).to_have_text("forwarder")
    assert {"forwarder", "relay", "delivery"} <= set(hops.all_text_contents())
    expect(page.locator(".trail li.forwarder").first).to_contain_text("PROXY v2 header")
    expect(page.locator(".trail")).to_contain_text("delivered")
    page.get_by_role("link", name="Open in the inbox").click()
    expect(page.locator("aside")).to_contain_text(queue_id)
    page.get_by_role("link", name=queue_id).click()
    expect(page).to_have_url(f"{visit.url}/messages/{queue_id}")
    visit.check()

    page.get_by_label("Queue id").fill("NOSUCHID")
    page.get_by_role("button", name="Show trail").click()
    expect(page.locator("main")).to_contain_text("There is no message NOSUCHID")


def test_what_is_pasted_works(running: Running, visit: Visit, tmp_path: Path) -> None:
    page = visit.open("/")
    before = len(running.inbox())
    (script,) = pasted(page, "Python").values()
    run([sys.executable, "-W", "error", "-c", script])
    (shell,) = pasted(page, "swaks").values()
    assert "queued as" in run(["bash", "-ec", shell], cwd=tmp_path)
    arrived = wait_for(running.inbox, lambda items: len(items) >= before + 2)[before:]
    assert [(item["subject"], item["spf"]["result"], item["dkim"]["result"]) for item in arrived] == [
        ("Hello", "pass", "pass")
    ] * 2
    (script,) = pasted(page, "SDK").values()
    listed = run([sys.executable, "-c", script])
    assert listed.split() == [running.dev["smtp_config_id"], running.dev["domain"]]


def test_copy_takes_the_whole_text(running: Running, browser: Browser) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    visit = Visit(running, context)
    page = visit.open("/")
    page.locator(".block").first.get_by_role("button", name="Copy").click()
    expect(page.locator(".copy").first).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("pre.paste").first.text_content()
    visit.check()
    context.close()


def test_the_page_works_without_javascript(running: Running, browser: Browser) -> None:
    submit(running, letter(running, "No script"))
    wait_for(running.inbox, lambda items: any(item["subject"] == "No script" for item in items))
    context = browser.new_context(java_script_enabled=False, viewport={"width": 420, "height": 800})
    visit = Visit(running, context)
    page = visit.open("/")
    expect(page.locator("noscript p")).to_contain_text("reload the page")
    expect(page.locator("#inbox")).to_contain_text("No script")
    recipe = page.locator("details.recipe", has_text="Standard library")
    other = page.locator("details.recipe:has(summary:text-is('Django'))")
    expect(recipe.locator("pre")).to_be_visible()
    other.locator("summary").click()
    expect(other.locator("pre").first).to_be_visible()
    page.locator("#sent tr", has_text="No script").locator("a").click()
    expect(page.locator(".trail")).to_contain_text("delivered")
    visit.check()
    context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(running: Running, browser: Browser, width: int) -> None:
    submit(running, letter(running, "A long one " * 20, to=f"{'long' * 12}@{'name' * 12}.test"))
    context = browser.new_context(viewport={"width": width, "height": 800})
    visit = Visit(running, context)
    page = visit.open("/")
    expect(page.locator("#sent")).to_contain_text("A long one")
    for path in ("/", page.locator("#sent a").first.get_attribute("href")):
        visit.open(str(path))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # What is cut off does not widen the page: ask the words themselves. Texts to paste scroll.
        beyond = "Array.from(document.querySelectorAll('main *:not(pre)'), e => e.getBoundingClientRect().right)"
        assert max(page.evaluate(beyond)) <= width
    visit.check()
    context.close()


def test_a_server_that_is_gone_is_told(tmp_path: Path, browser: Browser) -> None:
    service = Running(tmp_path / "data").start()
    context = browser.new_context()
    visit = Visit(service, context)
    page = visit.open("/")
    expect(page.locator("#gone")).to_be_hidden()
    assert service.stop() == 0
    expect(page.locator("#gone")).to_be_visible()
    expect(page.locator("#gone")).to_contain_text("does not answer")
    context.close()
