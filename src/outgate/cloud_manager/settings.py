"""The settings of the vendor's client (aio): the variables `AIO_…` and the file that `AIO_CONFIG_FILE` names.

Standards: in a variable's name "_" parts the key and "__" is the sign itself; the file is Hjson, as that client writes
    it. Keys count in any case; a variable counts more than the file.
Promises: no error has a piece of the file: it holds tokens.
Not here: the file's other form (YAML), files that no variable names, what settings mean (`choice`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from outgate.cloud_manager.hjson import BadHjson, settings_of
from outgate.cloud_manager.refusals import Misconfigured

_OCTETS = 1024 * 1024


def vendor_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return the settings by dotted key in lower case. Raises `Misconfigured` for a file that cannot be used."""
    name = env.get("AIO_CONFIG_FILE")
    found = _of_file(name) if name else {}
    for variable, text in env.items():
        if variable.upper().startswith("AIO_"):
            key = ".".join(re.split(r"(?<!_)_(?!_)", variable[4:].lower())).replace("__", "_")
            # What the file has there is replaced as a whole: a token is not joined with the end of another.
            above = {key[: at.start()] for at in re.finditer(r"\.", key)}
            found = {old: kept for old, kept in found.items() if old not in above and not old.startswith(f"{key}.")}
            found[key] = text
    whole = found.pop("cloudmanager", "")
    # That one is also taken as a text in JSON.
    return {f"cloudmanager.{key}": text for key, text in _of_text(whole).items()} | found if whole else found


def _of_text(text: str) -> dict[str, str]:
    try:
        return settings_of(text)
    except BadHjson as error:
        raise Misconfigured(f"the setting cloudmanager (AIO_CLOUDMANAGER) is not an object in JSON ({error})") from None


def _of_file(name: str) -> dict[str, str]:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(_OCTETS + 1)
        if len(raw) > _OCTETS:
            raise Misconfigured(f"AIO_CONFIG_FILE: {name} has more than {_OCTETS} octets")
        return settings_of(raw.decode("utf-8-sig"))
    except OSError as error:
        raise Misconfigured(f"AIO_CONFIG_FILE: {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"AIO_CONFIG_FILE: {name} is not UTF-8 (octet {error.start + 1})") from None
    except BadHjson as error:
        raise Misconfigured(f"AIO_CONFIG_FILE: {name} is neither JSON nor Hjson, as aio writes it ({error})") from None
