"""`python -m outgate.mailer send`: one mail from the command line, as an application would send it.

Standards: none.
Promises: prints the server's reply and the queue id; exit 0 accepted, 1 refused by the server, 2 the
configuration or the message is wrong, 3 no connection, or it broke, 130 interrupted; no stack trace, no secret. Output
that cannot be written changes none of these: who sees a failure sends again.
Dangers: none of its own.
Not here: everything that is done (`mailer.client`).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import mimetypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import TextIO

from outgate.mailer.client import MailService
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.result import SendRefused, SendResult
from outgate.mailer.values import ConfigError

ACCEPTED, REFUSED, WRONG, NO_CONNECTION = range(4)
INTERRUPTED = 130
_EXAMPLES = """\
examples:
  python -m outgate.mailer send --config osgiconfig --run-modes author,dev --to you@customer.example --body "It works."
  python -m outgate.mailer send --config osgiconfig --to you@customer.example --attach report.pdf --body "As you asked."
  python -m outgate.mailer send --config osgiconfig --to you@customer.example --body Hello --debug

exit status: 0 accepted, 1 refused by the server, 2 configuration or message wrong, 3 no connection, or it broke,
130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a sign that the terminal lacks is written as its number
    given = _parser().parse_args(arguments)
    may_have_left = False
    try:
        message = _message(given)
        with MailService.load(
            given.config,
            given.run_modes,
            tls_names="chain-only" if given.chain_only else "forward",
            cafile=given.cafile,
            classic=given.classic,
            debug=given.debug,
        ) as service:
            if service.config.debug:
                logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
            may_have_left = True
            result = service.send(message)
    except (ConfigError, MessageError) as error:
        return _complain(error, WRONG)
    except SendFailed as error:
        return _complain(error, NO_CONNECTION)
    except KeyboardInterrupt:
        return _complain("interrupted" + may_have_left * ": the mail may have arrived, or not", INTERRUPTED)
    try:
        _show(result, as_json=given.json)
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # who reads no further, as `head` does, need not be told
            _say(f"the result cannot be written ({error.strerror}), the exit status has it")
        _give_up(sys.stdout)
    try:
        result.raise_for_refusal()
    except SendRefused as error:  # who it is that refuses, at which step, and what may help
        return _complain(error, REFUSED)
    return ACCEPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m outgate.mailer", description="Send mail as the application would.")
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser(
        "send",
        help="send one mail",
        allow_abbrev=False,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = send.add_argument
    add(
        "--config",
        required=True,
        metavar="PATH",
        help="a cfg.json file, a folder of config[.modes] folders, or a project",
    )
    add("--run-modes", metavar="A,B", help="active run modes, for example author,dev (default: OUTGATE_RUN_MODES)")
    add("--to", required=True, action="append", metavar="ADDRESS", help="a recipient; may be given again")
    add("--cc", default=[], action="append", metavar="ADDRESS", help="a recipient of a copy; may be given again")
    add("--bcc", default=[], action="append", metavar="ADDRESS", help="one whom nobody else sees; may be given again")
    add("--from", dest="sender", metavar="ADDRESS", help="the From address (default: from.address)")
    add("--subject", default="", help="the subject")
    add("--header", default=[], action="append", metavar="NAME:VALUE", help="a field; may be given again")
    add("--body", help="the text (default: standard input)")
    add("--attach", default=[], action="append", metavar="FILE", help="a file to attach; may be given again")
    add("--cafile", metavar="FILE", help="CA certificates to trust (default: SSL_CERT_FILE, else the system's)")
    add("--chain-only", action="store_true", help="do not check the name in the server's certificate")
    add("--classic", action="store_true", help="do not force STARTTLS when smtp.ssl is off")
    add("--debug", action="store_true", help="show what is said (as debug.email does), without secrets")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _message(given: argparse.Namespace) -> EmailMessage:
    message = EmailMessage()
    try:
        for each in (given.sender or "", given.subject, *given.to, *given.cc, *given.bcc, *given.header):
            each.encode()  # a field would name an encoding that there is none of
        if given.sender:
            message["From"] = given.sender
        for name in ("to", "cc", "bcc"):
            if addresses := getattr(given, name):
                message[name.title()] = ", ".join(addresses)
        message["Subject"] = given.subject
        for header in given.header:
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise MessageError('expected --header "Name: value"')
            if name.strip().lower().startswith(("content-", "mime-")):
                raise MessageError(f"{name.strip()} follows from --body and --attach: --header cannot set it")
            message[name.strip()] = value.strip()
        message.set_content(_read() if given.body is None else given.body)
    except IndexError:  # the email package has met the end of a value where it expected more
        raise MessageError("the message cannot be made: a field or an address is not complete") from None
    except UnicodeError:
        raise MessageError("the message cannot be made: the text or an argument has octets that are no text") from None
    except ValueError as error:  # what it says about line ends in a field, and such
        raise MessageError(f"the message cannot be made: {error}") from None
    for name in given.attach:
        _attach(message, Path(name))
    return message


def _read() -> str:
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]: it is closed
        raise MessageError("there is no standard input to read the text from: give --body")
    try:
        return sys.stdin.read()
    except OSError as error:
        raise MessageError(f"the text cannot be read from standard input: {error.strerror}") from None


def _attach(message: EmailMessage, path: Path) -> None:
    try:
        data = path.read_bytes()
        path.name.encode()
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise MessageError(f"{path} has a name that is no text: give the file another") from None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    main_type, _, subtype = kind.partition("/")
    if main_type in ("message", "multipart"):  # these may not be encoded, and files hold any octets
        main_type, subtype = "application", "octet-stream"
    message.add_attachment(data, maintype=main_type, subtype=subtype, filename=path.name)


def _show(result: SendResult, *, as_json: bool) -> None:
    if as_json:
        document = {
            "reply": str(result.reply),
            "queue_id": result.queue_id,
            "recipients": {address: str(reply) for address, reply in result.recipients.items()},
        }
        print(json.dumps(document))
        return
    print(result.reply)
    if result.queue_id:
        print(f"queue id: {result.queue_id}")
    for address, reply in result.recipients.items():
        if not reply.ok and reply is not result.reply:
            print(f"{address}: {reply}")


def _complain(error: object, status: int) -> int:
    _say(error)
    return status


def _say(error: object) -> None:
    try:
        print(f"outgate.mailer: {error}", file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Lose what is left to write: the interpreter would try it once more at its end, complain, and end with 120."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
