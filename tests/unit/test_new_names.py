"""Which answers that nobody here had before go to L2."""

import pytest

from heimdall_lib import wire
from heimdall_lib.new_names import NewNames, zone_of
from tests.fakes import ask, examined, good_reply, parsed


def key_of(name: str) -> bytes:
    return parsed(ask(name)).key


def missing(name: str, soa: str) -> bytes:
    """An answer that says that the name does not exist in the zone ``soa``."""
    return examined(key_of(name), authority=[f"{soa} 300 SOA ns.example. host.example. 1 2 3 4 60"], rcode=3).message


def shared(new_names: NewNames, name: str, now: float = 0.0, message: bytes = b"") -> bool:
    key = key_of(name)
    return new_names.may_be_shared(key, message or good_reply(key).message, now)


# Zones


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("www.example.com.", "example.com"),
        ("a.b.c.d.www.example.com.", "example.com"),
        ("example.com.", "example.com"),
        ("com.", "com"),
        (".", "."),
        ("www.example.co.uk.", "example.co.uk"),
        ("x.y.example.com.au.", "example.com.au"),
        ("co.uk.", "co.uk"),
        ("www.shop.co.example.", "co.example"),  # not a country
        ("www.example.de.", "example.de"),
        ("4.3.2.1.in-addr.arpa.", "1.in-addr.arpa"),
        ("b.a.8.b.d.0.1.0.0.2.ip6.arpa.", "2.ip6.arpa"),
        ("api.default.svc.cluster.local.", "cluster.local"),
        ("random.zen.dnsbl.example.org.", "example.org"),
    ],
)
def test_a_zone_is_what_somebody_has_registered(name: str, zone: str) -> None:
    key = key_of(name)
    assert wire.presentation(zone_of(key, good_reply(key).message)) == zone


@pytest.mark.parametrize(
    ("name", "soa", "zone"),
    [
        ("random.com.", "com.", "com"),
        ("x1.x2.random.com.", "com.", "com"),
        ("random.", ".", "."),
        ("x1.www.example.com.", "example.com.", "example.com"),
        ("x1.x2.example.com.", "x2.example.com.", "example.com"),
        ("x1.example.com.", "elsewhere.org.", "example.com"),
        ("x1.random.co.uk.", "co.uk.", "co.uk"),
    ],
)
def test_a_name_that_does_not_exist_counts_for_the_zone_that_says_so_if_that_is_above(
    name: str, soa: str, zone: str
) -> None:
    assert wire.presentation(zone_of(key_of(name), missing(name, soa))) == zone


def test_an_nxdomain_without_soa_counts_for_the_root() -> None:
    key = key_of("www.example.com.")
    assert zone_of(key, examined(key, authority=["example.com. 300 NS ns.example.com."], rcode=3).message) == b"\0"


# Budgets


def test_a_zone_has_a_budget_of_names_at_once_and_more_in_time() -> None:
    new_names = NewNames(rate=1, burst=20)
    assert sum(shared(new_names, f"x{number}.example.com.") for number in range(100)) == 20
    assert sum(shared(new_names, f"y{number}.example.com.", 5.0) for number in range(100)) == 5


def test_several_random_labels_are_no_several_zones() -> None:
    new_names = NewNames(rate=0, burst=20)
    assert sum(shared(new_names, f"x{number}.y{number}.z{number}.example.com.") for number in range(100)) == 20


def test_random_names_below_a_registry_share_its_budget() -> None:
    new_names = NewNames(rate=0, burst=20)
    names = [f"x{number}.y{number}.com." for number in range(100)]
    assert sum(shared(new_names, name, message=missing(name, "com.")) for name in names) == 20
    assert shared(new_names, "www.example.com.")


def test_past_its_zones_budget_a_name_is_shared_when_it_comes_again() -> None:
    new_names = NewNames(rate=0, burst=1)
    assert shared(new_names, "a.example.com.")
    assert [shared(new_names, "b.example.com.") for _ in range(2)] == [False, True]


def test_one_zone_does_not_spend_anothers_budget() -> None:
    new_names = NewNames(rate=0, burst=5)
    assert sum(shared(new_names, f"x{number}.example.com.") for number in range(100)) == 5
    assert sum(shared(new_names, f"x{number}.example.org.") for number in range(100)) == 5


@pytest.mark.parametrize(
    "names",
    [
        [f"svc-{number}.default.svc.cluster.local." for number in range(5000)],
        [f"{number % 251}.{number // 251}.2.10.list.example.org." for number in range(10_000)],
        [f"www.shop{number}.co.uk." for number in range(20_000)],
    ],
    ids=["a cluster", "a mail server", "a crawler"],
)
def test_honest_bulk_is_within_the_budget(names: list[str]) -> None:
    new_names = NewNames()
    message = good_reply(key_of("www.example.com.")).message
    assert all(new_names.may_be_shared(wire.from_presentation(name) + b"\0\1\0\1\0", message, 0.0) for name in names)
