"""The Cloud Manager API: programs, environments, their variables and advanced networking.

Standards: the vendor's OpenAPI (1.0.0), as far as an application's way out needs it; RFC 9457.
Promises: nothing is half-applied; a change of networking answers at once with the environment `updating`,
    which becomes `ready` when the engine has applied it; secrets leave by the runtime call only.
Not here: who may call (`gateway`, `roles`), programs and environments (`places`), variables (`variables`), networks
    (`infrastructures`, `networking`), bodies (`validation`, `infrastructure_bodies`), shapes (`hal`), refusals
    (`problems`), applying (`egress.reconcile`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fastapi import Depends, FastAPI, Request, Response

from outgate.api.cloud_manager import network_documents
from outgate.api.cloud_manager.connectivity import ConnectivityOperations, Tests
from outgate.api.cloud_manager.gateway import Authenticates, Gateway, Visit
from outgate.api.cloud_manager.infrastructures import InfrastructureOperations
from outgate.api.cloud_manager.networking import Addresses, NetworkingOperations
from outgate.api.cloud_manager.openapi import ABOUT, DESCRIBED, TITLE, in_path
from outgate.api.cloud_manager.places import PlaceOperations
from outgate.api.cloud_manager.problems import install
from outgate.api.cloud_manager.roles import ROLES
from outgate.api.cloud_manager.variables import VariableOperations
from outgate.api.openapi import publish
from outgate.egress.plan import Terms
from outgate.store.egress import EgressQueries
from outgate.store.infrastructures import InfrastructureQueries
from outgate.store.places import Grounds, PlaceQueries

__all__ = ["ROLES", "build"]


def build(
    *,
    store: EgressQueries,
    places: PlaceQueries,
    grounds: Grounds,
    infrastructures: InfrastructureQueries,
    authenticator: Authenticates,
    changed: Callable[[], None],
    shared_addresses: Sequence[str],
    dedicated_addresses: Sequence[str] = (),
    vpn_address: str = "",
    terms: Terms | None = None,
    http_proxy_port: int = 3128,
    account_of_key: Callable[[str], str | None] | None = None,
    connectivity: Tests | None = None,
) -> FastAPI:
    """Return the API, to be mounted anywhere. `changed` is called after each change that the engine must act on.

    `dedicated_addresses` are the pool that infrastructures get theirs from, `vpn_address` is every VPN's local end;
    `terms` are all that operators have set for what environments get (None: `shared_addresses` and no more).

    `account_of_key` tells whose API key a text is: such a key of the caller's account is as good an x-api-key as
    the client that the token is for. It may block. `connectivity` tests an environment's way out; None: not here."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install(app)
    gateway = Gateway(authenticator, account_of_key)
    place = PlaceOperations(store, places, grounds, changed)
    variable = VariableOperations(store, http_proxy_port)
    addresses = Addresses(tuple(shared_addresses), tuple(dedicated_addresses), vpn_address)
    ways = InfrastructureOperations(store, infrastructures, changed, addresses)
    terms = terms or Terms(shared_addresses=addresses.shared)
    networking = NetworkingOperations(store, infrastructures, changed, addresses, terms)
    test = ConnectivityOperations(store, connectivity)
    program = "/api/program/{program_id}"
    environment = program + "/environment/{environment_id}"

    def route(method: str, path: str, call: Callable[..., Awaitable[Response]], operation: str) -> None:
        async def endpoint(request: Request, visit: Visit = Depends(gateway.needs(ROLES[operation]))) -> Response:
            return await call(request, visit, **request.path_params)

        told = {**(DESCRIBED.get(operation) or network_documents.DESCRIBED[operation])}
        extra = {**told.pop("openapi_extra")}
        extra["parameters"] = [*in_path(path), *extra["parameters"]]
        app.add_api_route(path, endpoint, methods=[method], name=operation, openapi_extra=extra, **told)

    tenant = "/api/tenant/{tenant_id}"
    route("GET", "/api/programs", place.programs, "getPrograms")
    route("GET", "/api/tenants", place.tenants, "getTenants")
    route("GET", tenant, place.tenant, "getTenant")
    route("GET", tenant + "/programs", place.tenant_programs, "getProgramsForTenant")
    route("POST", tenant + "/programs", place.add_program, "addProgram")
    route("GET", program, place.program, "getProgram")
    route("DELETE", program, place.delete_program, "deleteProgram")
    route("GET", program + "/regions", place.regions, "getProgramRegions")
    route("GET", program + "/environments", place.environments, "getEnvironments")
    route("POST", program + "/environments", place.create_environment, "createEnvironment")
    route("GET", environment, place.environment, "getEnvironment")
    route("DELETE", environment, place.delete_environment, "deleteEnvironment")
    route("GET", environment + "/variables", variable.variables, "getEnvironmentVariables")
    route("PATCH", environment + "/variables", variable.patch_variables, "patchEnvironmentVariables")
    route("POST", environment + "/runtime", variable.runtime, "startEnvironmentRuntime")
    route("POST", environment + "/connectivityTest", test.test, "testEnvironmentConnectivity")

    plural = program + "/networkInfrastructures"
    singular = program + "/networkInfrastructure/{infrastructure_id}"
    route("GET", plural, ways.infrastructures, "getNetworkInfrastructures")
    route("POST", plural, ways.create, "createNetworkInfrastructure")
    route("GET", singular, ways.infrastructure, "getNetworkInfrastructure")
    route("PUT", singular, ways.replace, "updateNetworkInfrastructure")
    route("DELETE", singular, ways.delete, "deleteNetworkInfrastructure")

    advanced = environment + "/advancedNetworking"
    route("GET", advanced, networking.networking, "getEnvironmentAdvancedNetworkingConfigurationList")
    route("PUT", advanced, networking.put_networking, "enableEnvironmentAdvancedNetworkingConfiguration")
    route("DELETE", advanced, networking.delete_networking, "disableEnvironmentAdvancedNetworkingConfiguration")
    publish(app, TITLE, ABOUT)
    return app
