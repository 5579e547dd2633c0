"""Which file counts: names, run modes, project trees, and what is told of what does not count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.mailer.folders import ConfigFile, Configurations, open_configurations
from outgate.mailer.osgi import OsgiError
from outgate.mailer.values import ConfigError

MAIL = "com.day.cq.mailer.DefaultMailService"
FILE = f"{MAIL}.cfg.json"


def tree(root: Path, *paths: str) -> Path:
    """Write files; each holds its own path."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{{"path": "{path}"}}', "utf-8")
    return root


def chosen(found: Configurations, pid: str, *run_modes: str) -> str:
    return str(found.resolve(pid, run_modes).parse()["path"].value.value)


def kinds(found: Configurations) -> dict[str, str]:
    return {each.where.rpartition("/")[2]: each.kind for each in found.oddities}


class TestNames:
    @pytest.mark.parametrize(
        ("file", "pid", "factory", "name"),
        [
            ("a.b.C.cfg.json", "a.b.C", "", ""),
            ("a.b.C~x.cfg.json", "a.b.C~x", "a.b.C", "x"),
            ("a.b.C-x.cfg.json", "a.b.C~x", "a.b.C", "x"),
            ("a.b.C~x-y~z.cfg.json", "a.b.C~x-y~z", "a.b.C", "x-y~z"),
            ("a.b.C-x~y.cfg.json", "a.b.C-x~y", "a.b.C-x", "y"),
            ("a.b.C-x-y.cfg.json", "a.b.C~x-y", "a.b.C", "x-y"),
            ("~x.cfg.json", "~x", "", ""),
        ],
    )
    def test_factories_and_their_instances(self, tmp_path: Path, file: str, pid: str, factory: str, name: str) -> None:
        (only,) = open_configurations(tree(tmp_path, file)).files
        assert (only.pid, only.factory, only.name) == (pid, factory, name)

    def test_both_spellings_of_an_instance_are_one_pid(self, tmp_path: Path) -> None:
        found = open_configurations(tree(tmp_path, "a.b.C-x.cfg.json"))
        assert chosen(found, "a.b.C~x") == chosen(found, "a.b.C-x") == "a.b.C-x.cfg.json"
        with pytest.raises(ConfigError, match=r"C-x.* and .*C~x.*equally well"):
            open_configurations(tree(tmp_path, "a.b.C~x.cfg.json")).resolve("a.b.C~x")


class TestPlaces:
    def test_one_file_is_taken_for_what_is_asked(self, tmp_path: Path) -> None:
        file = tree(tmp_path, "mail.json") / "mail.json"
        assert chosen(open_configurations(file, MAIL), MAIL) == "mail.json"

    def test_a_project_with_several_modules(self, tmp_path: Path) -> None:
        root = "ui.config/src/main/content/jcr_root/apps/shop/osgiconfig"
        found = open_configurations(
            tree(
                tmp_path,
                f"{root}/config/{FILE}",
                f"{root}/config.author/{FILE}",
                "other/jcr_root/apps/other/config.publish/a.b.C.cfg.json",
                "docs/osgiconfig/config.dev/a.b.D.cfg.json",
                f"ui.config/target/classes/jcr_root/apps/shop/osgiconfig/config/{FILE}",
                f"ui.frontend/node_modules/x/osgiconfig/config/{FILE}",
                f".git/osgiconfig/config/{FILE}",
                f"docs/config/{FILE}",
            )
        )
        assert chosen(found, MAIL) == f"{root}/config/{FILE}"
        assert chosen(found, MAIL, "author", "dev") == f"{root}/config.author/{FILE}"
        assert {(file.pid, file.run_modes) for file in found.files} == {
            (MAIL, ()), (MAIL, ("author",)), ("a.b.C", ("publish",)), ("a.b.D", ("dev",)),
        }  # fmt: skip
        assert found.oddities == ()

    @pytest.mark.parametrize("place", [".", "jcr_root", "jcr_root/apps", "jcr_root/apps/shop"])
    def test_any_folder_of_a_project(self, tmp_path: Path, place: str) -> None:
        tree(tmp_path, f"jcr_root/apps/shop/config.author/{FILE}")
        assert open_configurations(tmp_path / place).resolve(MAIL, ["author"])

    @pytest.mark.parametrize("name", ["config.prod", f"config.prod/{FILE}"])
    def test_a_link_to_nothing_where_another_file_would_count(self, tmp_path: Path, name: str) -> None:
        tree(tmp_path, f"config/{FILE}", "config.prod.author/a.b.C.cfg.json")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.symlink("nowhere", tmp_path / name)
        with pytest.raises(ConfigError, match=f"{name} is a link that leads to nothing"):
            open_configurations(tmp_path)

    def test_a_folder_that_cannot_be_read_where_another_file_would_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree(tmp_path, f"config/{FILE}", f"config.prod/{FILE}", "data/x/y")
        really = os.scandir

        def scandir(folder: Path) -> Iterator[os.DirEntry[str]]:  # root can read any folder
            if folder.name in closed:
                raise PermissionError(13, "Permission denied")
            return really(folder)

        closed = {"data"}
        monkeypatch.setattr("outgate.mailer.folders.os.scandir", scandir)
        assert len(open_configurations(tmp_path).files) == 2
        closed.add("config.prod")
        with pytest.raises(ConfigError, match=r"config\.prod cannot be read: Permission denied"):
            open_configurations(tmp_path)

    def test_folders_that_link_in_a_circle(self, tmp_path: Path) -> None:
        tree(tmp_path, f"real/osgiconfig/config/{FILE}")
        os.symlink(tmp_path, tmp_path / "real" / "back")
        os.symlink(tmp_path / "real", tmp_path / "again")
        os.symlink(tmp_path / "self", tmp_path / "self")
        assert [file.where for file in open_configurations(tmp_path).files] == [
            str(tmp_path / "real/osgiconfig/config" / FILE)
        ]

    def test_a_folder_that_is_linked_in(self, tmp_path: Path) -> None:
        tree(tmp_path, f"elsewhere/config.author/{FILE}")
        (tmp_path / "project").mkdir()
        os.symlink(tmp_path / "elsewhere", tmp_path / "project" / "osgiconfig")
        assert chosen(open_configurations(tmp_path / "project"), MAIL, "author")

    def test_what_is_no_file_is_not_opened(self, tmp_path: Path) -> None:
        (tmp_path / "config").mkdir()
        os.mkfifo(tmp_path / "config" / FILE)
        (tmp_path / "config" / f"a{FILE}").mkdir()
        assert open_configurations(tmp_path).files == ()

    def test_a_tree_that_is_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree(tmp_path, *(f"config/a.b.C{number}.cfg.json" for number in range(5)))
        for limit in ("_MOST_FILES", "_MOST_ENTRIES", "_MOST_DATA"):
            with monkeypatch.context() as patched:
                patched.setattr(f"outgate.mailer.folders.{limit}", 4)
                with pytest.raises(ConfigError, match="more than 4"):
                    open_configurations(tmp_path)

    def test_a_file_that_is_too_large_is_not_read_whole(self, tmp_path: Path) -> None:
        with (tmp_path / FILE).open("wb") as file:
            file.truncate(1 << 40)
        (only,) = open_configurations(tmp_path).files
        with pytest.raises(OsgiError, match="at most 1048576 octets") as caught:
            only.parse()
        assert caught.value.file == str(tmp_path / FILE)

    def test_names_are_fit_to_be_shown(self, tmp_path: Path) -> None:
        odd = os.fsdecode(b"a.b.C~\x1b[31m\xff.cfg.json")
        (tmp_path / odd).write_text("{", "utf-8")
        (only,) = open_configurations(tmp_path).files
        assert only.pid.isprintable() and only.where.isprintable()
        assert open_configurations(tmp_path / odd).files == (only,)
        with pytest.raises(OsgiError) as caught:
            only.parse()
        str(caught.value).encode("utf-8")

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not exist"):
            open_configurations(tmp_path / "x")

    def test_no_path_is_not_the_folder_one_happens_to_be_in(self, tmp_path: Path, monkeypatch) -> None:
        tree(tmp_path, f"config/{FILE}")
        monkeypatch.chdir(tmp_path)
        assert open_configurations(".").files
        with pytest.raises(ConfigError, match="expected the path of a file or folder, found an empty text"):
            open_configurations("")

    def test_neither_file_nor_folder(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.cfg.json")
        with pytest.raises(ConfigError, match="is neither a file nor a folder"):
            open_configurations(tmp_path / "x.cfg.json")

    def test_a_path_is_shown_in_signs_that_steer_no_terminal(self, tmp_path: Path) -> None:
        for name in ("a\x1b[31m", "a\nb", "a\0b"):
            with pytest.raises(ConfigError, match="does not exist") as caught:
                open_configurations(tmp_path / name)
            assert str(caught.value).isprintable()


class TestNotFound:
    def test_other_run_modes(self, tmp_path: Path) -> None:
        found = open_configurations(tree(tmp_path, f"config.author.prod/{FILE}"))
        with pytest.raises(ConfigError, match=r"for the run modes dev: .*counts for the run modes author, prod only"):
            found.resolve(MAIL, ["dev"])

    @pytest.mark.parametrize("sign", "~-")
    def test_an_instance_of_a_factory(self, tmp_path: Path, sign: str) -> None:
        found = open_configurations(tree(tmp_path, f"config/{MAIL}{sign}shop.cfg.json"))
        with pytest.raises(ConfigError, match=f"is an instance of a factory, rename it to {FILE}"):
            found.resolve(MAIL)

    def test_the_pid_of_the_vendors_old_page(self, tmp_path: Path) -> None:
        found = open_configurations(tree(tmp_path, "config/com.day.cq.mailer.impl.DefaultMailService.cfg.json"))
        with pytest.raises(ConfigError, match=f"another PID, rename it to {FILE}"):
            found.resolve(MAIL)

    @pytest.mark.parametrize("path", [f"osgiconfig/config_author/{FILE}", f"osgiconfig/config/{MAIL}.json"])
    def test_a_file_that_nobody_reads(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(ConfigError, match=r"not read.*(?:move it|rename it)"):
            open_configurations(tree(tmp_path, path)).resolve(MAIL)


class TestOtherFormats:
    @pytest.mark.parametrize("suffix", [".config", ".cfg", ".properties", ".xml"])
    def test_instead(self, tmp_path: Path, suffix: str) -> None:
        tree(tmp_path, f"config/{FILE}", f"config.author/{MAIL}{suffix}")
        (tmp_path / "config.author" / f"{MAIL}{suffix}").write_text('<jcr:root jcr:primaryType="sling:OsgiConfig"/>')
        found = open_configurations(tmp_path)
        assert kinds(found) == {f"{MAIL}{suffix}": "old-format"}
        assert chosen(found, MAIL, "publish") == f"config/{FILE}"
        with pytest.raises(ConfigError, match=f"{suffix} would be in force.*write it as {FILE}"):
            found.resolve(MAIL, ["author"])

    def test_beside(self, tmp_path: Path) -> None:
        found = open_configurations(tree(tmp_path, f"config/{FILE}", f"config/{MAIL}.config"))
        with pytest.raises(ConfigError, match="old format"):
            found.resolve(MAIL)

    def test_weaker(self, tmp_path: Path) -> None:
        found = open_configurations(tree(tmp_path, f"config.author/{FILE}", f"config/{MAIL}.config"))
        assert chosen(found, MAIL, "author") == f"config.author/{FILE}"

    def test_other_files_are_none(self, tmp_path: Path) -> None:
        names = ("package.json", "pom.xml", "build.properties", "config/tsconfig.app.json", "config/.content.xml")
        found = open_configurations(tree(tmp_path, *names, "config/a.b.C.xml"))
        assert (found.files, found.old, found.oddities) == ((), (), ())


class TestOddities:
    def test_each_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        found = open_configurations(
            tree(
                tmp_path,
                f"osgiconfig/config.preview/{FILE}",
                f"osgiconfig/config.dev.author/{FILE}",
                f"osgiconfig/config.author.dev/{FILE}",
                f"osgiconfig/config/{MAIL}.JSON",
                f"osgiconfig/config/sub/{FILE}",
            )
        )
        assert kinds(found) == {
            "config.preview": "run-modes", "config.dev.author": "run-modes", f"{MAIL}.JSON": "name", FILE: "place",
        }  # fmt: skip
        assert all(each.text and each.remedy for each in found.oddities)
        assert found.candidates(MAIL, ["preview"]) == []

    def test_a_data_file_shows_nothing_of_what_it_holds(self) -> None:
        assert "secret" not in repr(ConfigFile(MAIL, (), "x", b'{"smtp.password": "secret"}'))
