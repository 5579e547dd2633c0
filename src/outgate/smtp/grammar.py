"""The words of the protocol: commands, paths, mailboxes, domains and parameters, as RFC 5321 writes them.

Standards: RFC 5321 sections 4.1.1–4.1.3 and 4.5.3.1 (limits), RFC 6531 (SMTPUTF8), RFC 5890 (A-labels), RFC 3030
section 2 (BDAT's argument).
Promises: every function takes any bytes and returns a value or raises `BadSyntax`; no pattern here can take
more than linear time; a mailbox that was parsed holds no control character.
Dangers: `MAIL FROM: a@b` (a space, no angle brackets) is not in the grammar but in the vendor's transcript.
Not here: whether a mailbox is welcome (`relay.policy`), what parameters mean (`smtp.envelope`).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna


class BadSyntax(Exception):
    """A command's argument is not what the standard asks for; the text says what is."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`text` as given (without brackets and source route); `domain` in lower case, A-labels; `literal` if it
    is an address literal; `ascii` if nobody needs SMTPUTF8 for it. The null path has an empty `text`."""

    text: str
    local: str
    domain: str
    literal: bool
    ascii: bool


NULL_PATH = Mailbox("", "", "", False, True)

# Local-part "@" ( Domain / address-literal ); a quoted string may hold anything printable.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u00a0-\U0010ffff]+"
_LOCAL = re.compile(rf"(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u00a0-\U0010ffff]|\\[\x20-\x7e])*\")")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# "<" [ source-route ":" ] mailbox ">" or a bare mailbox; then the parameters.
_PATH = re.compile(
    rb"\s*(?:"
    rb"<(?:@[^:<>\"\s]*:)?((?:\"(?:\\.|[^\"\\])*\"|[^<>\"])*)>"
    rb"|((?:\"(?:\\.|[^\"\\])*\"|[^<>\"\s])+)"
    rb")([ \t].*)?",
    re.DOTALL,
)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u00a0-\U0010ffff]+))?")
_BLANKS = re.compile(r"[ \t]+")
_CHUNK = re.compile(rb"([0-9]{1,10})(?:[ \t]+(LAST))?", re.IGNORECASE)


def command(line: bytes) -> tuple[str, bytes]:
    """Split a command line (without CR LF) into its verb in upper case and its argument, stripped."""
    verb, _, argument = line.partition(b" ")
    return verb.strip(b"\t").decode("ascii", "replace").upper(), argument.strip(b" \t")


def path(argument: bytes, keyword: bytes) -> tuple[Mailbox, dict[str, str]]:
    """Parse `FROM:<…>` or `TO:<…>` (the keyword is given without colon) and its parameters.

    Parameter names come in upper case, a missing value as "". Raises `BadSyntax`."""
    head, colon, rest = argument.partition(b":")
    if not colon or head.strip().upper() != keyword:
        raise BadSyntax(f"syntax: {keyword.decode()}:<address>")
    found = _PATH.fullmatch(rest)
    if found is None:
        raise BadSyntax(f"syntax: {keyword.decode()}:<address>")
    inner: bytes = found[1] if found[1] is not None else found[2]
    return mailbox(inner), parameters(found[3] or b"")


@lru_cache(maxsize=4096)
def mailbox(text: bytes) -> Mailbox:
    """Parse a mailbox (`local@domain`), or b"" as the null path. Raises `BadSyntax`.

    Limits: local-part 64 octets, domain 255 octets, path 254 (RFC 5321 4.5.3.1)."""
    if not text:
        return NULL_PATH
    if len(text) > 254:
        raise BadSyntax("the address is too long")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("the address is neither ASCII nor UTF-8") from None
    local, at, given = decoded.rpartition("@")
    if not at or not given:
        raise BadSyntax("the address has no domain")
    if len(local.encode("utf-8")) > 64 or _LOCAL.fullmatch(local) is None:
        raise BadSyntax("the part before the @ is not valid")
    if given.startswith("["):
        return Mailbox(decoded, local, address_literal(given), True, decoded.isascii())
    return Mailbox(decoded, local, domain(given), False, decoded.isascii())


@lru_cache(maxsize=4096)
def domain(text: str) -> str:
    """Return a domain name in lower case and A-labels, without a final dot. Raises `BadSyntax`."""
    name = text[:-1] if text.endswith(".") and not text.endswith("..") else text
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise BadSyntax("the domain is not a valid name") from None
    name = name.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadSyntax("the domain is not a valid name")
    return name


def address_literal(text: str) -> str:
    """Return `[192.0.2.1]` or `[IPv6:…]` in its plain spelling. Raises `BadSyntax`."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise BadSyntax("the address literal is not valid") from None


def parameters(text: bytes) -> dict[str, str]:
    """Parse ` KEY=value KEY …`. Raises `BadSyntax` for anything else and for a key given twice."""
    if not text.strip(b" \t"):
        return {}
    found: dict[str, str] = {}
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("a parameter is neither ASCII nor UTF-8") from None
    for word in _BLANKS.split(decoded.strip(" \t")):
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in found:
            raise BadSyntax("a parameter is not valid")
        found[match[1].upper()] = match[2] or ""
    return found


def chunk(argument: bytes) -> tuple[int, bool]:
    """Parse `size` or `size LAST`: how many octets follow, and whether they end the message. Raises `BadSyntax`.

    Sizes of more than ten digits are nobody's."""
    found = _CHUNK.fullmatch(argument)
    if found is None:
        raise BadSyntax("syntax: BDAT size [LAST]")
    return int(found[1]), found[2] is not None


def hello_name(argument: bytes) -> str:
    """Return the name a client gives in EHLO or HELO. Raises `BadSyntax` if there is none or it is no name.

    Real clients send host names with underscores or bare words, so this is laxer than `domain`."""
    try:
        name = argument.decode("ascii")
    except UnicodeDecodeError:
        raise BadSyntax("the name is not ASCII") from None
    if not name or len(name) > 255 or not all("!" <= sign <= "~" for sign in name):
        raise BadSyntax("say who you are: EHLO host.example")
    return name
