"""`outgate egress serve`: over a file of rules, beside the laptop mode, after a kill, and with its extra alone."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
from pathlib import Path
from threading import Thread

import pytest

from outgate.connection import Refusal
from outgate.model.egress import PortForward
from support.egress_peers import tunnel_address
from support.egress_store import world
from support.extras import with_only
from support.running import Running, wait_for
from support.serving import SETTINGS, Echo, Serving, carried, environment, serving

pytestmark = pytest.mark.scenario


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass  # the listener was closed in this very moment, with us in its queue
    return True


def test_a_file_of_rules_is_in_force_and_followed(tmp_path: Path) -> None:
    tunnel, other = tunnel_address(), tunnel_address()
    with Echo() as echo, serving(tmp_path, environment(tunnel, (30000, echo.port))) as service:
        assert carried(tunnel, 30000)
        assert echo.peers == ["127.0.0.2"]
        status = service.until(lambda status: status["environments"][0]["octets_down"] == 5)
        assert (status["problem"], status["source"]) == ("", str(service.rules))
        kinds = [rule["type"] for rule in status["environments"][0]["rules"]]
        assert kinds == ["forward", "proxy"]
        assert stat.S_IMODE((service.state / "egress.sock").stat().st_mode) == 0o600

        # The same port for another environment, and other ports for this one.
        service.write(environment(tunnel, (30001, echo.port)), environment(other, (30000, echo.port)))
        service.until(lambda status: len(status["environments"]) == 2 and not status["environments"][1]["reason"])
        assert (carried(tunnel, 30001), listens(tunnel, 30000), carried(other, 30000)) == (True, False, True)

        service.rules.write_text('{"environments": [')
        service.signal(signal.SIGHUP)
        status = service.until(lambda status: bool(status["problem"]))
        assert status["problem"].startswith(f"{service.rules}: line 1, column 19: is not JSON")
        assert carried(tunnel, 30001)

        # A port that is taken leaves the old rules in force, and is named.
        with socket.create_server((other, 30005)):
            service.write(environment(tunnel, (30001, echo.port)), environment(other, (30005, echo.port)))
            status = service.until(lambda status: bool(status["environments"][1]["reason"]))
            assert f"{other}:30005 is taken" in status["environments"][1]["reason"]
            assert (status["problem"], carried(other, 30000)) == ("", True)
        service.until(lambda status: not status["environments"][1]["reason"])
        assert (carried(other, 30005), listens(other, 30000)) == (True, False)

        service.write()
        service.until(lambda status: not status["environments"])
        assert not listens(tunnel, 30001)
    assert not (service.state / "egress.sock").exists()


def test_a_hang_up_while_it_starts_does_not_end_it(tmp_path: Path) -> None:
    own = {"kind": "dedicatedEgressIp", "egressAddresses": ["127.0.0.3"]}
    with socket.create_server(("127.0.0.1", 0)) as witness:
        config = SETTINGS + f'witness = "127.0.0.1:{witness.getsockname()[1]}"\n'
        service = Serving(tmp_path, config=config)
        service.write(environment(tunnel_address(), **own))

        def hang_up() -> None:
            asking, _ = witness.accept()  # it is proving: `ready` comes after that
            service.signal(signal.SIGHUP)
            asking.close()

        meanwhile = Thread(target=hang_up)
        meanwhile.start()
        service.start()
        meanwhile.join()
        assert "egress.witness" in service.status()["environments"][0]["reason"]
        assert service.stop() == 0


def test_the_proxy_of_an_environment_is_there(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    config = SETTINGS + "http_proxy_port = 3999\n"
    with Echo() as echo, serving(tmp_path, environment(tunnel), config=config):
        with socket.create_connection((tunnel, 3999), timeout=10) as client:
            client.sendall(f"CONNECT 127.0.0.1:{echo.port} HTTP/1.1\r\nHost: 127.0.0.1:{echo.port}\r\n\r\n".encode())
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
        assert echo.peers == ["127.0.0.2"]


def test_an_address_that_this_host_does_not_have_lets_nothing_out(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    own = {"kind": "dedicatedEgressIp", "egressAddresses": ["192.0.2.77"]}
    with Echo() as echo, serving(tmp_path, environment(tunnel, (30000, echo.port), **own)) as service:
        (found,) = service.status()["environments"]
        assert "192.0.2.77 is not an address of this host" in found["reason"]
        assert (found["rules"], listens(tunnel, 30000), listens(tunnel, 3128)) == ([], False, False)
        own["egressAddresses"] = ["127.0.0.3"]
        service.write(environment(tunnel, (30000, echo.port), **own))
        service.until(lambda status: not status["environments"][0]["reason"])
        assert carried(tunnel, 30000)
        assert echo.peers == ["127.0.0.3"]


def test_after_a_kill_all_is_in_force_again(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with Echo() as echo, serving(tmp_path, environment(tunnel, (30000, echo.port))) as service:
        with socket.create_connection((tunnel, 30000), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            assert "another process carries the connections of" in service.refused()
            service.signal(signal.SIGKILL)
            assert service.ended() == -signal.SIGKILL
        service.start()
        assert carried(tunnel, 30000)
        assert service.status()["environments"][0]["reason"] == ""


def test_an_end_waits_for_open_connections_but_not_for_a_second_signal(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    with Echo() as echo, serving(tmp_path, environment(tunnel, (30000, echo.port))) as service:
        with socket.create_connection((tunnel, 30000), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            service.signal(signal.SIGTERM)
            service.until(lambda status: not status["environments"][0]["rules"] or not listens(tunnel, 30000))
            client.sendall(b"still here")
            assert client.recv(100) == b"STILL HERE"
        assert service.ended() == 0
        service.start()
        with socket.create_connection((tunnel, 30000), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            service.signal(signal.SIGINT)
            service.until(lambda status: not listens(tunnel, 30000))
            service.signal(signal.SIGINT)
            assert service.ended() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ('{"tunnelAddress": "127.1.0.1"}', "clientNetworks: must name the networks that the applications dial from"),
    ],
)
def test_rules_that_cannot_be_taken_at_the_start_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    service = Serving(tmp_path)
    if content is not None:
        service.rules.write_text(content)
    told = service.refused()
    assert f"outgate: {service.rules}: " in told
    assert said in told


def test_a_directory_without_a_control_store_is_refused(tmp_path: Path) -> None:
    assert "has no control.db" in Serving(tmp_path, data=tmp_path / "nothing").refused()


def test_beside_the_laptop_mode(tmp_path: Path) -> None:
    tunnel = tunnel_address()
    laptop = Running(tmp_path / "dev", f'[dev]\ntunnel_address = "{tunnel}"\n')
    service = Serving(tmp_path / "egress", data=laptop.data)
    laptop.start()
    try:
        assert "another process carries the connections" in service.refused()
    finally:
        assert laptop.stop() == 0
    laptop.config.write_text(laptop.config.read_text() + "[egress]\napart = true\n")
    laptop.start()
    try:
        config = SETTINGS + f'resolvers = ["{laptop.dev["dns"]}"]\n'
        config += f"http_proxy_port = {laptop.dev['http_proxy'].rpartition(':')[2]}\n"
        service.config.write_text(config)
        service.start()
        with Echo() as echo:
            dev, api = laptop.dev, laptop.api
            place = f"{dev['cloud_manager_url']}/api/program/{dev['program_id']}/environment/{dev['environment_id']}"
            api.call("PUT", api.sandbox("zone/target.shop.test/A"), {"values": ["127.0.0.1"]})
            rule = {"name": "target.shop.test", "portDest": echo.port, "portOrig": 30000}
            answer = api.call("PUT", f"{place}/advancedNetworking", {"portForwards": [rule]})
            assert answer["status"] == "updating"
            service.until(lambda status: len(status["environments"][0]["rules"]) == 2)
            wait_for(lambda: api.call("GET", place)["status"], lambda status: status == "ready")
            assert carried(tunnel, 30000)
            assert echo.peers == ["127.0.0.2"]
            # A connectivity test is made where the connections leave from, also over the API of the other process.
            question = {"host": "target.shop.test", "port": echo.port}
            found = api.call("POST", f"{place}/connectivityTest", question)
            assert [(each["port_open"], each["dns_resolution"]) for each in found["resolvers"]] == [
                (True, {"ips": ["127.0.0.1"]})
            ]
            assert set(echo.peers) == {"127.0.0.2"}
            assert service.stop() == 0
            with pytest.raises(Refusal, match=r"egress-test\.sock does not answer .*: start `outgate egress serve`"):
                api.call("POST", f"{place}/connectivityTest", question)
            service.start()
            assert carried(tunnel, 30000)
    finally:
        assert service.stop() == 0
        assert laptop.stop() == 0


def test_its_extra_alone_carries(tmp_path: Path) -> None:
    python = with_only("egress", tmp_path / "venv")
    tunnel = tunnel_address()
    service = Serving(tmp_path / "egress")
    service.python = [str(python)]
    service.environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    missing = json.loads(python_says(service, "fastapi", "uvicorn", "argon2", "aiohttp", "jinja2", "joserfc", "dkim"))
    assert missing == [True] * 7
    with Echo() as echo:
        service.write(environment(tunnel, (30000, echo.port)))
        service.start()
        try:
            assert carried(tunnel, 30000)
            assert carried_by_proxy(tunnel, echo.port)
        finally:
            assert service.stop() == 0
        with world(tmp_path, tunnel=tunnel) as place:
            rule = PortForward("127.0.0.1", 30001, echo.port)
            place.store.put_networking("10", "7", [rule], [], actor="test")
            of_store = Serving(tmp_path / "of-store", data=tmp_path)
            of_store.python, of_store.environment = service.python, service.environment
            of_store.start()
            try:
                assert carried(tunnel, 30001)
                environment_now = place.store.environment("4", "10")
                assert environment_now is not None
                assert environment_now.status == "ready"
            finally:
                assert of_store.stop() == 0
        assert echo.peers == ["127.0.0.2"] * 3


def carried_by_proxy(tunnel: str, port: int) -> bool:
    with socket.create_connection((tunnel, 3128), timeout=10) as client:
        client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        if not client.recv(1000).startswith(b"HTTP/1.1 200"):
            return False
        client.sendall(b"hello")
        return client.recv(100) == b"HELLO"


def python_says(service: Serving, *modules: str) -> str:
    """Return, as JSON, which of these modules that Python does not have."""
    program = "import importlib.util, json, sys; print(json.dumps([importlib.util.find_spec(m) is None for m in sys.argv[1:]]))"
    done = subprocess.run(
        [*service.python, "-c", program, *modules], capture_output=True, text=True, check=True, env=service.environment
    )
    return done.stdout
