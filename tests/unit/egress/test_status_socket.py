"""The sockets of a process that carries: one line to who may ask, also in a directory with a long name and after a kill."""

from __future__ import annotations

import asyncio
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outgate.base.tasks import spawn
from outgate.egress import connectivity_socket, status_socket
from outgate.egress.refusal import Refused


@pytest.mark.parametrize("depth", [0, 5])
async def test_who_connects_gets_one_line(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["a-rather-long-name"] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    counted = iter(range(10))
    server = await status_socket.serve(directory, lambda: {"count": next(counted), "name": "ü"})
    file = directory / "egress.sock"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await asyncio.to_thread(status_socket.read, directory) == {"count": 0, "name": "ü"}
    assert await asyncio.to_thread(status_socket.read, directory) == {"count": 1, "name": "ü"}
    await server.stop()
    assert not file.exists()
    with pytest.raises(status_socket.NotServing, match=r"egress\.sock does not answer .*outgate egress serve"):
        await status_socket.ask(directory)


async def test_what_a_kill_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "egress.sock"))
    with pytest.raises(status_socket.NotServing, match="refused"):
        await status_socket.ask(tmp_path)
    server = await status_socket.serve(tmp_path, dict)
    assert await asyncio.to_thread(status_socket.read, tmp_path) == {}
    await server.stop()


async def test_a_large_document_arrives_whole(tmp_path: Path) -> None:
    document = {"rules": ["x" * 100] * 20_000}
    server = await status_socket.serve(tmp_path, lambda: document)
    assert await asyncio.to_thread(status_socket.read, tmp_path) == document
    await server.stop()


def test_half_an_answer_is_not_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as serving:
        serving.bind(str(tmp_path / "egress.sock"))
        serving.listen(1)
        from threading import Thread

        def answer() -> None:
            accepted, _ = serving.accept()
            with accepted:
                accepted.sendall(b'{"half":')

        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(status_socket.NotServing, match="half an answer"):
            status_socket.read(tmp_path)
        thread.join()


class _Tests:
    async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
        if environment_id != "10":
            raise Refused("closed", f"nothing leaves {environment_id}")
        return {"resolvers": [f"{host}:{port}"]}


async def test_a_connectivity_test_is_made_for_who_asks(tmp_path: Path) -> None:
    server = await connectivity_socket.serve(tmp_path, _Tests())
    assert stat.S_IMODE((tmp_path / connectivity_socket.NAME).stat().st_mode) == 0o600
    assert await connectivity_socket.ask(tmp_path, "10", "ü.example", 25) == {"resolvers": ["ü.example:25"]}
    with pytest.raises(Refused, match="nothing leaves 11"):
        await connectivity_socket.ask(tmp_path, "11", "a.example", 25)
    for question in (b"\n", b"{}\n", b"[1]\n", b'["10", "a", "b"]\n', b"[" * 50_000 + b"\n", b"x" * 100_000):
        reader, writer = await asyncio.open_unix_connection(tmp_path / connectivity_socket.NAME)
        writer.write(question)
        assert await reader.read() == b""
        writer.close()
    await server.stop()
    with pytest.raises(Refused, match=r"does not answer .*outgate egress serve"):
        await connectivity_socket.ask(tmp_path, "10", "a.example", 25)


async def test_tests_under_way_hold_no_thread(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    asked, go = asyncio.Event(), asyncio.Event()

    class Waiting:
        async def test(self, environment_id: str, host: str, port: int) -> dict[str, object]:
            asked.set()
            await go.wait()
            return {}

    server = await connectivity_socket.serve(tmp_path, Waiting())
    asking = [spawn(connectivity_socket.ask(tmp_path, str(each), "a.example", 25), "asks") for each in range(3)]
    await asked.wait()
    # The relay reads its queue by these threads.
    await asyncio.to_thread(go.set)
    assert await asyncio.gather(*asking) == [{}] * 3
    await server.stop()


async def test_who_does_not_ask_and_who_does_not_answer_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectivity_socket, "_LONGEST_S", 0.05)
    server = await connectivity_socket.serve(tmp_path, _Tests())
    reader, writer = await asyncio.open_unix_connection(tmp_path / connectivity_socket.NAME)
    assert await reader.read() == b""
    writer.close()
    await server.stop()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / connectivity_socket.NAME))
        silent.listen(1)
        with pytest.raises(Refused, match="no answer in time"):
            await connectivity_socket.ask(tmp_path, "10", "a.example", 25)
