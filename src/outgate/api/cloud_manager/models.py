"""The shapes of what the Cloud Manager API takes and answers, for its published description.

Standards: the vendor's models and spelling.
Promises: every field that is answered is named here, and no other (a test holds answers against them).
Dangers: they describe bodies and do not read them: limits come from where they are judged.
Not here: shapes of network infrastructures and advanced networking (`network_documents`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from outgate.api.cloud_manager.place_bodies import DESCRIPTION, ENVIRONMENT_NAME, PROGRAM_NAME
from outgate.api.cloud_manager.validation import NAME_PATTERN, SECRET_LIMIT, VALUE_LIMIT
from outgate.api.openapi import Shown, Time


class Hal(Shown):
    """Something with links; names as the vendor spells them."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Link(Hal):
    """Where something is: a path below the API's base URL."""

    href: str
    templated: bool


Links = Annotated[dict[str, Link], Field(alias="_links", description="By relation: `self`, and the vendor's names.")]
Total = Annotated[int, Field(alias="_totalNumberOfItems", ge=0)]


class FieldError(Hal):
    """One field that is wrong."""

    field: str
    code: str
    message: str
    invalid_value: str | int | float | bool


class CodedError(Hal):
    """One thing that is wrong."""

    code: str
    message: str


class MissingParameter(Hal):
    """A parameter that is not there."""

    name: str
    type: str


class InvalidParameter(Hal):
    """A parameter that is wrong."""

    name: str
    reason: str


class ProblemShown(Hal):
    """A refusal of an operation: a validation of fields (an object by field, or texts), a bad request (with
    parameters), or another problem."""

    type: str
    title: str
    status: int
    errors: dict[str, FieldError] | list[CodedError] | list[str]
    missing_params: list[MissingParameter] | None = None
    invalid_params: list[InvalidParameter] | None = None


class GatewayRefusal(Hal):
    """A refusal of the gateway, before the operation: token, client, organisation or role."""

    error_code: Annotated[str, Field(alias="error_code")]
    message: str


class LightProgram(Hal):
    """A program as lists have it."""

    id: str
    name: str
    enabled: bool
    tenant_id: str
    status: Literal["creating", "ready", "deleting", "deleted", "deleted_failed", "failed"]
    created_at: Time
    updated_at: Time
    links: Links


class Capabilities(Hal):
    """What a program is good for."""

    sandbox: bool


class ProgramShown(LightProgram):
    """A program."""

    ims_org_id: str
    type: Literal["aem_cloud_service"]
    capabilities: Capabilities


class Programs(Hal):
    """The programs of a page."""

    programs: list[LightProgram]


class Paging(Hal):
    """Which page of a list it is."""

    start: int
    limit: int
    next: int | None = None
    prev: int | None = None
    order_by: str
    property: list[str]


class ProgramList(Hal):
    """A page of the list of programs."""

    total: Total
    page: Annotated[Paging, Field(alias="_page")]
    embedded: Annotated[Programs, Field(alias="_embedded")]
    links: Links


class TenantShown(Hal):
    """A tenant: the account that programs belong to."""

    id: str
    ims_org_id: str
    ims_tenant_id: str
    description: str
    status: Literal["ready"]
    links: Links


class Tenants(Hal):
    """All tenants that the caller may see."""

    tenants: list[TenantShown]


class TenantList(Hal):
    """The list of tenants."""

    total: Total
    embedded: Annotated[Tenants, Field(alias="_embedded")]
    links: Links


class Region(Hal):
    """A region."""

    name: str


class Regions(Hal):
    """All regions."""

    regions: list[Region]


class RegionList(Hal):
    """The list of regions that a program may use."""

    total: Total
    embedded: Annotated[Regions, Field(alias="_embedded")]
    links: Links


class FurtherRegion(Hal):
    """One more region that an environment publishes from."""

    region: str


class LogOption(Hal):
    """A log that there is."""

    service: str
    name: str


class EnvironmentShown(Hal):
    """An environment."""

    id: str
    program_id: str
    name: str
    description: str
    type: Literal["dev", "stage", "prod", "rde", "preprod"]
    status: str
    region: str
    secondary_region_deployments: list[FurtherRegion] | None = None
    available_log_options: list[LogOption]
    created_at: Time
    updated_at: Time
    links: Links


class Environments(Hal):
    """All environments of a program."""

    environments: list[EnvironmentShown]


class EnvironmentList(Hal):
    """The list of environments."""

    total: Total
    embedded: Annotated[Environments, Field(alias="_embedded")]
    links: Links


class VariableShown(Hal):
    """A variable; a secret has no `value`. `ignored`: its name is reserved, and no application gets it."""

    name: str
    type: Literal["string", "secretString"]
    value: str | None = None
    service: Literal["author", "publish", "preview"] | None = None
    status: Literal["ready", "ignored"]
    links: Links


class Variables(Hal):
    """All variables of an environment."""

    variables: list[VariableShown]


class VariableList(Hal):
    """The list of variables."""

    total: Total
    embedded: Annotated[Variables, Field(alias="_embedded")]
    links: Links


class Taken(BaseModel):
    """The shape of a body, for the document: what is read is decided by `place_bodies` and `validation`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TakenCapabilities(Taken):
    """What a program shall be good for."""

    sandbox: bool = False


class NewProgram(Taken):
    """A program to be made."""

    name: str = Field(max_length=PROGRAM_NAME)
    type: Literal["aem_cloud_service"]
    capabilities: TakenCapabilities = TakenCapabilities()


class TakenRegion(Taken):
    """One more region that an environment shall publish from."""

    region: str = Field(description="One of the program's regions, and not the environment's own.")


class NewEnvironment(Taken):
    """An environment to be made."""

    name: str = Field(min_length=1, max_length=ENVIRONMENT_NAME)
    type: Literal["dev", "stage", "prod", "rde"] = Field(description="A program has one `prod`.")
    region: str = Field(description="One of the program's regions.")
    description: str = Field("", max_length=DESCRIPTION)
    secondary_region_deployments: list[TakenRegion] = []


class TakenVariable(Taken):
    """A variable to be set, or with an empty value to be deleted."""

    name: str = Field(min_length=2, max_length=100, pattern=f"^{NAME_PATTERN}$")
    value: str = Field(max_length=VALUE_LIMIT, description=f"A secret has at most {SECRET_LIMIT} characters.")
    type: Literal["string", "secretString"] = "string"
    service: Literal["author", "publish", "preview"] | None = Field(None, description="Absent: all services.")


class VariableChanges(RootModel[list[TakenVariable]]):
    """What is to change; all that is not named stays."""


class Started(Taken):
    """The service that is started."""

    service: Literal["author", "publish", "preview"]


class Forwarded(Hal):
    """A port of the tunnel and where it leads."""

    name: str
    port_dest: int
    port_orig: int


class RuntimeShown(Hal):
    """What a service starts with, secrets in clear."""

    variables: dict[str, str]
    secrets: dict[str, str]
    reserved: dict[str, str]
    run_modes: list[str]
    tunnel_address: str
    port_forwards: list[Forwarded]


class ConnectivityWanted(BaseModel):
    """A host and port to be tested."""

    host: Annotated[str, Field(min_length=1, max_length=254, description="A host name or an address.")]
    port: Annotated[int, Field(ge=1, le=65535)]


class HttpFound(Shown):
    """What HTTPS or HTTP has answered; `note`: the certificate does not prove the name."""

    protocol: Literal["HTTPS", "HTTP"]
    status_code: int
    reason: str
    note: str | None = None


class HttpFailed(Shown):
    """Why there was no answer."""

    error: str
    note: str | None = None


class IpsFound(Shown):
    """Addresses."""

    ips: list[str]


class NoIps(Shown):
    """Why there are none."""

    error: str


class Resolved(Shown):
    """What one resolver led to; `default` stands for all if they agree."""

    name: str
    dns_resolution: IpsFound | NoIps
    port_open: bool
    http_connectivity: HttpFound | HttpFailed
    reachability: Literal["Reachable", "Unreachable: Port not accessible", "Unreachable: DNS resolution failed"]


class ConnectivityFound(Shown):
    """What came of a test, resolver by resolver."""

    resolvers: list[Resolved]


class ConnectivityLate(Shown):
    """A test that took too long."""

    error: Literal["Request timeout"]


class ConnectivityShown(RootModel[ConnectivityFound | ConnectivityLate]):
    """What came of a test."""
