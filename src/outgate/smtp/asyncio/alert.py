"""Tell a client why its handshake failed: the event loops end the connection and lose OpenSSL's alert.

Standards: RFC 5246 sections 7.2.2, 7.4.1.3 and E.1, RFC 8446 section 6.2 (a server that refuses sends an alert).
Promises: the alert goes out before the connection ends; nothing is sent for a failure that is the client's own.
Dangers: written in the clear, so only where no keys exist yet: before our ServerHello.
Not here: the handshake (`smtp.asyncio.server`), what we accept (`net.tls`).
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Generator

# OpenSSL's reason → description of the fatal alert (RFC 8446 section B.2).
_DESCRIPTIONS = {"UNSUPPORTED_PROTOCOL": 70, "NO_SHARED_CIPHER": 40}


@contextlib.contextmanager
def alerting(descriptor: int) -> Generator[None]:
    """Send the alert for an `ssl.SSLError` that ends what is done here with the socket `descriptor`, and raise it on.

    Raises `OSError` if there is no descriptor left."""
    spare = os.dup(descriptor)  # the loop closes its own before we hear of the error
    try:
        yield
    except ssl.SSLError as error:
        description = _DESCRIPTIONS.get(error.reason)
        if description is not None:
            with contextlib.suppress(OSError):  # the client is gone
                os.write(spare, bytes((21, 3, 3, 0, 2, 2, description)))
        raise
    finally:
        os.close(spare)
