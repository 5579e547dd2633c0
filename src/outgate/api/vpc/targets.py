"""Which private endpoint a target's CRN means.

Standards: the vendor's cloud resource names, ten segments between colons.
Promises: pure; any text at all gives a target or `BadTarget`, whose text shows a CRN that would do.
Not here: who may have a gateway to it (`gateways`), endpoints (`settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SERVICE = "event-notifications"
_SEGMENTS = 10
_LONGEST = 512


class BadTarget(ValueError):
    """The CRN means no private endpoint of ours; the text says why, and which would."""


@dataclass(frozen=True, slots=True)
class Target:
    """A private endpoint: a region that it serves, and its name."""

    region: str
    name: str


def find(crn: str, private_names: Mapping[str, str]) -> Target:
    """Return the endpoint that a CRN names, or that serves its region. `private_names` is by region.

    Raises `BadTarget`."""
    parts = crn.split(":")
    if len(crn) > _LONGEST or len(parts) != _SEGMENTS or parts[0] != "crn" or parts[1] != "v1":
        raise BadTarget(f"is not a CRN of ten segments; {_hint(private_names)}")
    service, region, kind, resource = parts[4], parts[5], parts[8], parts[9].lower().rstrip(".")
    if service != SERVICE:
        raise BadTarget(f"is of the service {service[:64]!r}, and {SERVICE} is the one here; {_hint(private_names)}")
    if kind == "endpoint" or "." in resource:
        return _named(region, resource, private_names)
    if region not in private_names:
        raise BadTarget(f"is of the region {region[:64]!r}, which has no endpoint here; {_hint(private_names)}")
    return Target(region, private_names[region])


def _named(region: str, name: str, private_names: Mapping[str, str]) -> Target:
    serving = [each for each, known in private_names.items() if known == name]
    if not serving:
        raise BadTarget(f"names {name[:128]!r}, which is no private SMTP endpoint here; {_hint(private_names)}")
    if region in private_names and region not in serving:
        raise BadTarget(f"names {name!r}, which does not serve its region {region!r}; {_hint(private_names)}")
    return Target(region if region in serving else serving[0], name)


def _hint(private_names: Mapping[str, str]) -> str:
    if not private_names:
        return "no private endpoint is configured"
    region, name = next(iter(private_names.items()))
    return f"write crn:v1:bluemix:public:{SERVICE}:{region}:::endpoint:{name}; regions: {', '.join(private_names)}"
