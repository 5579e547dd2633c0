"""Which of our roles may call which operation of the Cloud Manager API.

Standards: the vendor's permissions: a Business Owner adds programs and network infrastructures, a Deployment Manager
    creates environments and sets variables, either changes an environment's advanced networking.
Promises: an operation that is not listed here cannot be routed (a test asks every API).
Dangers: a manager may do whatever a writer may; the others stand alone.
Not here: the check itself (`gateway`).

| the vendor's role | ours |
|---|---|
| anyone who may sign in | reader, and all below |
| Deployment Manager | writer, manager, operator |
| Business Owner | manager |

A writer changes what lies within a program, and the address that traffic leaves from stays the program's owner's: so
infrastructures are a manager's. An operator of the gateway may mend what an environment asks for, and owns no program.
Reading secrets in clear, to start an application, is a role of its own that nobody else has.
"""

from __future__ import annotations

READ = frozenset({"reader", "writer", "manager", "operator"})
DEPLOYMENT_MANAGER = frozenset({"writer", "manager", "operator"})
BUSINESS_OWNER = frozenset({"manager"})
RUNTIME = frozenset({"runtime"})

ROLES: dict[str, frozenset[str]] = {
    "getPrograms": READ,
    "getTenants": READ,
    "getTenant": READ,
    "getProgramsForTenant": READ,
    "addProgram": BUSINESS_OWNER,
    "getProgram": READ,
    "deleteProgram": BUSINESS_OWNER,
    "getProgramRegions": READ,
    "getEnvironments": READ,
    "createEnvironment": DEPLOYMENT_MANAGER,
    "getEnvironment": READ,
    "deleteEnvironment": DEPLOYMENT_MANAGER,
    "getEnvironmentVariables": READ,
    "patchEnvironmentVariables": DEPLOYMENT_MANAGER,
    "startEnvironmentRuntime": RUNTIME,
    "testEnvironmentConnectivity": DEPLOYMENT_MANAGER,
    "getNetworkInfrastructures": READ,
    "createNetworkInfrastructure": BUSINESS_OWNER,
    "getNetworkInfrastructure": READ,
    "updateNetworkInfrastructure": BUSINESS_OWNER,
    "deleteNetworkInfrastructure": BUSINESS_OWNER,
    "getEnvironmentAdvancedNetworkingConfigurationList": READ,
    "enableEnvironmentAdvancedNetworkingConfiguration": DEPLOYMENT_MANAGER,
    "disableEnvironmentAdvancedNetworkingConfiguration": DEPLOYMENT_MANAGER,
}
