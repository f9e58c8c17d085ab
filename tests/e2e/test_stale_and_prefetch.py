"""What clients get when an answer's time is over: a stale one while upstream fails, a fresh one before they notice."""

import time
from collections.abc import Callable

import dns.message
import pytest

from tests.support.client import addresses, extended_errors, rcode, ttl
from tests.support.processes import Heimdall, Launcher, eventually
from tests.support.upstream import Reaction, Upstream, answering, failing, silent

NAME = "www.example.com"
STALE, CACHED_ERROR, STALE_NXDOMAIN = 3, 13, 19
BRISK = ("--stale-client-timeout", "0.3", "--upstream-timeout", "0.4", "--query-timeout", "1.5", "--prefetch", "false")


def stale_answer(server: Heimdall, name: str = NAME, code: int = STALE) -> dns.message.Message:
    """Ask until the answer is a stale one, and return it; the ones before it are fresh."""

    def look() -> list[dns.message.Message]:
        answer = server.ask(name)
        assert rcode(answer) != "SERVFAIL"
        return [answer] if code in extended_errors(answer) else []

    return eventually(look)[0]


def seconds_for(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


@pytest.mark.parametrize(
    "reaction", [silent, failing("SERVFAIL"), failing("REFUSED")], ids=["dead", "failing", "refusing"]
)
def test_an_expired_answer_serves_while_upstream_fails(
    heimdall: Launcher, upstream: Upstream, reaction: Reaction
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall(*BRISK)
    assert ttl(server.ask(NAME)) == 1
    upstream.reaction = reaction

    answer = stale_answer(server)

    assert (rcode(answer), addresses(answer), ttl(answer)) == ("NOERROR", ["192.0.2.1"], 30)
    assert server.metric("cache_stale_answers_total") == 1
    assert server.metric("query_duration_seconds_count", source="stale") == 1
    without_edns = server.ask(NAME, use_edns=False)
    assert (addresses(without_edns), without_edns.edns) == (["192.0.2.1"], -1)


def test_an_expired_nxdomain_serves_too(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.negative_ttl = 1
    server = heimdall(*BRISK, "--stale-reply-ttl", "7")
    assert rcode(server.ask(NAME)) == "NXDOMAIN"
    upstream.reaction = silent
    answer = stale_answer(server, code=STALE_NXDOMAIN)
    assert (rcode(answer), ttl(answer)) == ("NXDOMAIN", 7)


def test_a_failure_never_takes_the_place_of_an_answer(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall(*BRISK, "--failure-ttl", "0.2")
    server.ask(NAME)
    upstream.reaction = failing("SERVFAIL")
    stale_answer(server)
    tried = upstream.count(NAME)
    eventually(lambda: stale_answer(server).answer and upstream.count(NAME) >= tried + 2)

    upstream.add(NAME, "A", "192.0.2.2", ttl=60)
    upstream.reaction = answering
    eventually(lambda: addresses(server.ask(NAME)) == ["192.0.2.2"])
    answer = server.ask(NAME)
    assert (addresses(answer), extended_errors(answer)) == (["192.0.2.2"], [])


def test_while_a_failure_is_remembered_stale_answers_come_at_once_and_upstream_is_spared(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall(*BRISK, "--failure-ttl", "30")
    server.ask(NAME)
    upstream.reaction = failing("SERVFAIL")
    stale_answer(server)
    tried = upstream.count(NAME)
    assert max(seconds_for(lambda: stale_answer(server)) for _ in range(20)) < 0.3
    assert upstream.count(NAME) == tried


def test_once_every_server_is_known_to_be_down_nobody_waits_for_a_stale_answer(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    flags = ("--stale-client-timeout", "3", "--upstream-timeout", "0.1", "--prefetch", "false", "--failure-ttl", "0")
    server = heimdall(*flags)
    server.ask(NAME)
    upstream.reaction = silent
    server.ask("other.example.com")
    server.wait_for_metric("upstream_up", 0)
    eventually(lambda: server.ask(NAME).answer and seconds_for(lambda: stale_answer(server)) < 1)


def test_a_slow_upstream_is_waited_for_only_a_while_and_its_answer_is_kept(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--stale-client-timeout", "0.3", "--upstream-timeout", "4", "--prefetch", "false")
    server.ask(NAME)
    gate = upstream.hold(NAME)
    upstream.add(NAME, "A", "192.0.2.2", ttl=60)

    stale: list[dns.message.Message] = []
    took = seconds_for(lambda: stale.append(stale_answer(server)))

    assert addresses(stale[0]) == ["192.0.2.1"]
    assert took < 3.5  # the rest of its second, and the while
    gate.set()
    eventually(lambda: addresses(server.ask(NAME)) == ["192.0.2.2"])
    assert upstream.count(NAME) == 2


def test_a_fast_upstream_is_preferred_to_a_stale_answer(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--prefetch", "false")
    server.ask(NAME)
    upstream.add(NAME, "A", "192.0.2.2", ttl=60)
    eventually(lambda: addresses(server.ask(NAME)) == ["192.0.2.2"])
    assert server.metric("cache_stale_answers_total") == 0


def test_with_a_stale_client_timeout_of_0_the_stale_answer_goes_out_first(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--stale-client-timeout", "0", "--prefetch", "false")
    server.ask(NAME)
    upstream.add(NAME, "A", "192.0.2.2", ttl=60)
    assert addresses(stale_answer(server)) == ["192.0.2.1"]
    eventually(lambda: addresses(server.ask(NAME)) == ["192.0.2.2"])


def test_without_serve_stale_an_expired_answer_is_none(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--serve-stale", "0", "--prefetch", "false")
    server.ask(NAME)
    upstream.reaction = failing("SERVFAIL")
    eventually(lambda: rcode(server.ask(NAME)) == "SERVFAIL")


def test_serve_stale_ends(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall(*BRISK, "--serve-stale", "1", "--failure-ttl", "0")
    server.ask(NAME)
    upstream.reaction = failing("SERVFAIL")
    stale_answer(server)
    eventually(lambda: rcode(server.ask(NAME)) == "SERVFAIL")


@pytest.mark.parametrize(
    "reaction", [failing("SERVFAIL"), failing("REFUSED"), silent], ids=["SERVFAIL", "REFUSED", "dead"]
)
def test_a_failure_is_remembered_for_the_failure_ttl(
    heimdall: Launcher, upstream: Upstream, reaction: Reaction
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.on(NAME, reaction)
    flags = ("--failure-ttl", "2", "--query-timeout", "0.5", "--upstream-timeout", "0.5", "--serve-stale", "0")
    server = heimdall(*flags)
    started = time.monotonic()
    first = server.ask(NAME)
    again = server.ask(NAME)
    if time.monotonic() - started < 2:  # or this machine has been too busy to say
        assert CACHED_ERROR not in extended_errors(first)
        assert extended_errors(again) == [CACHED_ERROR, *extended_errors(first)]
        assert upstream.count(NAME) == 1
    assert rcode(first) == rcode(again) == "SERVFAIL"
    upstream.on(NAME, answering)
    eventually(lambda: addresses(server.ask(NAME)) == ["192.0.2.1"])
    assert time.monotonic() - started >= 2
    assert server.metric("cache_size") == 1


def test_a_minimum_ttl_pins_no_failure(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.on(NAME, failing("SERVFAIL"))
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--min-ttl", "60", "--failure-ttl", "0.5")
    assert rcode(server.ask(NAME)) == "SERVFAIL"
    upstream.on(NAME, answering)
    eventually(lambda: rcode(server.ask(NAME)) == "NOERROR")
    assert ttl(server.ask(NAME)) >= 50


def test_a_name_asked_for_in_its_last_tenth_is_refreshed_beside_its_clients(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=4)
    server = heimdall()

    # On a machine that stands still for a while, the tenth may be missed: then there is one in the next life.
    def refreshed() -> bool:
        server.ask(NAME)
        return server.metric("cache_prefetches_total") == 1

    eventually(refreshed, timeout=40)
    eventually(lambda: upstream.count(NAME) == server.metric("cache_misses_total") + 1)
    assert ttl(server.ask(NAME)) >= 3  # the next hit carries the fresh TTL
    assert server.metric("query_duration_seconds_count", source="upstream") == server.metric("cache_misses_total")


def test_a_prefetch_that_fails_changes_nothing(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=2)
    server = heimdall(*BRISK[:-2], "--failure-ttl", "30")
    server.ask(NAME)
    upstream.reaction = failing("SERVFAIL")
    answer = stale_answer(server)
    assert addresses(answer) == ["192.0.2.1"]
    assert server.metric("responses_total", rcode="SERVFAIL") == 0


def test_with_prefetch_off_nobody_is_asked_before_the_end(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=1)
    server = heimdall("--prefetch", "false")

    def asked_twice() -> bool:
        server.ask(NAME)
        return upstream.count(NAME) == 2

    eventually(asked_twice)
    first, second = upstream.questions(NAME)
    assert second.at - first.at >= 0.99
    assert server.metric("cache_prefetches_total") == 0
