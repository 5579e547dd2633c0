"""The hosts that scenarios are made of: apart from each other and from this one, counted packets, and nothing left.

Needs root, `ip` and `nft` (tests/packages.sh installs them).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.hosts import World, listening

pytestmark = pytest.mark.scenario

PLACES = Path("/run/netns")


def test_hosts_meet_on_their_cable_only_and_packets_are_counted() -> None:
    with World() as world:
        one, other = world.host("one"), world.host("other")
        world.wire(one, "10.1.1.1/24", other, "10.1.1.2/24")
        other.watch()
        assert listening(other) == set()
        with other.listener("10.1.1.2", 7000) as listener:
            assert listening(other) == {("10.1.1.2", 7000)}
            assert listening(one) == set()
            with one.connects("10.1.1.2", 7000) as made:
                assert made.getsockname()[0] == "10.1.1.1"
                taken, address = listener.accept()
                taken.close()
                assert address == made.getsockname()
        assert other.seen() == {("10.1.1.1", 7000)}
        other.forget_seen()
        assert other.seen() == set()
        one.has("10.1.1.9", "other1")
        with one.socket("10.1.1.9") as bound:
            assert bound.getsockname()[0] == "10.1.1.9"
        one.loses("10.1.1.9", "other1")
        with pytest.raises(OSError):
            one.socket("10.1.1.9")


def test_nothing_is_left_of_a_test_that_failed_nor_what_it_started() -> None:
    names: list[str] = []
    with pytest.raises(ZeroDivisionError), World() as world:
        host = world.host("one")
        names.append(host.namespace)
        with host.inside():
            process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        raise ZeroDivisionError
    assert process.wait(10) < 0
    assert not [name for name in names if (PLACES / name).exists()]


def test_what_a_killed_process_left_goes_when_the_next_begins() -> None:
    script = (
        "import os; from support.hosts import World; print(World().host('left').namespace, flush=True); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        timeout=60,
    )
    left = PLACES / done.stdout.strip()
    assert left.name.endswith("-left"), done.stderr
    with World():
        assert not left.exists()
