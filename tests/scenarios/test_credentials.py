"""Rule 3 over real sockets: clones, rotation, API keys as passwords, guessing; and what a change does to sessions."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.app import Watch
from outgate.base import ids
from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Checked, SmtpConfiguration, Verification
from outgate.relay import passwords
from outgate.relay.passwords import new_verifier
from outgate.relay.standing import Schedule, after
from outgate.store.identity import ApiKey
from outgate.store.keys import new_dkim_key
from support.relay import Client, TestRelay, letter, relay

pytestmark = pytest.mark.scenario
WITHDRAWN = "421 4.7.0 Access withdrawn, closing"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[TestRelay]:
    async with relay(tmp_path / "data") as made:
        service = made.service
        watch = Watch(made.control, service.changed, service.follow_access, service.follow_logins)
        watch.start()
        yield made
        await watch.stop()


def plain(user: str, password: str, authzid: str = "") -> str:
    return "AUTH PLAIN " + base64.b64encode(f"{authzid}\0{user}\0{password}".encode()).decode()


async def login(running: TestRelay, password: str, user: str | None = None) -> tuple[Client, str]:
    client = await running.client(login=False)
    return client, await client.say(plain(user or running.tenant.smtp_user, password))


async def says(running: TestRelay, password: str, user: str | None = None) -> str:
    client, said = await login(running, password, user)
    client.close()
    return said


async def sent(client: Client, sender: str = "a@example.test") -> str:
    said = await client.envelope(sender)
    return await client.send(letter(sender=sender)) if said.startswith("354 ") else said


def another(running: TestRelay, domain: str, account_id: str | None = None) -> SmtpConfiguration:
    """Return a verified configuration of the tenant's instance, or of a new one of another account."""
    control, instance_id = running.control, running.tenant.instance_id
    if account_id is not None:
        instance_id = control.tenancy.create_instance(account_id, "us-south", domain).id
    made = control.tenancy.create_configuration(
        instance_id, name=domain, domain=domain, description="", key=new_dkim_key(), authorization=Verification.SUCCESSFUL
    )  # fmt: skip
    passed = [Checked(check, Verification.SUCCESSFUL, "pass", "set by a test") for check in ("spf", "dkim")]
    control.verification.record([(made.id, passed)], lambda it, checked, now: after(it, checked, now, Schedule()))
    return made


def new_user(running: TestRelay, password: str) -> str:
    """Give the tenant's configuration another user; return the name."""
    (configuration,) = running.control.tenancy.configurations(running.tenant.instance_id).items
    return running.control.tenancy.create_user(
        configuration.instance_id, configuration.id, description="", verifier=new_verifier(password)
    ).username


def smtp_key(running: TestRelay, **more: Any) -> tuple[ApiKey, str]:
    return running.control.identity.create_api_key(running.tenant.account_id, "mailer", ["smtp"], **more)


async def test_a_clone_sends_for_its_own_configuration_with_the_same_password(running: TestRelay) -> None:
    tenant, tenancy = running.tenant, running.control.tenancy
    client, said = await login(running, tenant.smtp_password)
    assert said.startswith("235 ")
    assert (await client.say("MAIL FROM:<a@blog.test>")).startswith("550 5.7.1")
    blog = another(running, "blog.test")
    user = tenancy.clone_user(tenant.instance_id, blog.id, username=tenant.smtp_user, description="")
    await running.service.changed()
    assert (await sent(client, "a@blog.test")).startswith("250 2.0.0 Ok: queued as ")
    assert (await sent(client)).startswith("250 2.0.0")
    tenancy.delete_user(blog.id, user.id)
    await running.service.changed()
    assert (await client.say("MAIL FROM:<a@blog.test>")).startswith("550 5.7.1")
    assert (await sent(client)).startswith("250 2.0.0")  # the name is still another configuration's user
    client.close()


async def test_both_passwords_pass_while_a_rotation_overlaps(running: TestRelay) -> None:
    tenant, tenancy = running.tenant, running.control.tenancy
    configuration = tenancy.configuration_by_domain(tenant.instance_id, "example.test")
    assert configuration is not None
    (user,) = tenancy.users(configuration.id).items
    client, said = await login(running, tenant.smtp_password)
    assert said.startswith("235 ")
    before, password = tenancy.credential(tenant.smtp_user), ids.password()
    assert before is not None
    verifier = new_verifier(password, like=before[0].verifier)
    tenancy.rotate_user(configuration.id, user.id, verifier=verifier, overlap_s=3600)
    await running.service.changed()
    new, said = await login(running, password)
    assert said.startswith("235 ")
    assert (await says(running, tenant.smtp_password)).startswith("235 ")
    assert (await says(running, "neither")).startswith("535 ")
    assert (await sent(client)).startswith("250 2.0.0")
    running.clock.advance(3601)
    assert await client.say("MAIL FROM:<a@example.test>") == WITHDRAWN
    assert (await sent(new)).startswith("250 2.0.0")
    assert (await says(running, tenant.smtp_password)).startswith("535 ")
    new.close()


async def test_an_api_key_is_a_password_by_either_mechanism(running: TestRelay) -> None:
    tenant = running.tenant
    _, text = smtp_key(running)
    client, said = await login(running, text)
    assert said == "235 2.7.0 Authentication successful"
    assert (await sent(client)).startswith("250 2.0.0")
    client.close()
    client = await running.client(login=False)
    assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
    assert await client.say(base64.b64encode(tenant.smtp_user.encode()).decode()) == "334 UGFzc3dvcmQ6"
    assert (await client.say(base64.b64encode(text.encode()).decode())).startswith("235 ")
    client.close()
    assert (await says(running, tenant.api_key)).startswith("235 ")  # the laptop's key has every role
    stranger = running.control.tenancy.create_account()
    foreign = another(running, "foreign.test", stranger)
    running.control.tenancy.create_user(
        foreign.instance_id, foreign.id, description="", verifier=new_verifier("x"), username="foreignforeignfore01"
    )
    assert (await says(running, text, "foreignforeignfore01")).startswith("535 ")
    assert (await says(running, text, ids.smtp_username())).startswith("535 ")


ENDS: dict[str, Callable[[TestRelay, ApiKey], object]] = {
    "deleted": lambda running, key: running.control.identity.delete_api_key(key.id),
    "without the role": lambda running, key: running.control.identity.replace_api_key(
        replace(key, roles=frozenset({"manager"}))
    ),
    "ended": lambda running, key: running.control.identity.replace_api_key(
        replace(key, expires_at=running.clock.now() - 1)
    ),
    "bound elsewhere": lambda running, key: running.control.identity.replace_api_key(
        replace(key, instances=frozenset({"another"}))
    ),
    "its user deleted": lambda running, key: running.control.tenancy.delete_configuration(
        running.tenant.instance_id,
        running.control.tenancy.configurations(running.tenant.instance_id).items[0].id,
    ),
}


@pytest.mark.parametrize("how", ENDS)
async def test_what_ends_a_key_ends_its_sessions_wherever_they_are(running: TestRelay, how: str) -> None:
    key, text = smtp_key(running)
    idle, _ = await login(running, text)
    writing, said = await login(running, text)
    assert said.startswith("235 ")
    assert (await writing.envelope()).startswith("354 ")
    ENDS[how](running, key)
    for client in (idle, writing):  # nobody says anything: the change is noticed
        assert await client.heard() == WITHDRAWN
        assert await client.heard() == ""
        client.close()
    assert (await says(running, text)).startswith("535 ")


async def test_a_key_that_reaches_its_end_date_ends_at_once_wherever_its_sessions_are(running: TestRelay) -> None:
    _, text = smtp_key(running, expires_at=running.clock.now() + 60, instances=[running.tenant.instance_id])
    client, said = await login(running, text)
    assert said.startswith("235 ")
    idle, _ = await login(running, text)
    running.clock.advance(61)
    assert await client.say("MAIL FROM:<a@example.test>") == WITHDRAWN
    assert await idle.heard() == WITHDRAWN  # it says nothing: the end is noticed
    assert await idle.heard() == ""
    idle.close()
    assert (await says(running, text)).startswith("535 ")


async def test_a_deleted_user_ends_open_sessions_and_others_stay(running: TestRelay) -> None:
    tenant, tenancy = running.tenant, running.control.tenancy
    blog, password = another(running, "blog.test"), ids.password()
    user = tenancy.create_user(tenant.instance_id, blog.id, description="", verifier=new_verifier(password))
    gone, said = await login(running, password, user.username)
    assert said.startswith("235 ")
    stays, _ = await login(running, tenant.smtp_password)
    tenancy.delete_user(blog.id, user.id)
    assert await gone.heard() == WITHDRAWN
    assert (await sent(stays)).startswith("250 2.0.0")
    stays.close()


async def test_sessions_that_log_in_together_hash_once(running: TestRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []
    compute = passwords._compute

    def counted(secret: bytes, like: Any) -> bytes:
        computed.append(secret)
        return compute(secret, like)

    monkeypatch.setattr(passwords, "_compute", counted)
    clients = await asyncio.gather(*(running.client(login=False) for _ in range(12)))
    password = running.tenant.smtp_password
    said = await asyncio.gather(*(client.say(plain(running.tenant.smtp_user, password)) for client in clients))
    assert all(each.startswith("235 ") for each in said)
    assert len(computed) == 1
    for wrong in (ids.smtp_username(), running.tenant.smtp_user):
        assert (await says(running, "wrong", wrong)) == "535 5.7.8 Authentication credentials invalid"
    assert len(computed) == 3
    for client in clients:
        client.close()


async def test_guessing_is_slowed_and_the_owner_gets_in(running: TestRelay) -> None:
    tenant, shared = running.tenant, running.service.relay
    loop, waits = asyncio.get_running_loop(), list[float]()

    def at_once(seconds: float, call: Callable[[], None]) -> object:
        waits.append(seconds)
        return loop.call_soon(call)

    shared.call_later, shared.clock = at_once, FrozenClock(running.clock.now())
    owner, said = await login(running, tenant.smtp_password)
    assert said.startswith("235 ")
    names = [ids.smtp_username() for _ in range(20)]
    for number, name in enumerate(names):
        assert (await says(running, f"guess {number}", name)).startswith("535 "), number
    assert waits == [1.0, 2.0, 4.0] + [8.0] * 12
    stranger = await running.client(login=False)
    for name, code in zip(names, ("454 4.7.0", "454 4.7.0", "421 4.7.0"), strict=False):
        assert (await stranger.say(plain(name, "x"))).startswith(code)
    assert await stranger.heard() == ""
    newcomer = new_user(running, "newcomer")
    waits.clear()
    assert (await says(running, "newcomer", newcomer)).startswith("235 ")
    assert waits == [8.0]
    assert (await says(running, "newcomer", newcomer)).startswith("235 ")
    assert waits == [8.0]
    assert (await says(running, tenant.smtp_password)).startswith("235 ")  # remembered
    running.clock.advance(900)
    for number in range(30):
        shared.guessing.failed("x", "127.0.0.1", str(number).encode(), shared.clock.now())
    assert (await says(running, tenant.smtp_password)).startswith("235 ")  # familiar, and checked anew
    assert (await sent(owner)).startswith("250 2.0.0")
    owner.close()


async def test_whatever_is_no_right_login_reads_alike(running: TestRelay) -> None:
    user = running.tenant.smtp_user
    for name, password, authzid in (
        (user, "wrong", ""),
        (ids.smtp_username(), "wrong", ""),
        (user, "", ""),
        (user, "x" * 8000, ""),
        ("x" * 8000, "x", ""),
        (user, running.tenant.smtp_password, "somebody"),
    ):
        client = await running.client(login=False)
        assert await client.say("AUTH PLAIN") == "334 "
        response = plain(name, password, authzid).removeprefix("AUTH PLAIN ")
        assert await client.say(response) == "535 5.7.8 Authentication credentials invalid"
        client.close()
        running.clock.advance(60)
