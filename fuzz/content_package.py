"""Content packages.

Property: any octets behind the first four of a zip are a package, or a `ConfigError` that can be shown; the files in it
have run modes and names that can be shown, and none is longer than a configuration may be, and one sign.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from outgate.mailer.configuration.commented_json import LONGEST
from outgate.mailer.folders import open_configurations
from outgate.mailer.values import ConfigError

_APPS = "jcr_root/apps/shop"
_PID = "com.day.cq.mailer.DefaultMailService"


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


_ONE = {f"{_APPS}/osgiconfig/config.author/{_PID}.cfg.json": b'{"smtp.port": 30465}'}
SEEDS = (
    _zip(_ONE),
    _zip(_ONE, zipfile.ZIP_DEFLATED),
    _zip({f"{_APPS}-packages/application/install.author/a.zip": _zip(_ONE), **_ONE}),
    _zip({f"{_APPS}/config/{_PID}.xml": b"sling:OsgiConfig", f"{_APPS}/config/{_PID}-x.config": b""}),
    _zip({f"{_APPS}/osgiconfig/config/{_PID}~b.cfg.json": b" " * 2_000_000}, zipfile.ZIP_DEFLATED),
    _zip({"../x": b"", "/y": b""}),
    _zip({}),
)
_FILE = Path(tempfile.mkdtemp(prefix="package-")) / "package.zip"


def one_input(data: bytes) -> None:
    _FILE.write_bytes(b"PK\3\4" + data[4:])
    try:
        found = open_configurations(_FILE)
    except ConfigError as error:
        said = str(error)
        said.encode("utf-8")
        assert said.isprintable() and said.startswith(str(_FILE)), said
        return
    for file in found.files:
        assert len(file.data) <= LONGEST + 1
        assert file.where.isprintable() and file.pid.isprintable()
        assert file.where.startswith(f"{_FILE}!/")
    for each in found.oddities:
        assert each.text and each.remedy and each.where.isprintable()
    for pid in {file.pid for file in found.files}:
        try:
            found.resolve(pid, ("author", "dev")).parse()
        except ConfigError as error:
            str(error).encode("utf-8")


if __name__ == "__main__":
    from _run import run

    run(__file__)
