"""Answers that are ready give the very bytes of the general path, for as long as those would not change."""

import sys
import time

import dns.message
import pytest

from heimdall_lib import entry as entries
from heimdall_lib.popularity import Popularity
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.responder import Responder
from tests.fakes import ADDRESS, address_in, ask, examined, parsed, stored
from tests.unit.test_responder import House

PEER = "127.0.0.1"


@pytest.fixture
def house() -> House:
    return House()


def keep(house: House, data: bytes, *, age: float = 10.5, lifetime: float = 300.0) -> bytes:
    """Put an answer to ``data`` into L1, and take the general path to it once."""
    key = parsed(data).key
    house.memory.put(key, stored(key, age=age, lifetime=lifetime))
    return house.at_once(data)


def ready(
    responder: Responder, *queries: bytes, peer: str = PEER, transport: str = "udp"
) -> tuple[list[bytes], list[bytes]]:
    answers, rest = responder.ready([(query, peer) for query in queries], str, transport)
    return [answer for answer, _ in answers], [query for query, _ in rest]


@pytest.mark.parametrize(
    "query", [ask(), ask(edns=True), ask(do=True, edns=True), ask("WwW.Example.COM."), ask(edns=True, payload=512)]
)
def test_a_ready_answer_is_that_of_the_general_path(house: House, query: bytes) -> None:
    answer = keep(house, query)
    other = b"\xab\xcd" + query[2:]
    assert ready(house.responder, query, other) == ([answer, b"\xab\xcd" + answer[2:]], [])


def test_what_nobody_asked_before_is_left_to_the_general_path(house: House) -> None:
    assert ready(house.responder, ask()) == ([], [ask()])


def test_hits_are_counted_as_on_the_general_path(house: House) -> None:
    keep(house, ask())
    ready(house.responder, ask(), ask())
    assert house.stats.queries["udp"] == 3
    assert house.stats.cache_hits == 3
    assert house.stats.responses[0] == 3
    assert sum(house.stats.durations["l1"].counts) == 3


def test_a_changed_entry_is_answered_anew(house: House) -> None:
    keep(house, ask())
    key = parsed(ask()).key
    house.memory.put(key, stored(key, age=0.0, lifetime=300.0, address="192.0.2.99"))
    (answer,), rest = ready(house.responder, ask())
    assert (address_in(answer), rest) == ("192.0.2.99", [])


def test_a_forgotten_entry_is_not_answered(house: House) -> None:
    keep(house, ask())
    house.memory.remove(parsed(ask()).key)
    assert ready(house.responder, ask()) == ([], [ask()])


def test_strangers_and_clients_over_their_rate_get_nothing_ready(house: House) -> None:
    keep(house, ask())
    assert ready(house.responder, ask(), peer="203.0.113.1") == ([], [ask()])


def test_a_query_with_options_of_its_own_is_not_kept(house: House) -> None:
    cookie = ask(edns=True)[:-2] + b"\x00\x0c" + b"\x00\x0a\x00\x08cookie!!"
    keep(house, cookie)
    assert ready(house.responder, cookie) == ([], [cookie])


def test_with_a_query_log_every_query_takes_the_general_path(house: House) -> None:
    keep(house, ask())
    house.policy(query_log=True)
    assert ready(house.responder, ask()) == ([], [ask()])


def test_new_settings_hold_for_what_was_ready(house: House) -> None:
    keep(house, ask(edns=True))
    ready(house.responder, ask(edns=True))
    house.policy(udp_size=1400)
    (answer,), _ = ready(house.responder, ask(edns=True))
    assert dns.message.from_wire(answer).payload == 1400


def test_each_transport_has_answers_of_its_own(house: House) -> None:
    large = examined(parsed(ask(rdtype="TXT")).key, *(f"@ 300 TXT {number:0200}" for number in range(4)))
    entry = entries.make(large.message, large.ttl_offsets, stored_at=time.monotonic() - 0.5, lifetime=300.0, stale=0.0)
    house.memory.put(parsed(ask(rdtype="TXT")).key, entry)
    (whole,), rest = ready(house.responder, ask(rdtype="TXT"), transport="tcp")
    assert (len(dns.message.from_wire(whole).answer[0]), rest) == (4, [])
    assert ready(house.responder, ask(rdtype="TXT")) == (
        [],
        [ask(rdtype="TXT")],
    )  # too large to be answered the short way
    assert house.stats.queries == {"udp": 0, "tcp": 1}


@pytest.mark.parametrize(
    ("at", "until"),
    [
        (100.0, 101.0),  # the TTLs change
        (100.9, 101.0),
        (109.2, 109.2 + 0.8),
        (189.5, 190.0),  # from 190 on it is to be refreshed
        (190.0, 191.0),
        (199.5, 200.0),  # it expires
    ],
)
def test_an_answer_is_ready_until_something_changes(at: float, until: float) -> None:
    entry = entries.make(b"message", (), stored_at=100.0, lifetime=100.0, stale=0.0)
    assert entries.unchanged_until(entry, at) == pytest.approx(until)


def test_nothing_is_ready_past_its_second(house: House) -> None:
    answers = ReadyAnswers(house.memory, Popularity(), truncates=True)
    key = parsed(ask()).key
    entry = stored(key, age=0.0, lifetime=300.0)
    house.memory.put(key, entry)
    now = entries.stored_at(entry)
    answers.keep(ask(), parsed(ask()), entry, b"\0\0\x80\x83answer", now)
    asked = (b"id" + ask()[2:], PEER)

    def admits(_peer: str, _now: float) -> bool:
        return True

    assert answers.split([asked], now + 0.99, (), admits) == ([(b"id\x80\x83answer", PEER)], [3], [])
    (later,), _, _ = answers.split([asked], now + 1.0, (), admits)
    assert address_in(later[0]) == ADDRESS


def test_what_is_asked_twice_within_a_second_is_ready(house: House) -> None:
    keep(house, ask())
    answers = ReadyAnswers(house.memory, Popularity(), truncates=True)
    now = time.monotonic()
    given = [answers.split([(ask(), PEER)], now, (PEER,), lambda *_: False)[0][0] for _ in range(4)]
    assert len({answer for answer, _ in given}) == 1


def test_what_is_asked_counts_as_popular_once_a_second(house: House) -> None:
    keep(house, ask())
    popularity = Popularity()
    answers = ReadyAnswers(house.memory, popularity, truncates=True)
    now = time.monotonic()
    for instant in (now, now, now, now + 1.0, now + 1.0):
        answers.split([(ask(), PEER)], instant, (PEER,), lambda *_: False)
    assert popularity == {parsed(ask()).key: 2}


def test_who_may_not_ask_makes_nothing_popular(house: House) -> None:
    keep(house, ask())
    popularity = Popularity()
    answers = ReadyAnswers(house.memory, popularity, truncates=True)
    asked = (ask(), "203.0.113.1")
    assert answers.split([asked], time.monotonic(), (), lambda *_: False) == ([], [], [asked])
    assert popularity == {}


@pytest.mark.parametrize("size", [100, 60_000])
def test_only_a_small_entry_is_held_on_to_when_l1_has_let_it_go(house: House, size: int) -> None:
    answers = ReadyAnswers(house.memory, Popularity(), truncates=False)
    query = parsed(ask())
    message = stored(query.key, age=0.0, lifetime=300.0)
    entry = entries.make(
        entries.message_of(message) + bytes(size), (), stored_at=time.monotonic(), lifetime=300.0, stale=0.0
    )
    holders = sys.getrefcount(entry)
    house.memory.put(query.key, entry)
    now = time.monotonic()
    answers.keep(ask(), query, entry, b"\0\0\x80\x80answer", now)
    for _ in range(3):
        answers.split([(ask(edns=True), PEER)], now, (PEER,), lambda *_: False)
    house.memory.remove(query.key)
    assert (sys.getrefcount(entry) == holders) is (size > 100)
