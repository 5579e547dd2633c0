"""Whom to dial for a mail configuration, and which name the certificate there must have.

Standards: RFC 9525 (the name a certificate must have), RFC 5891 (names beyond ASCII).
Promises: pure; who is dialled and who must be there is in ASCII, by IDNA 2008: the standard library has IDNA 2003,
which makes the name of somebody else of some ("straße" becomes "strasse").
Dangers: through a tunnel the certificate names the destination, not the host dialled: the forward's name is checked.
Not here: dialling (`mailer.client`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from outgate.mailer.config import Forward, Forwards, MailConfig
from outgate.mailer.values import ConfigError
from outgate.smtp import grammar

TUNNEL = "proxy.tunnel"


@dataclass(frozen=True, slots=True)
class Target:
    """A server: `host` and `port` are dialled, `server_name` is who must be there (None: `host` itself).

    `through_tunnel` without a `forward`: the port leads somewhere that is not known."""

    host: str
    port: int
    server_name: str | None
    through_tunnel: bool
    forward: Forward | None

    @property
    def label(self) -> str:
        """Return the server as errors name it: "smtp.mymail.com:465 via 127.0.0.1:30465"."""
        dialled = f"{self.host}:{self.port}"
        return f"{self.forward.name}:{self.forward.destination} via {dialled}" if self.forward else dialled


def target_of(config: MailConfig, forwards: Forwards, tunnel_names: Iterable[str] = ()) -> Target:
    """Return whom to dial; `tunnel_names` are hosts that stand for the tunnel, beside the vendor's own name for it."""
    dialled = plain_host(config.host)
    through = dialled in {TUNNEL, *map(plain_host, (forwards.tunnel, *tunnel_names))} - {""}
    forward = forwards.by_port.get(config.port) if through else None
    # `proxy.tunnel` is a name inside the vendor's network only; elsewhere the forwards tell the address.
    host = forwards.tunnel if dialled == TUNNEL and forwards.tunnel else config.host
    host = host if host.isascii() else _in_ascii(host)
    name = _in_ascii(forward.name) if forward else host.removesuffix(".")
    return Target(host, config.port, None if name == host else name, through, forward)


def plain_host(host: str) -> str:
    """Return a host name as it is compared: in lower case, without a dot at its end."""
    return host.strip().lower().removesuffix(".")


def _in_ascii(name: str) -> str:
    """Return a host name as certificates have it: plain, and in A-labels. Raises `ConfigError`."""
    try:
        return plain_host(name) if name.isascii() else grammar.domain(name)
    except grammar.BadSyntax:
        raise ConfigError("expected a host name: this one cannot be written in ASCII", name="smtp.host") from None
