"""Rates, ratios and latencies between two readings, and how many of them are kept."""

import pytest

from heimdall_lib.series import Figures, Series, between, snapshot
from heimdall_lib.stats import Stats


def test_nothing_happened() -> None:
    figures = between(snapshot(Stats(), 10.0), snapshot(Stats(), 15.0))
    assert {name: value for name, value in figures.items() if value is not None} == {
        **dict.fromkeys(("queries_per_second", "servfail_per_second", "shed_per_second"), 0),
        **{f"{source}_per_second": 0 for source in ("all", "l1", "l2", "upstream", "stale", "local")},
    }
    assert {"l1_hit_ratio", "l2_hit_ratio", "all_median_ms", "l1_p99_ms"} <= set(figures)


def test_rates_and_ratios_are_of_what_happened_between() -> None:
    stats = Stats()
    stats.queries["udp"] = stats.cache_misses = stats.redis_misses = 1_000_000
    old = snapshot(stats, 10.0)
    stats.queries["udp"] += 30
    stats.queries["tcp"] += 20
    stats.responses[2] += 1
    for reason in stats.dropped:  # of which those are shed that found no room
        stats.dropped[reason] += 1
    stats.cache_hits, stats.redis_hits = 3, 1
    stats.cache_misses += 1
    stats.redis_misses += 1
    figures = between(old, snapshot(stats, 15.0))
    assert (figures["queries_per_second"], figures["servfail_per_second"], figures["shed_per_second"]) == (
        10,
        0.2,
        0.4,
    )
    assert (figures["l1_hit_ratio"], figures["l2_hit_ratio"]) == (0.75, 0.5)


def latencies(*seconds: float, source: str = "upstream") -> Figures:
    stats = Stats()
    stats.durations[source].observe_many(0.0002, 1000)
    old = snapshot(stats, 0.0)
    for each in seconds:
        stats.durations[source].observe(each)
    return between(old, snapshot(stats, 10.0))


def test_latency_is_that_of_a_source_and_of_all() -> None:
    figures = latencies(0.02, 0.02)
    assert (figures["upstream_per_second"], figures["all_per_second"], figures["l1_per_second"]) == (0.2, 0.2, 0)
    assert figures["upstream_median_ms"] == figures["all_median_ms"] == 17.5, "in the middle of 10 to 25 ms"
    assert figures["l1_median_ms"] is None


@pytest.mark.parametrize(
    ("seconds", "median", "p99"),
    [
        ([0.00001], 0.025, 0.05),  # the first bucket begins at 0
        ([0.0001] * 100, 0.075, 0.1),  # a bound belongs to the bucket that it closes
        ([0.0001] * 99 + [0.4], 0.075, 0.1),
        ([0.0001] * 90 + [0.4] * 10, 0.078, 475.0),
        ([0.0001, 0.4], 0.1, 495.0),
        ([7.0, 8.0], 5000.0, 5000.0),  # above every bound
    ],
)
def test_a_quantile_is_estimated_inside_its_bucket(seconds: list[float], median: float, p99: float) -> None:
    figures = latencies(*seconds)
    assert (figures["upstream_median_ms"], figures["upstream_p99_ms"]) == (median, p99)


def asked(count: int) -> Stats:
    stats = Stats()
    stats.queries["udp"] = count
    return stats


class TestSeries:
    @pytest.fixture
    def series(self) -> Series:
        return Series(snapshot(Stats(), 0.0))

    def add(self, series: Series, count: int, at: float) -> None:
        series.add(snapshot(asked(count), at))

    def test_there_is_no_course_before_the_second_sample(self, series: Series) -> None:
        assert series.columns() == {}
        self.add(series, 10, 5.0)
        assert series.columns() == {}

    def test_every_sample_after_that_is_one_value_of_each_figure(self, series: Series) -> None:
        for count, at in ((10, 5.0), (15, 10.0), (115, 15.0)):
            self.add(series, count, at)
        columns = series.columns()
        assert columns["queries_per_second"] == [1, 20]
        assert columns["l1_p99_ms"] == [None, None]
        assert {len(column) for column in columns.values()} == {2}

    def test_it_goes_back_a_quarter_of_an_hour(self, series: Series) -> None:
        for number in range(400):
            self.add(series, number * number, number * 5.0)
        rates = series.columns()["queries_per_second"]
        assert len(rates) * 5 == 15 * 60
        assert rates[-1] == round((399**2 - 398**2) / 5, 1)

    def test_the_last_minute_begins_at_the_start_at_first(self, series: Series) -> None:
        now = snapshot(asked(40), 4.0)
        assert series.last_minute(now)["queries_per_second"] == 10

    def test_and_later_a_minute_ago(self, series: Series) -> None:
        for number in range(100):
            self.add(series, 1000 if number < 50 else 1000 + (number - 50) * 10, number * 5.0)
        now = snapshot(asked(1490), 495.0)
        assert series.last_minute(now)["queries_per_second"] == 2
