"""Say whether a host is one of those that leave past an environment's own way.

Standards: the vendor's `nonProxyHosts`: `name`, `*.name` or `name.*`.
Promises: pure and total; case and one dot at the end do not matter; a wildcard stands for one label or more, so that
    `*.example.com` is not `example.com`; an entry of another shape names nothing.
Dangers: what is matched is what was asked for, never what it resolves to: `10.1.2.3` is matched by `10.1.2.3`, `10.*`
    and `*.3`, and by no name.
Not here: which entries are accepted (`api.cloud_manager`), how such hosts leave (`http_proxy`).
"""

from __future__ import annotations

from collections.abc import Iterable


def spared(host: str, entries: Iterable[str]) -> str:
    """Return the entry that names `host` (a name or an address without brackets), or ""."""
    asked = _plain(host)
    if not asked:
        return ""
    for entry in entries:
        if _names(_plain(entry), asked):
            return entry
    return ""


def _names(entry: str, asked: str) -> bool:
    if "*" not in entry:
        return entry == asked
    if entry.startswith("*.") and "*" not in entry[1:]:
        # Something has to stand where the wildcard does.
        return len(entry) > 2 and asked.endswith(entry[1:]) and len(asked) >= len(entry)
    if entry.endswith(".*") and "*" not in entry[:-1]:
        return len(entry) > 2 and asked.startswith(entry[:-1]) and len(asked) >= len(entry)
    return False


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".").removeprefix("[").removesuffix("]")
