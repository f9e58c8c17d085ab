"""Which cache keys are counted, and what becomes of the counts."""

from heimdall_lib.popularity import Popularity


def counted(popularity: Popularity, *keys: bytes) -> Popularity:
    for key in keys:
        popularity[key] += 1
    return popularity


def test_what_was_never_counted_is_not_there() -> None:
    assert Popularity().take(10) == []


def test_the_highest_counts_come_first() -> None:
    popularity = counted(Popularity(), b"a", b"b", b"c", b"b", b"c", b"c")
    assert popularity.take(10) == [(b"c", 3), (b"b", 2), (b"a", 1)]


def test_no_more_are_taken_than_are_wanted() -> None:
    popularity = counted(Popularity(), b"a", b"b", b"b")
    assert popularity.take(1) == [(b"b", 2)]


def test_counting_starts_over_when_the_counts_are_taken() -> None:
    popularity = counted(Popularity(), b"a", b"a", b"b")
    popularity.take(1)
    assert popularity.take(10) == []
    assert counted(popularity, b"b").take(10) == [(b"b", 1)]


def test_it_is_bounded_and_the_newest_makes_room() -> None:
    popularity = Popularity(max_keys=3)
    counted(popularity, b"a", b"b", b"c", b"d", b"e", b"e", b"a")
    assert len(popularity) == 3
    assert popularity.take(10) == [(b"a", 2), (b"e", 2), (b"b", 1)]


def test_a_flood_of_names_does_not_drive_out_what_is_popular() -> None:
    popularity = counted(Popularity(max_keys=100), b"popular")
    for number in range(10_000):
        counted(popularity, b"%d" % number, b"popular")
    assert len(popularity) == 100
    assert popularity.take(1) == [(b"popular", 10_001)]


class TestTop:
    def test_what_is_counted_is_shown_at_once_the_highest_first(self) -> None:
        popularity = counted(Popularity(), b"a", b"b", b"b")
        assert popularity.top(10) == [(b"b", 2), (b"a", 1)]
        assert popularity.top(1) == [(b"b", 2)]

    def test_looking_takes_nothing_away(self) -> None:
        popularity = counted(Popularity(), b"a")
        assert popularity.top(10) == popularity.top(10) == popularity.take(10) == [(b"a", 1)]

    def test_taking_hides_nothing(self) -> None:
        popularity = counted(Popularity(), b"a", b"a")
        popularity.take(10)
        assert counted(popularity, b"a", b"b").top(10) == [(b"a", 3), (b"b", 1)]

    def test_counts_fade_and_the_latest_weigh_most(self) -> None:
        popularity = counted(Popularity(), *[b"before"] * 10)
        popularity.fade()
        assert counted(popularity, *[b"lately"] * 9).top(10) == [(b"lately", 9), (b"before", 8)]

    def test_what_has_faded_is_gone(self) -> None:
        popularity = counted(Popularity(), b"a")
        popularity.fade()
        assert popularity.top(10) == [(b"a", 0.8)]
        for _ in range(3):
            popularity.fade()
        assert popularity.top(10) == []

    def test_fading_takes_nothing_from_who_takes_the_counts(self) -> None:
        popularity = counted(Popularity(), b"a", b"b")
        popularity.fade()
        assert counted(popularity, b"a").take(10) == [(b"a", 2), (b"b", 1)]
        assert popularity.take(10) == []

    def test_room_is_made_for_new_names_by_fading_though_nobody_takes_the_counts(self) -> None:
        popularity = counted(Popularity(max_keys=2), b"a", b"b")
        popularity.fade()
        assert counted(popularity, b"c", b"c").top(1) == [(b"c", 2)]

    def test_what_is_kept_is_bounded(self) -> None:
        popularity = Popularity()
        for number in range(10):
            counted(popularity, *(b"%d" % (number * 1000 + each) for each in range(1000)))
            popularity.fade()
        assert len(popularity.take(100_000)) == 1000
        assert len(popularity.top(100_000)) <= 1000
