"""What the short way from a query to L1 and back takes on, and what it leaves to the general path."""

import time

import pytest

from heimdall_lib import entry as entries
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.plain import PlainAnswers
from heimdall_lib.stats import Stats
from tests.fakes import address_in, ask, parsed, stored
from tests.support import messages


class House:
    """An L1, and the short way over UDP."""

    def __init__(self) -> None:
        self.memory = MemoryCache(max_entries=100, max_bytes=1_000_000, purge_interval=30, stats=Stats())
        self.plain = PlainAnswers(self.memory, classic=512, limit=1232, advertised=1232)

    def put(self, data: bytes, *, age: float = 0.5, lifetime: float = 300.0) -> None:
        key = parsed(data).key
        self.memory.put(key, stored(key, age=age, lifetime=lifetime))

    def answer(self, data: bytes) -> bytes | None:
        hit = self.plain.find(data, time.monotonic())
        return hit[0] if hit is not None else None


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize("data", [ask(), ask("WwW.eXample.com."), ask(edns=True), ask(edns=True, do=True)])
def test_what_most_clients_send_is_answered(house: House, data: bytes) -> None:
    house.put(data)
    answer = house.answer(data)
    assert answer is not None
    assert address_in(answer) == "192.0.2.1"


def test_what_l1_does_not_have_is_left_alone(house: House) -> None:
    assert house.answer(ask()) is None


def test_queries_that_differ_in_do_have_answers_of_their_own(house: House) -> None:
    house.put(ask(edns=True))
    assert house.answer(ask(edns=True, do=True)) is None


@pytest.mark.parametrize("age", [270.5, 300.5])
def test_what_is_to_be_refreshed_or_past_is_left_alone(house: House, age: float) -> None:
    house.put(ask(), age=age)
    assert house.answer(ask()) is None


def test_an_additional_section_that_is_full_to_the_octet_is_left_alone(house: House) -> None:
    data = ask(edns=True)
    key = parsed(data).key
    message = messages.assemble(key[:-1], flags=messages.QR)
    message = message[:11] + b"\xff" + message[12:]
    house.memory.put(key, entries.make(message, (), stored_at=time.monotonic(), lifetime=300.0, stale=0.0))
    assert house.answer(data) is None
