"""Identifiers have the shapes others rely on."""

from __future__ import annotations

import re
import uuid

from outgate.base import ids


def test_queue_ids_begin_with_their_shard_and_sort_by_time() -> None:
    made = [ids.queue_id("0", 1_795_158_180 + step / 1000) for step in range(0, 100_000, 37)]
    assert made == sorted(made)
    assert all(re.fullmatch(r"0[0-9A-Z]{17}", queue_id) for queue_id in made)
    assert ids.queue_id("7", 1.0)[0] == "7"


def test_queue_ids_of_one_moment_differ() -> None:
    assert len({ids.queue_id("0", 1.0) for _ in range(200)}) == 200


def test_names_have_the_vendors_shape() -> None:
    assert all(re.fullmatch(r"[a-z0-9]{18}\d{2}", ids.smtp_username()) for _ in range(200))
    assert all(re.fullmatch(r"[1-9]\d{4,6}", ids.number_id()) for _ in range(200))
    assert re.fullmatch(r"[0-9a-f]{32}", ids.hex_id())
    assert uuid.UUID(ids.new_uuid()).version == 4


def test_passwords() -> None:
    assert re.fullmatch(r"[A-Za-z0-9]{32}", ids.password())
    assert len(ids.password(44)) == 44 and ids.password() != ids.password()
