"""Who came by of late."""

from heimdall_lib.doorkeeper import Doorkeeper


def test_a_key_is_known_from_the_second_time_on() -> None:
    doorkeeper = Doorkeeper()
    assert [doorkeeper.knows(b"a") for _ in range(3)] == [False, True, True]
    assert not doorkeeper.knows(b"b")
    assert doorkeeper.knows(b"a")


def test_keys_that_never_came_by_are_rarely_known() -> None:
    doorkeeper = Doorkeeper()
    assert sum(doorkeeper.knows(b"%d" % number) for number in range(200_000)) < 50  # 2 are to be expected


def test_most_of_those_who_came_by_of_late_are_known() -> None:
    doorkeeper = Doorkeeper()
    keys = [b"%d" % number for number in range(20_000)]
    for key in keys:
        doorkeeper.knows(key)
    assert sum(doorkeeper.knows(key) for key in keys) > 16_000  # the others' places were taken


def test_the_last_to_take_a_place_is_the_one_that_is_known() -> None:
    doorkeeper = Doorkeeper(places=1)
    assert [doorkeeper.knows(key) for key in (b"a", b"b", b"b", b"a")] == [False, False, True, False]
