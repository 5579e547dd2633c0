"""Secrets as files: which one counts, what is none, and why."""

import os
import socket
from pathlib import Path

import pytest

from outgate.mailer.config import secrets_from
from outgate.mailer.configuration.secret_files import LONGEST, SecretFiles
from outgate.mailer.interpolate import explain, interpolate
from outgate.mailer.values import ConfigError


def put(folder: Path, name: str, content: bytes = b"v") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return folder


class TestDirectories:
    @pytest.mark.parametrize("kind", ["path", "text", "commas", "list", "generator", "itself"])
    def test_they_are_given_in_many_ways(self, tmp_path, kind: str) -> None:
        one, two = put(tmp_path / "one", "S", b"1"), put(tmp_path / "two", "S", b"2")
        given = {
            "path": one,
            "text": str(one),
            "commas": f" {one} ,\t{two}",
            "list": [one, str(two)],
            "generator": (each for each in (one, two)),
            "itself": SecretFiles([one, two]),
        }[kind]
        assert interpolate("$[secret:S]", env={}, secrets=given).value == "1"

    def test_the_first_that_has_the_name_counts(self, tmp_path) -> None:
        one, two = put(tmp_path / "one", "A", b"1"), put(tmp_path / "two", "A", b"2")
        put(two, "B", b"2")
        found = SecretFiles([one, tmp_path / "none", two])
        assert (found.get("A"), found.get("B"), found.get("C")) == ("1", "2", None)
        assert found.missing == (tmp_path / "none",)

    def test_also_if_it_is_no_file_there(self, tmp_path) -> None:
        (tmp_path / "one" / "S").mkdir(parents=True)
        found = SecretFiles([tmp_path / "one", put(tmp_path / "two", "S")])
        assert found.get("S") is None and found.reason("S").endswith("is no regular file")

    @pytest.mark.parametrize("name", ["S", "S/", "/S//"])
    def test_slashes_around_a_name_are_none_of_it(self, tmp_path, name: str) -> None:
        found = SecretFiles(put(tmp_path / "one", "S"))
        assert found.get(name) == "v" and not found.reason(name)

    def test_the_environment_names_them(self, tmp_path) -> None:
        put(tmp_path / "a b", "S")
        env = {"OUTGATE_SECRETS": f"{tmp_path / 'a b'},{tmp_path / 'none'}"}
        assert secrets_from(None, env).get("S") == "v"
        assert secrets_from(None, {}).get("S") is None
        assert secrets_from({"S": "w"}, env).get("S") == "w"

    def test_links_are_followed_as_clusters_need_it(self, tmp_path) -> None:
        data = put(tmp_path / "..data-1", "S")
        mount = tmp_path / "mount"
        mount.mkdir()
        (mount / "S").symlink_to(data / "S")
        (mount / "broken").symlink_to(tmp_path / "none")
        assert SecretFiles(mount).get("S") == "v" and SecretFiles(mount).get("broken") is None


class TestWhatIsNone:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "/",
            "x..y/",
            ".",
            "..",
            "../x",
            "a/../x",
            "sub/..",
            "x..y",
            "/etc/passwd",
            "\0",
            "x\0",
            "\ud800",
            "x" * 300,
        ],
    )
    def test_names(self, tmp_path, name: str) -> None:
        put(tmp_path, "x", b"outside")
        found = SecretFiles(put(tmp_path / "in", "x..y"))
        assert found.get(name) is None and found.reason(name)

    def test_a_pipe_is_not_waited_for(self, tmp_path) -> None:
        os.mkfifo(tmp_path / "S")
        assert SecretFiles(tmp_path).get("S") is None
        assert SecretFiles(tmp_path).reason("S") == f"what {tmp_path} has of that name is no regular file"

    def test_one_that_takes_a_file_s_place_in_between_is_not_read_either(self, tmp_path, monkeypatch) -> None:
        before = os.stat(put(tmp_path, "file") / "file")
        os.mkfifo(tmp_path / "S")
        monkeypatch.setattr(os, "stat", lambda *_: before)
        assert SecretFiles(tmp_path).get("S") is None

    def test_a_device_is_not_read(self, tmp_path) -> None:
        (tmp_path / "S").symlink_to("/dev/zero")
        assert SecretFiles(tmp_path).get("S") is None

    def test_a_socket_is_not_opened(self, tmp_path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "S"))
            assert SecretFiles(tmp_path).get("S") is None

    def test_a_file_may_have_one_mebibyte(self, tmp_path) -> None:
        put(tmp_path, "S", b"x" * LONGEST)
        put(tmp_path, "T", b"x" * (LONGEST + 1))
        assert len(SecretFiles(tmp_path).get("S") or "") == LONGEST
        assert SecretFiles(tmp_path).get("T") is None
        assert SecretFiles(tmp_path).reason("T") == f"its file in {tmp_path} is longer than 1 MiB"

    def test_a_directory_that_may_not_be_looked_into(self, tmp_path, monkeypatch) -> None:
        def refuse(*_: object) -> os.stat_result:
            raise PermissionError(13, "Permission denied")

        secrets = SecretFiles(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "stat", refuse)  # root may look into everything
            assert secrets.reason("S") == f"{tmp_path} may not be looked into: Permission denied"

    def test_a_file_that_cannot_be_opened(self, tmp_path, monkeypatch) -> None:
        put(tmp_path, "S")

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)  # root may open everything
        assert SecretFiles(tmp_path).get("S") is None
        assert SecretFiles(tmp_path).reason("S") == f"its file in {tmp_path} cannot be read: Permission denied"


class TestWhy:
    @pytest.mark.parametrize(
        ("folders", "expected"),
        [
            ([], "no directory with secrets is given"),
            (["none"], "{0}/none is no directory"),
            (["none", "also"], "{0}/none and {0}/also are no directories"),
            (["there"], "no file of that name in {0}/there"),
        ],
    )
    def test_it_is_told_without_the_name(self, tmp_path, folders: list[str], expected: str) -> None:
        put(tmp_path / "there", "x")
        secrets = SecretFiles([tmp_path / folder for folder in folders])
        told = explain("$[secret:hush]", env={}, secrets=secrets).lookups[0].reason
        assert told == expected.format(tmp_path) and "hush" not in told

    def test_of_one_that_is_there_nothing(self, tmp_path) -> None:
        assert SecretFiles(put(tmp_path, "S")).reason("S") == ""


class TestEncoding:
    @pytest.mark.parametrize(
        ("encoding", "content"),
        [
            ("UTF-8", "ü".encode()),
            ("utf8", "ü".encode()),
            ("ISO-8859-1", b"\xfc"),
            ("windows-1252", b"\xfc"),
            ("UTF-16", b"\x00\xfc"),
            ("UTF-16", b"\xfe\xff\x00\xfc"),
            ("UTF-16", b"\xff\xfe\xfc\x00"),
            ("UTF-16LE", b"\xfc\x00"),
        ],
    )
    def test_contents_are_in_it(self, tmp_path, encoding: str, content: bytes) -> None:
        folder = put(tmp_path, "S", content)
        assert interpolate("$[secret:S]", env={}, secrets=folder, encoding=encoding).value == "ü"

    def test_other_octets_are_an_error_that_shows_none(self, tmp_path) -> None:
        folder = put(tmp_path, "S", b"hush\xff\xfe")
        with pytest.raises(ConfigError) as caught:
            interpolate("$[secret:S]", env={}, secrets=folder)
        assert str(caught.value) == "a secret's file cannot be read as UTF-8 text: expected that encoding"
        assert caught.value.__cause__ is None and caught.value.__suppress_context__

    @pytest.mark.parametrize("encoding", ["nothing", "", "hex", "rot13", "base64", "a\0b"])
    def test_it_exists_and_is_for_text(self, tmp_path, encoding: str) -> None:
        with pytest.raises(ConfigError, match="name of an encoding"):
            interpolate("x", env={}, secrets=tmp_path, encoding=encoding)


def test_a_name_that_no_environment_has_is_not_set(monkeypatch) -> None:
    monkeypatch.setenv("A", "v")
    assert (
        interpolate("$[env:A]$[env:\0;default=d]$[env:\ud800;default=e]", env=os.environ, secrets=None).value == "vde"
    )


def test_reading_leaves_no_file_open(tmp_path) -> None:
    put(tmp_path, "S")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        SecretFiles(tmp_path).get("S")
    assert len(os.listdir("/proc/self/fd")) == before
