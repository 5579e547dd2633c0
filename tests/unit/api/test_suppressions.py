"""Suppressed addresses over HTTP: lists, changes, files, and what is refused with its line."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgate.api.suppressions import lines
from outgate.model.suppression import NewSuppression, Suppression, key
from support.api_service import Service, api_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with api_service(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def http(service: Service) -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60, headers=service.headers("writer")) as client:
        yield client


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    yield f"{service.smtp_url}/suppressions"
    with service.store.suppressions._database.writing() as connection:
        for table in ("suppressions", "suppression_totals"):
            connection.exec_driver_sql(f"DELETE FROM {table}")


def load(http: httpx2.Client, url: str, octets: bytes, media: str = "text/csv; charset=utf-8") -> httpx2.Response:
    return http.post(f"{url}/import", content=octets, headers={"Content-Type": media})


def test_the_life_of_an_entry(service: Service, http: httpx2.Client, url: str) -> None:
    body = {"suppressions": [{"address": "Ann@Example.NET", "reason": "unsubscribe", "detail": "asked on the phone"}]}
    made = http.post(url, json=body)
    assert made.status_code == 201, made.text
    (entry,) = made.json()["suppressions"]
    assert (entry["address"], entry["reason"], entry["source"]) == ("Ann@Example.NET", "unsubscribe", "iam-tester")
    assert entry["expires_at"] is None
    assert http.get(f"{url}/ann%40example.net").json() == entry
    again = http.post(
        url, json={"suppressions": [{"address": "ann@example.net", "expires_at": "2099-01-31T00:00:00Z"}]}
    )
    assert again.json()["suppressions"][0]["reason"] == "manual"
    listed = http.get(url).json()
    assert listed["total_count"] == 1 and listed["suppressions"][0]["expires_at"] == "2099-01-31T00:00:00.000Z"
    assert http.delete(f"{url}/ANN@example.net").status_code == 204
    assert http.delete(f"{url}/ann@example.net").status_code == 404
    assert http.get(f"{url}/ann@example.net").status_code == 404
    assert http.get(f"{url}/no-mailbox").status_code == 404


def test_a_slash_is_part_of_an_address(http: httpx2.Client, url: str) -> None:
    assert http.post(url, json={"suppressions": [{"address": "a/b@example.net"}]}).status_code == 201
    assert http.get(f"{url}/a%2Fb%40example.net").json()["address"] == "a/b@example.net"
    assert http.delete(f"{url}/a%2Fb%40example.net").status_code == 204


def test_lists_are_searched_filtered_and_paged(service: Service, http: httpx2.Client, url: str) -> None:
    reasons = ("hard_bounce", "complaint", "unsubscribe")
    added = [NewSuppression(f"user{n}@d{n % 4}.test", reasons[n % 3], f"s{n % 2}") for n in range(30)]
    service.store.suppressions.add(service.instance.id, added)

    def found(**query: Any) -> tuple[int, list[str]]:
        answer = http.get(url, params={"limit": 100, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()["total_count"], [each["address"] for each in answer.json()["suppressions"]]

    newest = [each.address for each in reversed(added)]
    assert found() == (30, newest)
    assert found(limit=7, offset=7) == (30, newest[7:14])
    assert found(search="@D1.") == (8, [each for each in newest if each.endswith("@d1.test")])
    assert found(reason="complaint")[0] == 10 and found(source="s1")[0] == 15 and found(reason="none")[0] == 0
    both = [each.address for each in reversed(added) if each.reason == "complaint" and each.source == "s1"]
    assert found(reason="complaint", source="s1") == (len(both), both)
    assert found(search="user1@", reason="complaint") == (1, ["user1@d1.test"])
    page = http.get(url, params={"limit": 10, "offset": 10}).json()
    assert {"first", "previous", "next"} <= set(page)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"address": "no-mailbox"}, "suppressions.0.address"),
        ({"address": "a@[192.0.2.1]"}, "suppressions.0.address"),
        ({"address": ""}, "suppressions.0.address"),
        ({"address": "a@b.test", "reason": "Two Words"}, "suppressions.0.reason"),
        ({"address": "a@b.test", "detail": "a\nb"}, "suppressions.0.detail"),
        ({"address": "a@b.test", "expires_at": "tomorrow"}, "suppressions.0.expires_at"),
        ({"address": "a@b.test", "expires_at": "2001-01-01T00:00:00Z"}, "suppressions.0.expires_at"),
    ],
)
def test_what_cannot_be_added(http: httpx2.Client, url: str, entry: dict[str, str], field: str) -> None:
    refused = http.post(url, json={"suppressions": [entry]})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["target"]["name"] == field
    for body in ({"suppressions": []}, {"suppressions": [{"address": "a@b.test"}] * 1001}, {}):
        assert http.post(url, json=body).status_code == 400


def test_another_accounts_and_another_instances_are_not_seen(service: Service, http: httpx2.Client, url: str) -> None:
    http.post(url, json={"suppressions": [{"address": "a@b.test"}]})
    stranger = service.headers("manager", account_id=service.store.tenancy.create_account())
    for path in (url, f"{url}/export", f"{url}/a@b.test"):
        assert httpx2.get(path, headers=stranger).status_code == 404
    other = service.store.tenancy.create_instance(service.account_id, "eu-de", "other")
    assert service.store.suppressions.of(other.id, ["a@b.test"]) == {}


def test_a_file_goes_in_and_comes_out(service: Service, http: httpx2.Client, url: str) -> None:
    file = (
        "\ufeffReason,Address,expires_at\r\n"
        "complaint,ann@example.net,\r\n"
        "\r\n"
        'hard_bounce,"""a,b""@example.net",2099-01-01T00:00:00Z\r\n'
        "hard_bounce,old@example.net,2001-01-01T00:00:00Z\r\n"
        ",'=cmd@example.net,\r\n"
        "unsubscribe,bücher@bücher.example,"
    )
    done = load(http, url, file.encode())
    assert done.status_code == 200, done.text
    assert done.json() == {"added": 4, "replaced": 0, "ended": 1}
    assert load(http, url, file.encode()).json() == {"added": 0, "replaced": 4, "ended": 1}
    kept = {each.address: each for some in service.store.suppressions.all(service.instance.id) for each in some}
    assert set(kept) == {"ann@example.net", '"a,b"@example.net', "=cmd@example.net", "bücher@bücher.example"}
    assert kept["ann@example.net"].source == "import by iam-tester" and kept["=cmd@example.net"].reason == "manual"
    export = http.get(f"{url}/export")
    assert export.headers["content-type"] == "text/csv; charset=utf-8"
    assert "\r\n'=cmd@example.net," in export.text
    assert service.store.suppressions.remove(service.instance.id, "ann@example.net")
    assert load(http, url, export.content).json() == {"added": 1, "replaced": 3, "ended": 0}
    assert http.get(f"{url}/export").text.count("\r\n") == 5


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", "line 1: the first line must name the columns: address"),
        (b"ann@example.net\r\n", "line 1: the first line must name the columns"),
        (b"address,nature\r\n", "line 1: there is no column 'nature'"),
        (b"address,Address\r\n", "line 1: the column 'address' is there twice"),
        (b"address\r\nann@example.net,x\r\n", "line 2: there are 2 cells under 1 columns"),
        (b"address\r\n\r\nann\r\n", "line 3: 'ann' is not a mailbox"),
        (b"address\r\na@[192.0.2.1]\r\n", "line 2: 'a@[192.0.2.1]' is not a mailbox with a domain"),
        (b'address\r\n""\r\n', "line 2: '' is not a mailbox"),
        (b"address,reason\r\na@b.test,Two words\r\n", "line 2: reason 'two words' is not one word"),
        (b"address,expires_at\r\na@b.test,soon\r\n", "line 2: 'expires_at' must be a time"),
        (b'address,detail\r\na@b.test,"x\ny"\r\n', "line 2: detail has a control character"),
        (b'address\r\na@b.test\r\n"open@b.test\r\nc@b.test\r\n', "line 3: a quote is opened and never closed"),
        (b"address\r\na\0@b.test\r\n", "line 2: there is a NUL"),
        (b"address\r\na@b.test\r\n\xff@b.test\r\n", "line 3: octet 20 is not UTF-8"),
        ("address\r\na@b.test\r\n".encode("utf-16"), "line 1: octet 1 is not UTF-8"),
        (b"address\r\n" + b"a" * 5000, "line 2: the line is longer than 4096 characters"),
        (b"address\r\n" + b"x" * 10_000_000 + b"\r\n", "line 2: the line is longer than 4096 characters"),
        (b"address,source\r\na@b.test," + b"s" * 300, "line 2: source has more than 200 characters"),
        (b"address\r\n" + b"a@b.test\r\n" * 100_001, "line 100002: there are more than 100000 rows"),
    ],
)
def test_a_file_with_a_fault_is_refused_whole(
    service: Service, http: httpx2.Client, url: str, octets: bytes, words: str
) -> None:
    refused = load(http, url, octets)
    assert refused.status_code == 400
    assert words in refused.json()["errors"][0]["message"]
    assert service.store.suppressions.page(service.instance.id)[0] == 0


def test_twenty_faults_are_shown(http: httpx2.Client, url: str) -> None:
    refused = load(http, url, b"address\n" + b"wrong\n" * 50)
    said = [each["message"] for each in refused.json()["errors"]]
    assert len(said) == 20 and said[0].startswith("line 2: ") and said[19].startswith("line 21: ")


def test_a_file_of_another_kind_or_too_long_is_not_read(http: httpx2.Client, url: str) -> None:
    assert load(http, url, b"{}", "application/json").status_code == 415
    assert load(http, url, b"address\r\n" + b"a" * (16 << 20)).status_code == 413


def test_there_is_an_end_to_how_many(
    service: Service, http: httpx2.Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.store.suppressions.MOST", 3)
    assert load(http, url, b"address\na@b.test\nb@b.test\nc@b.test\n").status_code == 200
    refused = http.post(url, json={"suppressions": [{"address": "d@b.test"}]})
    assert refused.status_code == 409 and "at most" in refused.json()["errors"][0]["message"]
    assert http.post(url, json={"suppressions": [{"address": "a@b.test"}]}).status_code == 201
    assert service.store.suppressions.page(service.instance.id)[0] == 3


LOCAL = st.text(st.sampled_from("aB=+-'|~{}/é\u2028\u00a0"), min_size=1, max_size=12)
QUOTED = st.text(st.sampled_from("a ,;'@=\t".replace("\t", "")), max_size=8).map(lambda text: f'"{text}"')
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)
ENTRIES = st.lists(
    st.builds(
        Suppression,
        id=st.just(0),
        instance_id=st.just(""),
        key=st.just(""),
        address=st.builds("{}@{}.test".format, LOCAL | QUOTED, st.sampled_from(["a", "b-c"])),
        reason=st.sampled_from(["manual", "hard_bounce", "x-9"]),
        source=TEXT.filter(bool),
        detail=TEXT,
        created_at=st.integers(0, 1_800_000_000_000).map(lambda ms: ms / 1000),
        expires_at=st.none() | st.integers(1_900_000_000_000, 4_000_000_000_000).map(lambda ms: ms / 1000),
    ),
    max_size=8,
    unique_by=lambda each: key(each.address),
)


@given(ENTRIES)
@settings(suppress_health_check=list(HealthCheck))
def test_what_is_exported_reads_back_as_it_was(entries: list[Suppression]) -> None:
    text = lines.HEAD + lines.write(entries)
    for row in text.split("\r\n")[1:]:
        assert row[:1] not in ("=", "+", "-", "@", "\t")
    found, ended = lines.read(text.encode(), source="nobody", now=1_800_000_000.0)
    assert ended == 0
    assert [(e.address, e.reason, e.source, e.detail) for e in found] == [
        (e.address, e.reason, e.source, e.detail) for e in entries
    ]
    for read, written in zip(found, entries, strict=True):
        assert read.created_at == pytest.approx(written.created_at, abs=0.002)
        assert (read.expires_at is None) == (written.expires_at is None)


def test_what_is_longer_than_one_step_goes_in_and_comes_out(service: Service, http: httpx2.Client, url: str) -> None:
    chosen = random.Random(1)
    rows = "".join(f"u{chosen.randrange(10**9)}-{n}@example.net\n" for n in range(2500))
    assert load(http, url, f"address\n{rows}".encode()).json()["added"] == 2500
    assert http.get(f"{url}/export").text.count("\r\n") == 2501
    assert http.get(url, params={"limit": 1}).json()["total_count"] == 2500
