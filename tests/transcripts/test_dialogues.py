"""Every dialogue three ways: the machine alone (in pieces too), over a socket, over TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from outgate.smtp.asyncio.server import (
    Connection,
    Listener,
    ListenerOptions,
    Peer,
    Timeouts,
    listening_socket,
)
from support.dialogue import FOLDER, Dialogue, ScriptedSession, expect, load, machine, play

DIALOGUES = sorted(FOLDER.glob("*.smtp"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
@pytest.mark.parametrize("piece", [0, 1, 3])
def test_machine_alone(path: Path, piece: int) -> None:
    dialogue = load(path)
    # In pieces, bytes behind STARTTLS come after the 220, and the machine refuses them there.
    play(dialogue, piece=0 if dialogue.whole else piece)


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
async def test_over_a_socket(path: Path, authority: trustme.CA) -> None:
    await _over(load(path), authority, implicit=False)


@pytest.mark.parametrize("path", [p for p in DIALOGUES if not load(p).starttls], ids=lambda path: path.stem)
async def test_over_tls(path: Path, authority: trustme.CA) -> None:
    await _over(load(path), authority, implicit=True)


async def _over(dialogue: Dialogue, authority: trustme.CA, *, implicit: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("relay.example").configure_cert(context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    sessions: list[ScriptedSession] = []

    def factory(peer: Peer, connection: Connection) -> ScriptedSession:
        sessions.append(ScriptedSession(machine(dialogue, tls=not dialogue.starttls)))
        return sessions[-1]

    options = ListenerOptions(context, implicit, Timeouts(), trusted=lambda address: False, welcome=lambda peer: True)
    listener = Listener(listening_socket("127.0.0.1", 0), options, factory)
    listener.start()
    host, port = listener.address
    try:
        reader, writer = await asyncio.open_connection(
            host,
            port,
            ssl=client_context if implicit else None,
            server_hostname="relay.example" if implicit else None,
        )
        heard = bytearray()
        for kind, data in dialogue.steps:
            if kind == "S":
                while b"\r\n" not in heard:
                    more = await reader.read(65536)
                    assert more, f"{dialogue.name}: closed, expected {data!r}"
                    heard.extend(more)
                expect(dialogue.name, heard, data)
            elif kind == "M":
                assert sessions[0].messages[-1] == data, dialogue.name
            elif kind == "T":
                await writer.start_tls(client_context, server_hostname="relay.example")
            elif kind == "X":
                try:
                    heard.extend(await reader.read())
                except ConnectionResetError:
                    pass
            else:
                writer.write(data)
        assert not heard
        writer.close()
    finally:
        await listener.stop()
