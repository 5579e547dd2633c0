"""The file of settings of the vendor's client, in Hjson.

Property: any text gives texts by key or `BadHjson` with a place in it; what is an object in JSON is read, and its texts
are there as they are.
"""

from __future__ import annotations

import json

from outgate.cloud_manager.hjson import BadHjson, settings_of

SEEDS = (
    b'{\n  cloudmanager: {\n    base_url: "https://cm.example/a"\n  },\n  cloudmanager_programid: "4"\n}\n',
    b'{ims: {contexts: {cli: {access_token: {token: "a.b.c", expiry: 1700000000000}}, other: {scopes: ["x", y\n]}}}}',
    b"{# one\n // two\n /* three */ 'a': text up to here, and here // too\n b: 1 # not\n c: tru\n d: true}",
    b'{"A": {"b": [1, {"c": null}], "b": -1.5e3}, "tab": "\\t\\u00e9\\\\"}',
    b'{a: {b: {}, c: []}, "odd: key": false}',
)


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        found = settings_of(text)
    except BadHjson as error:
        assert 1 <= error.line <= text.count("\n") + 1 and 1 <= error.column <= len(text) + 1
        found = None
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(plain, dict) and text.count("{") + text.count("[") < 50:
        assert found is not None
        for key, value in plain.items():
            if isinstance(value, str) and len(key) < 500 and key.islower() and key.isidentifier():
                assert found[key] == value


if __name__ == "__main__":
    from _run import run

    run(__file__)
