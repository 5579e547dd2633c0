"""Configuration files of OSGi.

Property: any octets are properties or an `OsgiError` whose place is in the text and which can be shown; properties have
places in their order, and once written and read again are the same.
"""

from __future__ import annotations

from outgate.mailer.osgi import OsgiError, decode, parse, read, write

SEEDS = (
    b'{"smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]", "smtp.port": 30465, "smtp.ssl": true}',
    b'// a\n{ /* b */ "p:Integer[]": ["1", 2], "q:Collection<Float>": [1.5], "r": [1, 2.5], "s": [[1], {"a": null}] }',
    b'{"p:char": "x", "q:Character[]": "xyz", "r:Double": "NaN", "s": -0.0, "t:String": [1, "a"], "u": [{"a": 1}]}',
    b'{\n authUrl: "x",\n tokenUrl: \'y\'\n "z" = 1;\n # c\n}',
    b'{":configurator:version": "1", "a.b.C~x": {"p": 1}}',
    b'{"a": 1e999, "A": 99999999999999999999, "p:Integer": "$[env:A]", "q:integer": 1, "": 2}',
    b'{"a": "\\ud83d\\ude00\\ud800"}',
    b'\xef\xbb\xbf{}',
    b"\xff\xfe{\0}\0",
    b"{\xe2\x80\x9csmtp.host\xe2\x80\x9d: 007, 'b': True}",
    b"[" * 200,
    b'{"a":' * 60,
)  # fmt: skip


def one_input(data: bytes) -> None:
    try:
        text = decode(data)
        found = parse(text)
    except OsgiError as error:
        said = str(error)
        said.encode("utf-8")
        assert said.isprintable() and len(said) < 1000, said
        lines = data.decode("utf-8", "replace").split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        return
    places = [(at.line, at.column) for each in found.values() for at in (each.key_at, each.value_at, *each.elements_at)]
    assert places == sorted(set(places))
    values = {name: each.value for name, each in found.items()}
    assert repr_of(read(write(values))) == repr_of(values)


def repr_of(values: dict[str, object]) -> list[tuple[str, object, str]]:
    """Return values so that they can be compared: NaN is itself, 1 is not 1.0."""
    return [(name, value.type, repr(value.value)) for name, value in values.items()]  # pyright: ignore


if __name__ == "__main__":
    from _run import run

    run(__file__)
