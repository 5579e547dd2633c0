"""`python -m outgate.mailer send`: one mail from the command line, as an application would send it.

Standards: none.
Promises: prints the server's reply and the queue id; exit 0 accepted, 1 refused by the server, 2 the
configuration or the message is wrong, 3 no connection, or it broke; no stack trace, no secret.
Dangers: none of its own.
Not here: everything that is done (`mailer.client`).
"""

from __future__ import annotations

import argparse
import json
import logging
import mimetypes
import sys
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path

from outgate.mailer.client import MailService
from outgate.mailer.sending.errors import MessageError, SendFailed
from outgate.mailer.sending.result import SendResult
from outgate.mailer.values import ConfigError

ACCEPTED, REFUSED, WRONG, NO_CONNECTION = range(4)
_EXAMPLES = """\
examples:
  python -m outgate.mailer send --config osgiconfig --run-modes author,dev --to you@customer.example --body "It works."
  python -m outgate.mailer send --config osgiconfig --to you@customer.example --attach report.pdf --body "As you asked."
  python -m outgate.mailer send --config osgiconfig --to you@customer.example --body Hello --debug

exit status: 0 accepted, 1 refused by the server, 2 configuration or message wrong, 3 no connection, or it broke
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args(arguments)
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
            result = service.send(message)
    except (ConfigError, MessageError) as error:
        return _complain(error, WRONG)
    except SendFailed as error:
        return _complain(error, NO_CONNECTION)
    except KeyboardInterrupt:
        return _complain("interrupted", NO_CONNECTION)
    _show(result, as_json=given.json)
    return ACCEPTED if result.accepted else REFUSED


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
    add("--config", required=True, metavar="PATH", help="the cfg.json file, or a folder with config[.modes] folders")
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
        message.set_content(sys.stdin.read() if given.body is None else given.body)
    except IndexError:  # the email package has met the end of a value where it expected more
        raise MessageError("the message cannot be made: a field or an address is not complete") from None
    except ValueError as error:  # what it says about line ends in a field, and such
        raise MessageError(f"the message cannot be made: {error}") from None
    for name in given.attach:
        _attach(message, Path(name))
    return message


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
        print(json.dumps(document, ensure_ascii=False))
        return
    print(result.reply)
    if result.queue_id:
        print(f"queue id: {result.queue_id}")
    for address, reply in result.recipients.items():
        if not reply.ok and reply is not result.reply:
            print(f"{address}: {reply}")


def _complain(error: object, status: int) -> int:
    print(f"outgate.mailer: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
