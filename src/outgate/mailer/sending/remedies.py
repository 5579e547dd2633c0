"""What to do when a server cannot be reached: one sentence for what went wrong where.

Standards: none.
Promises: pure; a remedy names what the application's owner can change; "" where nobody knows better than the error.
Not here: finding out more (`outgate doctor`).
"""

from __future__ import annotations

from outgate.mailer.config import MailConfig
from outgate.mailer.sending.target import Target
from outgate.smtp.connecting import ConnectFailed

_LABELS = {"tls": "TLS: ", "auth": "login: "}
_IMPLICIT_PORT = 465
_MOST_NAMES = 10


def failure(target: Target, config: MailConfig, error: ConnectFailed, text: str) -> str:
    """Say that there is no connection: the real server, the hop, what went wrong (`text`), what to do."""
    remedy = _remedy(target, config, error)
    return f"{target.label}: {_LABELS.get(error.stage, '')}{text}" + (f". {remedy}" if remedy else "")


def unknown_forward(target: Target) -> str:
    """Say that nobody knows who is behind a port of the tunnel, and where that is told."""
    return (
        f"no port forward is known for port {target.port} of the tunnel {target.host},"
        " so the server's name cannot be checked: give the environment's forwards"
        " (OUTGATE_FORWARDS, or load(forwards=…))"
    )


def behind(names: tuple[str, ...]) -> str:
    """Say what the certificate behind an unknown port is for: a stranger's names, so not all, and what is printable."""
    if not names:
        return "The server behind it showed no certificate"
    shown = ["".join(sign if sign.isprintable() else "?" for sign in name[:253]) for name in names[:_MOST_NAMES]]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"The certificate behind it is for: {', '.join(shown)}{more}"


def _remedy(target: Target, config: MailConfig, error: ConnectFailed) -> str:
    if error.certificate:
        return _certificate(target, str(error))
    if error.stage == "connect":
        return _connecting(target)
    if error.stage in ("tls", "greeting") and error.reply is None:
        return _mode(target, config)
    if error.stage == "auth" and error.reply is None and config.tls == "opportunistic":
        return "Let the server offer STARTTLS, or set smtp.ssl to true if it begins with TLS"
    return ""


def _certificate(target: Target, text: str) -> str:
    if "ostname mismatch" in text or "IP address mismatch" in text:
        who = f"the forward's name ({target.forward.name})" if target.forward else f"smtp.host ({target.host})"
        return f'The certificate must be for {who}; tls_names="chain-only" checks no name, by choice'
    if "has expired" in text or "not yet valid" in text:
        return "Have the server's operator renew it, if this machine's clock is right"
    return "If its authority is your own, give its certificate (cafile, or SSL_CERT_FILE)"


def _connecting(target: Target) -> str:
    if target.forward is not None or target.through_tunnel:
        return (
            f"Check that port {target.port} is the portOrig of a forward of this environment, that its change is ready,"
            " and that this machine may use the tunnel"
        )
    return "Check smtp.host and smtp.port, and that this machine may connect there"


def _mode(target: Target, config: MailConfig) -> str:
    """The one wrong setting that looks like a broken server: TLS from the first octet, or not."""
    real = target.forward.destination if target.forward else target.port
    if config.ssl and real != _IMPLICIT_PORT:
        return (
            f"smtp.ssl is true, and port {real} may not begin with TLS: if it is STARTTLS there, set smtp.ssl to false"
        )
    if not config.ssl and real == _IMPLICIT_PORT:
        return "Port 465 begins with TLS: set smtp.ssl to true"
    return ""
