"""What the two mail services have in common: how they are made, and what they know before anything is dialled.

Standards: RFC 9525 (which name a certificate must have).
Promises: cheap to import: what reads, encrypts and writes comes with the first service; a bad file of certificates is a
`ConfigError`; a forked process shares no connection with its parent.
Dangers: through a tunnel the certificate names the destination, not the host dialled: the forward's name is
what is checked. "chain-only" checks no name at all; any server with a certificate from the CA would do then.
Not here: the files (`mailer.config`), sending (`mailer.sending.steps`), waiting (`mailer.client`,
`mailer.async_client`).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Literal, Self

from outgate.mailer.sending.errors import SendFailed

# All else is imported where it is needed first: an application that does not send today does not pay for it.
if TYPE_CHECKING:
    import ssl
    from email.message import Message
    from pathlib import Path

    from outgate.mailer.config import MailConfig
    from outgate.mailer.configuration.forwards import Forward, Forwards
    from outgate.mailer.configuration.secret_files import Directories
    from outgate.mailer.interpolate import Source
    from outgate.mailer.oauth import Tokens
    from outgate.mailer.sending.limits import Limits
    from outgate.mailer.sending.steps import Plan
    from outgate.mailer.sending.wire import Letter
    from outgate.smtp.connecting import ClientTimeouts
    from outgate.smtp.transaction import Step

NameCheck = Literal["forward", "chain-only"]
_conversations = count(1)


class Service:
    """A mail service without its way to wait. Made by `load`."""

    def __init__(
        self,
        config: MailConfig,
        *,
        forwards: Forwards,
        tunnel_names: Iterable[str],
        tls_names: NameCheck = "forward",
        cafile: str | Path | None = None,
        timeouts: ClientTimeouts | None = None,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """`tunnel_names` are the hosts that stand for the tunnel; `cafile` None trusts the system's CAs; `tokens` are
        what `oauth.flow` logs in with.

        Raises `ConfigError` if `cafile` holds no certificates, or tokens are missing."""
        from outgate.mailer.sending.limits import Limits
        from outgate.mailer.sending.steps import Plan
        from outgate.mailer.sending.target import target_of
        from outgate.mailer.values import ConfigError
        from outgate.smtp.connecting import ClientTimeouts

        if tls_names not in ("forward", "chain-only"):
            raise ConfigError('tls_names is "forward" or "chain-only"')
        if config.oauth and tokens is None:
            raise ConfigError(
                "is true, so access tokens are needed: load the service, or give tokens", name="oauth.flow"
            )
        self.config = config
        self._tokens = tokens
        self.limits = limits or Limits()
        self._target = target_of(config, forwards, tunnel_names)
        self._plan: Plan = Plan(config, self._target, tls_names == "forward", self.limits.send)
        self._cafile = cafile
        self._contexts: dict[bool, ssl.SSLContext] = {}
        if config.tls != "none":
            self._context(check_name=self._plan.check_names)
        self._timeouts = timeouts or ClientTimeouts(connect=60.0, reply=60.0)
        self._begin()
        _services.add(self)

    @classmethod
    def load(
        cls,
        path: str | Path,
        run_modes: Iterable[str] | None = None,
        *,
        env: Source | None = None,
        secrets: Source | Directories | None = None,
        forwards: object = None,
        tls_names: NameCheck = "forward",
        cafile: str | Path | None = None,
        classic: bool = False,
        debug: bool = False,
        timeouts: ClientTimeouts | None = None,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
    ) -> Self:
        """Read the configuration in a file, or in a folder with `config[.modes]` folders. Raises `ConfigError`.

        `run_modes` may be a text with commas between. `env` is the process's environment if None; `run_modes` those in
        its OUTGATE_RUN_MODES; `secrets` the directories in its OUTGATE_SECRETS; `forwards` the file in its
        OUTGATE_FORWARDS; `cafile` the certificates in its SSL_CERT_FILE, else the system's. `classic` does not force
        STARTTLS when `smtp.ssl` is off; `debug` is `debug.email`. With `oauth.flow` the provider's configuration is
        read from the same place (of a file: its folder), for the same run modes; `tokens` stand in for what it says,
        for whoever stores refresh tokens that change. `timeouts` are seconds for each wait (60 to connect and for a
        reply, 600 for the reply to the content)."""
        from dataclasses import replace

        from outgate.mailer import config as configuration

        source = os.environ if env is None else env
        modes = configuration.run_modes_from(run_modes, source)
        kept = configuration.secrets_from(secrets, source)
        config = configuration.load(path, modes, env=source, secrets=kept, classic=classic)
        if debug:
            config = replace(config, debug=True)
        cafile = cafile or source.get("SSL_CERT_FILE")
        return cls(
            config,
            forwards=configuration.forwards_from(forwards, source),
            tunnel_names=(source.get("AEM_PROXY_HOST") or "",),
            tls_names=tls_names,
            cafile=cafile,
            timeouts=timeouts,
            limits=limits,
            tokens=tokens or _tokens(path, modes, source, kept, cafile) if config.oauth else None,
        )

    @property
    def forward(self) -> Forward | None:
        """Return the port forward that the configured port is, None if the host is no tunnel or it is unknown."""
        return self._target.forward

    @property
    def through_tunnel(self) -> bool:
        """Say whether the configured host stands for the tunnel."""
        return self._target.through_tunnel

    @property
    def server(self) -> str:
        """Return the server as errors name it: "smtp.mymail.com:465 via 127.0.0.1:30465"."""
        return self._target.label

    # -- for the twins --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin without any connection."""
        raise NotImplementedError

    def _forked(self) -> None:
        """Begin anew in a forked process: the connections that are there are its parent's."""
        raise NotImplementedError

    def _letter(self, message: Message | bytes, sender: str | None, recipients: Iterable[str] | None) -> Letter:
        from outgate.mailer.sending import wire

        return wire.letter(message, self.config.from_address, sender=sender, recipients=recipients)

    def _context(self, *, check_name: bool) -> ssl.SSLContext:
        import ssl

        from outgate.mailer.values import ConfigError
        from outgate.smtp.connecting import unfit

        context = self._contexts.get(check_name)
        if context is None:
            try:
                context = ssl.create_default_context(cafile=self._cafile or None)
            except OSError as error:
                raise ConfigError(unfit(self._cafile, error)) from None
            context.check_hostname = check_name
            self._contexts[check_name] = context
        return context

    def _tell(self, steps: tuple[Step, ...]) -> None:
        """Log a conversation, a line for each thing that was said; secrets are masked already."""
        import logging

        from outgate.mailer.sending.result import lines_of

        log = logging.getLogger("outgate.mailer")
        number = next(_conversations)
        for side, line in lines_of(steps):
            log.info("mail %d with %s %s: %s", number, self.server, side, line)


def _tokens(
    path: str | Path, run_modes: Iterable[str], env: Source, secrets: Source, cafile: str | Path | None
) -> Tokens:
    from pathlib import Path

    from outgate.mailer import oauth
    from outgate.mailer.folders import open_configurations

    place = Path(path)
    configurations = open_configurations(place.parent if place.is_file() and place.suffix == ".json" else place)
    config = oauth.load(configurations, run_modes, env=env, secrets=secrets)
    return oauth.Tokens(config, env=env, cafile=cafile)


def fetch_token(tokens: Tokens | None, server: str, seconds: float) -> str:
    """Return an access token, fetching one if need be: this blocks, for `seconds` at most. Raises `SendFailed`."""
    from outgate.mailer.oauth import TokenError

    assert tokens is not None
    try:
        return tokens.token(seconds)
    except TokenError as error:
        text = f"{server}: {error}"
    raise SendFailed(text, server=server, stage="token")  # it remembers no call that was given a secret


def own_name() -> str:
    """Return what this machine calls itself in EHLO."""
    import re
    import socket

    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.\-]{1,255}", name) else "localhost"


_services: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_services):
        service._forked()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
