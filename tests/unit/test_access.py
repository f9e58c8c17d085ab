"""Who may ask, how often, and over how many connections."""

from ipaddress import ip_network

import pytest

from heimdall_lib.access import AllowList, ConnectionLimit, RateLimiter

INSIDE = AllowList(
    [ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("fe80::/10"), ip_network("2001:db8::/32")]
)


# Who


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.0", "10.255.255.255", "2001:db8::1", "2001:DB8:0::1", "fe80::1", "fe80::1%eth0", "fe80::1%2"],
)
def test_a_client_of_an_allowed_network_is_allowed(host: str) -> None:
    assert INSIDE.allows(host)


@pytest.mark.parametrize("host", ["9.255.255.255", "11.0.0.0", "192.0.2.1", "::1", "2001:db9::1", "febf::1%eth0"[1:]])
def test_a_client_of_another_network_is_not(host: str) -> None:
    assert not INSIDE.allows(host)


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() -> None:
    assert INSIDE.allows("::ffff:10.1.2.3")
    assert not INSIDE.allows("::ffff:192.0.2.1")


def test_all_of_ipv6_does_not_hold_an_ipv4_client() -> None:
    assert not AllowList([ip_network("::/0")]).allows("::ffff:10.1.2.3")
    assert AllowList([ip_network("0.0.0.0/0")]).allows("::ffff:10.1.2.3")


def test_a_list_of_nothing_allows_nobody() -> None:
    assert not AllowList([]).allows("127.0.0.1")


def test_a_decision_stands_when_it_is_asked_for_again() -> None:
    assert [INSIDE.allows("10.0.0.1") for _ in range(3)] == [True] * 3
    assert [INSIDE.allows("192.0.2.9") for _ in range(3)] == [False] * 3


def test_networks_may_come_from_anything_that_is_walked_through_once() -> None:
    allowed = AllowList(ip_network(text) for text in ("10.0.0.0/8",))
    assert allowed.allows("10.0.0.1")
    assert allowed.allows("10.0.0.2")


# How often


def taken(limiter: RateLimiter, host: str, now: float, count: int) -> int:
    return sum(limiter.allows(host, now, "udp") for _ in range(count))


def test_a_rate_of_zero_allows_everything() -> None:
    assert taken(RateLimiter(rate=0, burst=0), "192.0.2.1", 0.0, 1000) == 1000


def test_a_client_has_its_burst_and_then_its_rate() -> None:
    limiter = RateLimiter(rate=10, burst=20)
    assert taken(limiter, "192.0.2.1", 100.0, 50) == 20
    assert taken(limiter, "192.0.2.1", 100.5, 50) == 5
    assert taken(limiter, "192.0.2.1", 101.5, 50) == 10


def test_a_client_never_saves_up_more_than_its_burst() -> None:
    limiter = RateLimiter(rate=10, burst=20)
    taken(limiter, "192.0.2.1", 0.0, 50)
    assert taken(limiter, "192.0.2.1", 1e6, 50) == 20


def test_a_fraction_of_a_token_is_kept_for_later() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allows("192.0.2.1", 0.0, "udp")
    assert [limiter.allows("192.0.2.1", now, "udp") for now in (0.25, 0.5, 0.75, 1.0, 1.25)] == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_a_burst_is_at_least_one_query() -> None:
    limiter = RateLimiter(rate=0.5, burst=0.5)
    assert [limiter.allows("192.0.2.1", now, "udp") for now in (0.0, 1.0, 2.0)] == [True, False, True]


def test_one_client_does_not_spend_anothers_tokens() -> None:
    limiter = RateLimiter(rate=1, burst=2)
    taken(limiter, "192.0.2.1", 0.0, 10)
    assert taken(limiter, "192.0.2.2", 0.0, 10) == 2


def test_the_addresses_of_an_ipv6_site_share_their_tokens() -> None:
    limiter = RateLimiter(rate=1, burst=2)
    assert limiter.allows("2001:db8:0:1::1", 0.0, "udp")
    assert limiter.allows("2001:db8:0:ff::2", 0.0, "udp")
    assert not limiter.allows("2001:db8:0:2::3", 0.0, "udp")
    assert limiter.allows("2001:db8:0:100::1", 0.0, "udp")


def test_an_ipv4_client_of_an_ipv6_socket_has_the_tokens_of_the_ipv4_client() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allows("192.0.2.1", 0.0, "udp")
    assert not limiter.allows("::ffff:192.0.2.1", 0.0, "udp")
    assert not limiter.allows("::ffff:c000:201", 0.0, "udp")
    assert limiter.allows("::ffff:192.0.2.2", 0.0, "udp")


def test_what_is_spent_over_udp_is_not_spent_over_tcp() -> None:
    limiter = RateLimiter(rate=1, burst=2)
    taken(limiter, "192.0.2.1", 0.0, 10)
    assert [limiter.allows("192.0.2.1", 0.0, "tcp") for _ in range(3)] == [True, True, False]


def test_a_zone_does_not_make_another_client() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allows("fe80::1%eth0", 0.0, "udp")
    assert not limiter.allows("fe80::1", 0.0, "udp")


def test_clients_are_remembered_within_a_bound() -> None:
    limiter = RateLimiter(rate=0.001, burst=1)
    hosts = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(40000)]
    assert all(limiter.allows(host, 0.0, "udp") for host in hosts)
    assert limiter.allows(hosts[0], 0.0, "udp")  # forgotten, hence new
    assert not limiter.allows(hosts[-1], 0.0, "udp")


def test_every_second_time_a_client_is_told_whatever_others_do() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    told = [(limiter.slips("192.0.2.1"), limiter.slips("2001:db8::1"), limiter.slips("2001:db8::2")) for _ in range(3)]
    assert told == [(False, False, True), (True, False, True), (False, False, True)]


# Over how many connections


def test_connections_are_bounded_for_each_client_and_in_all() -> None:
    limit = ConnectionLimit(most=5, most_per_client=2)
    assert [limit.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [limit.enter("192.0.2.2") for _ in range(3)] == [True, True, False]
    assert [limit.enter("192.0.2.3") for _ in range(2)] == [True, False]
    assert limit.open == 5


def test_a_connection_that_ends_makes_room() -> None:
    limit = ConnectionLimit(most=2, most_per_client=1)
    assert limit.enter("192.0.2.1")
    assert not limit.enter("192.0.2.1")
    limit.leave("192.0.2.1")
    assert limit.open == 0
    assert limit.enter("192.0.2.1")
    assert limit.enter("192.0.2.2")


def test_the_connections_of_an_ipv6_site_are_one_clients() -> None:
    limit = ConnectionLimit(most=10, most_per_client=2)
    assert limit.enter("2001:db8:0:1::1")
    assert limit.enter("2001:db8:0:ff::2%eth0")
    assert not limit.enter("2001:db8:0:2::3")
    assert limit.enter("2001:db8:0:100::1")


def test_an_ipv4_client_of_an_ipv6_socket_shares_its_connections_with_the_ipv4_client() -> None:
    limit = ConnectionLimit(most=10, most_per_client=1)
    assert limit.enter("::ffff:192.0.2.1")
    assert not limit.enter("192.0.2.1")
    limit.leave("192.0.2.1")
    assert limit.enter("192.0.2.1")


def test_clients_without_a_connection_are_not_remembered() -> None:
    limit = ConnectionLimit(most=1, most_per_client=1)
    for number in range(1000):
        limit.enter(f"192.0.2.{number % 250}")
    limit.leave("192.0.2.0")
    assert not limit._open
