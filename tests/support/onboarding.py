"""Verification in tests: a configuration with a key, a store that remembers what it was told, a verifier."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outgate.base.clock import FrozenClock
from outgate.model.tenancy import Checked, DkimKey, KeptKey, KeyState, NewStanding, SmtpConfiguration, Verification
from outgate.net.dns import Asker
from outgate.relay.endpoints import Endpoint
from outgate.relay.onboarding import Verifier
from outgate.store.verification import Decide, Transition


@functools.cache
def public_key() -> str:
    """Return the one key of all configurations, as the store has it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def configuration(
    spf: Verification = Verification.PENDING, dkim: Verification = Verification.PENDING
) -> SmtpConfiguration:
    """Return the configuration of shop.test with the selector "sel"."""
    key = DkimKey("k", "c", "sel", "rsa", public_key())
    return SmtpConfiguration("c", "i", "Shop", "", "shop.test", spf, dkim, Verification.PENDING, key, 0.0, 0.0)


class Kept:
    """The store's part: remembers what it was told."""

    def __init__(self, before: SmtpConfiguration | None = None) -> None:
        self.before = before or configuration()
        self.told: list[dict[str, Any]] = []
        self.decided: NewStanding | None = None

    def keys_in_use(self, smtp_config_id: str) -> Sequence[KeptKey]:
        """Return the one key of the configuration."""
        return (KeptKey(self.before.key, KeyState.ACTIVE, self.before.dkim, 0.0),)

    def record(
        self, findings: Sequence[tuple[str, Sequence[Checked]]], decide: Decide, *, quiet: bool = False
    ) -> list[Transition]:
        ((smtp_config_id, checked),) = findings
        assert smtp_config_id == "c" and not quiet
        self.told += [
            {
                "check": one.check,
                "state": one.state,
                "result": one.result,
                "explanation": one.explanation,
                "asked": list(one.asked),
            }
            for one in checked
        ]
        states = {one.check: one.state for one in checked if one.check in ("spf", "dkim") and one.state is not None}
        after = replace(self.before, **states)
        self.decided = decide(after, checked, 0.0)
        return [Transition(self.before, after, tuple(checked))]

    def of(self, check: str) -> dict[str, Any]:
        """Return what was told last about `check`."""
        return next(entry for entry in reversed(self.told) if entry["check"] == check)


def leaving(*addresses: str) -> Callable[[str], Endpoint]:
    """Return what says of every instance that its mail leaves from `addresses`."""
    endpoint = Endpoint("dal", (), "smtp.test", "private.smtp.test", ("192.0.2.9",), addresses, "out.outgate.test")
    return lambda instance_id: endpoint


def verifier(asker: Asker, kept: Kept, *addresses: str) -> Verifier:
    """Return a verifier for deliveries from `addresses`."""
    return Verifier(
        asker,
        kept,
        endpoint_of=leaving(*addresses or ("192.0.2.1", "192.0.2.2", "2001:db8::1")),
        clock=FrozenClock(),
    )
