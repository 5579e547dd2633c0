"""Files of rules.

Property: any octets are taken or refused with lines that name the file and can be shown; what is taken names for each
environment an address, who may dial it, and ports in the vendor's range; it is the same when read again.
"""

from __future__ import annotations

import json

from outgate.egress.forward_rules import PORT_ORIG
from outgate.egress.rules_file import BadRules, read_rules

_ONE = {
    "portForwards": [{"name": "smtp.example", "portDest": 465, "portOrig": 30465}],
    "tunnelAddress": "127.1.0.1",
    "clientNetworks": ["10.0.0.0/8"],
}
_OWN = {"kind": "dedicatedEgressIp", "egressAddresses": ["192.0.2.1"], "nonProxyHosts": ["*.example.com"]}
_DOCUMENTS = (
    _ONE,
    {"environments": [_ONE, {**_ONE, **_OWN, "tunnelAddress": "::1", "environmentId": "10", "programId": "4"}]},
    {**_ONE, "_links": {}, "status": "ready", "clientNetworks": ["10.0.0.1", 7, None]},
    {"environments": [1, [], {"kind": 3, "tunnelAddress": ["x"]}]},
)
SEEDS = (
    *(json.dumps(document).encode() for document in _DOCUMENTS),
    b"{",
    b"[" * 2000,
    b'{"kind": "vpn", "kind": 1}',
    b'{"\\ud800": "\\ud800"}',
    b"1e999",
    b"NaN",
)


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        found = read_rules(text, "rules.json")
    except BadRules as error:
        said = str(error)
        said.encode("utf-8")
        assert len(said) < 100_000
        assert all(line.startswith("rules.json: ") for line in said.split("\n")), said
        return
    assert read_rules(text, "rules.json") == found
    for each in found:
        assert each.tunnel_address
        assert each.client_networks
        assert all(rule.port_orig in PORT_ORIG and 0 < rule.port_dest < 65536 for rule in each.forwards)
    assert len({each.tunnel_address for each in found}) == len(found)


if __name__ == "__main__":
    from _run import run

    run(__file__)
