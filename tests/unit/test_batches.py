"""What waits is handed out in order, in batches, to one thread or several, and to the last one."""

from heimdall_lib.pause import Pause
from heimdall_lib.shared_cache.batches import Batches
from tests.fakes import Threads, eventually


def batches(*items: int, size: int = 3, bound: int = 10) -> Batches[int]:
    made: Batches[int] = Batches(size=size, bound=bound)
    assert all(made.put(item) for item in items)
    return made


class Reader:
    """Takes beside the test until all is over."""

    def __init__(self, source: Batches[int], spawn: Threads) -> None:
        self.taken: list[list[int]] = []
        self.ended = False
        self._source = source
        spawn(self._run)

    def _run(self) -> None:
        while batch := self._source.take():
            self.taken.append(batch)
        self.ended = True


def test_what_waits_is_taken_together_and_in_order() -> None:
    waiting = batches(1, 2, 3)
    assert len(waiting) == 3
    assert waiting.take() == [1, 2, 3]
    assert len(waiting) == 0


def test_a_batch_has_its_size_at_most() -> None:
    waiting = batches(1, 2, 3, 4, 5, 6, 7)
    assert [waiting.take(), waiting.take(), waiting.take()] == [[1, 2, 3], [4, 5, 6], [7]]


def test_what_does_not_fit_is_refused_until_there_is_room() -> None:
    waiting = batches(1, 2, bound=2)
    assert not waiting.put(3)
    assert waiting.take() == [1, 2]
    assert waiting.put(3)
    assert waiting.take() == [3]


def test_with_a_bound_of_none_everything_is_refused() -> None:
    assert not batches(bound=0).put(1)


def test_what_was_taken_in_is_handed_out_after_the_end_and_then_nothing() -> None:
    waiting = batches(1, 2, 3, 4)
    waiting.end()
    assert [waiting.take(), waiting.take(), waiting.take(), waiting.take()] == [[1, 2, 3], [4], [], []]


def test_nothing_is_taken_in_after_the_end() -> None:
    waiting = batches()
    waiting.end()
    assert not waiting.put(1)
    assert waiting.take() == []


def test_who_finds_nothing_waits_for_something() -> None:
    waiting, spawn = batches(), Threads()
    reader = Reader(waiting, spawn)
    for item in range(5):
        waiting.put(item)
        eventually(lambda: sum(map(len, reader.taken)) == item + 1)  # noqa: B023 - it is over before the next item
    assert [item for batch in reader.taken for item in batch] == [0, 1, 2, 3, 4]
    waiting.end()
    spawn.join()
    assert reader.ended
    assert spawn.deaths == []


def test_all_who_wait_are_let_go_at_the_end() -> None:
    waiting, spawn = batches(), Threads()
    readers = [Reader(waiting, spawn) for _ in range(4)]
    waiting.end()
    spawn.join()
    assert all(reader.ended for reader in readers)
    assert spawn.deaths == []


def test_several_who_take_get_everything_once() -> None:
    waiting, spawn = batches(bound=5000), Threads()
    readers = [Reader(waiting, spawn) for _ in range(4)]
    for item in range(2000):
        assert waiting.put(item)
    eventually(lambda: sum(len(batch) for reader in readers for batch in reader.taken) == 2000)
    waiting.end()
    spawn.join()
    assert sorted(item for reader in readers for batch in reader.taken for item in batch) == list(range(2000))


def test_who_waits_again_and_again_leaves_nothing_behind() -> None:
    waiting, spawn = batches(), Threads()
    places: list[int] = []

    def run() -> None:
        while waiting.take():
            places.append(len(Pause[None]()._alarms._waits))  # for each instant that this thread's loop is to wake at

    spawn(run)
    for item in range(20):
        waiting.put(item)
        eventually(lambda: len(places) == item + 1)  # noqa: B023 - it is over before the next item
    waiting.end()
    spawn.join()
    assert max(places) <= 2
