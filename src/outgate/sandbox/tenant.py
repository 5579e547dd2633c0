"""The laptop mode's ready-made tenant: made once, found again at every start.

Standards: the laptop mode's contract (design section 9).
Promises: ids and secrets are chosen first and kept in a file (0600), then everything is made to exist: a start
that was cut short is finished by the next one; what a user changed since is left as it is.
Dangers: the file holds a password and an API key in clear: it is the laptop mode's, and says so by its mode.
Not here: verifying the domain (`relay.onboarding`), the zone's answers (`sandbox.zone`).
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from outgate.base import ids
from outgate.model.access import Address
from outgate.model.egress import Mode
from outgate.model.tenancy import SmtpConfiguration, Verification
from outgate.store.control import ControlStore
from outgate.store.keys import new_dkim_key, new_ed25519_key, read_dkim_key
from outgate.store.tenancy import Conflict, TooMany

SMTP_API = "crn:v1:bluemix:public:event-notifications-dev::::api-type:smtp-configuration"
REGION = "us-south"
EGRESS_REGION = "va7"
PRIVATE_NETWORK = "127.20.0.0/24"
ALL_ROLES = frozenset({"reader", "writer", "manager", "authorizer", "operator", "runtime", "smtp"})
CLIENT_ID = "outgate-dev"


@dataclass(frozen=True, slots=True)
class Tenant:
    """What `dev.json` tells of the tenant."""

    account_id: str
    instance_id: str
    org_id: str
    program_id: str
    environment_id: str
    infrastructure_id: str
    vpc_id: str
    vpc_crn: str
    subnet_id: str
    api_key: str
    smtp_user: str
    smtp_password: str


def choose(file: Path) -> Tenant:
    """Return the tenant kept in `file`, or choose a new one and keep it there."""
    if file.exists():
        return Tenant(**json.loads(file.read_text("utf-8")))
    account = ids.hex_id()
    vpc = f"r006-{ids.new_uuid()}"
    tenant = Tenant(
        account_id=account,
        instance_id=ids.new_uuid(),
        org_id=f"{ids.hex_id()[:24].upper()}@AdobeOrg",
        program_id=ids.number_id(),
        environment_id=ids.number_id(),
        infrastructure_id=ids.number_id(),
        vpc_id=vpc,
        vpc_crn=f"crn:v1:bluemix:public:is:{REGION}:a/{account}::vpc:{vpc}",
        subnet_id=f"0717-{ids.new_uuid()}",
        api_key=ids.password(44),
        smtp_user=ids.smtp_username(),
        smtp_password=ids.password(),
    )
    temporary = file.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump(asdict(tenant), out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)
    return tenant


def make_relay_side(
    control: ControlStore,
    tenant: Tenant,
    *,
    domain: str,
    key_pem: bytes | None,
    selector: str,
    verifier: str,
    ed25519: bool = False,
) -> SmtpConfiguration:
    """Make account, instance, zone, rule, API key, configuration and user exist; return the configuration.

    `key_pem` is an RSA key to sign with (a new one if None), `verifier` the hash of the tenant's password; `ed25519`: a
    key of that kind signs too."""
    tenancy, access = control.tenancy, control.access
    tenancy.create_account(tenant.account_id)
    if tenancy.instance(tenant.instance_id) is None:
        tenancy.create_instance(tenant.account_id, REGION, "Laptop", instance_id=tenant.instance_id)
    api_key = control.identity.find_api_key(tenant.api_key)
    if api_key is None:
        control.identity.create_api_key(tenant.account_id, "Laptop", ALL_ROLES, clear=tenant.api_key)
    elif ALL_ROLES - api_key.roles:  # made before there was such a role
        control.identity.replace_api_key(replace(api_key, roles=api_key.roles | ALL_ROLES))
    if not access.rules(tenant.account_id):
        _open_loopback(control, tenant)
    configuration = tenancy.configuration_by_domain(tenant.instance_id, domain)
    if configuration is None:
        key = new_dkim_key() if key_pem is None else read_dkim_key(key_pem)
        configuration = tenancy.create_configuration(
            tenant.instance_id,
            name="Laptop",
            domain=domain,
            description="Made by the laptop mode",
            key=key,
            selector=selector or None,
            authorization=Verification.SUCCESSFUL,
        )
    if ed25519:
        control.signing_keys.add_second(configuration.id, new_ed25519_key())
    if tenancy.sender(tenant.smtp_user) is None:
        tenancy.create_user(
            tenant.instance_id,
            configuration.id,
            description="Made by the laptop mode",
            verifier=verifier,
            username=tenant.smtp_user,
        )
    return configuration


def _open_loopback(control: ControlStore, tenant: Tenant) -> None:
    """Let loopback in, but for one network that is nobody's zone."""
    name = "Loopback"
    found = control.access.zones(tenant.account_id, name=name)
    zone = (
        found[0]
        if found
        else control.access.create_zone(
            tenant.account_id,
            name=name,
            description="Everything on this machine; dial from 127.66.0.1 to be a stranger",
            addresses=(Address("subnet", "127.0.0.0/8"), Address("ipAddress", "::1")),
            excluded=(Address("subnet", "127.66.0.0/16"),),
            by=CLIENT_ID,
        )
    )
    resource = [
        {"name": "accountId", "value": tenant.account_id},
        {"name": "serviceName", "value": "event-notifications"},
        {"name": "serviceInstance", "value": tenant.instance_id},
    ]
    document: dict[str, object] = {
        "contexts": [{"attributes": [{"name": "networkZoneId", "value": zone.id}]}],
        "resources": [{"attributes": resource}],
        "operations": {"api_types": [{"api_type_id": SMTP_API}]},
    }
    control.access.create_rule(
        tenant.account_id,
        description="The laptop mode's way in",
        document=document,
        enforcement="enabled",
        by=CLIENT_ID,
    )


def make_private_side(control: ControlStore, tenant: Tenant) -> None:
    """Make the VPC and its subnet exist, unless their names or addresses have been given to others since."""
    with contextlib.suppress(Conflict, TooMany):
        vpc = next((vpc for vpc in control.vpc.vpcs(tenant.account_id) if vpc.id == tenant.vpc_id), None)
        if vpc is None:
            control.vpc.create_vpc(
                tenant.account_id, REGION, "laptop", by=CLIENT_ID, vpc_id=tenant.vpc_id, crn=tenant.vpc_crn
            )
        if all(subnet.id != tenant.subnet_id for subnet, _ in control.vpc.subnets(tenant.account_id)):
            control.vpc.create_subnet(
                tenant.account_id,
                tenant.vpc_id,
                name="laptop",
                zone=f"{REGION}-1",
                network=PRIVATE_NETWORK,
                by=CLIENT_ID,
                subnet_id=tenant.subnet_id,
            )


def make_egress_side(control: ControlStore, tenant: Tenant, tunnel_address: str) -> None:
    """Make the program, its production environment and a ready flexible infrastructure exist."""
    egress = control.egress
    if egress.program(tenant.program_id) is None:
        egress.add_program(tenant.org_id, tenant.account_id, "Laptop", program_id=tenant.program_id)
    if egress.environment(tenant.program_id, tenant.environment_id) is None:
        egress.add_environment(
            tenant.program_id,
            "laptop-prod",
            kind="prod",
            region=EGRESS_REGION,
            tunnel_address=tunnel_address,
            client_networks=("127.0.0.0/8", "::1/128"),
            environment_id=tenant.environment_id,
        )
    if control.infrastructures.find(tenant.program_id, tenant.infrastructure_id) is None:
        egress.add_infrastructure(
            tenant.program_id,
            Mode.FLEXIBLE,
            EGRESS_REGION,
            document={"isPrimaryRegion": True},
            infrastructure_id=tenant.infrastructure_id,
        )
