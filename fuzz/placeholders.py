"""Values with placeholders, and the values that these lead to.

Property: any text gives a value of a known type or an error, in bounded time; a text without a marker is itself, and so is
one without values whose brackets are escaped; nothing that is told, of what was looked up or of why it failed, has a
sign that only the secrets have.
"""

from __future__ import annotations

from outgate.mailer.interpolate import Explained, InterpolationError, explain, interpolate
from outgate.mailer.values import Value, known

SEEDS = (
    b"$[env:AEM_PROXY_HOST;default=proxy.tunnel]\0\0",
    b"$[secret:S]$[env:A;type=Integer]\x008080\0PA55 $[env:A]",
    b"$[env:A;type=int[];delimiter=,;default=1\\,2]\x001,2,x\0",
    b"\\$[env:A] \\\\$[secret:S] $[env:$[env:A]]\0B\0X\\]Y",
    b"$[conf:c;default=$[secret:S;default=[8080]]]\0$[secret:S]\0$[env:A]\\",
    b"$[env:A;type=char[]]$[prop:A;type=float]\x001e3\0;TYPE=X;default=",
    b"$[foo:$[secret:S]\\]]$[env:A\0$[$[$[\0[[[",
    b"$[env:X;default=a\\;b;c=d]\0$[conf:c]\0$[secret:S]",
)


def hidden(text: str) -> str:
    """Return a secret whose capital letters and digits are signs that nothing else has."""
    return "".join(
        chr(0x4E00 + ord(sign)) if sign.isascii() and (sign.isupper() or sign.isdigit()) else sign for sign in text
    )


def shows(text: str) -> bool:
    """Say whether a sign of a secret is in a text."""
    return any(0x4E00 <= ord(sign) < 0x4E80 for sign in text) or "\\u4e" in text


def told(explained: Explained) -> str:
    """Return all that may be shown of what was looked up."""
    return " ".join(
        f"{each!r} {each.label} {each.source} {each.written} {each.type} {each.default_from} {each.meant} {each.reason}"
        for each in explained.lookups
    ) + repr(explained) + "".join(explained.stayed)  # fmt: skip


def one_input(data: bytes) -> None:
    value, env_value, secret, *_ = [*data.decode("utf-8", "replace").split("\0"), "", "", ""]
    if shows(value + env_value):
        return
    env = {"A": env_value, "B": "b", "": "e"}
    conf = {"c": Value("String", env_value), "d": Value("Float", 1.5), "e": Value("String[]", (value, "x"))}
    secrets = {"S": hidden(secret)}
    try:
        explained = explain(value, env=env, secrets=secrets, props=env, conf=conf)
    except InterpolationError as error:
        assert not shows(f"{error} {error!r} {error.__cause__!r}")
        return
    found = explained.value
    assert known(found.type) and isinstance(found.value, tuple) == found.type.endswith("[]")
    assert interpolate(value, env=env, secrets=secrets, props=env, conf=conf).text == found.text
    assert not shows(told(explained))
    if "$[" not in value:
        assert found == Value("String", value) and not explained.lookups
    plain = value.replace("\\", "/").replace("$[", "\\$[")
    assert interpolate(plain, env=env, secrets=secrets).value == value.replace("\\", "/")


if __name__ == "__main__":
    from _run import run

    run(__file__)
