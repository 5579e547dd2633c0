"""Configurations in content packages, and packages that mean harm."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from outgate.mailer.config import load
from outgate.mailer.configuration import packages
from outgate.mailer.folders import open_configurations
from outgate.mailer.values import ConfigError

MAIL = "com.day.cq.mailer.DefaultMailService"
ROOT = "jcr_root/apps/shop/osgiconfig"
INSTALL = "jcr_root/apps/shop-packages/application"


def zipped(entries: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same octets whenever it is called: an entry named by a string alone would hold the time."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def config(host: str) -> str:
    return f'{{"smtp.host": "{host}"}}'


def package(tmp_path: Path, data: bytes, name: str = "all.zip") -> Path:
    file = tmp_path / name
    file.write_bytes(data)
    return file


class TestPackages:
    def test_folders_in_a_package(self, tmp_path: Path) -> None:
        file = package(
            tmp_path,
            zipped(
                {
                    f"{ROOT}/config/{MAIL}.cfg.json": config("all"),
                    f"{ROOT}/config.author/{MAIL}.cfg.json": config("author"),
                    f"{ROOT}/config.author/.content.xml": "<x/>",
                    "META-INF/vault/filter.xml": "<x/>",
                    f"META-INF/{MAIL}.cfg.json": config("no"),
                }
            ),
        )
        found = open_configurations(file)
        assert [each.where for each in found.files] == [
            f"{file}!/{ROOT}/config.author/{MAIL}.cfg.json",
            f"{file}!/{ROOT}/config/{MAIL}.cfg.json",
        ]
        assert found.resolve(MAIL, ["author"]).parse()["smtp.host"].value.value == "author"
        assert found.resolve(MAIL, ["publish"]).parse()["smtp.host"].value.value == "all"

    def test_packages_within_count_for_the_run_modes_that_they_are_installed_for(self, tmp_path: Path) -> None:
        inner = zipped({f"{ROOT}/config.dev/{MAIL}.cfg.json": config("inner")})
        author = zipped({f"{ROOT}/config.dev/{MAIL}.cfg.json": config("author")})
        file = package(
            tmp_path,
            zipped(
                {
                    f"{INSTALL}/install.author/config.zip": author,
                    f"{INSTALL}/install.publish/config.zip": inner,
                    f"{INSTALL}/other/config.zip": b"not opened",
                    f"{ROOT}/config/{MAIL}.cfg.json": config("outer"),
                },
                zipfile.ZIP_STORED,
            ),
        )
        found = open_configurations(file)
        best = found.resolve(MAIL, ["author", "dev"])
        assert best.where == f"{file}!/{INSTALL}/install.author/config.zip!/{ROOT}/config.dev/{MAIL}.cfg.json"
        assert (best.run_modes, best.needs) == (("dev",), ("author",))
        assert found.resolve(MAIL, ["publish", "dev"]).parse()["smtp.host"].value.value == "inner"
        assert found.resolve(MAIL, ["dev"]).parse()["smtp.host"].value.value == "outer"

    def test_packages_within_as_older_tools_put_them(self, tmp_path: Path) -> None:
        inner = zipped({f"{ROOT}/config/{MAIL}.cfg.json": config("x")})
        file = package(tmp_path, zipped({"jcr_root/etc/packages/shop/config.zip": inner, "a/install/b.zip": b""}))
        assert [each.where for each in open_configurations(file).files] == [
            f"{file}!/jcr_root/etc/packages/shop/config.zip!/{ROOT}/config/{MAIL}.cfg.json"
        ]

    def test_the_mailer_takes_its_configuration_from_a_package(self, tmp_path: Path) -> None:
        inner = zipped({f"{ROOT}/config.author/{MAIL}.cfg.json": '{"smtp.host": "$[env:H]", "smtp.port": "30465"}'})
        file = package(tmp_path, zipped({f"{INSTALL}/install/config.zip": inner}))
        settled = load(file, ["author"], env={"H": "proxy.tunnel"}, secrets={})
        assert (settled.host, settled.port) == ("proxy.tunnel", 30465)
        with pytest.raises(ConfigError, match=r"all\.zip!/.*: line 1, column 15: smtp\.host"):
            load(file, ["author"], env={}, secrets={})

    def test_zip_files_cost_nothing_until_there_is_one(self) -> None:
        told = "import sys, outgate.mailer; print([each for each in ('zipfile', 'tempfile') if each in sys.modules])"
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_an_old_format_in_a_package(self, tmp_path: Path) -> None:
        file = package(tmp_path, zipped({f"{ROOT}/config/{MAIL}.xml": '<x jcr:primaryType="sling:OsgiConfig"/>'}))
        with pytest.raises(ConfigError, match=r"all\.zip!/jcr_root/.*\.xml would be in force"):
            open_configurations(file).resolve(MAIL)

    def test_an_error_in_a_package_has_its_place(self, tmp_path: Path) -> None:
        file = package(tmp_path, zipped({f"{ROOT}/config/{MAIL}.cfg.json": "{\n a: 1}"}))
        with pytest.raises(ConfigError) as caught:
            open_configurations(file).resolve(MAIL).parse()
        assert str(caught.value).startswith(f"{file}!/{ROOT}/config/{MAIL}.cfg.json: line 2, column 2: ")

    def test_a_package_is_known_by_its_first_octets(self, tmp_path: Path) -> None:
        file = package(tmp_path, zipped({f"{ROOT}/config/{MAIL}.cfg.json": config("x")}), "package")
        assert len(open_configurations(file).files) == 1
        assert len(open_configurations(package(tmp_path, zipped({}), "empty")).files) == 0


class TestHostilePackages:
    def refused(self, tmp_path: Path, data: bytes, says: str) -> None:
        file = package(tmp_path, data)
        with pytest.raises(ConfigError, match=says) as caught:
            open_configurations(file)
        assert str(caught.value).startswith(str(file)) and str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "data",
        [b"", b"PK\3\4", b"PK\3\4" + b"x" * 100, zipped({"a": b"x" * 1000})[:-30]],
        ids=["empty", "a signature alone", "a signature and rubbish", "without its end"],
    )
    def test_broken_as_a_whole(self, tmp_path: Path, data: bytes) -> None:
        self.refused(tmp_path, data, "not a zip file that can be read")

    def test_broken_in_an_entry(self, tmp_path: Path) -> None:
        data = zipped({f"{ROOT}/config/a.b.C.cfg.json": config("x" * 1000)})
        begin = data.index(b".cfg.json") + 12
        self.refused(tmp_path, data[:begin] + b"\xff" * 8 + data[begin + 8 :], "is broken: build the package anew")

    def test_a_bomb_is_read_as_far_as_a_configuration_goes(self, tmp_path: Path) -> None:
        data = zipped({f"{ROOT}/config/a.b.C.cfg.json": b" " * (20 << 20)})
        (only,) = open_configurations(package(tmp_path, data)).files
        with pytest.raises(ConfigError, match="at most 1048576 octets"):
            only.parse()

    def test_a_bomb_of_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "MOST_INNER", 1 << 20)
        inner = zipped({"x": b" " * (2 << 20)}, zipfile.ZIP_STORED)
        self.refused(tmp_path, zipped({f"{INSTALL}/install/a.zip": inner}), "packages within are too large")

    def test_packages_within_packages_within(self, tmp_path: Path) -> None:
        data = zipped({f"{ROOT}/config/a.b.C.cfg.json": "{}"})
        for _ in range(packages.LEVELS - 1):
            data = zipped({f"{INSTALL}/install/a.zip": data})
        assert len(open_configurations(package(tmp_path, data)).files) == 1
        self.refused(tmp_path, zipped({f"{INSTALL}/install/a.zip": data}), "at most 3 deep")

    def test_too_many_entries(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "MOST_ENTRIES", 10)
        self.refused(tmp_path, zipped({str(number): b"" for number in range(11)}), "too many entries")

    def test_too_many_entries_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "MOST_TOGETHER", 10)
        inner = zipped({str(number): b"" for number in range(5)})
        self.refused(tmp_path, zipped({f"{INSTALL}/install/{name}.zip": inner for name in "ab"}), "too many entries")

    def test_a_table_of_contents_that_claims_much(self, tmp_path: Path) -> None:
        entry = zipped({"a": b""})
        begin, end = entry.index(b"PK\1\2"), entry.index(b"PK\5\6")
        times = packages.MOST_DIRECTORY // (end - begin) + 1
        table = entry[begin:end] * times
        tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(table), begin, 0)
        inner = entry[:begin] + table + tail
        self.refused(tmp_path, zipped({f"{INSTALL}/install/a.zip": inner}), "table of contents that is too large")

    def test_a_table_of_contents_that_claims_much_is_not_read(self, tmp_path: Path) -> None:
        entry = zipped({"a": b""})
        begin, size = entry.index(b"PK\1\2"), 16 * packages.MOST_DIRECTORY
        file = tmp_path / "all.zip"
        with file.open("wb") as out:  # a hole: nothing of that size is on the disk
            out.write(entry[:begin])
            out.seek(size, io.SEEK_CUR)
            out.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, begin, 0))
        tracemalloc.start()
        try:
            with pytest.raises(ConfigError, match="table of contents that is too large"):
                open_configurations(file)
            assert tracemalloc.get_traced_memory()[1] < 2 * packages.MOST_DIRECTORY
        finally:
            tracemalloc.stop()

    def test_a_bomb_takes_no_memory(self, tmp_path: Path) -> None:
        size = 64 << 20
        inner = zipped({f"{ROOT}/config/a.b.C.cfg.json": bytes(size)})
        data = zipped({f"{INSTALL}/install/a.zip": inner, f"{ROOT}/config/a.b.D.cfg.json": bytes(size)})
        file = package(tmp_path, data)
        tracemalloc.start()
        try:
            assert len(open_configurations(file).files) == 2
            assert tracemalloc.get_traced_memory()[1] < size / 4
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("name", ["../x", "jcr_root/../../x", "/etc/x", "jcr_root\\..\\x"])
    def test_names_that_lead_out(self, tmp_path: Path, name: str) -> None:
        self.refused(tmp_path, zipped({name: b""}), "leads out of it")

    def test_encrypted(self, tmp_path: Path) -> None:
        data = bytearray(zipped({f"{ROOT}/config/a.b.C.cfg.json": "{}"}))
        data[6] |= 1
        data[data.index(b"PK\1\2") + 8] |= 1
        self.refused(tmp_path, bytes(data), "is encrypted")

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_ways_to_compress_that_have_no_bounds(self, tmp_path: Path, method: int) -> None:
        self.refused(tmp_path, zipped({f"{ROOT}/config/a.b.C.cfg.json": "{}"}, method), "compressed in a way")

    def test_the_same_file_twice(self, tmp_path: Path) -> None:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
            for _ in range(2):
                archive.writestr(f"{ROOT}/config/a.b.C.cfg.json", "{}")
        self.refused(tmp_path, target.getvalue(), "in the package twice")

    def test_another_checksum(self, tmp_path: Path) -> None:
        data = zipped({f"{ROOT}/config/a.b.C.cfg.json": "{}"}, zipfile.ZIP_STORED)
        self.refused(tmp_path, data.replace(struct.pack("<L", zlib.crc32(b"{}")), b"\0\0\0\0"), "is broken")

    def test_names_are_fit_to_be_shown(self, tmp_path: Path) -> None:
        data = zipped({f"{ROOT}/config/a.b.C~\x1b[31m\u202e.cfg.json": "{", "../\x1b]0;x": b""})
        self.refused(tmp_path, data, "leads out of it")
        (only,) = open_configurations(package(tmp_path, zipped({f"{ROOT}/config/a.b.C~\x1b[31m.cfg.json": "{"}))).files
        assert only.where.isprintable() and only.pid.isprintable()
