"""What MAIL and RCPT say, address and parameters, as questions.

Standards: RFC 5321 section 4.1.2, RFC 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8), 4954 (AUTH, ignored), 3461 (RET,
ENVID, NOTIFY, ORCPT), 6533 (ORCPT in UTF-8), 8689 (REQUIRETLS).
Promises: any bytes give an event or `BadArgument`, which has the reply; what ENVID and ORCPT stand for is printable, so
that no report written from them gets a line that a client slipped in.
Dangers: `envid` and `orcpt` are kept as they came: whoever shows them to a person decodes them first.
Not here: whether the sizes and addresses are welcome (`smtp.server`, `relay.policy`).
"""

from __future__ import annotations

import re

from outgate.smtp import grammar
from outgate.smtp.events import MailFrom, RcptTo
from outgate.smtp.grammar import Mailbox
from outgate.smtp.reply import BAD_PARAMETER, UTF8_NEEDED, Reply, reply

_ENDLESS = 10**20  # what a size with more digits than 20 is taken for
_ENVID_MOST = 100
_ORCPT_MOST = 500
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# Anything printable but "+", "\" and "=", which are written \x{2B}, \x{5C} and \x{3D}.
_UTF8_ADDRESS = re.compile(
    r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e\u00a0-\U0010ffff]|\\x\{(?:10|[0-9A-Fa-f])?[0-9A-Fa-f]{1,4}\})+"
)
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_WHEN = ("SUCCESS", "FAILURE", "DELAY")


class BadArgument(Exception):
    """An argument is not what the standards ask for; `reply` says what is wrong."""

    def __init__(self, answer: Reply | str) -> None:
        super().__init__(str(answer))
        self.reply = answer if isinstance(answer, Reply) else reply(501, "5.5.4", answer)


def mail_from(argument: bytes) -> MailFrom:
    """Return the question that MAIL with this argument asks. Raises `BadArgument`."""
    try:
        path, given = grammar.path(argument, b"FROM")
    except grammar.BadSyntax as error:
        raise BadArgument(reply(501, "5.1.7", str(error))) from None
    question = _mail_from(path, given) if given else MailFrom(path, 0, False, False)
    if not path.ascii and not question.smtputf8:
        raise BadArgument(UTF8_NEEDED)
    return question


def rcpt_to(argument: bytes, *, smtputf8: bool) -> RcptTo:
    """Return the question that RCPT with this argument asks; `smtputf8` is what MAIL said. Raises `BadArgument`."""
    try:
        path, given = grammar.path(argument, b"TO")
    except grammar.BadSyntax as error:
        raise BadArgument(reply(501, "5.1.3", str(error))) from None
    if not path.text:
        raise BadArgument(reply(501, "5.1.3", "A recipient needs an address"))
    if not path.ascii and not smtputf8:
        raise BadArgument(UTF8_NEEDED)
    return _rcpt_to(path, given, smtputf8) if given else RcptTo(path)


def _mail_from(path: Mailbox, given: dict[str, str]) -> MailFrom:
    size = given.pop("SIZE", "0")
    body = given.pop("BODY", "7BIT").upper()
    utf8 = given.pop("SMTPUTF8", None)
    given.pop("AUTH", None)  # RFC 4954: a hint that needs no heed
    if not size.isascii() or not size.isdecimal() or body not in ("7BIT", "8BITMIME") or utf8:
        raise BadArgument(BAD_PARAMETER)
    octets = int(size) if len(size) <= 20 else _ENDLESS
    if not given:
        return MailFrom(path, octets, body == "8BITMIME", utf8 is not None)
    ret = given.pop("RET", None)
    envid = given.pop("ENVID", None)
    requiretls = given.pop("REQUIRETLS", None)
    if given or requiretls:
        raise BadArgument(BAD_PARAMETER)
    if ret is not None and ret.upper() not in ("FULL", "HDRS"):
        raise BadArgument("RET is FULL or HDRS")
    if envid is not None and not decode_xtext(envid, _ENVID_MOST):
        raise BadArgument("ENVID is empty")
    return MailFrom(
        path, octets, body == "8BITMIME", utf8 is not None, (ret or "").upper(), envid or "", requiretls is not None
    )


def _rcpt_to(path: Mailbox, given: dict[str, str], smtputf8: bool) -> RcptTo:
    notify = given.pop("NOTIFY", None)
    orcpt = given.pop("ORCPT", None)
    if given:
        raise BadArgument(BAD_PARAMETER)
    if orcpt is not None:
        _check_original(orcpt, smtputf8=smtputf8)
    return RcptTo(path, "" if notify is None else _notify(notify), orcpt or "")


def _notify(value: str) -> str:
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if len(set(words)) < len(words) or not set(words) <= set(_WHEN):
        raise BadArgument("NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY")
    return ",".join(word for word in _WHEN if word in words)


def _check_original(value: str, *, smtputf8: bool) -> None:
    kind, semicolon, address = value.partition(";")
    if not semicolon or _ADDRESS_TYPE.fullmatch(kind) is None or not address:
        raise BadArgument("ORCPT is type;address")
    if len(value.encode("utf-8")) > _ORCPT_MOST:
        raise BadArgument(f"ORCPT is longer than {_ORCPT_MOST} octets")
    if kind.upper() != "UTF-8":
        # Postfix writes every address as xtext of the type rfc822, also one that is UTF-8.
        decode_xtext(address, _ORCPT_MOST, utf8=smtputf8)
    elif not smtputf8:
        raise BadArgument("ORCPT with a UTF-8 address needs SMTPUTF8")
    else:
        decode_utf8_address(address)


def decode_xtext(text: str, most: int, *, utf8: bool = False) -> str:
    """Return what xtext of at most `most` octets stands for (RFC 3461 section 4): printable ASCII and spaces, or, with
    `utf8`, any printable signs.

    Raises `BadArgument`."""
    if len(text) > most:
        raise BadArgument(f"a value is longer than {most} octets")
    if _XTEXT.fullmatch(text) is None:
        raise BadArgument("a value is not xtext")
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    if utf8 and not decoded.isascii():
        try:
            decoded = decoded.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            raise BadArgument("a value stands for what is no UTF-8") from None
    return _printable(decoded, ascii_only=not utf8)


def decode_utf8_address(text: str) -> str:
    r"""Return what an address in UTF-8, or with `\x{HEX}` in the place of signs, stands for (RFC 6533 section 3).

    Raises `BadArgument`."""
    if _UTF8_ADDRESS.fullmatch(text) is None:
        raise BadArgument("an address is not in the form for UTF-8")
    points = [int(match[1], 16) for match in _EMBEDDED.finditer(text)]
    if any(point > 0x10FFFF or 0xD800 <= point < 0xE000 for point in points):
        raise BadArgument("an address holds what is no character")
    return _printable(_EMBEDDED.sub(lambda match: chr(int(match[1], 16)), text), ascii_only=False)


def _printable(decoded: str, *, ascii_only: bool) -> str:
    if not decoded.isprintable() or (ascii_only and not decoded.isascii()):
        raise BadArgument("a value stands for what cannot be printed")
    return decoded
