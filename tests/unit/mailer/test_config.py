"""From a folder of configuration files to the ten properties."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from outgate.mailer import AsyncMailService, MailService, config
from outgate.mailer.config import FILE_NAME, PID, load
from outgate.mailer.folders import open_configurations
from outgate.mailer.osgi import OsgiError
from outgate.mailer.values import ConfigError

EXAMPLE = (
    Path(__file__).parents[3] / "examples/wknd/ui.config/src/jcr_root/apps/wknd-examples/osgiconfig/config" / FILE_NAME
)


def find(place: Path, run_modes: Iterable[str] = ()) -> Path:
    return Path(open_configurations(place, PID).resolve(PID, run_modes).where)


def put(folder: Path, **properties: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE_NAME
    file.write_text(json.dumps({name.replace("_", "."): value for name, value in properties.items()}))
    return file


def settings(tmp_path: Path, *, env: dict[str, str] | None = None, classic: bool = False, **properties: object):
    file = put(tmp_path, **({"smtp_host": "mx.test"} | properties))
    return load(file, env=env or {}, secrets={}, classic=classic)


class TestExample:
    def test_the_vendors_newest_revision(self) -> None:
        given = load(
            EXAMPLE, env={"EMAIL_USERNAME": "u", "AEM_PROXY_HOST": "10.0.0.1"}, secrets={"EMAIL_PASSWORD": "p"}
        )
        assert (given.host, given.port, given.user, given.password) == ("10.0.0.1", 30465, "u", "p")
        assert (given.from_address, given.tls, given.oauth) == ("noreply@wknd.site", "implicit", False)

    def test_defaults(self) -> None:
        given = load(EXAMPLE, env={}, secrets={"EMAIL_PASSWORD": "p"})
        assert (given.host, given.user) == ("proxy.tunnel", "myApiKey")

    def test_a_password_that_is_not_set_is_an_error_and_no_password(self) -> None:
        with pytest.raises(ConfigError, match=r"smtp.password: nothing is set for \$\[secret:EMAIL_PASSWORD\]"):
            load(EXAMPLE, env={}, secrets={})


class TestProperties:
    @pytest.mark.parametrize("port", ["30465", 30465, "$[env:P]", "$[env:P;type=Integer]"])
    def test_port(self, tmp_path, port: object) -> None:
        assert settings(tmp_path, env={"P": "30465"}, smtp_port=port).port == 30465

    @pytest.mark.parametrize("port", ["", "x", 24, 65536, "465 ", 1.5, "$[env:NONE]", ["1"], "４６５"])
    def test_bad_port(self, tmp_path, port: object) -> None:
        with pytest.raises(ConfigError, match=r"smtp.port"):
            settings(tmp_path, smtp_port=port)

    @pytest.mark.parametrize("host", ["", "  ", "$[env:NONE]", "$[env:LOOP]", "a b", "a\r\nb", "ü..x", "-ü-.x"])
    def test_bad_host(self, tmp_path, host: str) -> None:
        with pytest.raises(ConfigError, match=r"smtp.host"):
            settings(tmp_path, env={"LOOP": "$[env:LOOP]"}, smtp_host=host)

    @pytest.mark.parametrize("name", ["smtp_user", "from_address"])
    def test_other_literal_placeholders(self, tmp_path, name: str) -> None:
        with pytest.raises(ConfigError, match=name.replace("_", ".")):
            settings(tmp_path, **{name: "$[env:NONE]"})

    @pytest.mark.parametrize(("given", "expected"), [(True, True), ("true", True), ("FALSE", False), ("", False)])
    def test_flags_may_be_text(self, tmp_path, given: object, expected: bool) -> None:
        assert settings(tmp_path, smtp_ssl=given).ssl is expected

    def test_bad_flag(self, tmp_path) -> None:
        with pytest.raises(ConfigError, match=r"smtp.ssl: expected true or false"):
            settings(tmp_path, smtp_ssl="yes")

    def test_names_are_not_case_sensitive(self, tmp_path) -> None:
        file = tmp_path / "x.cfg.json"
        file.write_text('{"SMTP.Host": "mx.test", "smtp.PORT": 587}')
        given = load(file, env={}, secrets={})
        assert (given.host, given.port) == ("mx.test", 587)

    @pytest.mark.parametrize(
        ("ssl", "starttls", "requiretls", "cloud", "classic"),
        [
            (True, False, False, "implicit", "implicit"),
            (True, True, True, "implicit", "implicit"),
            (False, True, False, "opportunistic", "opportunistic"),
            (False, False, True, "required", "required"),
            (False, True, True, "required", "required"),
            (False, False, False, "opportunistic", "none"),
        ],
    )
    def test_tls(self, tmp_path, ssl: bool, starttls: bool, requiretls: bool, cloud: str, classic: str) -> None:
        given = {"smtp_ssl": ssl, "smtp_starttls": starttls, "smtp_requiretls": requiretls}
        assert settings(tmp_path, **given).tls == cloud
        assert settings(tmp_path, classic=True, **given).tls == classic

    def test_oauth_needs_a_user_and_no_password(self, tmp_path) -> None:
        with pytest.raises(ConfigError, match=r"smtp\.user: expected the mailbox"):
            settings(tmp_path, oauth_flow=True)
        assert settings(tmp_path, oauth_flow=True, smtp_user="mailer@shop.test").oauth

    def test_a_user_needs_a_password(self, tmp_path) -> None:
        with pytest.raises(ConfigError, match=r"smtp.password"):
            settings(tmp_path, smtp_user="u")

    def test_an_error_names_file_and_place(self, tmp_path) -> None:
        file = tmp_path / FILE_NAME
        file.write_text('{\n  "smtp.host": "x"\n  "smtp.port": 1\n}')
        with pytest.raises(OsgiError) as caught:
            load(file, env={}, secrets={})
        assert str(caught.value).startswith(f"{file}: line 3, column 3: expected ,")
        assert (caught.value.line, caught.value.column) == (3, 3)

    def test_an_error_of_a_list_does_too(self, tmp_path) -> None:
        file = tmp_path / FILE_NAME
        file.write_text('{"smtp.host": "mx.test",\n  "x": ["a", "$[env:P;type=int]"]}')
        with pytest.raises(ConfigError) as caught:
            load(file, env={"P": "x"}, secrets={})
        assert (
            str(caught.value) == f"{file}: line 2, column 8: x: the value of $[env:P] is not a number of type Integer"
        )

    def test_wrong_encoding_has_a_place(self, tmp_path) -> None:
        file = tmp_path / FILE_NAME
        file.write_bytes(b'{\n"a": "\xe4"}')
        with pytest.raises(OsgiError, match=r"line 2, column 7.*UTF-8"):
            load(file, env={}, secrets={})

    def test_a_secret_file_that_is_no_text(self, tmp_path) -> None:
        (tmp_path / "S").write_bytes(b"\xff\xfe")
        file = put(tmp_path, smtp_host="$[secret:S]")
        with pytest.raises(ConfigError, match="UTF-8"):
            load(file, env={}, secrets=config.secrets_from(tmp_path, {}))


class TestRunModes:
    @pytest.mark.parametrize(
        ("folders", "modes", "winner"),
        [
            (["config", "config.author"], ["author"], "config.author"),
            (["config", "config.author"], ["publish"], "config"),
            (["config", "config.author", "config.author.dev"], ["author", "dev"], "config.author.dev"),
            (["config", "config.author.stage"], ["author", "dev"], "config"),
            (["config", "config.publish"], ["preview"], "config.publish"),
            (["config.dev", "config.rde"], ["rde"], "config.rde"),
            (["config", "config.dev"], ["rde"], "config.dev"),
            (["config", "configuration.author"], ["author"], "config"),
            (["config"], [], "config"),
        ],
    )
    def test_the_most_modes_win(self, tmp_path, folders: list[str], modes: list[str], winner: str) -> None:
        for folder in folders:
            put(tmp_path / folder)
        assert find(tmp_path, modes).parent.name == winner

    def test_the_whole_file_counts_without_merging(self, tmp_path) -> None:
        put(tmp_path / "config", smtp_host="base.test", smtp_port=2525)
        put(tmp_path / "config.author", smtp_host="author.test")
        given = load(tmp_path, ["author"], env={}, secrets={})
        assert (given.host, given.port) == ("author.test", 25)

    def test_a_tie_names_both(self, tmp_path) -> None:
        for folder in ("config.author", "config.dev"):
            put(tmp_path / folder)
        with pytest.raises(ConfigError, match=r"config\.author/\S+ and \S+config\.dev/"):
            find(tmp_path, ["author", "dev"])

    def test_none(self, tmp_path) -> None:
        put(tmp_path / "config.publish")
        with pytest.raises(ConfigError, match="run modes author"):
            find(tmp_path, ["author"])
        with pytest.raises(ConfigError, match="does not exist"):
            find(tmp_path / "nowhere")

    def test_the_config_folder_itself(self, tmp_path) -> None:
        assert find(put(tmp_path / "config").parent) == tmp_path / "config" / FILE_NAME


@pytest.mark.parametrize("run_modes", ["author;dev", "author dev", "author,,dev", ["author", ""], ["config.author"]])
def test_what_is_no_run_mode(tmp_path, run_modes: Iterable[str]) -> None:
    with pytest.raises(ConfigError, match="is no run mode: expected names with commas between"):
        MailService.load(tmp_path, run_modes, env={})


@pytest.mark.parametrize("service", [MailService, AsyncMailService])
@pytest.mark.parametrize("run_modes", ["author,dev", "dev, author", ["author", "dev"], ("author,dev",)])
def test_run_modes_as_one_text_or_several(
    tmp_path, service: type[MailService | AsyncMailService], run_modes: Iterable[str]
) -> None:
    put(tmp_path / "config", smtp_host="all.test")
    put(tmp_path / "config.author.dev", smtp_host="dev.test")
    assert service.load(tmp_path, run_modes, env={}).config.host == "dev.test"


class TestLog:
    def test_what_is_noticed_is_a_warning_without_values(self, tmp_path, caplog) -> None:
        file = put(tmp_path, smtp_host="mx.test", smtp_pasword="hush")
        load(file, env={}, secrets=[tmp_path / "none"])
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("WARNING", f"no secrets are read from {tmp_path / 'none'}: no such directory"),
            (
                "WARNING",
                f"{file}: line 1, column 26: smtp.pasword: is no property of the mail service:"
                " did you mean smtp.password?",
            ),
        ]

    def test_a_value_that_felix_changes_is_that_value_and_a_warning(self, tmp_path, caplog) -> None:
        file = tmp_path / FILE_NAME
        file.write_text('{"smtp.host": "mx.test",\n"smtp.port:Integer": [587, 25],\n"other:Byte": 200}')
        assert load(file, env={}, secrets={}).port == 587
        (told, _) = (record.getMessage() for record in caplog.records)
        assert told.startswith(f"{file}: line 2, column 22: smtp.port: loses all elements but the first")

    def test_otherwise_nothing_is_told(self, tmp_path, caplog) -> None:
        load(put(tmp_path, smtp_host="mx.test"), env={}, secrets=tmp_path)
        assert not caplog.records


class TestRunModesOfTheProcess:
    def test_those_of_the_environment_unless_others_are_given(self, tmp_path) -> None:
        put(tmp_path / "config", smtp_host="all.test")
        put(tmp_path / "config.author.stage", smtp_host="stage.test")
        env = {"OUTGATE_RUN_MODES": "author,stage"}
        assert MailService.load(tmp_path, env=env).config.host == "stage.test"
        assert MailService.load(tmp_path, (), env=env).config.host == "all.test"
        assert MailService.load(tmp_path, "publish", env=env).config.host == "all.test"
        assert MailService.load(tmp_path, env={}).config.host == "all.test"


class TestSecrets:
    def test_directories_from_the_environment(self, tmp_path) -> None:
        (tmp_path / "P").write_text("p\n")
        file = put(tmp_path, smtp_host="mx.test", smtp_user="u", smtp_password="$[secret:P]")
        assert load(file, env={"OUTGATE_SECRETS": str(tmp_path)}, secrets=None).password == "p"

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ("", "no directory with secrets is given"),
            ("{0}/none", "{0}/none is no directory"),
            ("{0}", "no file of that name in {0}"),
        ],
    )
    def test_a_missing_one_is_told_with_its_reason(self, tmp_path, given: str, why: str) -> None:
        file = put(tmp_path, smtp_host="mx.test", smtp_user="u", smtp_password="$[secret:P]")
        with pytest.raises(ConfigError) as caught:
            load(file, env={"OUTGATE_SECRETS": given.format(tmp_path)}, secrets=None)
        assert str(caught.value) == (
            f"{file}: line 1, column 61: smtp.password: nothing is set for $[secret:P] ({why.format(tmp_path)}):"
            " set it as a secret, or give the placeholder a default"
        )
