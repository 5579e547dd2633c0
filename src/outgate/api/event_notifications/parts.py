"""What the operations of the Event Notifications API share: what they were handed, and how they find their subject.

Standards: none.
Promises: the token is checked first, then the role, then whose the instance is, then whether its restrictions allow
    the caller's address; only then is a body read.
Not here: the operations (`configurations`, `users`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fastapi import Depends, Request

from outgate.api.errors import NotFound
from outgate.api.identity.gate import Gate
from outgate.api.identity.tokens import Caller
from outgate.api.restrictions.enforcement import Enforcement
from outgate.base.clock import Clock
from outgate.model.tenancy import Instance, SmtpConfiguration, Verification
from outgate.store.control import ControlStore


class Verifier(Protocol):
    """Runs checks of a configuration, stores their results and evidence, and returns the states."""

    async def verify(self, configuration: SmtpConfiguration, types: Sequence[str]) -> Mapping[str, Verification]:
        """Return the state of each of `types` (spf, dkim, en_authorization) after checking it."""
        ...


class Hasher(Protocol):
    """Turns a password into its verifier, in a bounded number of threads; with the salt of `like`, so that one
    computation will compare a password with both."""

    async def hash(self, clear: str, like: str | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class SmtpRecords:
    """What the DNS records offered to customers mention: `spf_host` is the name their SPF record includes."""

    spf_host: str


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything an operation may need."""

    store: ControlStore
    gate: Gate
    enforcement: Enforcement
    verifier: Verifier
    hasher: Hasher
    records: SmtpRecords
    authorization: Literal["automatic", "manual"]
    grace_s: float
    clock: Clock
    ed25519: bool = False

    def instance(self, operation: str) -> Callable[..., Instance]:
        """Return a dependency: the path's instance, if the caller may do `operation` and it is their account's."""
        allowed = self.gate.allow(operation)

        def find(request: Request, instance_id: str, caller: Caller = Depends(allowed)) -> Instance:
            instance = self.store.tenancy.instance(instance_id)
            if instance is None or instance.account_id != caller.account_id:
                raise NotFound("instance", instance_id)
            self.enforcement.check(request, instance, caller.subject)
            return instance

        return find

    def configuration(self, operation: str) -> Callable[..., SmtpConfiguration]:
        """Return a dependency: the path's configuration, after the checks of `instance`."""
        found = self.instance(operation)

        def find(smtp_config_id: str, instance: Instance = Depends(found)) -> SmtpConfiguration:
            configuration = self.store.tenancy.configuration(instance.id, smtp_config_id)
            if configuration is None:
                raise NotFound("SMTP configuration", smtp_config_id)
            return configuration

        return find
