"""After a whole story the data directory holds no secret in clear, in whatever spelling, in no file of any kind."""

from __future__ import annotations

import asyncio
import base64
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from outgate.model.egress import Mode
from outgate.sandbox.tenant import make_egress_side
from outgate.store.control import ControlStore
from outgate.store.egress import VariableChange
from outgate.store.infrastructures import Wanted
from support.receiver import Receiver
from support.relay import TestRelay, letter, relay

DOCUMENTED = {"tenant.json", "master.key"}
"""The laptop mode's own note of its tenant, and the key that seals all others: 0600, docs/laptop-mode.md."""


def spellings(secret: bytes) -> set[bytes]:
    """Return a secret as it is, as base64 at each offset, as hex and as UTF-16."""
    found = {secret, secret.hex().encode(), secret.decode("latin-1").encode("utf-16-le")}
    for offset in range(3):
        coded = base64.b64encode(bytes(offset) + secret)
        found |= {coded[4:-4], coded[4:-4].replace(b"+", b"-").replace(b"/", b"_")}
    return found


def in_clear(data: Path, wanted: dict[str, bytes]) -> list[tuple[str, str]]:
    files = [path for path in data.rglob("*") if path.is_file() and path.name not in DOCUMENTED]
    assert any(path.name.endswith("-wal") for path in files) or any(path.suffix == ".db" for path in files)
    contents = {path.name: path.read_bytes() for path in files}
    return [
        (what, name)
        for what, secret in wanted.items()
        for name, content in contents.items()
        if any(spelling in content for spelling in spellings(secret))
    ]


def secrets_of(running: TestRelay, variable: str, old_password: str) -> dict[str, bytes]:
    configuration = running.control.tenancy.configuration_by_domain(running.tenant.instance_id, "example.test")
    assert configuration is not None
    pem = running.control.tenancy.signing_key_pem(configuration.key.id)
    key = load_pem_private_key(pem, None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    numbers = key.private_numbers()  # type: ignore[union-attr]
    return {
        "password": running.tenant.smtp_password.encode(),
        "password that was rotated": old_password.encode(),
        "API key": running.tenant.api_key.encode(),
        "variable": variable.encode(),
        "DKIM key": pem.splitlines()[5],
        "DKIM key's prime": numbers.p.to_bytes(128, "big"),
        "DKIM key's tail": der[-60:],
        "SASL response": f"{running.tenant.smtp_user}\0{running.tenant.smtp_password}".encode(),
    }


def make_vpn(control: ControlStore, keys: list[str]) -> None:
    """Make a program with a VPN that has had each of `keys` in turn."""
    program = control.egress.add_program("other@AdobeOrg", "b" * 32, "Tunnelled")
    control.egress.add_environment(
        program.id, "prod", kind="prod", region="va7", tunnel_address="127.1.0.9", client_networks=()
    )
    made = None
    for generation, key in enumerate(keys, 1):
        wanted = Wanted(Mode.VPN, "va7", None, {"connections": [{"name": "one"}]}, {"one": key})
        if made is None:
            made = control.infrastructures.add(program.id, wanted, pool=["127.0.0.3"], actor="test")
        else:
            control.infrastructures.replace(program.id, made.id, wanted, actor="test")
        assert control.infrastructures.settle_infrastructure(made.id, generation, "failed", "no data path")
        assert control.infrastructures.shared_keys(made.id) == {"one": key}


async def test_the_data_directory_holds_no_secret_in_clear(tmp_path: Path) -> None:
    data = tmp_path / "data"
    variable, other, key, later = (secrets.token_urlsafe(24) for _ in range(4))
    receiver = Receiver()
    async with relay(data, deliver_to=receiver.start()) as running:
        wanted = secrets_of(running, variable, other)
        wanted |= {"VPN key that was replaced": key.encode(), "VPN key": later.encode()}
        await asyncio.to_thread(make_vpn, running.control, [key, later])
        await asyncio.to_thread(make_egress_side, running.control, running.tenant, "127.0.0.1")
        change = VariableChange("SECRET", "", True, variable)
        running.control.egress.patch_variables(running.tenant.environment_id, [change], actor="test")
        client = await running.client()
        assert (await client.envelope()).startswith("354 ")
        assert (await client.send(letter())).startswith("250 ")
        client.close()
        wrong = await running.client(login=False)
        text = f"\0{running.tenant.smtp_user}\0{other}"
        assert (await wrong.say("AUTH PLAIN " + base64.b64encode(text.encode()).decode())).startswith("535 ")
        wrong.close()
        async with asyncio.timeout(60):
            while not receiver.seen:
                await asyncio.sleep(0.01)
        assert in_clear(data, wanted) == []  # with the journals that a running service has
        assert any(
            b"number 0" in path.read_bytes() for path in data.rglob("*") if path.is_file()
        )  # it does find things
    await receiver.stop()
    assert in_clear(data, wanted) == []
    for name in DOCUMENTED:
        assert (data / name).stat().st_mode & 0o077 == 0


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    secret = secrets.token_urlsafe(24).encode()
    for number, spelling in enumerate((secret, base64.b64encode(b"u\0" + secret), secret.hex().encode())):
        (tmp_path / f"{number}.db").write_bytes(b"\0\1" + spelling + b"\0")
    assert sorted(in_clear(tmp_path, {"it": secret})) == [("it", f"{number}.db") for number in range(3)]
