"""Why a connection was not made: a class word for figures and audit, and the reason in words.

Standards: none.
Promises: the class words are these and no others.
Not here: what is done about it (`forwarder`, `http_proxy`).
"""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "client-network",  # the client is in no network of the environment
    "limit",  # the environment has all the connections that it may have
    "closed",  # the mode, or the state of the way out, lets nothing through
    "port",  # this port may not be reached this way
    "request",  # what the client sent cannot be read
    "dns",  # the name does not resolve
    "guard",  # the address may not be dialled
    "source",  # there is no address to leave from
    "refused",  # the target refused
    "timeout",  # the target did not answer
    "unreachable",  # the network said no
    "withdrawn",  # the client or the rule went away meanwhile
    "clear-auth",  # a password would have gone in the clear
]


class Refused(Exception):
    """A connection may not or cannot be made."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
