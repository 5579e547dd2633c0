"""The egress for operators over HTTP: what is shown, what may be changed, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from outgate.egress.audit import Connection
from outgate.egress.refusal import Refused
from outgate.model.egress import Mode, PortForward
from support.api_service import Service, api_service
from support.egress_peers import forward
from support.egress_side import Budget

RULE = forward("127.1.0.1", 30465, "smtp.example", 465)


class Operator:
    """Calls with an operator's token; a program with two environments."""

    def __init__(self, service: Service, http: httpx2.Client) -> None:
        self.service, self.http = service, http
        self.headers = service.headers("operator")
        self.egress = service.egress
        store = service.store.egress
        store.add_program("ABC@AdobeOrg", service.account_id, "Shop", program_id="4")
        store.add_infrastructure("4", Mode.DEDICATED, "va7", addresses=["127.0.0.3"], infrastructure_id="7")
        for number, name in (("10", "prod"), ("11", "stage")):
            store.add_environment(
                "4",
                name,
                kind=name,
                region="va7",
                tunnel_address=f"127.1.0.{number}",
                client_networks=["127.0.0.0/8"],
                environment_id=number,
            )
            service.clock.advance(1)

    def call(self, method: str, path: str, body: object = None, **query: object) -> httpx2.Response:
        url = f"{self.service.operations_url}/egress/{path}"
        more: dict[str, Any] = {} if body is None else {"json": body}
        return self.http.request(method, url, params=query, headers=self.headers, **more)  # type: ignore[arg-type]

    def get(self, path: str, **query: object) -> Any:
        answer = self.call("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, method: str, path: str, body: object = None, **query: object) -> tuple[int, str, str]:
        answer = self.call(method, path, body, **query)
        error = answer.json()["errors"][0]
        return answer.status_code, (error.get("target") or {}).get("name", ""), error["message"]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with api_service(tmp_path) as service, httpx2.Client(trust_env=False, timeout=60) as http:
        yield Operator(service, http)


def test_status_with_figures_and_one_environment_alone(operator: Operator) -> None:
    other = forward("127.1.0.11", 30465, "other.example", 465, environment_id="11")
    operator.egress.rules += [RULE, other]
    operator.egress.opened(RULE, "a")
    operator.egress.ledger.refused(Connection("b", other, "127.0.0.1:5"), Refused("guard", "private address"))
    found = operator.get("status")
    assert [(each["environment"], each["open"], each["refused"]) for each in found["environments"]] == [
        ("10", 1, {}),
        ("11", 0, {"guard": 1}),
    ]
    assert found["open"] == 1 and found["limits"] == {"connections": 1000, "alert": 750}
    alone = operator.get("status", environment="11")
    assert [each["environment"] for each in alone["environments"]] == ["11"] and alone["open"] == 0
    operator.egress.away = "egress.sock: connection refused"
    status, _, message = operator.refused("GET", "status")
    assert status == 503 and "is `outgate egress serve` running?" in message


def test_environments_are_listed_and_placed(operator: Operator) -> None:
    store = operator.service.store.egress
    store.put_networking("10", "7", [PortForward("smtp.example", 30465, 465)], [], actor="customer")
    store.settle("10", 1, "127.1.0.10:30465 is taken by another program on this host")
    found = operator.get("environments", limit=1)
    assert found["total_count"] == 2 and "offset=1" in found["next"]["href"]
    assert found["environments"] == [
        {
            "id": "10",
            "program": "4",
            "name": "prod",
            "type": "prod",
            "region": "va7",
            "status": "failed",
            "tunnelAddress": "127.1.0.10",
            "clientNetworks": ["127.0.0.0/8"],
            "mode": "dedicatedEgressIp",
            "forwards": 1,
            "generation": 1,
            "reason": "127.1.0.10:30465 is taken by another program on this host",
        }
    ]
    answer = operator.call(
        "PATCH", "environments/10", {"tunnelAddress": "127.1.0.20", "clientNetworks": ["10.1.2.3/16"]}
    )
    placed = answer.json()
    assert answer.status_code == 200, answer.text
    assert (placed["tunnelAddress"], placed["clientNetworks"]) == ("127.1.0.20", ["10.1.0.0/16"])
    assert placed["status"] == "updating" and operator.egress.pokes == 1
    row = store.audit(target="10", limit=1)[0]
    assert (row.actor, row.action) == ("iam-tester", "environment.place")
    assert row.detail == {"tunnel_address": "127.1.0.20", "client_networks": ["10.1.0.0/16"]}


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "says"),
    [
        ("environments/10", {}, 400, "", "nothing is to be changed"),
        ("environments/10", {"tunnelAddress": "127.1.0.11"}, 409, "tunnelAddress", "of environment 11 (stage)"),
        ("environments/10", {"tunnelAddress": "0.0.0.0"}, 400, "tunnelAddress", "not the address of one host"),
        ("environments/10", {"tunnelAddress": "127.0.0.4"}, 400, "tunnelAddress", "traffic leaves from that address"),
        ("environments/10", {"tunnelAddress": " 127.0.0.4"}, 400, "tunnelAddress", "traffic leaves from that address"),
        ("environments/10", {"tunnelAddress": "::ffff:127.0.0.4"}, 400, "tunnelAddress", "traffic leaves from that"),
        ("environments/10", {"tunnelAddress": "::ffff:127.1.0.11"}, 409, "tunnelAddress", "of environment 11 (stage)"),
        ("environments/10", {"tunnelAddress": "proxy.tunnel"}, 400, "tunnelAddress", "not an IP address"),
        (
            "environments/10",
            {"clientNetworks": ["10.0.0.0/40"]},
            400,
            "clientNetworks",
            "'10.0.0.0/40' is not a network",
        ),
        ("environments/10", {"clientNetworks": "10.0.0.0/8"}, 400, "clientNetworks", ""),
        ("environments/99", {"clientNetworks": []}, 404, "", "there is no environment '99'"),
    ],
)
def test_a_place_that_is_refused(
    operator: Operator, path: str, body: object, status: int, field: str, says: str
) -> None:
    found = operator.refused("PATCH", path, body)
    assert found[:2] == (status, field) and says in found[2]
    assert operator.egress.pokes == 0 and operator.service.store.egress.audit() == ()


def test_an_environment_that_moves_is_left_alone(operator: Operator) -> None:
    assert operator.call("PATCH", "environments/10", {"clientNetworks": []}).status_code == 200
    status, _, message = operator.refused("PATCH", "environments/10", {"clientNetworks": ["10.0.0.0/8"]})
    assert status == 409 and message == "the environment is updating: change it once it is ready or failed"


def test_addresses_say_whose_they_are_and_whether_they_are_proven(operator: Operator) -> None:
    operator.egress.proofs["127.0.0.3"] = "this host does not have it"
    operator.egress.budgets.append(Budget("127.0.0.3", "192.0.2.1", 465, 75, 100))
    operator.service.store.egress.add_infrastructure(
        "4", Mode.DEDICATED, "aus5", addresses=["127.0.0.9"], infrastructure_id="8"
    )
    found = operator.get("addresses")
    assert found["shared"] == ["127.0.0.2"]
    assert [
        (each["address"], each["pooled"], each["state"], each["program"], each["proven"], each["reason"])
        for each in found["dedicated"]
    ] == [
        ("127.0.0.3", True, "allotted", "4", False, "this host does not have it"),
        ("127.0.0.4", True, "free", None, None, ""),
        ("127.0.0.9", False, "allotted", "4", None, ""),
    ]
    assert found["source_ports"][0]["alert"] is True
    operator.egress.proofs["127.0.0.3"] = ""
    operator.egress.away = "gone"
    found = operator.get("addresses")
    assert found["dedicated"][0]["proven"] is True and found["source_ports"] is None


def test_exceptions_are_made_listed_and_taken_away(operator: Operator) -> None:
    body = {"entry": "DB.example.", "environment": "10", "reason": "the warehouse"}
    answer = operator.call("POST", "exceptions", body)
    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert (made["entry"], made["environment"], made["reason"], made["created_by"]) == (
        "db.example", "10", "the warehouse", "iam-tester",
    )  # fmt: skip
    listed = operator.get("exceptions")
    assert listed["total_count"] == 2 and listed["exceptions"][1] == made
    assert listed["exceptions"][0]["id"] is None and listed["exceptions"][0]["entry"] == "127.0.0.0/8"
    assert operator.refused("POST", "exceptions", body)[:2] == (409, "entry")
    assert operator.refused("POST", "exceptions", {"entry": "a b"})[:2] == (400, "entry")
    assert operator.refused("POST", "exceptions", {"entry": "a.example", "environment": "99"})[:2] == (
        400,
        "environment",
    )
    assert operator.refused("POST", "exceptions", {"entry": "a.example", "reason": "a\nb"})[:2] == (400, "reason")
    assert operator.egress.pokes == 1
    assert operator.call("DELETE", f"exceptions/{made['id']}").status_code == 204
    assert operator.refused("DELETE", f"exceptions/{made['id']}")[0] == 404
    assert operator.egress.pokes == 2 and operator.get("exceptions")["total_count"] == 1
    audited = [(row.actor, row.action) for row in operator.service.store.egress.audit()]
    assert audited == [("iam-tester", "guard_exception.remove"), ("iam-tester", "guard_exception.add")]


def test_the_audit_is_filtered_and_gone_through(operator: Operator) -> None:
    for number in range(5):
        operator.egress.opened(RULE, str(number), f"127.0.0.1:500{number}")
        operator.service.clock.advance(1)
    six = Connection("six", RULE, "[2001:db8::1]:6")
    operator.egress.ledger.refused(six, Refused("guard", "private address"))
    page = operator.get("audit", client="127.0.0.1", limit=3)
    assert [line["connection_id"] for line in page["lines"]] == ["4", "3", "2"]
    page = operator.get("audit", client="127.0.0.1", limit=3, before=page["older"])
    assert [line["connection_id"] for line in page["lines"]] == ["1", "0"] and page["older"] is None
    assert [line["connection_id"] for line in operator.get("audit", client="127.0.0.1:5003")["lines"]] == ["3"]
    for client in ("2001:DB8::1", "[2001:db8::1]:6"):
        assert [line["connection_id"] for line in operator.get("audit", client=client)["lines"]] == ["six"]
    assert [line["reason"] for line in operator.get("audit", refusal="guard")["lines"]] == ["private address"]
    assert operator.get("audit", environment="11") == {"lines": [], "older": None}
    assert operator.refused("GET", "audit", client="somebody")[:2] == (400, "client")
    assert operator.refused("GET", "audit", refusal="no such class")[:2] == (400, "refusal")
