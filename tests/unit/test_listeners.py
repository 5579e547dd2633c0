"""The relay at several endpoints: doors on real sockets, where mail leaves from, private addresses, certificates."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from outgate.app import StartFailed
from outgate.model.tenancy import Checked, Verification
from outgate.relay import listeners
from outgate.relay.endpoints import Door, Endpoint
from outgate.relay.listeners import CannotListen, _bound
from outgate.relay.passwords import password_hasher
from outgate.relay.session import SubmissionSession
from outgate.relay.standing import Schedule, after
from outgate.smtp.asyncio.server import listening_socket
from outgate.store.keys import new_dkim_key
from support.receiver import Receiver
from support.relay import Client, TestRelay, letter, relay

VPC = "crn:v1:bluemix:public:is:us-south:a/0::vpc:1"
PRIVATE = "127.20.0.9"
RETRY_S = 60.0


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0)


def endpoint(running: TestRelay, name: str) -> Endpoint:
    (found,) = [each for each in running.service.endpoints.all if each.id == name]
    return found


async def dial(running: TestRelay, address: str, port: int, kind: str, trust: ssl.SSLContext | None = None) -> Client:
    """Connect, with TLS from the start or by STARTTLS; the certificate is the one that `trust` believes."""
    context = trust or running.trust
    tls = {"ssl": context, "server_hostname": "relay.test"} if kind == "submissions" else {}
    client = Client(*await asyncio.open_connection(address, port, **tls))
    client.greeting = await client.heard()
    if kind == "submission":
        await client.say("EHLO client.test")
        assert (await client.say("STARTTLS")).startswith("220 ")
        await client.writer.start_tls(context, server_hostname="relay.test")
    client.writer.write(b"EHLO client.test\r\n")
    client.name = (await client.reader.readline()).decode()[4:].strip()
    await client.heard()
    return client


async def login(client: Client, user: str, password: str) -> str:
    return await client.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())


def tenant_in(running: TestRelay, region: str, domain: str) -> tuple[str, str]:
    """Make an instance of a region with a verified domain, a user and a rule; return name and password."""
    control, account = running.control, running.tenant.account_id
    instance = control.tenancy.create_instance(account, region, region)
    done = Verification.SUCCESSFUL
    made = control.tenancy.create_configuration(
        instance.id, name=domain, domain=domain, description="", key=new_dkim_key(), authorization=done
    )
    password = base64.b64encode(domain.encode()).decode()
    user = control.tenancy.create_user(
        instance.id, made.id, description="", verifier=password_hasher().hash(password)
    ).username
    passed = [Checked(check, done, "pass", "set by a test") for check in ("spf", "dkim")]
    control.verification.record([(made.id, passed)], lambda it, checked, now: after(it, checked, now, Schedule()))
    zone = control.access.zones(account)[0]
    document: dict[str, Any] = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone.id}]}],
        "resources": [
            {
                "attributes": [
                    {"name": "accountId", "value": account},
                    {"name": "serviceName", "value": "event-notifications"},
                    {"name": "serviceInstance", "value": instance.id},
                ]
            }
        ],
    }
    control.access.create_rule(account, description="", document=document, enforcement="enabled", by="test")
    return user, password


# -- doors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_mail_is_taken_over_both_families_on_both_ports(tmp_path: Path, kind: str, address: str) -> None:
    receiver = Receiver()
    async with relay(tmp_path / "data", deliver_to=receiver.start()) as running:
        home = endpoint(running, "us-south")
        port = running.service.listen(address, 0, Door(kind, "public", home))
        client = await dial(running, address, port, kind)
        assert client.greeting == "220 smtp.outgate.test ESMTP Outgate"
        assert client.name == "smtp.outgate.test"
        assert (await login(client, running.tenant.smtp_user, running.tenant.smtp_password)).startswith("235 ")
        await client.envelope()
        queue_id = (await client.send(letter())).rpartition(" ")[2]
        await until(lambda: bool(receiver.seen))
        message = running.service.store.message(queue_id)
        assert message is not None and message.client_address == address
        client.close()
    await receiver.stop()


async def test_one_port_at_every_address_of_every_endpoint(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        service = running.service
        port = service.listen_everywhere("submissions", 0)
        for address, name in (
            ("127.0.0.1", "smtp.outgate.test"),
            ("::1", "smtp.outgate.test"),
            ("127.0.0.5", "smtp.eu-de.outgate.test"),
        ):
            client = await dial(running, address, port, "submissions")
            assert client.name == name
            client.close()
        assert {f"127.0.0.1:{port}", f"127.0.0.5:{port}", f"[::1]:{port}"} <= service.listeners.targets
        assert service.listeners.addresses == {"127.0.0.1", "127.0.0.5", "::1"}
        first, second = service.listeners.open_endpoints()
        assert (first.endpoint.id, first.addresses) == ("us-south", ("127.0.0.1", "::1"))
        assert (second.submissions, second.addresses) == (port, ("127.0.0.5",))
        assert second.submission == first.submission == running.submission  # no listener of its own: the others' port
        with pytest.raises(StartFailed, match=rf"127\.0\.0\.1:{port} .*--submission-port"):
            service.listen_everywhere("submission", port)
        with pytest.raises(StartFailed, match="in use"):
            service.listen("127.0.0.5", port, Door("submission", "public", second.endpoint))


def test_a_port_that_is_taken_at_one_address_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.5", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            _bound(["127.0.0.1", "127.0.0.5"], port)
        assert (caught.value.address, caught.value.port) == ("127.0.0.5", port)
        chances = [port]  # what the system gives first is free at the first address only

        def given(address: str, wanted: int) -> socket.socket:
            return listening_socket(address, wanted or (chances.pop() if chances else 0))

        monkeypatch.setattr(listeners, "listening_socket", given)
        free = _bound(["127.0.0.1", "192.0.2.1", "127.0.0.5"], 0)  # this machine has no 192.0.2.1
        assert not chances
        assert list(free) == ["127.0.0.1", "127.0.0.5"]
        assert len({sock.getsockname()[1] for sock in free.values()} | {port}) == 2
        for sock in free.values():
            sock.close()
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        _bound(["192.0.2.1"], 0)


# -- where mail leaves from -------------------------------------------------------------------------------------


async def send_from(running: TestRelay, door: Door, port: int, user: tuple[str, str], number: int, domain: str) -> None:
    client = await dial(running, door.of.listen[0], port, door.listener)
    assert (await login(client, *user)).startswith("235 ")
    await client.envelope(f"a@{domain}")
    assert (await client.send(letter(number, f"a@{domain}"))).startswith("250 ")
    client.close()


async def test_mail_leaves_from_the_endpoint_of_its_instance_also_after_a_restart(tmp_path: Path) -> None:
    receiver, data = Receiver(), tmp_path / "data"
    dallas, frankfurt = ("127.0.0.1", "out.outgate.test"), ("127.0.0.5", "out.eu-de.outgate.test")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
        async with relay(data, deliver_to=nowhere, retry_first_s=RETRY_S) as running:
            abroad = tenant_in(running, "eu-es", "fra.test")
            await running.service.changed()
            here = Door("submissions", "public", endpoint(running, "us-south"))
            there = Door("submissions", "public", endpoint(running, "eu-de"))
            ports = [running.submissions, running.service.listen("127.0.0.5", 0, there)]
            home = (running.tenant.smtp_user, running.tenant.smtp_password)
            await send_from(running, here, ports[0], home, 1, "example.test")
            await send_from(running, there, ports[1], abroad, 2, "fra.test")
            # In Dallas nobody takes Frankfurt's mail, nor the other way round.
            for door, port, user in ((here, ports[0], abroad), (there, ports[1], home)):
                client = await dial(running, door.of.listen[0], port, "submissions")
                assert await login(client, *user) == "550 5.7.1 Not authorised"
                client.close()
            await until(lambda: not running.service.queue.undone)
    async with relay(data, deliver_to=receiver.start(), retry_first_s=RETRY_S) as running:
        running.clock.advance(2 * RETRY_S)
        await running.service.queue.poke()
        await until(lambda: len(receiver.origins) == 2)
        there = Door("submissions", "public", endpoint(running, "eu-de"))
        port = running.service.listen("127.0.0.5", 0, there)
        # While connections of both are kept open, each message still takes its own endpoint's.
        for number in (3, 5):
            await send_from(running, here, running.submissions, home, number, "example.test")
            await send_from(running, there, port, abroad, number + 1, "fra.test")
        await until(lambda: len(receiver.origins) == 6)
        assert {name: at for name, at in receiver.origins.items() if int(name[1]) % 2} == {
            f"<{number}@example.test>": dallas for number in (1, 3, 5)
        }
        assert {at for name, at in receiver.origins.items() if not int(name[1]) % 2} == {frankfurt}
        assert {key[0] for key in running.service.outbound.delivery._sites} == {"us-south", "eu-de"}
    await receiver.stop()


async def test_the_endpoint_of_an_instance_is_asked_once_and_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay(tmp_path / "data") as running:
        service, known = running.service, running.tenant.instance_id
        with pytest.raises(LookupError, match="no instance"):
            service.endpoint_of("of nobody")
        assert service.endpoint_of(known).id == "us-south"
        monkeypatch.setattr(running.control.tenancy, "instance", lambda _: pytest.fail("asked again"))
        assert service.endpoint_of(known).id == "us-south"


# -- private addresses ------------------------------------------------------------------------------------------


async def test_a_private_address_is_opened_and_closed(tmp_path: Path) -> None:
    receiver = Receiver()
    async with relay(tmp_path / "data", deliver_to=receiver.start()) as running:
        service, user = running.service, (running.tenant.smtp_user, running.tenant.smtp_password)
        service.open_private(PRIVATE, vpc=VPC, region="jp-tok")
        assert f"{PRIVATE}:{running.submission}" in service.listeners.targets
        with pytest.raises(OSError, match="in use"):
            service.open_private(PRIVATE, vpc="another", region="us-south")
        working = await dial(running, PRIVATE, running.submissions, "submissions")
        idle = await dial(running, PRIVATE, running.submission, "submission")
        elsewhere = await dial(running, "127.0.0.1", running.submissions, "submissions")
        assert working.name == idle.name == "private.smtp.outgate.test"
        assert (await login(working, *user)).startswith("235 ")
        assert (await working.envelope()).startswith("354 ")
        sessions = [each.session for each in service.listeners.connections]
        clients = [session.client for session in sessions if isinstance(session, SubmissionSession)]
        assert sorted((each.endpoint, each.vpc) for each in clients) == [
            ("private", VPC),
            ("private", VPC),
            ("public", ""),
        ]

        await service.close_private(PRIVATE)
        assert await idle.heard() == "421 4.3.2 Service closing, please try again"
        with pytest.raises(ConnectionRefusedError):
            await dial(running, PRIVATE, running.submission, "submission")
        assert (
            service.listeners.addresses == {"127.0.0.1"}
            and f"{PRIVATE}:{running.submission}" not in service.listeners.targets
        )
        # What is under way is finished, and then its session ends.
        assert (await working.send(letter(1))).startswith("250 ")
        assert await working.heard() == "421 4.3.2 Service closing, please try again"
        assert await working.reader.read() == b""
        await until(lambda: bool(receiver.seen))
        assert (await elsewhere.say("NOOP")).startswith("250 ")

        service.open_private(PRIVATE, vpc=VPC, region="us-south")  # it can be opened again at once
        again = await dial(running, PRIVATE, running.submissions, "submissions")
        assert (await login(again, *user)).startswith("235 ")
        await service.close_private("127.20.0.77")  # nobody's: nothing happens
        for client in (working, idle, elsewhere, again):
            client.close()
    await receiver.stop()


async def test_whoever_is_not_done_in_time_has_to_go_too(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        service = running.service
        service.open_private(PRIVATE, vpc=VPC, region="us-south")
        working = await dial(running, PRIVATE, running.submissions, "submissions")
        await login(working, running.tenant.smtp_user, running.tenant.smtp_password)
        await working.envelope()
        await service.listeners.close_private(PRIVATE, drain_s=0.0)
        assert await working.heard() == "421 4.3.2 Service closing, please try again"
        assert await working.reader.read() == b""
        working.close()


async def test_a_withdrawn_permission_ends_sessions_at_an_address_that_closes(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        service = running.service
        service.open_private(PRIVATE, vpc=VPC, region="us-south")
        working = await dial(running, PRIVATE, running.submissions, "submissions")
        await login(working, running.tenant.smtp_user, running.tenant.smtp_password)
        await working.envelope()
        await service.close_private(PRIVATE)
        service.open_private("127.20.0.9", vpc=VPC, region="us-south")  # listeners that nobody is at are forgotten then
        account = running.tenant.account_id
        for rule in running.control.access.rules(account):
            running.control.access.delete_rule(account, rule.id)
        await service.changed()
        assert (await working.heard()).startswith("421 4.7.0 ")
        working.close()


async def test_a_private_address_that_cannot_be_bound_leaves_nothing_open(tmp_path: Path) -> None:
    async with relay(tmp_path / "data") as running:
        service = running.service
        with pytest.raises(OSError, match="assign"):
            service.open_private("192.0.2.1", vpc=VPC, region="us-south")
        with socket.socket() as taken:
            taken.bind((PRIVATE, running.submissions))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                service.open_private(PRIVATE, vpc=VPC, region="us-south")
        assert service.listeners.addresses == {"127.0.0.1"}
        service.open_private(PRIVATE, vpc=VPC, region="us-south")


# -- certificates -----------------------------------------------------------------------------------------------


async def test_a_certificate_is_replaced_under_a_running_relay(tmp_path: Path) -> None:
    authorities = [trustme.CA() for _ in range(2)]
    trusts = [ssl.create_default_context() for _ in authorities]
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"

    def put(number: int) -> None:
        leaf = authorities[number].issue_cert("relay.test", "private.relay.test")
        authorities[number].configure_trust(trusts[number])
        for file, data in ((key, leaf.private_key_pem.bytes()), (chain, leaf.cert_chain_pems[0].bytes())):
            new = file.with_suffix(".new")
            new.write_bytes(data)
            new.chmod(0o600)
            new.replace(file)

    put(0)
    own = {
        "public_name": "relay.test",
        "listen": ["127.0.0.1"],
        "outgoing_addresses": ["127.0.0.1"],
        "certificate_file": str(chain),
        "key_file": str(key),
    }
    receiver = Receiver()
    async with relay(tmp_path / "data", endpoints={"one": own}, deliver_to=receiver.start()) as running:
        user = (running.tenant.smtp_user, running.tenant.smtp_password)
        running.service.open_private(PRIVATE, vpc=VPC, region="us-south")
        before = await dial(running, "127.0.0.1", running.submissions, "submissions", trusts[0])
        put(1)
        running.service.certificates.poke()

        async def believed() -> bool:
            try:
                client = await dial(running, "127.0.0.1", running.submissions, "submissions", trusts[1])
            except ssl.SSLCertVerificationError:
                return False
            client.close()
            return True

        while not await believed():
            await asyncio.sleep(0)
        for address, kind, port in (
            ("127.0.0.1", "submission", running.submission),
            (PRIVATE, "submission", running.submission),
            (PRIVATE, "submissions", running.submissions),
        ):
            client = await dial(running, address, port, kind, trusts[1])
            assert client.name == ("private.relay.test" if address == PRIVATE else "relay.test")
            client.close()
        assert (await login(before, *user)).startswith("235 ")  # a session of before goes on
        await before.envelope()
        assert (await before.send(letter(1))).startswith("250 ")
        before.close()
    await receiver.stop()


async def test_at_each_endpoint_the_others_names_are_certified(tmp_path: Path) -> None:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    endpoints: dict[str, Any] = {}
    for name, address in (("one", "127.0.0.1"), ("two", "127.0.0.5")):
        leaf = authority.issue_cert(f"{name}.test")
        leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
        endpoints[name] = {
            "public_name": f"{name}.test",
            "listen": [address],
            "outgoing_addresses": [address],
            "certificate_file": str(tmp_path / f"{name}.pem"),
            "key_file": str(tmp_path / f"{name}.pem"),
        }
    async with relay(tmp_path / "data", endpoints=endpoints) as running:
        for name in ("one.test", "two.test"):
            _, writer = await asyncio.open_connection("127.0.0.1", running.submissions, ssl=trust, server_hostname=name)
            writer.close()


async def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    own = {
        "public_name": "relay.test",
        "listen": ["127.0.0.1"],
        "outgoing_addresses": ["127.0.0.1"],
        "certificate_file": str(tmp_path / "chain.pem"),
        "key_file": str(tmp_path / "key.pem"),
    }
    with pytest.raises(StartFailed, match=r"relay\.endpoints\.one: .*chain\.pem cannot be read: No such file"):
        async with relay(tmp_path / "data", endpoints={"one": own}):
            pass
