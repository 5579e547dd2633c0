"""How the OAuth configuration of the mail service is called, and its eight properties.

Standards: the vendor's `com.day.cq.mailer.oauth.impl.OAuthConfigurationProviderImpl`.
Promises: imports nothing: who only wants to know a name brings in no tokens, TLS and sockets.
Not here: what they mean (`mailer.oauth`).
"""

from __future__ import annotations

PID = "com.day.cq.mailer.oauth.impl.OAuthConfigurationProviderImpl"
PROPERTIES = (
    "authUrl",
    "tokenUrl",
    "clientId",
    "clientSecret",
    "scopes",
    "authCodeRedirectUrl",
    "refreshUrl",
    "refreshToken",
)
