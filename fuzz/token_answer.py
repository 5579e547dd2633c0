"""What an OAuth token server answers, and the challenge in which a mail server refuses a token.

Property: any octets are an answer of at most 64 KiB or `NotAnswered`; any answer gives a token that can stand in a header,
or a `TokenError` of one printable line that shows neither the client's secret nor a refresh token; any challenge leaves
the verdict's code as it is and adds at most one short, printable line.
"""

from __future__ import annotations

import io

from outgate.mailer.form_post import Answer, NotAnswered, read_answer
from outgate.mailer.oauth import OAuthConfig, TokenError, Tokens
from outgate.smtp.login import Answers
from outgate.smtp.reply import Reply

CLIENT_SECRET, REFRESH_TOKEN = "qzQZ/7+9=qzQZ/7+9=", "0AQ.x~Q9-x~Q9-x~Q9-"

SEEDS = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n{"access_token":"ya29","token_type":"Bearer","expires_in":"3599"}',
    b'HTTP/1.1 400 Bad Request\r\n\r\n{"error":"invalid_grant","error_description":"AADSTS700082: expired"}',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n{"access_token":"a","x":1}\r\n0\r\n\r\n',
    b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 503 Down\r\n\r\n<html>",
    b'{"error":"invalid_client","error_description":"' + CLIENT_SECRET.encode() + b'"}',
    b'{"error":"' + REFRESH_TOKEN.encode() + b'"}',
    b'{"access_token":"a","expires_in":1e999,"refresh_token":"new","token_type":"bearer"}',
    b"eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIG1hYyIsInNjb3BlIjoiaHR0cHM6Ly9tYWlsLmdvb2dsZS5jb20vIn0K",
)


class _Octets(io.BytesIO):
    """Octets that are read like a socket."""

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self)  # pyright: ignore[reportArgumentType]


def one_input(data: bytes) -> None:
    try:
        answers = [read_answer(_Octets(data))]
    except NotAnswered as error:
        assert str(error).isprintable() and len(str(error)) < 200
        answers = []
    answers += [Answer(status, "", data) for status in (200, 400, 401, 500)]
    for answer in answers:
        assert len(answer.body) <= max(65_536, len(data))
        _taken(answer)
    _challenge(data)


def _taken(answer: Answer) -> None:
    config = OAuthConfig("http://127.0.0.1/token", "id", CLIENT_SECRET, REFRESH_TOKEN)
    tokens = Tokens(config, env={})
    try:
        renewed = tokens._take(answer, tokens._clock.now())
    except TokenError as error:
        text = str(error)
        assert text.isprintable() and len(text) < 900
        assert CLIENT_SECRET[:12] not in text and REFRESH_TOKEN[:12] not in text
        return
    access = tokens.token()
    assert answer.status == 200 and access.isascii() and access.isprintable() and " " not in access
    assert renewed.isascii() and renewed.isprintable() and renewed != REFRESH_TOKEN


def _challenge(data: bytes) -> None:
    text = "".join(sign if sign.isprintable() else "?" for sign in data.decode("utf-8", "replace"))
    login = Answers("XOAUTH2", "user", "token")
    assert login.next(Reply(334, "", (text,))) == b"\r\n" and login.next(Reply(334, "", (text,))) is None
    verdict = login.judged(Reply(535, "5.7.8", ("no",)))
    assert verdict.code == 535 and verdict.lines[0] == "no" and len(verdict.lines) <= 2
    assert all(line.isprintable() and len(line) < 300 for line in verdict.lines)
    assert login.judged(Reply(235, "2.7.0", ("in",))) == Reply(235, "2.7.0", ("in",))


if __name__ == "__main__":
    from _run import run

    run(__file__)
