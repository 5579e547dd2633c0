"""What operators type about the egress: read in one spelling or refused, whatever it is."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from outgate.api.errors import BadRequest
from outgate.api.operations.egress import _client
from outgate.net import guard
from outgate.store.placement import BadPlace, listenable, readable

TEXT = st.one_of(
    st.text(max_size=40),
    st.text("0123456789abcdef:./*-[]%A ", max_size=30),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:465"),
    st.ip_addresses(v=4).map(lambda address: f"{address}:465"),
    st.builds("{}/{}".format, st.ip_addresses(), st.integers(0, 140)),
)


@given(TEXT)
def test_an_exception_has_one_spelling_which_the_guard_reads_as_the_same(text: str) -> None:
    try:
        once = guard.spelt(text)
    except ValueError:
        return
    assert guard.spelt(once) == once
    assert guard.compile_exceptions([once]) == guard.compile_exceptions([text])


@given(TEXT)
def test_a_place_is_an_address_of_one_host_and_networks_are_networks(text: str) -> None:
    try:
        address = ip_address(listenable(text))
        assert str(address) == listenable(str(address))
        assert not (address.is_unspecified or address.is_multicast)
    except BadPlace as error:
        assert error.field == "tunnel_address"
    try:
        (network,) = readable([text])
        assert str(ip_network(network)) == network
    except BadPlace as error:
        assert error.field == "client_networks"


@given(TEXT)
def test_a_client_is_spelt_as_the_audit_spells_it(text: str) -> None:
    try:
        client = _client(text)
    except BadRequest:
        return
    assert _client(client) == client
