"""Commands and records that mend something, ready to be copied.

Standards: the vendor's advanced networking (a PUT replaces everything); POSIX shell quoting; RFC 1035 (zone files).
Promises: pure; no token, password or value is ever in one: those come from variables of the shell; whatever comes from
    a file or an API is quoted, and a name that is none gives no command at all. A PUT keeps all that there is.
Dangers: a person is about to run them.
Not here: when one is offered (the hops).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import PurePath
from urllib.parse import quote

from outgate.doctor.surroundings import SERVICES, Surroundings
from outgate.mailer.config import Forward, Forwards

UNKNOWN_SERVER = "smtp.example.com"
"""Stands for a server that nobody has told."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]{0,99}")
_QUEUE_ID = re.compile(r"[A-Za-z0-9.\-_]{1,64}")
_STRING = 255
_COMMAND = re.compile(r"(?m)(?:^|&& )outgate (?:(?! -- ).)*")


def set_variable(around: Surroundings, name: str, *, secret: bool, service: str = "") -> str:
    """Return the command that sets a variable to what is typed: a secret goes by no command line, which others see."""
    if _NAME.fullmatch(name) is None:
        return ""
    kind = "secretFile" if secret else "variable"
    flag = f"{service}{kind[0].upper()}{kind[1:]}" if service else kind
    program, environment = shlex.quote(around.program or "PROGRAM"), shlex.quote(around.environment or "ENVIRONMENT")
    command = f"outgate cloudmanager:set-environment-variables --programId={program} {environment} --{flag} {name}"
    return f"{command} -" if secret else f'read -r {name} && {command} "${name}"'


def delete_variable(around: Surroundings, name: str) -> str:
    """Return the command that deletes a variable of an environment, "" if none is known."""
    if _NAME.fullmatch(name) is None or not around.environment:
        return ""
    program, environment = shlex.quote(around.program), shlex.quote(around.environment)
    return f"outgate cloudmanager:set-environment-variables --programId={program} {environment} --delete {name}"


def write_configuration(where: PurePath, forwards: Forwards | None) -> str:
    """Return the command that writes a mail service's configuration, for the first forward to a mail server's port."""
    by_port = forwards.by_port.values() if forwards is not None else ()
    found = next((each for each in by_port if each.destination in (465, 587)), None)
    ssl = found is None or found.destination == 465
    body: dict[str, object] = {
        "smtp.host": "$[env:AEM_PROXY_HOST;default=proxy.tunnel]",
        "smtp.port": str(found.port if found is not None else 30465),
        "smtp.user": "$[env:EMAIL_USERNAME]",
        "smtp.password": "$[secret:EMAIL_PASSWORD]",
        "from.address": "noreply@example.com",
        "smtp.ssl": ssl,
        "smtp.starttls": not ssl,
        "smtp.requiretls": not ssl,
    }
    # One quoted text, and no document for the shell: what is copied has spaces in front.
    return f"mkdir -p {shlex.quote(str(where.parent))}\necho {shlex.quote(_layout(body))} > {shlex.quote(str(where))}"


def look_again(around: Surroundings, where: str, run_modes: Iterable[str]) -> str:
    """Return the doctor's command for a file's run modes."""
    modes = list(run_modes)
    place = f" --program {shlex.quote(around.program)} --environment {shlex.quote(around.environment)}"
    other = (each for each in modes if each in SERVICES and each != around.runs_as)
    place = f"{place if around.environment else ''} --service {next(other, around.service)}"
    return f"outgate doctor --config {shlex.quote(where)}{place} --run-modes {shlex.quote(','.join(modes))}"


def remove(where: str) -> str:
    """Return the command that removes a file, "" inside a package."""
    return "" if "!" in where else f"rm {shlex.quote(where)}"


def put_networking(around: Surroundings, wanted: Iterable[Forward], note: str = "") -> str:
    """Return the PUT with everything that there is, and the forwards `wanted`, below a `note` of one line."""
    networking = around.networking
    kept = dict(networking.forwards.by_port) if networking and networking.enabled else {}
    kept |= {each.port: each for each in wanted}
    body: dict[str, object] = {
        "portForwards": [
            {"name": each.name, "portDest": each.destination, "portOrig": each.port}
            for each in sorted(kept.values(), key=lambda each: each.port)
        ]
    }
    if networking and networking.non_proxy_hosts:
        body["nonProxyHosts"] = list(networking.non_proxy_hosts)
    program, environment = quote(around.program, safe=""), quote(around.environment, safe="")
    path = f"/api/program/{program}/environment/{environment}/advancedNetworking"
    unknown = any(each.name == UNKNOWN_SERVER for each in kept.values())
    note = f"put the name of your mail server in the place of {UNKNOWN_SERVER}" if unknown else note
    return (f"# {note}\n" if note else "") + _curl("PUT", around.url + path, body, vendor=True)


def post_infrastructure(around: Surroundings) -> str:
    """Return the POST that makes a network infrastructure."""
    path = f"/api/program/{quote(around.program, safe='')}/networkInfrastructures"
    note = "# REGION is that of the production environment\n"
    return note + _curl("POST", around.url + path, {"kind": "flexiblePortEgress", "region": "REGION"}, vendor=True)


def post_domain(url: str, domain: str) -> str:
    """Return the POST that adds a domain to a relay."""
    return _curl("POST", url, {"name": domain, "domain": domain}, vendor=False)


def post_user(url: str, domain_id: str, domain: str) -> str:
    """Return what shows the logins of a relay's domain, and the POST that makes one more."""
    note = "# or a new one: this answer only has its password\n"
    body: dict[str, object] = {"description": "mail service"}
    made = _curl("POST", f"{url}/{quote(domain_id, safe='')}/users", body, vendor=False)
    return f"outgate smtp users {shlex.quote(domain)}\n{note}{made}"


def add_client(environment: str, have: Iterable[str], host: str) -> str:
    """Return the command that adds an address to an environment's client networks: it names all the others too."""
    wanted = [*have, f"{host}/{128 if ':' in host else 32}"]
    options = " ".join(f"--client-network {shlex.quote(each)}" for each in wanted)
    return f"outgate egress environment set {shlex.quote(environment)} {options}"


def unsuppress(address: str) -> str:
    """Return the command that takes an address off the list of suppressed ones."""
    return f"outgate suppression remove {shlex.quote(address)}"


def for_data(change: str, data: str) -> str:
    """Return commands that ask the `outgate dev` of a data directory; "" is the usual one."""
    if not data:
        return change
    # Not by OUTGATE_DATA: the vendor's settings would count more.
    option = f" --data={shlex.quote(data)}"
    return _COMMAND.sub(lambda command: command[0] + option, change)


def show_message(queue_id: str) -> str:
    """Return the command that tells a message's story."""
    return f"outgate message show {queue_id}" if _QUEUE_ID.fullmatch(queue_id) else ""


def zone_line(name: str, value: str) -> str:
    """Write a TXT record as a zone file has it: strings of 255 octets at most."""
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    parts = [text[at : at + _STRING] for at in range(0, len(text), _STRING)]
    return f"{name}. IN TXT " + " ".join(f'"{part}"' for part in parts)


def _curl(method: str, url: str, body: dict[str, object], *, vendor: bool) -> str:
    headers = '  -H "Authorization: Bearer $TOKEN"'
    if vendor:
        headers += ' -H "x-api-key: $API_KEY" -H "x-gw-ims-org-id: $ORG_ID"'
    # No quotes and no brackets: not every shell takes this for a comment.
    told = "TOKEN, API_KEY and ORG_ID are token, api_key and org_id" if vendor else "TOKEN is token"
    lines = [
        f"# of outgate dev, {told} in its dev.json\ncurl -X {method} {shlex.quote(url)}",
        headers,
        f"  -H 'Content-Type: application/json' -d {shlex.quote(_layout(body))}",
    ]
    return " \\\n".join(lines)


def _layout(body: dict[str, object]) -> str:
    """Write a body with one entry of a list a line."""
    parts = list[str]()
    for name, value in body.items():
        if isinstance(value, list):
            entries = ",\n".join(f"    {json.dumps(each)}" for each in value)
            parts.append(f"  {json.dumps(name)}: [\n{entries}\n  ]" if entries else f"  {json.dumps(name)}: []")
        else:
            parts.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}"
