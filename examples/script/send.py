"""A mail from a script.

python send.py osgiconfig author,dev you@customer.example
"""

import sys
from email.message import EmailMessage

from outgate.mailer import ConfigError, MailService, MessageError, SendFailed


def main(config, run_modes, to):
    message = EmailMessage()
    message["To"] = to
    message["Subject"] = "The nightly report"
    message.set_content("All is well.\n")
    try:
        with MailService.load(config, run_modes.split(",")) as service:
            result = service.send(message)
    except (ConfigError, MessageError, SendFailed) as error:
        sys.exit(str(error))
    for address, reply in result.refused.items():
        print(f"{address}: {reply}", file=sys.stderr)
    print(result.queue_id)
    return 0 if result.accepted else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 4 else __doc__)
