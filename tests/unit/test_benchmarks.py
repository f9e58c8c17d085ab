"""The parts of the benchmark that can be wrong and stay unnoticed: parsing, arithmetic, configurations, tables."""

import io
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from dns import message, rcode, rdatatype

from benchmarks import delay, dns, dnsperf, figures, goals, plots, report, svg, zone
from benchmarks.__main__ import DOCUMENTS, main, parser
from benchmarks.dnsperf import Load
from benchmarks.errors import BenchmarkError
from benchmarks.machine import Cores
from benchmarks.measure import probe_sample
from benchmarks.peers import PEERS, UNBOUND_CACHEDB, Peer, Setup, program_version
from benchmarks.prober import Probe, probe
from benchmarks.processes import Nursery
from benchmarks.progress import Progress
from benchmarks.results import HEIMDALL, Results, Row, ScenarioResult
from benchmarks.scenarios import SCENARIOS, flood, sizes
from benchmarks.scenarios.fleet import tiers, zipf
from benchmarks.scenarios.hung import phases
from benchmarks.scenarios.sizes import KINDS
from benchmarks.server import metric_sum

REPOSITORY = Path(__file__).parents[2]

REPORT = """DNS Performance Testing Tool
Version 2.10.0

[Timeout] Query timed out: msg id 7
Statistics:

  Queries sent:         1200
  Queries completed:    1190 (99.17%)
  Queries lost:         10 (0.83%)

  Response codes:       NOERROR 1180 (99.16%), SERVFAIL 10 (0.84%)
  Average packet size:  request 33, response 67
  Run time (s):         0.500000
  Queries per second:   2380.000000

  Average Latency (s):  0.000312 (min 0.000021, max 0.003771)
  Latency StdDev (s):   0.000119
"""


# dnsperf


def test_the_report_of_dnsperf_is_read() -> None:
    outcome = dnsperf.parse(REPORT)
    assert (outcome.sent, outcome.completed, outcome.lost, outcome.errors) == (1200, 1190, 10, 10)
    assert outcome.rate == pytest.approx(2380)


def test_a_run_without_answers_has_no_rate() -> None:
    nothing = "Queries sent: 0\nQueries completed: 0 (0%)\nQueries lost: 0 (0%)\nRun time (s): 0.0\n"
    assert dnsperf.parse(nothing).rate == 0


@pytest.mark.parametrize(
    ("text", "words"), [("", "it printed nothing"), ("Error: unable to open x", "unable to open x")]
)
def test_what_dnsperf_says_instead_of_a_report_is_passed_on(text: str, words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        dnsperf.parse(text)


def test_a_load_becomes_a_command() -> None:
    argv = Load(names=Path("names"), seconds=1.5, rate=200, edns=True, tcp=True).argv(5300)
    assert argv[:5] == ["dnsperf", "-s", "127.0.0.1", "-p", "5300"]
    assert {"-e", "tcp", "1.5", "200"} < set(argv)
    assert "-n" not in argv


def test_every_load_has_the_same_clients_and_outstanding_queries() -> None:
    plain, other = Load(names=Path("a"), passes=1).argv(1), Load(names=Path("a"), seconds=1, edns=True).argv(2)
    for flag in ("-c", "-q", "-T", "-t"):
        assert plain[plain.index(flag) + 1] == other[other.index(flag) + 1]


# Arithmetic


def test_medians_are_taken_metric_by_metric() -> None:
    samples = [{"rate": 1.0, "p50_us": 7.0}, {"rate": 9.0}, {"rate": 2.0}]
    assert figures.medians(samples) == {"rate": 2.0, "p50_us": 7.0}


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    ours = [{"cpu_us": 2.0}, {"cpu_us": 8.0}, {"cpu_us": 3.0}]
    theirs = [{"cpu_us": 1.0}, {"cpu_us": 8.0}, {"cpu_us": 2.0}]
    assert figures.ratio(ours, theirs, "cpu_us") == 1.5


def test_rounds_that_lack_a_side_or_hold_nothing_are_left_out_of_a_ratio() -> None:
    assert figures.ratio([{"rate": 4.0}, {"rate": 9.0}], [{"rate": 2.0}], "rate") == 2.0
    assert figures.ratio([{"rate": 4.0}], [{"rate": 0.0}], "rate") is None
    assert figures.ratio([{}], [{"rate": 1.0}], "rate") is None


def test_the_best_peer_is_the_one_that_we_compare_worst_with() -> None:
    assert figures.best({"a": 0.9, "b": 1.2, "c": None}, "cpu_us") == ("b", 1.2)
    assert figures.best({"a": 0.9, "b": 1.2, "c": None}, "rate") == ("a", 0.9)
    assert figures.best({"c": None}, "rate") is None


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentiles_are_values_that_occurred(percent: float, value: float) -> None:
    values = list(range(1, 101))
    random.shuffle(values)
    assert figures.percentile(values, percent) == value


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 50)


def test_numbers_are_written_for_people() -> None:
    assert figures.METRICS["rate"].text(1234567.8) == "1\u202f234\u202f568"
    assert figures.METRICS["cpu_us"].text(7.126) == "7.13"
    assert figures.METRICS["rate"].text(None) == figures.NOTHING


def test_a_probe_counts_what_was_lost_apart() -> None:
    sample = probe_sample(Probe([2_000, 1_000, -1, 3_000], 0.002))
    assert sample == {"p50_us": 2.0, "p99_us": 3.0, "max_us": 3.0, "offered": 2000.0, "lost": 1}
    with pytest.raises(BenchmarkError, match="nothing was answered"):
        probe_sample(Probe([-1], 1.0))


def test_a_metric_is_summed_over_its_labels_only() -> None:
    text = '# TYPE a_total counter\na_total 1.0\na_totals 8.0\na_total{x="1"} 2.5\na_total{x="2"} 3.0\n'
    assert metric_sum(text, "a_total") == 6.5
    assert metric_sum(text, "b_total") == 0


# DNS


def test_a_query_is_what_the_rfc_says() -> None:
    wire = dns.query("a.Example.", 0x1234)
    assert wire == b"\x12\x34\1\0\0\1\0\0\0\0\0\0\1a\7Example\0\0\1\0\1"
    assert dns.query("a", 1, edns=True)[10:12] == b"\0\1"


def test_only_a_response_with_records_and_without_error_is_an_answer() -> None:
    def message(flags: int, answers: int) -> bytes:
        return struct.pack("!6H", 1, flags, 1, answers, 0, 0)

    assert dns.is_answer(message(0x8180, 1))
    assert not any(map(dns.is_answer, (message(0x8180, 0), message(0x8182, 1), message(0x0100, 1))))


def test_mixed_case_changes_the_case_only() -> None:
    spelled = {dns.mixed_case("abcdefgh.example", random.Random(seed)) for seed in range(9)}
    assert len(spelled) > 5
    assert {name.lower() for name in spelled} == {"abcdefgh.example"}


def test_the_late_server_answers_the_question_that_was_asked() -> None:
    query = dns.query("a.b.example", 77, edns=True)
    reply = delay.answer(query)
    assert reply[:2] == query[:2]
    assert dns.is_answer(reply)
    assert reply[12 : 12 + 17] == query[12 : 12 + 17]
    assert reply[-4:] == bytes((192, 0, 2, 3))


# Configurations


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_listens_on_its_port_forwards_to_the_upstream_and_caches_enough(peer: Peer, tmp_path: Path) -> None:
    setup = Setup(port=5301, upstream=5302, entries=123_456, directory=tmp_path, zones={"bad.example": 5303})
    argv = peer.configure(setup)
    assert argv[0] == peer.program
    (file,) = [path for path in tmp_path.iterdir() if path.is_file()]
    text = file.read_text()
    assert all(word in text for word in ("127.0.0.1", "5301", "5302", "bad.example", "5303"))
    assert "123456" in text or str((64 << 20) + 1024 * 123_456) in text


def test_unbound_with_redis_asks_it_before_it_forwards(tmp_path: Path) -> None:
    UNBOUND_CACHEDB.configure(Setup(port=1, upstream=2, entries=3, directory=tmp_path, redis=6390))
    text = (tmp_path / "unbound.conf").read_text()
    assert 'module-config: "cachedb iterator"' in text
    assert "redis-server-port: 6390" in text


def test_a_peer_counts_as_installed_only_with_the_feature_it_is_wanted_for(tmp_path: Path) -> None:
    def peer(program: str, needs: str) -> Peer:
        return Peer(
            name="x",
            program=program,
            package="x",
            version_argv=("-V",),
            needs=needs,
            configure=lambda _: [str(tmp_path)],
        )

    assert peer(sys.executable, "Python").installed()
    assert not peer(sys.executable, "cachedb").installed()
    assert not peer("no-such-program", "").installed()


def test_a_version_is_found_in_what_a_program_prints() -> None:
    assert program_version(sys.executable, "-V") == ".".join(map(str, sys.version_info[:3]))
    assert program_version("no-such-program") == "unknown"


def test_nsd_is_told_not_to_limit_the_load(tmp_path: Path) -> None:
    argv = zone.write_nsd(tmp_path, 5300)
    text = Path(argv[-1]).read_text()
    assert "rrl-ratelimit: 0" in text
    assert "server-count: 1" in text
    assert "* A 192.0.2.2\n" in (tmp_path / "zone").read_text()


def test_names_are_distinct_of_one_length_and_in_the_zone() -> None:
    names = zone.names("x", 1000)
    assert len(set(names)) == 1000
    assert {len(name) for name in names} == {len(names[0])}
    assert all(name.endswith(f".{dns.ZONE}") for name in names)


def test_a_file_of_names_spells_a_repeated_name_differently(tmp_path: Path) -> None:
    lines = zone.write_names(tmp_path / "names", ["abcdef.example"] * 20, mixed=True).read_text().splitlines()
    assert len(set(lines)) > 10
    assert {line.lower() for line in lines} == {"abcdef.example a"}


@pytest.mark.parametrize(
    ("available", "server", "load", "backend", "workers"),
    [
        ([3], {3}, {3}, {3}, {3}),
        ([0, 1], {0}, {1}, {1}, {0, 1}),
        ([4, 5, 6], {4}, {5}, {6}, {4, 6}),
        ([0, 1, 2, 3], {0}, {1}, {3}, {0, 2}),
    ],
)
def test_the_server_shares_its_core_only_when_there_is_one(
    available: list[int], server: set[int], load: set[int], backend: set[int], workers: set[int]
) -> None:
    cores = Cores.choose(available)
    assert cores == Cores(*map(frozenset, (server, load, backend, workers)))
    assert ("the same core" in cores.describe()) == (len(available) == 2)


# The fleet


def test_zipf_asks_for_the_first_name_most_and_the_same_in_every_run() -> None:
    questions = zipf(20_000, 100)
    counts = {name: sum(asked == name for _, asked in questions) for name in zone.names("zipf", 2)}
    first, second = counts.values()
    assert 1.7 < first / second < 2.3
    assert questions == zipf(20_000, 100)
    assert {replica for replica, _ in questions} == {0, 1, 2}


def test_the_tier_of_an_answer_follows_from_who_was_asked_before() -> None:
    questions = [(0, "a"), (0, "a"), (1, "a"), (1, "a"), (2, "b")]
    assert tiers(questions, 1.0, shared=True) == ["miss", "l1", "l2", "l1", "miss"]
    assert tiers(questions, 1.0, shared=False) == ["miss", "l1", "miss", "l1", "miss"]


def test_a_question_right_after_the_first_one_belongs_to_no_tier() -> None:
    assert tiers([(0, "a"), (0, "a"), (1, "a")], 0.001, shared=True) == ["miss", "", ""]
    assert tiers([(0, "a"), (1, "a")], 0.001, shared=False) == ["miss", "miss"]


# The flood


def test_a_flood_of_names_that_are_asked_for_once_leaves_the_working_set_in_l1() -> None:
    shares = {
        (make, times): flood.hit_share(make(1250), names=1000, queries=10_000, flood=times)
        for make in (flood.heimdall, flood.plain)
        for times in (0, 10)
    }
    assert shares[flood.heimdall, 0] == shares[flood.plain, 0] > 99
    assert shares[flood.heimdall, 10] > 95
    assert shares[flood.plain, 10] < 80


# Redis that stops, and what it holds


def test_latencies_are_told_apart_by_when_the_breaker_opened() -> None:
    found = Probe([1_000, 2_000, 30_000, 20_000, 3_000, -1, 4_000], 0.7, [0, 1, 2, 3, 4, 5, 6])
    assert phases(found, 2, 4) == {
        "calm_p99_us": 2.0,
        "opening_p99_us": 30.0,
        "after_p50_us": 3.0,
        "after_p99_us": 4.0,
        "lost": 1,
    }
    with pytest.raises(BenchmarkError, match="outside"):
        phases(found, 2, 7)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, f"k{number}-00001.shop.example") for number, kind in enumerate(KINDS)]
)
def test_what_is_weighed_is_an_answer_of_its_kind(kind: tuple[str, str, Sequence[str]], name: str) -> None:
    title, rdtype, lines = kind
    answered = message.from_wire(sizes.answer(message.make_query(name, rdtype).to_wire()))
    assert sum(len(rrset) for rrset in answered.answer) == len(lines)
    assert (answered.rcode() == rcode.NXDOMAIN) == title.startswith("NXDOMAIN") == bool(answered.authority)
    assert any(rrset.rdtype == rdatatype.RRSIG for rrset in answered.answer) == ("signed" in title)


# Results and the report


def results() -> Results:
    rows = [
        Row(HEIMDALL, "heimdall", [{"rate": 90.0, "cpu_us": 8.0}, {"rate": 110.0, "cpu_us": 8.0}]),
        Row("unbound", "peer", [{"rate": 100.0, "cpu_us": 10.0}, {"rate": 100.0, "cpu_us": 10.0}]),
        Row("bare echo", "floor", [{"rate": 200.0, "cpu_us": 4.0}, {"rate": 200.0, "cpu_us": 5.0}]),
    ]
    measured = ScenarioResult(
        name="l1", measured_at="2026-01-02 03:04 UTC", version="1.2.3", rows=rows, notes=["Quiet."]
    )
    absent = ScenarioResult(name="workers", measured_at="2026-01-02 03:05 UTC", version="1.2.3", not_measured="too old")
    machine = {"processor": "Abacus", "cores": "2", "system": "Debian", "kernel": "6"}
    return Results(
        machine, {"heimdall": "1.2.3", "unbound": "9.9"}, {"knot": "not installed"}, {"l1": measured, "workers": absent}
    )


def test_results_survive_their_file_and_carry_medians_and_ratios_for_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    results().save(path)
    assert Results.load(path) == results()
    text = path.read_text()
    assert '"heimdall_to_best_peer"' in text
    assert '"ratio": 0.8' in text


@pytest.mark.parametrize("text", ["", "[]", '{"machine": {}}'])
def test_a_file_without_results_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match="holds no results"):
        Results.load(path)


def test_a_table_shows_medians_and_ratios() -> None:
    table = report.scenario_table(SCENARIOS["l1"], results().scenarios["l1"]).splitlines()
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["heimdall", "100", "8.00", "–", "–"]  # noqa: RUF001
    assert [cell.strip() for cell in table[3].split("|")[1:-1]] == ["unbound", "100", "10.00", "0.80", "1.00"]
    assert len({len(line) for line in table}) == 1


def test_the_floor_is_no_peer_and_its_ratio_is_shown_all_the_same() -> None:
    result = results().scenarios["l1"]
    assert result.best_peer("cpu_us") == ("unbound", 0.8)
    assert (
        report.summary(SCENARIOS["l1"], result) == "Heimdall ÷ best peer: CPU 0.80 (unbound), answers 1.00 (unbound)."
    )


def test_variants_are_compared_with_the_default() -> None:
    rows = [Row(HEIMDALL, "heimdall", [{"cpu_us": 8.0}]), Row("query log", "variant", [{"cpu_us": 16.0}])]
    table = report.scenario_table(SCENARIOS["options"], ScenarioResult("options", "now", "1", rows=rows))
    assert "CPU ÷ default" in table
    assert "2.00" in table


def test_a_document_is_rewritten_between_its_markers_only() -> None:
    document = (
        "Before.\n<!-- benchmark: missing -->\nold\n<!-- end -->\nBetween.\n<!-- benchmark: workers -->\n<!-- end -->\n"
    )
    once = report.rewrite(document, results())
    assert once.startswith("Before.\n<!-- benchmark: missing -->\n- knot: not installed\n<!-- end -->\nBetween.\n")
    assert "Not measured: too old." in once
    assert report.rewrite(once, results()) == once


def test_a_marker_that_means_nothing_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="no block 'l9'"):
        report.rewrite("<!-- benchmark: l9 -->\n<!-- end -->\n", results())


def test_everything_has_one_place_in_the_documents_which_say_what_the_committed_results_say() -> None:
    documents = [path.read_text() for path in DOCUMENTS]
    for name in (*SCENARIOS, "machine", "goals", "missing"):
        assert "".join(documents).count(f"<!-- benchmark: {name} -->\n") == 1
    committed = REPOSITORY / "docs" / "performance" / "results.json"
    if committed.exists():
        assert [report.rewrite(document, Results.load(committed)) for document in documents] == documents


def test_goals_are_judged() -> None:
    words = {goal.text: goals.verdict(goal, results()) for goal in goals.GOALS}
    assert words["L1 hit, CPU ÷ best peer"] == (f"0.80 {figures.TIMES}", "aim met")
    assert words["L1 hit, answers/s ÷ best peer"] == (f"1.00 {figures.TIMES}", "met")
    assert words["L1 hit, CPU ÷ bare echo"][1] == "**missed**"
    assert words["Miss with Redis on loopback"] == (figures.NOTHING, "not measured")


def test_goals_speak_of_scenarios_that_exist() -> None:
    assert {goal.scenario for goal in goals.GOALS} <= set(SCENARIOS)


def test_charts_are_xml_and_write_every_figure_they_draw(tmp_path: Path) -> None:
    written = {path.name: path.read_text() for path in plots.write(results(), tmp_path)}
    assert set(written) == {"l1-cpu.svg", "l1-rate.svg"}
    chart = ET.fromstring(written["l1-cpu.svg"])
    texts = [element.text or "" for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {"8.00", "10.00", "4.50", "unbound 9.9", "heimdall"} <= set(texts)
    assert texts[2:4] == ["bare echo", "4.50"]  # the best one first


def test_text_in_a_chart_is_escaped() -> None:
    chart = svg.shares("a < b", "c & d", ("e",), [svg.Shares("f", (("g", 60.0), ("h", 40.0)))])
    assert ET.fromstring(chart).get("aria-label") == "a < b"


# The command line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "required"),
        (("run", "l9"), "'l9' is no scenario; there are: l1, l1-100k"),
        (("run", "--rounds", "0"), "less than 1"),
        (("run", "--rounds", "many"), "invalid"),
        (("run", "--seconds", "-1"), "not more than 0"),
        (("run", "--seconds", "inf"), "not more than 0"),
        (("run", "--peers", "unbound,bind"), "no such peer: bind"),
    ],
)
def test_a_wrong_argument_is_explained(argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(argv)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_arguments_are_understood() -> None:
    arguments = parser().parse_args(["run", "l1", "miss", "--seconds", "0.5", "--peers", "unbound,knot"])
    assert [scenario.name for scenario in arguments.scenario] == ["l1", "miss"]
    assert (arguments.seconds, arguments.peers) == (0.5, {"unbound", "knot"})


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert parser().parse_args(["list"]).action is not None
    with_handlers_kept(lambda: main(["list"]))
    assert all(f"| {name} " in capsys.readouterr().out for name in ("l1",))


def test_a_report_without_results_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = with_handlers_kept(lambda: main(["report", "--results", str(tmp_path / "none.json")]))
    assert status == 1
    assert capsys.readouterr().err.startswith("benchmarks: ")


def with_handlers_kept(run: Callable[[], int]) -> int:
    """Run what installs signal handlers, and put the test process's own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return run()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


# Processes, the prober and distance: on loopback, for as long as it takes to see them work


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_children_and_their_children_are_ended_when_something_goes_wrong(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; sleep 60 & wait; sleep 60"

    def interrupted() -> None:
        with Nursery(tmp_path, patience=0.2) as nursery:
            child = nursery.start("stubborn", ["sh", "-c", stubborn], cores=os.sched_getaffinity(0))
            assert eventually(lambda: len(child.pids()) == 2)
            pids.extend(child.pids())
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert eventually(lambda: all(map(gone, pids)))


def test_a_child_that_ends_by_itself_is_noticed_with_its_last_words(tmp_path: Path) -> None:
    with Nursery(tmp_path) as nursery:
        child = nursery.start("brief", ["sh", "-c", "echo so long; exit 3"], cores=os.sched_getaffinity(0))
        assert child.wait(10) == 3
        with pytest.raises(BenchmarkError, match="brief ended with status 3: so long"):
            child.check()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Nursery(tmp_path) as nursery, pytest.raises(BenchmarkError, match="ghost cannot be started"):
        nursery.start("ghost", ["no-such-program"], cores=os.sched_getaffinity(0))


def test_cpu_time_is_counted_also_of_children_that_have_ended(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    script = f"{sys.executable} -c '{spin}'; sleep 60"
    with Nursery(tmp_path) as nursery:
        child = nursery.start("busy", ["sh", "-c", script], cores=os.sched_getaffinity(0))
        assert eventually(lambda: child.cpu_seconds() >= 0.2)
        assert child.memory_bytes() > 100_000


def test_the_environment_of_a_child_holds_no_settings_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIMDALL_MIN_TTL", "9")
    with Nursery(tmp_path) as nursery:
        child = nursery.start("env", ["env"], cores=os.sched_getaffinity(0))
        assert child.wait(10) == 0
        assert "HEIMDALL" not in child.log.read_text()


def test_the_prober_times_answers_and_counts_silence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)

        def serve() -> None:
            for number in range(30):
                query, client = server.recvfrom(512)
                if number % 10:
                    server.sendto(delay.answer(query), client)

        thread = threading.Thread(target=serve)
        thread.start()
        found = probe([server.getsockname()[1]], [(0, dns.query("a.example", 0))] * 30, 3000, grace=0.2)
        thread.join()
    assert found.lost == 3
    assert found.nanoseconds[0] < 0 < found.nanoseconds[1]
    assert found.seconds >= 29 / 3000


def run_loop(loop: delay.Loop, stop: threading.Event) -> threading.Thread:
    def run() -> None:
        while not stop.is_set():
            loop.run_once()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_relay_delays_a_round_trip_and_passes_on_the_end() -> None:
    loop, stop = delay.Loop(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as target:
        relay = delay.TcpRelay(loop, 0, target.getsockname()[1], 0.05)
        thread = run_loop(loop, stop)
        with socket.create_connection(relay.listener.getsockname(), timeout=10) as client:
            server, _ = target.accept()
            started = time.perf_counter()
            client.sendall(b"PING")
            assert server.recv(10) == b"PING"
            server.sendall(b"PONG")
            assert client.recv(10) == b"PONG"
            assert 0.05 <= time.perf_counter() - started < 1
            server.close()
            assert client.recv(10) == b""
        stop.set()
        thread.join()
        relay.listener.close()


def test_progress_is_a_line_each_in_a_log() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.scenario = "l1"
    progress.say("starting unbound")
    progress.done()
    assert stream.getvalue() == " 0:00  l1: starting unbound\n"
