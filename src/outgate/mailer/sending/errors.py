"""What can become of a `send` other than a result.

Standards: none.
Promises: each says what to do next; none shows a secret.
Not here: errors of the configuration (`mailer.values`), refusals, which are results (`mailer.sending.result`).
"""

from __future__ import annotations


class MessageError(Exception):
    """The message cannot be sent as it is; the text says what it lacks. Nothing of it has left."""


class SendFailed(Exception):
    """The server could not be reached, or the connection broke.

    `server` is the real one, behind the tunnel. `stage` is the hop: "waiting" (all connections were in use), "token",
    "connect", "greeting", "hello", "tls", "auth", "envelope", "content" or "answer". `may_have_arrived`: the whole
    message was sent, but the answer was lost, so that sending it again may double it."""

    def __init__(self, text: str, *, server: str = "", stage: str = "", may_have_arrived: bool = False) -> None:
        super().__init__(text)
        self.server = server
        self.stage = stage
        self.may_have_arrived = may_have_arrived
