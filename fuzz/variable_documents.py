"""JSON and YAML documents of variables.

Property: any octets give variables or `Unfit` with one line that begins with the document's name; none of what a value
holds is in it. What is read as JSON is JSON, and has the values that stand there.
"""

from __future__ import annotations

import json

from outgate.cli.variable_documents import ENTRIES_LIMIT, read_json, read_yaml
from outgate.cli.variable_plan import Unfit

MARK = "Zq7Zq7"
SEEDS = (
    b'[{"name": "AB", "value": "Zq7Zq7"}]',
    b'[{"name": "AB", "value": "x\\u00e9\\n", "type": "secretString", "service": "author"}, {"name": "CD", "value": ""}]',
    b'[{"name": "AB", "value": 1.50, "status": "ready"}, {"name": "CD", "value": true}]',
    b"- name: AB\n  value: Zq7Zq7\n  type: secretString\n",
    b"- {name: AB, value: 'it''s'}\n- {name: CD, value: yes}\n",
    b"- name: AB\n  value: |\n    two\n    lines\n# end\n",
    b"- &a {name: AB, value: !!str x}\n- *a\n---\n",
    b"%YAML 1.1\n--- !!seq\n- ? name\n  : AB\n...\n",
    b"- name: AB\n  value: !Zq7Zq7 [Zq7Zq7, {Zq7Zq7: *Zq7Zq7}]\n",
    b"\xef\xbb\xbf[]\x00\xff",
)


def one_input(data: bytes) -> None:
    for read in (read_json, read_yaml):
        try:
            found = read(data, "vars")
        except Unfit as error:
            (reason,) = error.reasons
            assert reason.startswith("vars") and "\n" not in reason and MARK not in reason
            continue
        assert len(found) <= ENTRIES_LIMIT
        assert all(type(text) is str for wish in found for text in (wish.name, wish.value, wish.type, wish.service))
        if read is read_json:
            plain = json.loads(data.decode("utf-8-sig"))
            assert [each["name"] for each in plain] == [wish.name for wish in found]
            for each, wish in zip(plain, found, strict=True):
                assert each["value"] == (wish.value if isinstance(each["value"], str) else json.loads(wish.value))


if __name__ == "__main__":
    from _run import run

    run(__file__)
