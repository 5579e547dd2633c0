"""Submissions for the rule book's tests."""

from __future__ import annotations

from outgate.model.flow import Client, Recipient, Submission

NOW = 1_795_158_180.0


def submission(
    content: bytes,
    *,
    reverse_path: str = "a@shop.test",
    to: int = 1,
    smtputf8: bool = False,
    helo: str = "client.example",
) -> Submission:
    """Return a submission of `content` (wire form) to `to` recipients."""
    recipients = tuple(Recipient(f"b{number}@dest.test", "dest.test") for number in range(to))
    client = Client("192.0.2.1", 4711, "public", "submissions")
    tls = "TLSv1.3 TLS_AES_256_GCM_SHA384"
    return Submission("S1", client, helo, tls, "user", reverse_path, recipients, content, NOW, smtputf8=smtputf8)
