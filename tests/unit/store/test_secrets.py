"""A box opens only where it was sealed, with the keys of its installation, which only their owner may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgate.store.secrets import SealError, open_box, rotate

PLACE = {"table": "dkim_keys", "column": "sealed", "row": "1"}


def test_opens_what_it_sealed_also_after_a_restart(tmp_path: Path) -> None:
    sealed = open_box(tmp_path / "master.key").seal(b"the secret", **PLACE)
    assert b"the secret" not in sealed
    assert open_box(tmp_path / "master.key").open(sealed, **PLACE) == b"the secret"


def test_same_text_never_seals_alike(tmp_path: Path) -> None:
    box = open_box(tmp_path / "master.key")
    assert len({box.seal(b"x", **PLACE) for _ in range(50)}) == 50


@pytest.mark.parametrize("changed", [{"table": "variables"}, {"column": "value"}, {"row": "2"}])
def test_another_place_does_not_open(tmp_path: Path, changed: dict[str, str]) -> None:
    box = open_box(tmp_path / "master.key")
    sealed = box.seal(b"x", **PLACE)
    with pytest.raises(SealError, match="another row"):
        box.open(sealed, **{**PLACE, **changed})


def test_places_that_join_alike_are_told_apart(tmp_path: Path) -> None:
    box = open_box(tmp_path / "master.key")
    sealed = box.seal(b"x", table="a", column='b", "c', row="d")
    with pytest.raises(SealError):
        box.open(sealed, table="a", column="b", row='c", "d')


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    box = open_box(tmp_path / "master.key")
    sealed = box.seal(b"x", **PLACE)
    for at in range(len(sealed)):
        with pytest.raises(SealError):
            box.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], **PLACE)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            box.open(sealed[:length], **PLACE)


def test_rotation_keeps_old_boxes_readable(tmp_path: Path) -> None:
    old = open_box(tmp_path / "master.key").seal(b"old", **PLACE)
    box = rotate(tmp_path / "master.key")
    new = box.seal(b"new", **PLACE)
    assert old[1:5] != new[1:5]
    assert (box.open(old, **PLACE), box.open(new, **PLACE)) == (b"old", b"new")


def test_another_installation_cannot_open(tmp_path: Path) -> None:
    sealed = open_box(tmp_path / "one.key").seal(b"x", **PLACE)
    with pytest.raises(SealError, match="does not have"):
        open_box(tmp_path / "two.key").open(sealed, **PLACE)


def test_key_files_are_private_and_must_stay_so(tmp_path: Path) -> None:
    open_box(tmp_path / "master.key")
    files = [tmp_path / "master.key", tmp_path / "master.key.data"]
    assert sorted(tmp_path.iterdir()) == files
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o640)
        with pytest.raises(SealError, match="chmod 600"):
            open_box(tmp_path / "master.key")
        file.chmod(0o600)


def test_wrong_or_damaged_key_files_are_refused(tmp_path: Path) -> None:
    open_box(tmp_path / "one.key")
    open_box(tmp_path / "two.key")
    wrapped = (tmp_path / "one.key.data").read_bytes()
    (tmp_path / "one.key.data").write_bytes((tmp_path / "two.key.data").read_bytes())
    with pytest.raises(SealError, match="another master key"):
        open_box(tmp_path / "one.key")
    for damage in (b"", b"{}", b'{"current": "00000000", "keys": {}}', wrapped[:-9]):
        (tmp_path / "one.key.data").write_bytes(damage)
        with pytest.raises(SealError, match="damaged"):
            open_box(tmp_path / "one.key")
    (tmp_path / "two.key").write_bytes(b"c2hvcnQ=\n")
    with pytest.raises(SealError, match="32 bytes"):
        open_box(tmp_path / "two.key")
