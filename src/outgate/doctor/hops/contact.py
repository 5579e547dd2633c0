"""Dial a server the way the application does, up to the answer to EHLO.

Standards: RFC 5321 (greeting), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS), RFC 5280 (reasons of a chain).
Promises: every wait has an end; what comes back is data, and whatever a server does raises nothing here; no password
    passes through here.
Not here: sockets (`doctor.hops.reaching`), looking closer (`doctor.hops.looking`), what it means (`doctor.hops.tls`,
    `doctor.hops.network`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from outgate.base.clock import SystemClock
from outgate.doctor.hops.looking import begins_tls
from outgate.doctor.hops.reaching import Contact, Patience, hears, own_name, reach
from outgate.mailer.values import ConfigError
from outgate.smtp.client import ClientMachine
from outgate.smtp.connecting import ConnectFailed, TlsMode, unfit
from outgate.smtp.sync.client import Connection

_ENDED = ("the peer closed the connection", "the connection was lost")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed: the file's, or the system's if it is ""."""

    file: str = ""

    def context(self, *, check_name: bool) -> ssl.SSLContext:
        """Return what checks the chain, and the name if that is known. Raises `ConfigError`."""
        try:
            context = ssl.create_default_context(cafile=self.file or None)
        except OSError as error:
            raise ConfigError(unfit(self.file, error)) from None
        context.check_hostname = check_name
        return context


def dial(host: str, port: int, tls: TlsMode, server_name: str | None, trust: Trust, patience: Patience) -> Contact:
    """Connect as the mailer does, up to the answer to EHLO. `server_name` None: who is there is not known, so the name
    in the certificate is not checked."""
    contact = Contact(host, port, "resolve")
    sock = reach(contact, patience)
    if sock is None:
        return contact
    try:
        context = trust.context(check_name=server_name is not None)
    except ConfigError as error:
        sock.close()
        contact.stage, contact.error = "tls", str(error)
        return contact
    if tls != "implicit" and not hears(sock, patience.soon):
        # It may be waiting for TLS: that is found out now, and not after all patience.
        contact.early_tls = begins_tls(host, port, patience)
        if contact.early_tls:
            sock.close()
            contact.error, contact.silent = "the server does not greet", True
            return contact
    machine = ClientMachine(ehlo_name=own_name(), tls=tls == "implicit")
    connection = _Noticing(sock, machine, f"{host}:{port}", patience.timeouts, SystemClock())
    try:
        connection.open(tls, context, server_name or host)
    except ConnectFailed as error:
        connection.close()
        contact.stage, contact.error, contact.reply = error.stage, str(error), error.reply
        contact.verify_code, contact.reason = connection.verify_code, connection.reason
        contact.silent = "timeout" in contact.error
        contact.closed = connection.ended or any(said in contact.error for said in _ENDED)
    except BaseException:
        connection.close()
        raise
    else:
        contact.stage, contact.connection = "ready", connection
    steps = connection.greeting_steps
    contact.tls = connection.tls
    contact.greeting = next((step.reply for step in steps if step.did.startswith("connect to ")), "")
    return contact


class _Noticing(Connection):
    """A connection that keeps what TLS said of a failed handshake."""

    verify_code = 0
    reason = ""
    ended = False

    def _handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        try:
            super()._handshake(context, server_name)
        except ConnectFailed as failed:
            error = failed.__context__
            self.verify_code = getattr(error, "verify_code", 0) or 0
            self.reason = str(getattr(error, "reason", "") or "")
            self.ended = isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))
            raise
