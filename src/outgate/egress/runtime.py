"""What an environment's application is started with: variables, secrets, and the way to its tunnel.

Standards: the vendor's reserved variables (AEM_PROXY_HOST, AEM_HTTP_PROXY_PORT, AEM_HTTPS_PROXY_PORT).
Promises: each use is in the audit before a secret is opened; the reserved variables are ours alone.
Dangers: `Runtime.secrets` is in clear: it goes to the caller and nowhere else.
Not here: who may ask (`api.cloud_manager`), starting the application (`environment`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outgate.model.egress import Environment, PortForward
from outgate.store.egress import EgressQueries

SERVICES = ("author", "publish", "preview")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that one service of an environment starts with; `run_modes`: its name, the environment's type."""

    variables: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    reserved: dict[str, str]
    run_modes: tuple[str, ...]
    tunnel_address: str
    port_forwards: tuple[PortForward, ...]


def runtime(
    store: EgressQueries, environment: Environment, service: str, *, actor: str, http_proxy_port: int
) -> Runtime:
    """Record that `actor` starts a service, and return what it starts with. Blocks."""
    store.record(actor, "environment.run", environment.id, {"service": service})
    variables, secrets = store.runtime(environment.id, service)
    networking = store.networking(environment.id)
    return Runtime(
        variables=variables,
        secrets=secrets,
        reserved={
            "AEM_PROXY_HOST": environment.tunnel_address,
            "AEM_HTTP_PROXY_PORT": str(http_proxy_port),
            "AEM_HTTPS_PROXY_PORT": str(http_proxy_port),
        },
        run_modes=(service, environment.type),
        tunnel_address=environment.tunnel_address,
        port_forwards=() if networking is None else networking.port_forwards,
    )
