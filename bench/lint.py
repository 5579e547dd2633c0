"""What linting a project costs: CPU seconds for a tree of 1,000 configuration files, read from disk to findings.

    python bench/lint.py [FILES]

The tree is like a large project's: one mail configuration in each kind of folder, the rest other services' files of
about 1 KiB with placeholders, one in ten with a finding.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from outgate.doctor import annotations, lint
from outgate.doctor.traps.names import MAIL

FOLDERS = (
    "config",
    "config.author",
    "config.publish",
    "config.author.dev",
    "config.author.prod",
    "config.publish.prod",
)
ROUNDS = 5


def tree(root: Path, files: int) -> None:
    base = root / "ui.config/src/main/content/jcr_root/apps/example/osgiconfig"
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True)
        (base / folder / f"{MAIL}.cfg.json").write_text(
            json.dumps(
                {
                    "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
                    "smtp.port": "465",
                    "smtp.user": "$[env:EMAIL_USERNAME;default=apikey]",
                    "smtp.password": "$[secret:EMAIL_PASSWORD]",
                    "from.address": "noreply@example.com",
                    "smtp.ssl": True,
                },
                indent=2,
            )
        )
    for number in range(files - len(FOLDERS)):
        source = "secrets" if number % 10 == 0 else "env"
        properties = {f"property.{key}": f"$[env:NAME_{key};default=some value of some length]" for key in range(12)}
        properties |= {
            "url": f"https://$[{source}:HOST]/path",
            "numbers": [1, 2, 3],
            "enabled": True,
            "text": "x" * 200,
        }
        folder = base / FOLDERS[number % len(FOLDERS)]
        (folder / f"org.example.Service{number}.cfg.json").write_text(json.dumps(properties, indent=2))


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tree(root, files)
        took: list[float] = []
        for _ in range(ROUNDS):
            begin = time.process_time()
            found = lint.examine(root)
            text = annotations.text(found.findings, found.excerpts, files=found.files, root=root)
            log = annotations.sarif(found.findings, root=root)
            took.append(time.process_time() - begin)
        print(f"{found.files} files, {len(found.findings)} findings, {len(text) + len(log)} characters told")
        print(f"CPU: {min(took):.3f} s at best, {statistics.median(took):.3f} s in the middle of {ROUNDS}")


if __name__ == "__main__":
    main()
