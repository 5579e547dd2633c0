"""AUTH PLAIN and LOGIN.

Property: any lines give prompts, one `Login` or `BadResponse`. A login holds no NUL, shows its password nowhere, and is
what the client's base64 says, no more and no less.
"""

from __future__ import annotations

import base64

from outgate.smtp.sasl import BadResponse, Exchange, Login

SEEDS = (
    b"P" + base64.b64encode(b"\0user\0secret"),
    b"P\n" + base64.b64encode(b"other\0user\0"),
    b"P=",
    b"L\ndXNlcg==\nc2VjcmV0",
    b"LdXNlcg==\nc2VjcmV0",
    b"L\n*",
    b"P" + base64.b64encode(b"\0\xff\0\xfe"),
    b"PAHVzZXIAc2VjcmV0====",
)


def one_input(data: bytes) -> None:
    mechanism = "LOGIN" if data[:1] == b"L" else "PLAIN"
    first, *lines = data[1:].split(b"\n")
    exchange = Exchange(mechanism)
    given = ([b"" if first == b"=" else first] if first else []) + lines
    try:
        result = exchange.start(first or None)
        for line in lines:
            if isinstance(result, Login):
                break
            assert result in (b"", b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6")
            result = exchange.respond(line)
    except BadResponse as error:
        assert all(line.decode("latin-1") not in str(error) for line in given if len(line) > 8)
        return
    if not isinstance(result, Login):
        return
    assert "\0" not in result.username + result.password + result.authorization
    assert "password" not in repr(result).replace(repr(result.username), "").replace(repr(result.authorization), "")
    said = [base64.b64decode(line).decode() for line in given[: 1 if mechanism == "PLAIN" else 2]]
    if mechanism == "PLAIN":
        assert result.username and said == [f"{result.authorization}\0{result.username}\0{result.password}"]
    else:
        assert said == [result.username, result.password]


if __name__ == "__main__":
    from _run import run

    run(__file__)
