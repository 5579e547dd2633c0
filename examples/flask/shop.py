"""A shop that mails its orders: Flask with one `MailService` for the whole process.

SHOP_MAIL=osgiconfig SHOP_RUN_MODES=author,dev flask --app shop run
"""

import atexit
from pathlib import Path

from flask import Flask, current_app, request

from outgate.mailer import ConfigError, MailService, MessageError, SendFailed, SendRefused, Template, TemplateError

MAILS = Path(__file__).parent / "mails"


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_prefixed_env("SHOP")
    app.config.update(config or {})
    # Once for the process, before the first request: what is wrong in the files ends the start, not an order.
    given = app.config
    service = MailService.load(
        given.get("MAIL", "osgiconfig"), given.get("RUN_MODES", "").split(","), **given.get("MAIL_OPTIONS", {})
    )
    atexit.register(service.close)
    app.extensions["mail"] = service
    app.extensions["order_mail"] = Template.load(MAILS / "order.html")
    app.add_url_rule("/orders", view_func=order, methods=["POST"])
    app.register_error_handler(ConfigError, not_configured)
    app.register_error_handler(SendFailed, not_reached)
    app.register_error_handler(SendRefused, refused)
    app.register_error_handler(MessageError, not_sent)
    app.register_error_handler(TemplateError, not_sent)
    return app


def order():
    template, service = current_app.extensions["order_mail"], current_app.extensions["mail"]
    values = {name: request.form.get(name, "") for name in ("name", "email", "order")}
    result = service.send(template.message(values, kind="html", strict=True))
    result.raise_for_refusal()
    return {"queue_id": result.queue_id}, 201


def not_configured(error):
    """A port forward that is not known is found with the first mail."""
    current_app.logger.error("mail: %s", error)
    return {"error": "mail is not possible now", "try_again": False}, 503


def not_reached(error):
    current_app.logger.error("mail: %s", error)
    # What may have arrived is not sent again by somebody who presses the button once more.
    return {"error": "mail is not possible now", "try_again": not error.may_have_arrived}, 503


def refused(error):
    current_app.logger.error("mail: %s", error)
    later = 400 <= error.result.reply.code < 500
    return {"error": "the mail was not taken", "try_again": later}, 503 if later else 502


def not_sent(error):
    current_app.logger.warning("mail: %s", error)
    return {"error": "no mail can be sent to this address"}, 400
