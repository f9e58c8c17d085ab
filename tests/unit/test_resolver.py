"""The tiers in order, and what becomes of a query when one of them is slow, wrong or dead."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event

import dns.flags
import dns.message
import pytest

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry, message_of
from heimdall_lib.errors import NoAnswerError
from heimdall_lib.invalidations import EVERYTHING, Invalidations
from heimdall_lib.lifetime import TtlPolicy
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import Query
from heimdall_lib.reply import Reply
from heimdall_lib.resolver import Outcome, Resolver, ResolverPolicy
from heimdall_lib.shared_cache.cache import ANY_AGE, LEASE_SECONDS, Found, NoSharedCache, SharedCache
from heimdall_lib.stats import Stats
from tests.fakes import (
    ADDRESS,
    NAME,
    SOA,
    InMemorySharedCache,
    Lines,
    ScriptedUpstreams,
    Threads,
    address_in,
    ask,
    eventually,
    examined,
    good_reply,
    parsed,
    question,
    reply_to,
    stored,
)

KEY = parsed().key
VIEW = "upstreams-view"
L2_ADDRESS = "192.0.2.2"
UNREACHABLE = NoAnswerError(22, "no upstream server answered in time")
POLICY = ResolverPolicy(query_timeout=5.0, read_budget=5.0, stale_client_timeout=0.0)


class Dying(BaseException):
    """What a greenlet is killed with is no Exception."""


class House:
    """A resolver and its neighbours."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.memory = MemoryCache(max_entries=100, max_bytes=100_000, purge_interval=30, stats=self.stats)
        self.shared = InMemorySharedCache(self.stats)
        self.invalidations = Invalidations()
        self.upstreams = ScriptedUpstreams()
        self.spawn = Threads()
        self.resolver = self.build(self.shared)
        self.outcomes: list[Outcome] = []

    def build(self, shared: SharedCache) -> Resolver:
        return Resolver(
            policy=POLICY,
            memory=self.memory,
            shared=shared,
            invalidations=self.invalidations,
            upstreams=self.upstreams,
            spawn=self.spawn,
            stats=self.stats,
        )

    def policy(self, **changes: object) -> None:
        self.resolver.configure(replace(self.resolver.policy, **changes))  # type: ignore[arg-type]

    def resolve(self, query: Query | None = None) -> Outcome:
        return self.resolver.resolve(query or parsed())

    def resolve_beside(self, query: Query | None = None) -> None:
        self.spawn(lambda: self.outcomes.append(self.resolve(query)))

    def in_l2(self, ttl: int = 300, *, age: float = 0.0, key: bytes = KEY, view: str = VIEW) -> None:
        self.shared.put(key, view, good_reply(KEY, ttl, L2_ADDRESS).message, ttl, age=age)

    def forget_l2(self) -> None:
        self.shared.contents.clear()
        self.shared.leases.clear()

    def in_l1(self) -> Entry | None:
        return self.memory.get(KEY)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.upstreams.gate.set()
    made.shared.land()
    made.spawn.join()


def address(outcome: Outcome) -> str:
    assert outcome.entry is not None
    return address_in(message_of(outcome.entry))


class TestOrder:
    def test_an_answer_in_l1_is_found_without_asking_anyone(self, house: House) -> None:
        entry = stored(KEY, age=1, lifetime=300)
        house.memory.put(KEY, entry)
        assert house.resolver.lookup(parsed()) is entry
        assert house.stats.cache_hits == 1
        assert house.upstreams.asked == []

    @pytest.mark.parametrize("age", [300, 301, 100_000])
    def test_an_answer_past_its_life_is_not_looked_up(self, house: House, age: float) -> None:
        house.memory.put(KEY, stored(KEY, age=age, lifetime=300, stale=86400))
        assert house.resolver.lookup(parsed()) is None
        assert (house.stats.cache_hits, house.stats.cache_misses) == (0, 1)

    def test_an_answer_that_came_to_l1_since_the_lookup_is_taken(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=0, lifetime=300))
        assert house.resolve().source == "l1"
        assert house.upstreams.asked == []

    def test_what_l1_has_no_answer_for_is_counted_by_name_and_nothing_else(self, house: House) -> None:
        assert house.resolver.lookup(parsed()) is None
        assert house.resolver.missed.top(10) == []  # it may yet be refused, or be answered without a tier
        for _ in range(2):
            house.resolve()
        assert house.resolver.missed.top(10) == [(KEY, 1)]

    def test_l2_is_asked_before_upstream(self, house: House) -> None:
        house.in_l2()
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("l2", L2_ADDRESS)
        assert house.upstreams.asked == []

    def test_upstream_is_asked_when_l2_has_nothing(self, house: House) -> None:
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("upstream", "192.0.2.1")
        assert house.upstreams.asked == [KEY]
        assert house.stats.redis_misses == 1

    def test_upstream_is_asked_when_l2_is_down(self, house: House) -> None:
        house.shared.down = True
        assert house.resolve().source == "upstream"
        assert house.stats.redis_budget_exceeded == 0

    def test_upstream_is_asked_when_there_is_no_l2(self, house: House) -> None:
        shared = NoSharedCache()
        house.resolver = house.build(shared)
        assert house.resolve().source == "upstream"
        shared.reject("question")
        assert house.resolve().source == "l1"

    def test_upstreams_deadline_is_the_querys_own(self, house: House) -> None:
        query = parsed(age=1.0)
        house.resolve(query)
        assert house.upstreams.deadlines == [pytest.approx(query.received_at + 5.0)]

    def test_upstreams_answer_is_kept_in_both_tiers(self, house: House) -> None:
        house.resolve()
        entry = house.in_l1()
        assert entry is not None
        assert house.shared.contents[KEY, VIEW][::2] == (message_of(entry), 300)
        assert house.resolver.lookup(parsed()) is entry

    @pytest.mark.parametrize("flags", [0, dns.flags.CD])
    @pytest.mark.parametrize("do", [False, True])
    def test_do_and_cd_variants_are_kept_apart(self, house: House, flags: int, do: bool) -> None:
        house.resolve()
        other = parsed(ask(do=do, flags=dns.flags.RD | flags))
        assert house.resolve(other).source == ("upstream" if do or flags else "l1")


class TestViews:
    def test_the_view_is_told_from_the_upstreams(self, house: House) -> None:
        house.in_l2(view="another")
        assert house.resolve().source == "upstream"
        assert (KEY, VIEW) in house.shared.contents

    def test_a_view_of_the_operators_own_replaces_it_in_reads_and_writes(self, house: House) -> None:
        house.policy(view="ours")
        house.in_l2(view="ours")
        assert house.resolve().source == "l2"
        house.memory.remove(KEY)
        house.shared.contents.clear()
        house.resolve()
        assert list(house.shared.contents) == [(KEY, "ours")]

    def test_those_of_the_upstreams_are_all_there_are_unless_the_operator_has_one(self, house: House) -> None:
        assert house.resolver.views() == {VIEW}
        house.policy(view="office")
        assert house.resolver.views() == {"office"}


class TestPopularity:
    def test_what_is_found_in_l1_is_counted_with_its_view(self, house: House) -> None:
        other = parsed(ask(rdtype="AAAA"))
        for key in (KEY, other.key):
            house.memory.put(key, stored(key, age=0, lifetime=300))
        for query in (parsed(), other, other):
            house.resolver.lookup(query)
        assert house.resolver.popular(10) == [(other.key, VIEW, 2), (KEY, VIEW, 1)]
        assert house.resolver.popular(10) == []

    def test_what_is_not_found_there_is_not(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=301, lifetime=300, stale=300))
        house.resolver.lookup(parsed())
        house.resolver.lookup(parsed(ask(rdtype="AAAA")))
        assert house.resolver.popular(10) == []


class TestTakingOver:
    """What L2 has goes into L1 though nobody asks for it."""

    FOUND = Found(good_reply(KEY, 300, L2_ADDRESS).message, 100.0, 300)

    def test_what_l1_has_not_is_taken_from_the_view_that_is_the_names_own(self, house: House) -> None:
        assert house.resolver.wants(KEY, VIEW)
        assert not house.resolver.wants(KEY, "other")
        house.policy(view="other")
        assert house.resolver.wants(KEY, "other")

    def test_it_lives_on_for_what_is_left_of_its_life(self, house: House) -> None:
        assert house.resolver.keep(KEY, self.FOUND)
        entry = house.resolver.lookup(parsed())
        assert entry is not None
        assert address_in(message_of(entry)) == L2_ADDRESS
        assert entries.expires_at(entry) == pytest.approx(time.monotonic() + 200, abs=5)
        assert house.upstreams.asked == []

    def test_what_l1_has_is_left_as_it_is(self, house: House) -> None:
        entry = stored(KEY, age=301, lifetime=300, stale=300)
        house.memory.put(KEY, entry)
        assert not house.resolver.wants(KEY, VIEW)
        assert not house.resolver.keep(KEY, self.FOUND)
        assert house.in_l1() is entry

    def test_what_is_not_to_be_believed_is_not_kept(self, house: House) -> None:
        other = parsed(ask("other.example.")).key
        assert not house.resolver.keep(other, self.FOUND)
        assert house.memory.get(other) is None
        assert house.stats.redis_rejected == {"question": 1}

    def test_what_was_flushed_since_is_not_kept(self, house: House) -> None:
        house.invalidations.flushed(EVERYTHING, time.monotonic() - 50)
        assert not house.resolver.keep(KEY, self.FOUND)
        assert house.in_l1() is None
        assert house.stats.redis_rejected == {"flushed": 1}


class TestPromotion:
    def test_an_answer_from_l2_lives_on_for_what_is_left_of_its_life(self, house: House) -> None:
        house.in_l2(300, age=100)
        house.resolve()
        entry = house.in_l1()
        assert entry is not None
        assert entries.expires_at(entry) - time.monotonic() == pytest.approx(200, abs=1)

    def test_its_ttls_have_counted_down_by_the_time_it_spent_there(self, house: House) -> None:
        house.in_l2(300, age=100.5)
        entry = house.resolve().entry
        assert entry is not None
        answer = dns.message.from_wire(bytes(entries.render(entry, parsed(), time.monotonic())))
        assert answer.answer[0].ttl in (199, 200)

    def test_it_is_not_written_back(self, house: House) -> None:
        house.in_l2(300, age=100)
        before = dict(house.shared.contents)
        house.resolve()
        assert house.shared.contents == before

    def test_it_may_serve_stale_afterwards(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(serve_stale=50))
        house.in_l2(300, age=100)
        house.resolve()
        entry = house.in_l1()
        assert entry is not None
        assert entries.stale_until(entry) - entries.expires_at(entry) == pytest.approx(50)

    def test_this_replicas_own_bounds_shorten_its_life(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(max_ttl=120))
        house.in_l2(300, age=100)
        entry = house.resolve().entry
        assert entry is not None
        assert entries.expires_at(entry) - time.monotonic() == pytest.approx(20, abs=1)

    def test_an_answer_too_old_for_this_replicas_bounds_is_asked_of_upstream(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(max_ttl=60))
        house.in_l2(300, age=100)
        assert house.resolve().source == "upstream"

    def test_the_lifetime_it_was_stored_with_is_never_exceeded(self, house: House) -> None:
        house.shared.put(KEY, VIEW, good_reply(KEY, 300).message, 30, age=10)
        entry = house.resolve().entry
        assert entry is not None
        assert entries.expires_at(entry) - time.monotonic() == pytest.approx(20, abs=1)

    def test_a_negative_answer_is_promoted_too(self, house: House) -> None:
        message = examined(KEY, authority=[f"example.com. 60 SOA {SOA}"], rcode=3).message
        house.shared.put(KEY, VIEW, message, 60)
        outcome = house.resolve()
        assert outcome.source == "l2"
        assert outcome.entry is not None
        assert entries.message_of(outcome.entry)[3] & 0x0F == 3


def other_name(key: bytes) -> bytes:
    return good_reply(parsed(ask("www.example.net.")).key).message


def other_type(key: bytes) -> bytes:
    return good_reply(parsed(ask(rdtype="AAAA")).key).message


def other_class(key: bytes) -> bytes:
    return good_reply(parsed(ask(rdclass="CH")).key).message


def longer_name(key: bytes) -> bytes:
    return good_reply(parsed(ask(f"a.{NAME}")).key).message


def servfail(key: bytes) -> bytes:
    return reply_to(question(key), rcode=2)


def refused(key: bytes) -> bytes:
    return reply_to(question(key), rcode=5)


def unusual_rcode(key: bytes) -> bytes:
    return reply_to(question(key), rcode=6)


def nodata_without_soa(key: bytes) -> bytes:
    return reply_to(question(key))


def cut_short(key: bytes) -> bytes:
    return good_reply(key).message[:-1]


def too_long(key: bytes) -> bytes:
    return good_reply(key).message + b"\0"


def header_only(key: bytes) -> bytes:
    return bytes(12)


def less_than_a_header(key: bytes) -> bytes:
    return b"\0"


def two_questions(key: bytes) -> bytes:
    message = bytearray(good_reply(key).message)
    message[4:6] = b"\0\2"
    return bytes(message)


def question_cut_short(key: bytes) -> bytes:
    return good_reply(key).message[:20]


class TestWhatL2HoldsIsNotBelievedBlindly:
    @pytest.mark.parametrize("make", [other_name, other_type, other_class, longer_name])
    def test_the_answer_to_another_question(self, house: House, make: Callable[[bytes], bytes]) -> None:
        self.check(house, make(KEY), "question")

    @pytest.mark.parametrize(
        "make",
        [
            servfail,
            refused,
            unusual_rcode,
            nodata_without_soa,
            cut_short,
            too_long,
            header_only,
            less_than_a_header,
            two_questions,
            question_cut_short,
        ],
    )
    def test_a_message_that_never_was_to_be_cached(self, house: House, make: Callable[[bytes], bytes]) -> None:
        self.check(house, make(KEY), "message")

    def check(self, house: House, message: bytes, reason: str) -> None:
        house.shared.put(KEY, VIEW, message, 300)
        assert house.resolve().source == "upstream"
        assert dict(house.stats.redis_rejected) == {reason: 1}
        assert house.shared.contents[KEY, VIEW][0] == good_reply(KEY).message  # healed

    def test_an_answer_past_its_life_is_a_miss(self, house: House) -> None:
        house.in_l2(300, age=300)
        assert house.resolve().source == "upstream"
        assert house.stats.redis_misses == 1

    def test_the_case_of_the_stored_question_does_not_matter(self, house: House) -> None:
        message = good_reply(KEY).message
        house.shared.put(KEY, VIEW, message.replace(b"\3www", b"\3WwW"), 300)
        assert house.resolve().source == "l2"


class TestBudget:
    @pytest.fixture(autouse=True)
    def _slow_l2(self, house: House) -> None:
        house.policy(read_budget=0.01)
        house.shared.held = True
        house.in_l2(300, age=10)

    def test_past_the_budget_upstream_is_asked_as_well(self, house: House) -> None:
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("upstream", "192.0.2.1")
        assert house.stats.redis_budget_exceeded == 1

    def test_what_a_query_has_waited_before_counts(self, house: House) -> None:
        """Under pressure it waits for its turn first, and the budget is what L2 may cost it in all."""
        house.policy(read_budget=2.0)
        query, started = parsed(), time.monotonic()
        query.received_at = started - 1.5
        house.resolve(query)
        assert 1.0 <= time.monotonic() - started < 1.9  # half of it is left to L2 in any case

    def test_l2_may_still_be_first(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        eventually(lambda: house.outcomes)
        assert (house.outcomes[0].source, address(house.outcomes[0])) == ("l2", L2_ADDRESS)
        entry = house.in_l1()
        assert entry is not None
        assert entries.expires_at(entry) - time.monotonic() == pytest.approx(290, abs=1)

    def test_upstreams_answer_is_the_fresher_one_even_when_it_is_second(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        house.upstreams.gate.set()
        house.spawn.join()
        entry = house.in_l1()
        assert entry is not None
        assert address_in(message_of(entry)) == "192.0.2.1"

    def test_a_late_value_does_not_displace_upstreams_answer(self, house: House) -> None:
        house.resolve()
        house.shared.land()
        entry = house.in_l1()
        assert entry is not None
        assert address_in(message_of(entry)) == "192.0.2.1"

    def test_a_late_value_is_taken_when_upstream_failed(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        outcome = house.resolve()
        assert outcome.failure == (22, UNREACHABLE.text)
        house.shared.land()
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("l1", L2_ADDRESS)

    def test_a_late_value_takes_the_place_of_a_stale_one(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        house.upstreams.gate.clear()
        assert house.resolve().source == "stale"
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        assert (house.resolve().source, address(house.resolve())) == ("l1", L2_ADDRESS)

    def test_a_late_value_that_is_not_believed_lets_upstream_answer(self, house: House) -> None:
        house.shared.put(KEY, VIEW, servfail(KEY), 300)
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        assert house.stats.redis_rejected == {"message": 1}
        house.upstreams.gate.set()
        eventually(lambda: house.outcomes)
        assert house.outcomes[0].source == "upstream"

    def test_a_late_miss_lets_upstream_answer(self, house: House) -> None:
        house.shared.contents.clear()
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        house.upstreams.gate.set()
        eventually(lambda: house.outcomes)
        assert house.outcomes[0].source == "upstream"

    def test_a_crash_beside_a_slow_l2_strands_nobody(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver"):
            assert house.resolve().failure == (0, "internal error")


class TestFailures:
    @pytest.fixture(autouse=True)
    def _failing(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE

    def test_a_failure_says_why(self, house: House) -> None:
        assert house.resolve() == Outcome("upstream", failure=(22, "no upstream server answered in time"))

    def test_a_failure_is_remembered(self, house: House) -> None:
        house.resolve()
        failure = (22, "no upstream server answered in time")
        assert house.resolve() == Outcome("l1", failure=failure, remembered=True)
        assert len(house.upstreams.asked) == 1

    def test_a_failure_is_forgotten_after_its_time(self, house: House) -> None:
        house.policy(failure_ttl=0.02)
        house.resolve()
        eventually(lambda: not house.resolve().remembered)
        assert len(house.upstreams.asked) == 2

    def test_a_failure_is_not_remembered_when_the_operator_says_so(self, house: House) -> None:
        house.policy(failure_ttl=0.0)
        house.resolve()
        house.resolve()
        assert len(house.upstreams.asked) == 2

    def test_no_minimum_ttl_pins_a_failure(self, house: House) -> None:
        house.policy(failure_ttl=0.0, ttl=TtlPolicy(min_ttl=3600))
        house.resolve()
        house.upstreams.script = good_reply
        assert house.resolve().entry is not None

    def test_a_failure_is_kept_in_neither_tier(self, house: House) -> None:
        house.resolve()
        assert house.in_l1() is None
        assert house.shared.contents == {}

    def test_an_answer_in_l1_outlives_a_failure(self, house: House) -> None:
        entry = stored(KEY, age=299, lifetime=300, stale=86400)
        house.memory.put(KEY, entry)
        house.resolver.lookup(parsed())  # refreshes
        house.spawn.join()
        assert house.in_l1() is entry
        assert house.resolve().source == "l1"

    def test_a_stale_answer_is_better_than_a_remembered_failure(self, house: House) -> None:
        house.resolve()
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        assert house.resolve().source == "stale"

    def test_an_answer_wipes_out_a_failure(self, house: House) -> None:
        house.policy(failure_ttl=0.02)
        house.resolve()
        house.upstreams.script = good_reply
        eventually(lambda: house.resolve().entry is not None)
        house.policy(failure_ttl=60.0)
        house.memory.remove(KEY)
        house.shared.contents.clear()
        assert house.resolve().source == "upstream"

    def test_the_failure_of_one_type_says_nothing_of_another(self, house: House) -> None:
        house.resolve()
        house.resolve(parsed(ask(rdtype="AAAA")))
        assert len(house.upstreams.asked) == 2


class TestServeStale:
    @pytest.fixture(autouse=True)
    def _expired(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400, address="192.0.2.9"))

    def test_at_once_when_every_server_rests(self, house: House) -> None:
        house.policy(stale_client_timeout=60.0, query_timeout=120.0)
        house.upstreams.resting = True
        house.upstreams.gate.clear()
        started = time.monotonic()
        assert address(house.resolve()) == "192.0.2.9"
        assert time.monotonic() - started < 5

    def test_after_the_clients_patience_otherwise(self, house: House) -> None:
        house.policy(stale_client_timeout=0.1)
        house.upstreams.gate.clear()
        started = time.monotonic()
        outcome = house.resolve()
        assert time.monotonic() - started >= 0.1
        assert (outcome.source, address(outcome)) == ("stale", "192.0.2.9")

    def test_not_when_upstream_answers_in_time(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("upstream", "192.0.2.1")

    def test_not_when_l2_has_a_fresh_one(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.in_l2()
        assert house.resolve().source == "l2"

    def test_when_upstream_fails(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.upstreams.script = UNREACHABLE
        assert house.resolve().source == "stale"
        assert house.resolve().source == "stale"
        assert len(house.upstreams.asked) == 1

    def test_when_the_flight_crashes(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver"):
            assert house.resolve().source == "stale"

    def test_no_longer_than_the_deadline(self, house: House) -> None:
        house.policy(stale_client_timeout=60.0, query_timeout=0.1)
        house.upstreams.gate.clear()
        assert house.resolve().source == "stale"

    def test_the_refresh_goes_on_in_the_background(self, house: House) -> None:
        house.upstreams.gate.clear()
        assert house.resolve().source == "stale"
        house.upstreams.gate.set()
        house.spawn.join()
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("l1", "192.0.2.1")

    def test_one_refresh_serves_all(self, house: House) -> None:
        house.upstreams.gate.clear()
        assert {house.resolve().source for _ in range(5)} == {"stale"}
        house.upstreams.gate.set()
        house.spawn.join()
        assert len(house.upstreams.asked) == 1
        assert house.stats.coalesced_queries == 4

    def test_not_beyond_the_stale_time(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=100))
        house.upstreams.script = UNREACHABLE
        outcome = house.resolve()
        assert (outcome.source, outcome.entry) == ("upstream", None)


class TestSingleFlight:
    def test_two_hundred_at_once_cost_one_upstream_query(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        for _ in range(199):
            house.resolve_beside()
        eventually(lambda: house.stats.coalesced_queries == 199)
        house.upstreams.gate.set()
        house.spawn.join()
        assert len(house.upstreams.asked) == 1
        assert [address(outcome) for outcome in house.outcomes] == ["192.0.2.1"] * 200

    def test_other_questions_have_flights_of_their_own(self, house: House) -> None:
        house.upstreams.gate.clear()
        for rdtype in ("A", "AAAA", "MX"):
            house.resolve_beside(parsed(ask(rdtype=rdtype)))
        eventually(lambda: len(house.upstreams.asked) == 3)
        assert house.stats.coalesced_queries == 0

    def test_all_who_wait_learn_of_a_failure(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        self.three_at_once(house)
        assert {outcome.failure for outcome in house.outcomes} == {(22, UNREACHABLE.text)}

    def test_a_bug_strands_nobody(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver") as lines:
            self.three_at_once(house)
        assert {outcome.failure for outcome in house.outcomes} == {(0, "internal error")}
        assert list(lines) == ["ERROR a query failed inside Heimdall"]
        assert house.spawn.deaths == []

    def test_a_bug_is_not_remembered(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver"):
            house.resolve()
        house.upstreams.script = good_reply
        assert house.resolve().source == "upstream"

    def test_a_leader_that_is_killed_strands_nobody_but_itself(self, house: House) -> None:
        house.upstreams.script = Dying()
        self.three_at_once(house)
        assert [outcome.failure for outcome in house.outcomes] == [(0, "internal error")] * 2
        assert [type(death) for death in house.spawn.deaths] == [Dying]
        house.upstreams.script = good_reply
        assert house.resolve().source == "upstream"

    def test_who_waits_has_an_outcome_by_its_own_deadline(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        late = house.resolve(parsed(age=4.9))
        assert late == Outcome("upstream", failure=(22, "no upstream server answered in time"))

    def test_who_comes_after_its_deadline_does_not_wait(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        assert house.resolve(parsed(age=60)).failure is not None

    def three_at_once(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.resolve_beside()
        house.resolve_beside()
        eventually(lambda: house.stats.coalesced_queries == 2)
        house.upstreams.gate.set()
        house.spawn.join()


class TestPrefetch:
    def last_tenth(self, house: House) -> Entry:
        entry = stored(KEY, age=271, lifetime=300, stale=86400, address="192.0.2.9")
        house.memory.put(KEY, entry)
        return entry

    def test_a_hit_in_the_last_tenth_of_a_life_is_answered_and_refreshed(self, house: House) -> None:
        nearly_over = self.last_tenth(house)
        assert house.resolver.lookup(parsed()) is nearly_over
        house.spawn.join()
        entry = house.in_l1()
        assert entry is not None
        assert address_in(message_of(entry)) == "192.0.2.1"
        assert house.stats.cache_prefetches == 1

    def test_a_hit_before_that_is_not(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=265, lifetime=300))
        house.resolver.lookup(parsed())
        assert house.upstreams.asked == []
        assert house.stats.cache_prefetches == 0

    def test_a_refresh_does_not_take_l2s_word(self, house: House) -> None:
        house.in_l2(300, age=271)
        self.last_tenth(house)
        house.resolver.lookup(parsed())
        house.spawn.join()
        assert house.upstreams.asked == [KEY]
        assert house.shared.contents[KEY, VIEW][0] == good_reply(KEY).message

    def test_one_refresh_at_a_time(self, house: House) -> None:
        house.upstreams.gate.clear()
        self.last_tenth(house)
        for _ in range(5):
            assert house.resolver.lookup(parsed()) is not None
        eventually(lambda: house.upstreams.asked)
        house.upstreams.gate.set()
        house.spawn.join()
        assert len(house.upstreams.asked) == house.stats.cache_prefetches == 1

    def test_a_miss_meanwhile_waits_for_the_refresh(self, house: House) -> None:
        house.upstreams.gate.clear()
        self.last_tenth(house)
        house.resolver.lookup(parsed())
        house.memory.remove(KEY)
        house.resolve_beside()
        eventually(lambda: house.stats.coalesced_queries == 1)
        house.upstreams.gate.set()
        house.spawn.join()
        assert len(house.upstreams.asked) == 1
        assert house.outcomes[0].source == "upstream"

    def test_not_when_a_failure_is_remembered(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        self.last_tenth(house)
        for _ in range(3):
            house.resolver.lookup(parsed())
            house.spawn.join()
        assert len(house.upstreams.asked) == house.stats.cache_prefetches == 1

    def test_not_when_the_operator_says_so(self, house: House) -> None:
        house.policy(prefetch=False)
        self.last_tenth(house)
        house.resolver.lookup(parsed())
        assert house.stats.cache_prefetches == 0

    def test_not_beyond_the_bound_on_refreshes(self, house: House) -> None:
        house.policy(max_refreshes=1)
        house.upstreams.gate.clear()
        house.resolve_beside(parsed(ask(rdtype="MX")))
        eventually(lambda: house.upstreams.asked)
        self.last_tenth(house)
        house.resolver.lookup(parsed())
        assert house.stats.cache_prefetches == 0

    def test_a_crash_of_a_refresh_lets_the_next_one_fly(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        self.last_tenth(house)
        with Lines("heimdall.resolver"):
            house.resolver.lookup(parsed())
            house.spawn.join()
        house.upstreams.script = good_reply
        house.resolver.lookup(parsed())
        house.spawn.join()
        assert house.stats.cache_prefetches == 2


class TestWhatIsNotKept:
    @pytest.mark.parametrize(
        ("records", "authority", "rcode"),
        [
            (("@ 0 A 192.0.2.1",), (), 0),
            (("@ 300 CNAME other.example.com.", "other.example.com. 0 A 192.0.2.1"), (), 0),
            ((), (), 0),
            ((), (), 3),
            ((), (f"example.com. 0 SOA {SOA}",), 3),
        ],
        ids=["ttl 0", "ttl 0 in a chain", "nodata without SOA", "nxdomain without SOA", "SOA with ttl 0"],
    )
    def test_it_is_answered_but_stored_nowhere(
        self, house: House, records: tuple[str, ...], authority: tuple[str, ...], rcode: int
    ) -> None:
        house.upstreams.script = examined(KEY, *records, authority=authority, rcode=rcode)
        outcome = house.resolve()
        assert outcome.source == "upstream"
        assert outcome.entry is not None
        assert entries.message_of(outcome.entry)[3] & 0x0F == rcode
        assert house.in_l1() is None
        assert house.shared.contents == {}

    def test_an_answer_with_ttl_0_never_serves_stale(self, house: House) -> None:
        house.upstreams.script = good_reply(KEY, ttl=0)
        entry = house.resolve().entry
        assert entry is not None
        assert entries.stale_until(entry) <= time.monotonic()

    def test_all_who_waited_get_an_answer_with_ttl_0(self, house: House) -> None:
        house.upstreams.script = good_reply(KEY, ttl=0)
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.resolve_beside()
        eventually(lambda: house.stats.coalesced_queries == 1)
        house.upstreams.gate.set()
        house.spawn.join()
        assert [address(outcome) for outcome in house.outcomes] == ["192.0.2.1"] * 2

    def test_a_minimum_ttl_keeps_an_answer_with_ttl_0(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(min_ttl=60))
        house.upstreams.script = good_reply(KEY, ttl=0)
        house.resolve()
        assert house.shared.contents[KEY, VIEW][2] == 60


class TestLease:
    """What another replica is fetching is waited for, a while."""

    @pytest.fixture(autouse=True)
    def _elsewhere(self, house: House) -> None:
        house.shared.lease(KEY, VIEW, 60.0)

    def resolve_beside_until_it_waits(self, house: House) -> None:
        house.resolve_beside()
        eventually(lambda: len(house.shared.max_ages) >= 2)

    def test_it_looks_again_and_finds_the_others_answer(self, house: House) -> None:
        self.resolve_beside_until_it_waits(house)
        house.in_l2()
        house.spawn.join()
        assert [(outcome.source, address(outcome)) for outcome in house.outcomes] == [("l2", L2_ADDRESS)]
        assert house.upstreams.asked == []
        assert house.in_l1() is not None
        assert (house.stats.redis_hits, house.stats.redis_misses) == (1, 0)

    def test_it_goes_alone_when_the_lease_lasts_too_long(self, house: House) -> None:
        started = time.monotonic()
        assert house.resolve().source == "upstream"
        assert time.monotonic() - started >= LEASE_SECONDS
        assert len(house.shared.max_ages) >= 2
        assert house.stats.redis_misses == 1  # however often it looked

    def test_it_takes_over_as_soon_as_the_other_has_given_up(self, house: House) -> None:
        self.resolve_beside_until_it_waits(house)
        house.shared.release(KEY, VIEW)
        eventually(lambda: house.upstreams.asked)
        house.spawn.join()
        assert house.outcomes[0].source == "upstream"

    def test_it_goes_alone_when_l2_goes_down_meanwhile(self, house: House) -> None:
        self.resolve_beside_until_it_waits(house)
        house.shared.down = True
        house.spawn.join()
        assert house.outcomes[0].source == "upstream"

    def test_it_goes_alone_beside_an_l2_that_gets_slow_meanwhile(self, house: House) -> None:
        house.policy(read_budget=0.01)
        self.resolve_beside_until_it_waits(house)
        house.shared.held = True
        house.spawn.join()
        assert house.outcomes[0].source == "upstream"
        assert house.stats.redis_budget_exceeded == 1

    def test_it_does_not_wait_past_the_deadline(self, house: House) -> None:
        house.policy(query_timeout=0.05)
        house.resolve()
        assert house.upstreams.deadlines[0] < time.monotonic()
        assert len(house.shared.max_ages) < 10

    def test_those_who_ask_the_same_wait_together(self, house: House) -> None:
        for _ in range(20):
            house.resolve_beside()
        eventually(lambda: house.stats.coalesced_queries == 19)
        house.in_l2()
        house.spawn.join()
        assert {outcome.source for outcome in house.outcomes} == {"l2"}

    def test_what_the_other_stored_is_examined_like_anything_else(self, house: House) -> None:
        self.resolve_beside_until_it_waits(house)
        house.shared.put(KEY, VIEW, servfail(KEY), 300)
        house.shared.release(KEY, VIEW)
        house.spawn.join()
        assert house.outcomes[0].source == "upstream"

    def test_other_questions_are_not_held_up(self, house: House) -> None:
        assert house.resolve(parsed(ask(rdtype="MX"))).source == "upstream"
        assert house.stats.redis_misses == 1


class TestLeaseOfOurOwn:
    def leased(self, house: House) -> bool:
        return time.monotonic() < house.shared.leases.get((KEY, VIEW), 0.0)

    def test_one_look_is_enough_for_who_takes_it(self, house: House) -> None:
        house.resolve()
        assert house.shared.max_ages == [ANY_AGE]

    @pytest.mark.parametrize(
        "script",
        [
            UNREACHABLE,
            good_reply(KEY, ttl=0),
            examined(KEY),
            examined(KEY, rcode=3),
        ],
        ids=["failure", "ttl 0", "nodata without SOA", "nxdomain without SOA"],
    )
    def test_it_ends_when_there_is_nothing_to_share(self, house: House, script: NoAnswerError | Reply) -> None:
        taken: list[bool] = []

        def answer(key: bytes) -> Reply:
            taken.append(self.leased(house))
            if isinstance(script, NoAnswerError):
                raise script
            return script

        house.upstreams.script = answer
        house.resolve()
        assert taken == [True]
        assert not self.leased(house)

    def test_it_ends_in_the_operators_own_view_too(self, house: House) -> None:
        house.policy(view="ours")
        house.upstreams.script = UNREACHABLE
        house.resolve()
        assert house.shared.leases == {}

    def test_after_a_crash_it_is_over_by_itself(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver"):
            house.resolve()
        assert self.leased(house)
        eventually(lambda: not self.leased(house))


class TestLeaseOnARefresh:
    @pytest.fixture(autouse=True)
    def _nearly_over(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=271, lifetime=300, stale=86400, address="192.0.2.9"))

    def refreshed(self, house: House) -> str:
        house.spawn.join()
        entry = house.in_l1()
        assert entry is not None
        return address_in(message_of(entry))

    def test_l2_is_asked_for_less_than_half_a_life(self, house: House) -> None:
        house.resolver.lookup(parsed())
        house.spawn.join()
        assert house.shared.max_ages == [pytest.approx(150)]

    def test_what_another_replica_has_just_refreshed_is_taken(self, house: House) -> None:
        house.in_l2(300, age=20)
        house.resolver.lookup(parsed())
        assert self.refreshed(house) == L2_ADDRESS
        assert house.upstreams.asked == []
        assert house.stats.cache_prefetches == 1

    def test_what_is_as_old_as_ours_is_fetched_anew(self, house: House) -> None:
        house.in_l2(300, age=160)
        house.resolver.lookup(parsed())
        assert self.refreshed(house) == "192.0.2.1"
        assert house.upstreams.asked == [KEY]

    def test_what_is_as_old_as_ours_does_not_displace_it(self, house: House) -> None:
        house.in_l2(300, age=271)
        house.upstreams.script = UNREACHABLE
        house.resolver.lookup(parsed())
        assert self.refreshed(house) == "192.0.2.9"

    def test_what_another_replica_is_refreshing_is_waited_for(self, house: House) -> None:
        house.in_l2(300, age=271)
        house.shared.lease(KEY, VIEW, 60.0)
        house.resolver.lookup(parsed())
        eventually(lambda: len(house.shared.max_ages) >= 2)
        house.in_l2(300)
        assert self.refreshed(house) == L2_ADDRESS
        assert house.upstreams.asked == []

    def test_hits_go_on_meanwhile(self, house: House) -> None:
        house.shared.lease(KEY, VIEW)
        started = time.monotonic()
        assert house.resolver.lookup(parsed()) is not None
        assert house.resolver.lookup(parsed()) is not None
        assert time.monotonic() - started < LEASE_SECONDS
        assert house.stats.cache_prefetches == 1

    def test_a_late_value_is_held_to_the_same_age(self, house: House) -> None:
        house.policy(read_budget=0.0)
        house.shared.held = True
        house.upstreams.gate.clear()
        house.in_l2(300, age=271)
        house.resolver.lookup(parsed())
        eventually(lambda: house.upstreams.asked)
        house.shared.land()
        entry = house.in_l1()
        assert entry is not None
        assert address_in(message_of(entry)) == "192.0.2.9"
        house.upstreams.gate.set()
        assert self.refreshed(house) == "192.0.2.1"

    def test_a_refresh_that_fails_ends_its_lease(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        house.resolver.lookup(parsed())
        house.spawn.join()
        assert house.shared.leases == {}


class TestStaleFromL2:
    """A replica that has nothing of its own yet serves what others have left, when upstream gives nothing."""

    @pytest.fixture(autouse=True)
    def _past_its_life(self, house: House) -> None:
        house.in_l2(300, age=400)

    def test_when_upstream_fails(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.upstreams.script = UNREACHABLE
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("stale", L2_ADDRESS)

    def test_at_once_when_every_server_rests(self, house: House) -> None:
        house.policy(stale_client_timeout=60.0, query_timeout=120.0)
        house.upstreams.resting = True
        house.upstreams.gate.clear()
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("stale", L2_ADDRESS)

    def test_at_once_when_every_server_rests_and_another_replica_tries(self, house: House) -> None:
        house.shared.lease(KEY, VIEW, 60.0)
        house.upstreams.resting = True
        house.upstreams.gate.clear()
        assert house.resolve().source == "stale"
        assert len(house.shared.max_ages) == 1

    def test_after_the_clients_patience_when_upstream_is_slow(self, house: House) -> None:
        house.policy(stale_client_timeout=0.1)
        house.upstreams.gate.clear()
        started = time.monotonic()
        assert house.resolve().source == "stale"
        assert time.monotonic() - started >= 0.1

    def test_not_when_upstream_answers_in_time(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("upstream", "192.0.2.1")

    def test_not_when_another_replica_brings_a_fresh_one(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.shared.lease(KEY, VIEW, 60.0)
        house.resolve_beside()
        eventually(lambda: len(house.shared.max_ages) >= 2)
        house.shared.put(KEY, VIEW, good_reply(KEY, 300, "192.0.2.3").message, 300)
        house.spawn.join()
        assert [(outcome.source, address(outcome)) for outcome in house.outcomes] == [("l2", "192.0.2.3")]

    def test_when_the_other_replica_gets_nothing_either(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.upstreams.script = UNREACHABLE
        house.shared.lease(KEY, VIEW, 60.0)
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("stale", L2_ADDRESS)

    def test_an_nxdomain_too(self, house: House) -> None:
        message = examined(KEY, authority=[f"example.com. 60 SOA {SOA}"], rcode=3).message
        house.shared.put(KEY, VIEW, message, 60, age=100)
        house.upstreams.script = UNREACHABLE
        outcome = house.resolve()
        assert outcome.source == "stale"
        assert outcome.entry is not None
        assert entries.message_of(outcome.entry)[3] & 0x0F == 3

    def test_when_it_comes_after_its_budget(self, house: House) -> None:
        house.policy(read_budget=0.0)
        house.shared.held = True
        house.upstreams.script = UNREACHABLE
        assert house.resolve().entry is None
        house.shared.land()
        assert house.resolve().source == "stale"

    def test_the_next_query_finds_it_in_l1(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        house.resolve()
        reads = len(house.shared.max_ages)
        assert house.resolve().source == "stale"
        assert len(house.shared.max_ages) == reads

    def test_it_is_no_hit(self, house: House) -> None:
        house.upstreams.script = UNREACHABLE
        house.resolve()
        assert house.resolver.lookup(parsed()) is None
        assert (house.stats.redis_hits, house.stats.redis_misses) == (0, 1)

    @pytest.mark.parametrize("script", [UNREACHABLE, RuntimeError("a bug"), good_reply(KEY, ttl=0)])
    def test_nothing_of_it_is_written_back(self, house: House, script: BaseException | Reply) -> None:
        before = dict(house.shared.contents)
        house.upstreams.script = script
        with Lines("heimdall.resolver"):
            house.resolve()
            house.resolve()
            house.spawn.join()
        assert house.shared.contents == before

    def test_it_does_not_displace_a_fresh_one(self, house: House) -> None:
        fresh = stored(KEY, age=271, lifetime=300, stale=86400)
        house.memory.put(KEY, fresh)
        house.upstreams.script = UNREACHABLE
        house.resolver.lookup(parsed())  # refreshes, and finds the stale one
        house.spawn.join()
        assert house.stats.redis_misses == 1
        assert house.in_l1() is fresh

    def test_it_does_not_displace_one_that_has_been_stale_for_less_long(self, house: House) -> None:
        newer = stored(KEY, age=350, lifetime=300, stale=86400)
        house.memory.put(KEY, newer)
        house.upstreams.script = UNREACHABLE
        house.resolve()
        house.spawn.join()
        assert house.in_l1() is newer

    def test_it_displaces_one_that_has_been_stale_for_longer(self, house: House) -> None:
        house.policy(stale_client_timeout=4.0)
        house.memory.put(KEY, stored(KEY, age=5000, lifetime=300, stale=86400))
        house.upstreams.script = UNREACHABLE
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("stale", L2_ADDRESS)

    def test_it_serves_no_longer_than_this_replica_allows(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(serve_stale=50))
        house.upstreams.script = UNREACHABLE
        assert house.resolve().entry is None
        assert house.in_l1() is None

    def test_what_is_not_believed_does_not_serve_stale(self, house: House) -> None:
        house.shared.put(KEY, VIEW, servfail(KEY), 300, age=400)
        house.upstreams.script = UNREACHABLE
        assert house.resolve().entry is None
        assert house.stats.redis_rejected == {"message": 1}

    def test_upstreams_answer_takes_its_place_in_both_tiers(self, house: House) -> None:
        house.upstreams.gate.clear()
        assert house.resolve().source == "stale"
        house.upstreams.gate.set()
        house.spawn.join()
        outcome = house.resolve()
        assert (outcome.source, address(outcome)) == ("l1", "192.0.2.1")
        assert house.shared.contents[KEY, VIEW][0] == good_reply(KEY).message

    def test_answers_go_out_to_stay_for_the_stale_time(self, house: House) -> None:
        house.policy(ttl=TtlPolicy(serve_stale=77))
        house.resolve()
        assert house.shared.contents[KEY, VIEW][2:] == (300, 77)


def test_a_flight_is_led_in_the_callers_own_thread_unless_something_stale_may_serve(house: House) -> None:
    ran = Event()
    house.resolver = Resolver(
        policy=POLICY,
        memory=house.memory,
        shared=NoSharedCache(),
        invalidations=house.invalidations,
        upstreams=house.upstreams,
        spawn=lambda *_: ran.set(),
        stats=house.stats,
    )
    assert house.resolve().source == "upstream"
    assert not ran.is_set()
    house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
    assert house.resolve().source == "stale"
    assert ran.is_set()


class TestFlushed:
    def test_an_answer_that_was_asked_for_before_a_flush_is_given_and_not_kept(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.invalidations.flushed(EVERYTHING, time.monotonic())
        house.upstreams.gate.set()
        house.spawn.join()
        assert house.outcomes[0].source == "upstream"
        assert house.in_l1() is None
        assert not house.shared.contents

    def test_one_that_was_asked_for_after_it_is_kept(self, house: House) -> None:
        house.invalidations.flushed(EVERYTHING, time.monotonic())
        house.resolve()
        assert house.in_l1() is not None

    def test_what_l2_has_from_before_a_flush_is_not_believed(self, house: House) -> None:
        house.in_l2(age=10)
        house.invalidations.flushed(EVERYTHING, time.monotonic() - 5)
        assert house.resolve().source == "upstream"
        assert house.stats.redis_rejected == {"flushed": 1}

    def test_what_l2_has_from_after_it_is(self, house: House) -> None:
        house.in_l2(age=10)
        house.invalidations.flushed(EVERYTHING, time.monotonic() - 15)
        assert house.resolve().source == "l2"

    def test_who_asks_after_a_flush_joins_no_flight_from_before(self, house: House) -> None:
        house.upstreams.gate.clear()
        house.resolve_beside()
        eventually(lambda: house.upstreams.asked)
        house.resolver.forget()
        house.resolve_beside()
        eventually(lambda: len(house.upstreams.asked) == 2)
        house.upstreams.gate.set()
        house.spawn.join()
        assert [outcome.source for outcome in house.outcomes] == ["upstream"] * 2

    def test_a_failure_is_forgotten(self, house: House) -> None:
        house.upstreams.script = NoAnswerError(23, "unreachable")
        house.resolve()
        assert house.resolver.failed(KEY)
        house.resolver.forget()
        assert not house.resolver.failed(KEY)
        house.upstreams.script = good_reply
        assert house.resolve().entry is not None


class TestChanged:
    @pytest.mark.parametrize(("address", "changed"), [(ADDRESS, []), ("192.0.2.77", [KEY])])
    def test_an_answer_that_differs_from_the_one_in_l1_is_said_to(
        self, house: House, address: str, changed: list[bytes]
    ) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, address=address))
        house.resolve()
        assert house.shared.changed == changed

    def test_the_first_answer_is_no_change(self, house: House) -> None:
        house.resolve()
        assert house.shared.changed == []

    def test_the_first_answer_is_new_and_the_second_is_not(self, house: House) -> None:
        house.resolve()
        assert house.shared.new == [KEY]
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        house.forget_l2()
        house.resolve()
        assert house.upstreams.asked == [KEY] * 2
        assert house.shared.new == [KEY]


class TestProbation:
    """A full L1 keeps what was asked for once apart."""

    def fill(self, house: House) -> None:
        house.memory = MemoryCache(max_entries=2, max_bytes=1 << 20, purge_interval=30, stats=house.stats)
        house.resolver = house.build(house.shared)
        for name in (b"a", b"b"):
            house.memory.put(name, stored(KEY, age=0, lifetime=300))
        house.resolve()
        assert (house.memory.get(KEY), KEY in house.memory) == (None, True)

    def test_the_second_query_finds_it_and_it_stays(self, house: House) -> None:
        self.fill(house)
        assert house.resolver.lookup(parsed()) is not None
        assert (house.stats.cache_hits, len(house.upstreams.asked)) == (1, 1)
        assert house.memory.get(KEY) is not None

    def test_who_comes_for_it_while_it_is_fetched_finds_it(self, house: House) -> None:
        self.fill(house)
        assert house.resolve().source == "l1"
        assert house.memory.get(KEY) is None

    def test_it_serves_stale(self, house: House) -> None:
        self.fill(house)
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        house.forget_l2()
        house.upstreams.script = NoAnswerError(22, "no answer")
        assert house.resolve().source == "stale"

    def test_what_it_becomes_is_a_change(self, house: House) -> None:
        self.fill(house)
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400, address="192.0.2.77"))
        house.forget_l2()
        house.resolve()
        assert house.shared.changed == [KEY]

    def test_it_is_not_warmed_over(self, house: House) -> None:
        self.fill(house)
        assert not house.resolver.wants(KEY, VIEW)
