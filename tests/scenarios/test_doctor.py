"""The doctor's report for every trap and every hop's failures: the real command, a real tunnel, real servers.

The reports are texts in tests/corpora/doctor; OUTGATE_GOLDEN=write writes them anew, to be read before they are kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outgate.doctor.report import Hop
from support.clinic import FIRST, HOST, LIMIT, OAUTH_PID, PID, SECOND, Clinic, clinic
from support.extras import with_only
from support.ports import closed_port
from support.running import wait_for

pytestmark = pytest.mark.scenario
CORPUS = Path(__file__).parents[1] / "corpora" / "doctor"
Outcome = tuple[int, str]
CASES: dict[str, Callable[[Clinic], Outcome]] = {}

TRAPS = {
    "smtp.user read from env but stored as secret": "trap-user-stored-as-secret",
    "smtp.port set to the real port instead of portOrig": "trap-real-port",
    "ssl against the destination's port": "trap-ssl-to-starttls",
    "starttls against the destination's port": "trap-starttls-to-ssl",
    "AEM_PROXY_HOST set by hand": "trap-proxy-host-by-hand",
    "a plain-text password in the file": "trap-password-in-clear",
    "a placeholder left literal": "trap-placeholder-literal",
    "a forward missing after a PUT that replaced all": "trap-forward-replaced",
    "two run-mode folders that tie": "trap-folders-tie",
    "a typed key holding a placeholder": "trap-typed-placeholder",
    "the vendor's own invalid OAuth samples": "trap-oauth-sample",
}
"""The traps of the issue, in its words."""


def case(function: Callable[[Clinic], Outcome]) -> Callable[[Clinic], Outcome]:
    CASES[function.__name__.replace("_", "-")] = function
    return function


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with clinic(tmp_path_factory.mktemp("clinic")) as found:
        yield found


# -- the good way ----------------------------------------------------------------------------------------------


@case
def good(it: Clinic) -> Outcome:
    it.configure()
    return it.doctor(*it.trust_relay, "--send-to", "guest@customer.test")


@case
def good_by_starttls(it: Clinic) -> Outcome:
    it.configure(".prod", smtp_port=str(SECOND), smtp_ssl=False, smtp_starttls=True, smtp_requiretls=True)
    return it.doctor(*it.trust_relay, "--service", "publish")


@case
def good_elsewhere(it: Clinic) -> Outcome:
    it.configure(smtp_port=str(it.ports["foreign"]))
    return it.doctor(*it.trust, "--send-to", "guest@customer.test")


# -- the traps -------------------------------------------------------------------------------------------------


@case
def trap_real_port(it: Clinic) -> Outcome:
    it.configure(smtp_port=str(it.running.address("submissions")[1]))
    return it.doctor(*it.trust_relay)


@case
def trap_proxy_host_by_hand(it: Clinic) -> Outcome:
    it.configure()
    given = it.given() | {"AEM_PROXY_HOST": "mail.shop.test"}
    return it.doctor(*it.trust_relay, env=given)


@case
def trap_password_in_clear(it: Clinic) -> Outcome:
    it.configure(smtp_password="correct-horse-battery")
    code, text = it.doctor(*it.trust_relay)
    assert "correct-horse" not in text
    return code, text


@case
def trap_forward_replaced(it: Clinic) -> Outcome:
    place = it.another("replaced")
    port, other = it.running.address("submissions")[1], it.running.address("submission")[1]
    place.forwards((30465, HOST, port))
    it.configure()
    assert it.doctor(*it.trust_relay, *place.arguments)[0] == 0
    place.forwards((30587, HOST, other))
    return it.doctor(*it.trust_relay, *place.arguments)


@case
def trap_folders_tie(it: Clinic) -> Outcome:
    it.configure(".author")
    it.add(".prod")
    return it.doctor(*it.trust_relay)


@case
def trap_oauth_sample(it: Clinic) -> Outcome:
    it.configure(oauth_flow=True, smtp_password=None)
    sample = """{
    authUrl: "https://login.microsoftonline.com/<tenant>/oauth2/v2.0/authorize",
    tokenUrl: "https://login.microsoftonline.com/<tenant>/oauth2/v2.0/token",
    clientId: "<clientID>",
    clientSecret: "$[secret:SECRET_SMTP_OAUTH_CLIENT_SECRET]",
    scopes: [
        "https://outlook.office.com/SMTP.Send"
    ]
    refreshToken: "$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]"
}
"""
    it.add(pid=OAUTH_PID, text=sample)
    return it.doctor(*it.trust_relay)


# -- hop by hop ------------------------------------------------------------------------------------------------


@case
def file_none(it: Clinic) -> Outcome:
    it.configure(pid="org.example.Other")
    outcome = it.doctor(*it.trust_relay)
    # What it prints is run as it stands there, and the file is there.
    command = outcome[1].partition("\n\n    ")[2]
    subprocess.run(["sh", "-c", command], cwd=it.directory, check=True)
    assert it.doctor(*it.trust_relay)[0] not in range(10, 14)
    return outcome


@case
def variables_process(it: Clinic) -> Outcome:
    it.configure()
    return it.doctor(env={"AEM_PROXY_HOST": "127.0.0.1"})


@case
def forward_off(it: Clinic) -> Outcome:
    it.configure()
    return it.doctor(*it.trust_relay, *it.another("off").arguments)


@case
def forward_unknown_here(it: Clinic) -> Outcome:
    it.configure(smtp_port=str(it.ports["foreign"]), smtp_user="me", smtp_password="$[secret:PW_FILE]")
    secrets = it.directory / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "PW_FILE").write_text("hushhush\n")
    tunnel = it.running.dev["tunnel_address"]
    server = it.scripts["foreign"]
    server.seen.clear()
    outcome = it.doctor(
        *it.trust, "--send-to", "guest@customer.test", env={"AEM_PROXY_HOST": tunnel, "OUTGATE_SECRETS": str(secrets)}
    )
    assert [line[:4] for line in server.seen] == [b"EHLO", b"QUIT"]
    return outcome


@case
def tunnel_client_network(it: Clinic) -> Outcome:
    place = it.another("elsewhere")
    place.forwards((30465, HOST, it.running.address("submissions")[1]))
    url = it.running.api.operations(f"egress/environments/{place.id}")
    it.running.api.call("PATCH", url, {"clientNetworks": ["10.8.1.0/24"]})
    place.settled()
    it.configure()
    return it.doctor(*it.trust_relay, *place.arguments)


@case
def tunnel_full(it: Clinic) -> Outcome:
    place = it.another("full")
    silent = next(each["portDest"] for each in it.forwards() if each["portOrig"] == it.ports["silent"])
    place.forwards((FIRST, HOST, silent))
    it.configure()
    tunnel = place.tunnel()
    with ExitStack() as stack:
        for _ in range(LIMIT):
            stack.enter_context(socket.create_connection((tunnel, FIRST)))
        wait_for(lambda: it.open_in(place), lambda found: found == LIMIT)
        return it.doctor(*it.trust_relay, *place.arguments)


@case
def tunnel_refused(it: Clinic) -> Outcome:
    it.configure(smtp_port=str(closed_port()), smtp_user=None, smtp_password=None)
    port = json.loads((it.directory / "osgiconfig/config" / f"{PID}.cfg.json").read_text())["smtp.port"]
    forwards = it.directory / "forwards.json"
    rule = {"portOrig": int(port), "name": HOST, "portDest": 465}
    forwards.write_text(json.dumps({"tunnelAddress": "127.0.0.1", "portForwards": [rule]}))
    return it.doctor(env={"AEM_PROXY_HOST": "127.0.0.1", "OUTGATE_FORWARDS": str(forwards)})


@case
def tunnel_no_name(it: Clinic) -> Outcome:
    it.configure(smtp_user=None, smtp_password=None)
    forwards = it.directory / "forwards.json"
    forwards.write_text(json.dumps([{"portOrig": 30465, "name": HOST, "portDest": 465}]))
    return it.doctor(env={"OUTGATE_FORWARDS": str(forwards)})


def looked(*modes: str, pid: str = PID, text: str = "", **changes: object) -> Callable[[Clinic], Outcome]:
    """Return a case: the relay, by a configuration with some changes."""

    def run(it: Clinic) -> Outcome:
        it.configure(*modes, pid=pid, text=text, **changes)
        return it.doctor(*it.trust_relay)

    return run


CASES |= {
    "trap-user-stored-as-secret": looked(smtp_user="$[env:STORED_AS_SECRET;default=myApiKey]"),
    "trap-placeholder-literal": looked(smtp_password="$[secret:EMAIL_PASWORD]"),
    "trap-ssl-to-starttls": looked(smtp_port=str(SECOND)),
    "trap-starttls-to-ssl": looked(smtp_ssl=False, smtp_starttls=True),
    "trap-typed-placeholder": looked(text='{\n  "smtp.host": "x",\n  "smtp.port:Integer": "$[env:MAIL_PORT]"\n}\n'),
    "file-of-other-run-modes": looked(".publish.stage"),
    "auth-refused": looked(smtp_password="$[secret:WRONG_PASSWORD]"),
    "file-wrong-pid": looked(pid="com.day.cq.mailer.impl.DefaultMailService"),
    "file-unreadable": looked(text="{\n  \"smtp.host\": 'proxy.tunnel'\n}\n"),
    "placeholders-conversion": looked(smtp_port="$[env:NO_NUMBER;type=Integer]"),
    "placeholders-misspelt": looked(smtp_user="${env:EMAIL_USERNAME}"),
    "variables-secret-in-clear": looked(smtp_password="$[secret:STORED_IN_CLEAR]"),
    "variables-missing": looked(smtp_password="$[secret:NOT_SET_ANYWHERE]"),
    "variables-other-service": looked(smtp_user="$[env:OF_PUBLISH]"),
    "auth-trimmed": looked(smtp_password="$[secret:WITH_SPACES]"),
    "sender-unknown": looked(from_address="noreply@elsewhere.example"),
}


def through(name: str, *, implicit: bool = True, timeout: str = "2", **changes: object) -> Callable[[Clinic], Outcome]:
    """Return a case: the server of a name, behind the tunnel."""

    def run(it: Clinic) -> Outcome:
        flags: dict[str, object] = {} if implicit else {"smtp_ssl": False, "smtp_starttls": True}
        it.configure(smtp_port=str(it.ports[name]), **flags, **changes)
        return it.doctor(*it.trust, "--send-to", "guest@customer.test", timeout=timeout)

    return run


CASES |= {
    "target-dns": through("no name"),
    "target-guarded": through("guarded"),
    "tcp-refused": through("refused"),
    "tls-wrong-name": through("wrong name"),
    "tls-expired": through("expired"),
    "tls-not-yet-valid": through("early"),
    "tls-self-signed": through("self-signed"),
    "tls-unknown-authority": through("unknown authority"),
    "tls-too-old": through("too old"),
    "tls-none-there": through("clear"),
    "tls-starttls-not-offered": through("clear", implicit=False),
    "tls-starttls-refused": through("refuses starttls", implicit=False, smtp_requiretls=True),
    "ehlo-not-smtp": through("http", implicit=False),
    "ehlo-silent": through("silent", implicit=False, timeout="0.5"),
    "ehlo-busy": through("busy", implicit=False),
    "ehlo-stranger": through("stranger", implicit=False),
    "ehlo-no-login": through("no login"),
    "auth-swapped": through("refuses login", smtp_user="$[env:EMAIL_USERNAME]", smtp_password="$[secret:SWAPPED]"),
    "auth-default-user": through("refuses login", smtp_user="$[env:NOBODY_SET_IT;default=myApiKey]"),
    "auth-misspelt-user": through("refuses login", smtp_user="$[env:EMAIL_USERNAM;default=myApiKey]"),
    "sender-refused": through("refuses sender"),
    "sender-no-answer": through("forgets the sender", timeout="0.5"),
    "sender-without-domain": through("foreign", from_address="noreply@gone.test"),
    "sender-spf-twice": through("foreign starttls", implicit=False, from_address="noreply@twice.test"),
    "delivery-refused": through("refuses mail"),
}


@case
def tls_sandbox_authority(it: Clinic) -> Outcome:
    it.configure()
    return it.doctor()


@case
def sender_unverified(it: Clinic) -> Outcome:
    api = it.running.api
    api.call("POST", api.configurations(), {"name": "New", "domain": "new.example"})
    it.configure(from_address="noreply@new.example")
    return it.doctor(*it.trust_relay)


def _sent_to(it: Clinic, name: str, reply: str) -> Outcome:
    """Send to somebody about whom the next server says this."""
    api = it.running.api
    api.call("PUT", api.sandbox("inbox/behaviour"), [{"recipient": f"{name}@*", "at": "rcpt", "reply": reply}])
    it.configure()
    return it.doctor(*it.trust_relay, "--send-to", f"{name}@customer.test")


@case
def delivery_bounced(it: Clinic) -> Outcome:
    return _sent_to(it, "gone", "550 5.1.1 nobody of that name")


@case
def delivery_deferred(it: Clinic) -> Outcome:
    return _sent_to(it, "busy", "451 4.7.1 try again in five minutes")


@case
def delivery_suppressed(it: Clinic) -> Outcome:
    api = it.running.api
    api.call("POST", api.suppressions(), {"suppressions": [{"address": "never@customer.test"}]})
    it.configure()
    return it.doctor(*it.trust_relay, "--send-to", "never@customer.test")


@pytest.mark.parametrize("name", list(CASES))
def test_the_report_is_the_one_that_is_kept(made: Clinic, name: str) -> None:
    code, text = CASES[name](made)
    dev = made.running.dev
    for secret in (dev["smtp_password"], dev["token"], "not the password", "hushhush"):
        assert secret not in text
    # What is to be copied is never broken.
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("    "))
    found = f"{made.normal(text)}exit code {code}\n"
    file = CORPUS / f"{name}.txt"
    if os.environ.get("OUTGATE_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, "utf-8")
    assert found == file.read_text("utf-8")


def test_each_trap_of_the_issue_has_its_report() -> None:
    for trap, name in TRAPS.items():
        text = (CORPUS / f"{name}.txt").read_text("utf-8")
        assert name in CASES and " is broken [" in text, trap
        assert "exit code 0" not in text
    kept = {file.stem for file in CORPUS.glob("*.txt")}
    assert kept == set(CASES)


def test_the_good_way_is_whole() -> None:
    lines = (CORPUS / "good.txt").read_text("utf-8").splitlines()
    hops = [line for line in lines if line.startswith("  ok ")]
    assert [line[10:23].strip() for line in hops] == [hop.value for hop in Hop]
    assert "delivered to guest@customer.test" in hops[-1]
    assert lines[-2:] == ["The way is whole.", "exit code 0"]


def test_its_extra_alone_is_enough(made: Clinic, tmp_path: Path) -> None:
    python = str(with_only("doctor", tmp_path / "venv"))
    made.configure()
    walk = ["doctor", "--timeout", "5", *made.trust_relay, "--send-to", "guest@customer.test"]
    lint = ["doctor", "--lint", "osgiconfig", "--format", "sarif"]
    script = f"""
import importlib.util
from outgate.cli import cli
print([importlib.util.find_spec(name) is None for name in ("fastapi", "sqlalchemy", "cryptography")])
for arguments in ({walk}, {lint}):
    print("exit code", cli(arguments, standalone_mode=False))
"""
    code, text = made.apart(python, "-c", script)
    assert code == 0 and text.startswith("[True, True, True]\n"), text
    walked, linted = text.removeprefix("[True, True, True]\n").split("exit code 0\n")[:2]
    assert "The way is whole." in walked and json.loads(linted)["version"] == "2.1.0"


def test_the_command_is_used_rightly_or_says_how(made: Clinic) -> None:
    made.configure()
    for arguments in (
        ("--ca-file", "nothing-there"),
        ("--service", "preview2"),
        ("--lint", "osgiconfig", "--send-to", "x@y.test"),
        ("--format", "sarif"),
        ("--config", ""),
        ("osgiconfig",),
        ("--lint", "nothing-there"),
        ("--send-to", "x@"),
        ("--send-to", "ann"),
        ("--send-to", "a@customer.test, b@customer.test"),
        ("--send-to", "a@customer.test\r\nBcc: b@customer.test"),
    ):
        code, text = made.doctor(*arguments)
        assert code == 2 and text.count("\n") == 1, (arguments, text)
    assert made.doctor("--program", "1", "--environment", "2")[0] == 3
    code, text = made.doctor(*made.trust_relay, "--json")
    assert code == 0 and [hop["hop"] for hop in json.loads(text)["hops"]] == [hop.value for hop in Hop]
    # What is to be run is run as it stands there, and asks the Outgate that was asked, whatever else is set.
    made.configure(smtp_user="$[env:WHO_IT_IS]")
    elsewhere = {"OUTGATE_DATA": str(made.directory / "nowhere"), "AIO_CLOUDMANAGER_BASE__URL": "https://localhost:1"}
    again = (*made.trust_relay, "--data", str(made.running.data))
    code, text = made.doctor(*again, env=elsewhere)
    command = f'outgate() {{ {sys.executable} -m outgate.cli "$@"; }}\n' + text.rpartition("\n\n    ")[2]
    subprocess.run(["sh", "-c", command], input="me@shop.test\n", text=True, check=True, env=os.environ | elsewhere)
    assert (code, made.doctor(*again, env=elsewhere)[0]) == (12, 19), text


def test_an_interruption_ends_it_without_a_trace(made: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    made.configure(smtp_port=str(made.ports["silent"]), smtp_ssl=False)
    outgate = [sys.executable, "-m", "outgate.cli", "doctor", "--timeout", "60"]
    env = {**os.environ, "OUTGATE_DATA": str(made.running.data)}
    before = len(connections(made))
    process = subprocess.Popen(
        outgate, cwd=made.directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(connections(made)), lambda found: found > before)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "outgate: interrupted\n")


def connections(made: Clinic) -> list[object]:
    """Return the decisions of the egress about the silent server's forward."""
    url = made.running.api.operations("egress/audit?limit=500")
    port = made.ports["silent"]
    lines = made.running.api.call("GET", url)["lines"]
    return [line for line in lines if line["event"] == "decision" and line.get("forward", {}).get("portOrig") == port]


def test_where_nothing_is_named_the_process_counts_or_it_says_why_not(made: Clinic, tmp_path: Path) -> None:
    made.configure(smtp_host="localhost", smtp_port=str(made.closed), smtp_user=None, smtp_password=None)
    # No Outgate has ever run here.
    code, text = made.doctor(env={"OUTGATE_DATA": str(tmp_path)})
    assert (code, text.splitlines()[0]) == (16, "this process's own environment, service author")
    # One has, and does not run any more.
    dev = made.running.dev | {"cloud_manager_url": f"http://127.0.0.1:{closed_port()}/cloud-manager"}
    (tmp_path / "dev.json").write_text(json.dumps(dev))
    code, text = made.doctor(env={"OUTGATE_DATA": str(tmp_path)})
    assert code == 16 and "does not answer" in text.splitlines()[0]
    assert made.doctor("--data", str(tmp_path))[0] == 3
    # Settings that cannot be used are no reason to look elsewhere.
    code, text = made.doctor(env={"OUTGATE_DATA": str(tmp_path), "AIO_CLOUDMANAGER_BASE__URL": "https://a.example"})
    assert code == 3 and "AIO_" in text
