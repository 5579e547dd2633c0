"""MTA-STS records and policies.

Property: any octets are a policy or `BadPolicy`, whose text can be printed; a policy that was read is read as the same from
what it says, names no more hosts than are allowed, each of them once, and matches what its patterns stand for and nothing
above or below it. Any octets are a record with an id of 1 to 32 letters and digits, or none.
"""

from __future__ import annotations

from outgate.domains.mta_sts import LONGEST_AGE, MOST_HOSTS, BadPolicy, policy_id, read_policy, ruling

SEEDS = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n",
    b"version: STSv1\nmode: testing\nmx: a.b.example\nmax_age: 86400\nmax_age: 1\nother: x:y \n",
    b"version: STSv1\r\nmode: none\r\nmax_age: 0",
    b"mode: enforce\r\nversion:STSv1\r\nmx:\t*.x.example\t\r\nmax_age: 9999999999\r\n\r\n",
    b"v=STSv1; id=20160831085700Z;",
    b"v=STSv1;id=1 ; x-1=a:b;",
    b"version: STSv1\r\nmode: enforce\r\nmx: *.*.example\r\nmax_age: 1\r\n",
)


def one_input(data: bytes) -> None:
    found = policy_id([data])
    if found is not None:
        assert 1 <= len(found) <= 32 and found.isalnum() and found.isascii()
        assert policy_id([data, data]) is None and policy_id([b"other", data]) == found
    try:
        policy = read_policy(data)
    except BadPolicy as error:
        assert str(error).isprintable()
        return
    assert len(set(policy.hosts)) == len(policy.hosts) <= MOST_HOSTS and 0 <= policy.max_age <= LONGEST_AGE
    lines = ["version: STSv1", f"mode: {policy.mode}", *(f"mx: {host}" for host in policy.hosts)]
    assert read_policy("\n".join([*lines, f"max_age: {policy.max_age}"]).encode()) == policy
    for pattern in policy.hosts:
        name = pattern.replace("*", "x")
        assert policy.names(name.upper() + ".") and ruling(policy, name) in ("", "verify", "note verify")
        alone = type(policy)(policy.mode, (pattern,), policy.max_age)
        assert not alone.names(f"y.{name}") or pattern == "*." + name  # one label, the first
        assert not alone.names(pattern[2:]) or pattern[:2] != "*."


if __name__ == "__main__":
    from _run import run

    run(__file__)
