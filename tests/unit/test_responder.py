"""Query bytes to answer bytes: every response code, every limit, and no exception whatever comes."""

import logging
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.access import AllowList, RateLimiter
from heimdall_lib.errors import NoAnswerError
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.names import ChaosAnswers
from heimdall_lib.popularity import Popularity
from heimdall_lib.query import Query
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.reply import Reply
from heimdall_lib.resolver import Outcome, Resolver, ResolverPolicy
from heimdall_lib.responder import NO_ANSWER, Responder, ResponderPolicy
from heimdall_lib.shared_cache.cache import NoSharedCache
from heimdall_lib.stats import Stats
from tests.fakes import (
    ADDRESS,
    NAME,
    SOA,
    Lines,
    ScriptedUpstreams,
    Threads,
    address_in,
    ask,
    eventually,
    examined,
    good_reply,
    parsed,
    stored,
)
from tests.properties.strategies import BYTES

LOCALHOST = "127.0.0.1"
KEY = parsed().key
EDE_SIZE = 6  # an Extended DNS Error without text


class House:
    """A responder over a resolver over scripted upstream servers."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.memory = MemoryCache(max_entries=100, max_bytes=1_000_000, purge_interval=30, stats=self.stats)
        self.upstreams = ScriptedUpstreams()
        self.spawn = Threads()
        self.resolver = Resolver(
            policy=ResolverPolicy(stale_client_timeout=0.0),
            memory=self.memory,
            shared=NoSharedCache(),
            invalidations=Invalidations(),
            upstreams=self.upstreams,
            spawn=self.spawn,
            stats=self.stats,
        )
        self.responder = Responder(
            policy=ResponderPolicy(
                allow=AllowList((ip_network("127.0.0.0/8"), ip_network("::1/128"))),
                limiter=RateLimiter(rate=0, burst=0),
            ),
            resolver=self.resolver,
            ready={one: ReadyAnswers(self.memory, Popularity(), truncates=one == "udp") for one in ("udp", "tcp")},
            chaos=ChaosAnswers(version="Heimdall 1", server_id="pod-7"),
            stats=self.stats,
        )

    def policy(self, **changes: object) -> None:
        self.responder.configure(replace(self.responder.policy, **changes))  # type: ignore[arg-type]

    def resolve_with(self, outcome: Callable[[], Any]) -> None:
        """Have a resolver that returns what ``outcome`` does."""

        class Scripted(Resolver):
            def __init__(self) -> None:
                pass

            def lookup(self, query: Query) -> None:
                return None

            def resolve(self, query: Query) -> Outcome:
                made: Outcome = outcome()
                return made

        self.responder = Responder(
            policy=self.responder.policy,
            resolver=Scripted(),
            ready={one: ReadyAnswers(self.memory, Popularity(), truncates=one == "udp") for one in ("udp", "tcp")},
            chaos=ChaosAnswers(version="", server_id=""),
            stats=self.stats,
        )

    def at_once(self, data: bytes, *, client: str = LOCALHOST, transport: str = "udp") -> bytes:
        """The answer that needs no waiting."""
        answer = self.responder.begin(data, client, transport)
        assert isinstance(answer, bytes)
        return answer

    def open(self, data: bytes, *, transport: str = "udp") -> Query:
        """The query that has to wait."""
        query = self.responder.begin(data, LOCALHOST, transport)
        assert isinstance(query, Query)
        return query

    def answer(self, data: bytes, *, transport: str = "udp") -> bytes:
        first = self.responder.begin(data, LOCALHOST, transport)
        return first if isinstance(first, bytes) else self.responder.finish(first)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.spawn.join()


def read(answer: bytes) -> dns.message.Message:
    return dns.message.from_wire(answer)


def rcode_of(answer: bytes) -> str:
    return dns.rcode.to_text(read(answer).rcode())


def edes_of(answer: bytes) -> list[tuple[int, str]]:
    options = [option for option in read(answer).options if isinstance(option, dns.edns.EDEOption)]
    return [(int(option.code), option.text or "") for option in options]


def with_opcode(data: bytes, opcode: int) -> bytes:
    return data[:2] + bytes((data[2] | opcode << 3,)) + data[3:]


def many(key: bytes, count: int, *, authority: Sequence[str] = ()) -> Reply:
    return examined(key, *(f"@ 300 A 192.0.2.{number}" for number in range(count)), authority=authority)


class TestAnswers:
    def test_a_query_is_answered_from_upstream_then_from_l1(self, house: House) -> None:
        assert address_in(house.answer(ask())) == ADDRESS
        assert address_in(house.at_once(ask())) == ADDRESS
        assert sum(house.stats.durations["upstream"].counts) == sum(house.stats.durations["l1"].counts) == 1

    def test_the_clients_id_and_its_own_spelling_come_back(self, house: House) -> None:
        data = ask("wWw.eXample.COM.", message_id=0xBEEF)
        for _ in range(2):
            answer = house.answer(data)
            assert answer[:2] == b"\xbe\xef"
            assert answer[12 : 12 + len(data) - 12] == data[12:]

    def test_what_an_answer_says_of_itself(self, house: House) -> None:
        flags = read(house.answer(ask())).flags
        assert flags == dns.flags.QR | dns.flags.RD | dns.flags.RA

    def test_cd_comes_back(self, house: House) -> None:
        assert read(house.answer(ask(flags=dns.flags.RD | dns.flags.CD))).flags & dns.flags.CD

    def test_ttls_have_counted_down(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=100.5, lifetime=300))
        assert read(house.at_once(ask())).answer[0].ttl in (199, 200)

    def test_a_negative_answer(self, house: House) -> None:
        house.upstreams.script = examined(KEY, authority=[f"example.com. 60 SOA {SOA}"], rcode=3)
        answer = read(house.answer(ask()))
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert answer.authority[0].rdtype == dns.rdatatype.SOA

    def test_a_query_without_rd_is_answered_when_l1_has_the_answer(self, house: House) -> None:
        house.answer(ask())
        answer = read(house.at_once(ask(flags=0)))
        assert answer.answer
        assert not answer.flags & dns.flags.RD

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    def test_queries_and_answers_are_counted(self, house: House, transport: str) -> None:
        house.answer(ask(), transport=transport)
        assert house.stats.queries[transport] == sum(house.stats.queries.values()) == 1
        assert house.stats.responses[dns.rcode.NOERROR] == sum(house.stats.responses) == 1


class TestSilence:
    @pytest.mark.parametrize("data", [b"", b"\0" * 11, ask()[:2] + b"\x81" + ask()[3:]], ids=["empty", "11", "QR"])
    def test_what_is_no_query_deserves_none(self, house: House, data: bytes) -> None:
        assert house.at_once(data) == NO_ANSWER
        assert house.stats.dropped["malformed"] == 1
        assert sum(house.stats.responses) == 0

    def test_a_client_without_an_address_is_a_bug_that_costs_one_query(self, house: House) -> None:
        with Lines("heimdall.responder") as lines:
            assert house.at_once(ask(), client="not an address") == NO_ANSWER
        assert list(lines) == ["ERROR a query could not be read"]
        assert house.stats.dropped["malformed"] == 1


class TestErrors:
    def test_no_usable_question(self, house: House) -> None:
        answer = house.at_once(ask()[:20])
        assert rcode_of(answer) == "FORMERR"
        assert answer[4:6] == b"\0\0"

    def test_an_unknown_opcode(self, house: House) -> None:
        answer = house.at_once(with_opcode(ask(), 4))
        assert answer[3] & 0x0F == dns.rcode.NOTIMP
        assert answer[2] >> 3 & 0xF == 4

    def test_a_later_version_of_edns(self, house: House) -> None:
        query = dns.message.from_wire(ask(edns=True))
        query.use_edns(1)
        answer = house.at_once(query.to_wire())
        assert rcode_of(answer) == "BADVERS"
        assert read(answer).edns == 0
        assert house.stats.responses[dns.rcode.BADVERS] == 1

    def test_a_client_that_may_not_ask(self, house: House) -> None:
        assert rcode_of(house.at_once(ask(), client="192.0.2.77")) == "REFUSED"
        assert house.upstreams.asked == []

    def test_a_client_that_may_not_ask_gets_nothing_from_l1(self, house: House) -> None:
        house.answer(ask())
        assert not read(house.at_once(ask(), client="192.0.2.77")).answer

    def test_a_client_that_may_not_ask_learns_of_no_other_error(self, house: House) -> None:
        assert rcode_of(house.at_once(ask()[:20], client="192.0.2.77")) == "REFUSED"

    @pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
    def test_zone_transfers_are_not_supported(self, house: House, rdtype: str) -> None:
        answer = house.at_once(ask(rdtype=rdtype, edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("NOTIMP", [(21, "")])

    def test_opt_is_no_type_to_ask_for(self, house: House) -> None:
        assert rcode_of(house.at_once(ask(rdtype="OPT"))) == "FORMERR"

    def test_a_query_without_rd_that_l1_has_nothing_for(self, house: House) -> None:
        answer = house.at_once(ask(flags=0, edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("REFUSED", [(20, "")])
        assert house.upstreams.asked == []

    @pytest.mark.parametrize(
        "failure", [(22, "no upstream server answered in time"), (23, "upstream network"), (6, "")]
    )
    def test_servfail_says_why(self, house: House, failure: tuple[int, str]) -> None:
        house.upstreams.script = NoAnswerError(*failure)
        answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [failure])
        assert sum(house.stats.durations["upstream"].counts) == 1

    def test_a_remembered_servfail_says_so(self, house: House) -> None:
        house.upstreams.script = NoAnswerError(22, "no upstream server answered in time")
        house.answer(ask())
        answer = house.answer(ask(edns=True))
        assert edes_of(answer) == [(13, ""), (22, "no upstream server answered in time")]
        assert sum(house.stats.durations["l1"].counts) == 1

    def test_a_crash_is_a_servfail(self, house: House) -> None:
        house.upstreams.script = RuntimeError("a bug")
        with Lines("heimdall.resolver"):
            answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [(0, "internal error")])

    def test_a_crash_of_the_resolver_itself_is_one_too(self, house: House) -> None:
        house.resolve_with(lambda: int("no outcome at all"))
        with Lines("heimdall.responder") as lines:
            answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [])
        assert list(lines) == ["ERROR a query could not be answered"]

    def test_a_failure_without_a_reason_is_a_servfail_without_one(self, house: House) -> None:
        house.resolve_with(lambda: Outcome("upstream"))
        answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [])

    def test_a_query_for_which_there_is_no_room(self, house: House) -> None:
        answer = house.responder.shed(house.open(ask(edns=True)))
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [(0, "overloaded")])
        assert house.stats.dropped["overload"] == 1

    @pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.REFUSED])
    def test_errors_are_counted_as_local(self, house: House, rcode: dns.rcode.Rcode) -> None:
        house.at_once(
            {
                dns.rcode.FORMERR: ask(rdtype="OPT"),
                dns.rcode.NOTIMP: ask(rdtype="AXFR"),
                dns.rcode.REFUSED: ask(flags=0),
            }[rcode]
        )
        assert house.stats.responses[rcode] == sum(house.stats.responses) == 1
        assert sum(house.stats.durations["local"].counts) == 1


class TestNoErrorAmplifies:
    """What a forged source address can make Heimdall send is no larger than what was sent to it."""

    @pytest.mark.parametrize("edns", [False, True])
    @pytest.mark.parametrize("name", [".", NAME, "a." * 120 + "example."])
    def test_refusals_to_those_who_may_not_ask(self, house: House, name: str, edns: bool) -> None:
        data = ask(name, edns=edns)
        assert len(house.at_once(data, client="192.0.2.77")) <= len(data)

    @pytest.mark.parametrize("edns", [False, True])
    @pytest.mark.parametrize("cut", range(12, 29))
    def test_format_errors(self, house: House, cut: int, edns: bool) -> None:
        data = ask(edns=edns)[:cut]
        answer = house.at_once(data)
        assert answer[3] & 0x0F == dns.rcode.FORMERR
        assert len(answer) <= len(data)

    def test_a_format_error_after_a_cookie_or_a_keepalive(self, house: House) -> None:
        for option in (b"\0\x0a\0\x0812345678", b"\0\x0b\0\0"):
            data = ask(edns=True)[:-2] + struct.pack("!H", len(option) + 1) + option + b"\0"
            answer = house.at_once(data, transport="tcp")
            assert rcode_of(answer) == "FORMERR"
            assert len(answer) <= len(data)

    def test_a_refusal_of_a_keepalive(self, house: House) -> None:
        data = ask(edns=True)[:-2] + b"\0\4\0\x0b\0\0"
        assert len(house.at_once(data, client="192.0.2.77", transport="tcp")) <= len(data)

    def test_a_format_error_in_the_options(self, house: House) -> None:
        data = ask(edns=True)[:-2] + b"\0\4\0\x0a\0\x09"
        answer = house.at_once(data)
        assert rcode_of(answer) == "FORMERR"
        assert len(answer) <= len(data)

    def test_unknown_opcodes_and_chaos_refusals_and_bad_versions(self, house: House) -> None:
        later = bytearray(ask(edns=True))
        later[-5] = 1
        for data in (with_opcode(ask(), 5), ask(rdclass="CH", edns=True), bytes(later)):
            assert len(house.at_once(data)) <= len(data)

    @pytest.mark.parametrize("data", [ask(flags=0), ask(rdtype="AXFR"), ask(rdtype="OPT")])
    def test_local_errors_without_edns(self, house: House, data: bytes) -> None:
        assert len(house.at_once(data)) <= len(data)

    @pytest.mark.parametrize("data", [ask(flags=0, edns=True), ask(rdtype="AXFR", edns=True)])
    def test_local_errors_with_edns_grow_by_their_explanation_alone(self, house: House, data: bytes) -> None:
        assert len(house.at_once(data)) == len(data) + EDE_SIZE


class TestEdns:
    def test_a_client_without_it_gets_none(self, house: House) -> None:
        assert read(house.answer(ask())).edns == -1
        assert read(house.at_once(ask())).edns == -1

    def test_a_client_with_it_gets_ours(self, house: House) -> None:
        for _ in range(2):
            answer = read(house.answer(ask(edns=True, payload=4096)))
            assert (answer.edns, answer.payload, answer.options) == (0, 1232, ())

    @pytest.mark.parametrize("do", [False, True])
    def test_do_comes_back(self, house: House, do: bool) -> None:
        assert bool(read(house.answer(ask(edns=True, do=do))).ednsflags & dns.flags.DO) is do

    @pytest.mark.parametrize(
        "data",
        [ask(flags=0), ask(rdtype="AXFR"), ask(rdtype="OPT"), ask(rdclass="CH"), with_opcode(ask(), 4), ask()[:20]],
    )
    def test_errors_have_none_for_a_client_without_it(self, house: House, data: bytes) -> None:
        assert house.at_once(data)[10:12] == b"\0\0"

    def test_a_servfail_has_none_for_a_client_without_it(self, house: House) -> None:
        house.upstreams.script = NoAnswerError(22, "why")
        answer = house.answer(ask())
        assert len(answer) == len(ask())

    def test_an_unknown_option_is_ignored(self, house: House) -> None:
        query = dns.message.from_wire(ask())
        query.use_edns(
            0,
            options=[
                dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"what"),
                dns.edns.GenericOption(dns.edns.OptionType.ECS, b"\0\1\0\0"),
            ],
        )
        assert read(house.answer(query.to_wire())).options == ()

    def test_a_cookie_comes_back_with_the_servers_half_on_a_miss_a_hit_and_an_error(self, house: House) -> None:
        cookies = []
        for data in (ask(), ask(), ask(rdtype="AXFR")):
            query = dns.message.from_wire(data)
            query.use_edns(0, options=[dns.edns.CookieOption(b"12345678", b"")])
            cookies.append(read(house.answer(query.to_wire())).options[-1].to_wire())
        assert [cookie[:8] for cookie in cookies] == [b"12345678"] * 3
        assert len({cookie[8:] for cookie in cookies}) == 1

    def test_who_may_not_ask_gets_no_cookie(self, house: House) -> None:
        query = dns.message.from_wire(ask())
        query.use_edns(0, options=[dns.edns.CookieOption(b"12345678", b"")])
        answer = house.at_once(query.to_wire(), client="192.0.2.1")
        assert read(answer).options == ()
        assert len(answer) <= len(query.to_wire())

    def test_a_keepalive_is_answered_over_tcp_alone(self, house: House) -> None:
        house.policy(tcp_idle_timeout=2.5)
        query = dns.message.from_wire(ask())
        query.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")])
        for _ in ("miss", "hit"):
            (option,) = read(house.answer(query.to_wire(), transport="tcp")).options
            assert option.to_wire() == b"\0\x19"
            assert read(house.answer(query.to_wire(), transport="udp")).options == ()
        assert read(house.answer(ask(edns=True), transport="tcp")).options == ()


class TestAuthenticData:
    @pytest.mark.parametrize(
        ("data", "shown"),
        [
            (ask(), False),
            (ask(edns=True), False),
            (ask(do=True), True),
            (ask(flags=dns.flags.RD | dns.flags.AD), True),
        ],
        ids=["neither", "EDNS", "DO", "AD"],
    )
    def test_it_is_shown_to_those_who_asked_for_it(self, house: House, data: bytes, shown: bool) -> None:
        key = parsed(data).key
        reply = good_reply(key)
        message = bytearray(reply.message)
        message[3] |= wire.AD
        house.upstreams.script = reply._replace(message=bytes(message))
        for _ in range(2):
            assert bool(read(house.answer(data)).flags & dns.flags.AD) is shown

    def test_it_is_shown_to_nobody_when_upstream_did_not_say_so(self, house: House) -> None:
        assert not read(house.answer(ask(do=True))).flags & dns.flags.AD


class TestSizes:
    def test_512_bytes_without_edns(self, house: House) -> None:
        house.upstreams.script = lambda key: many(key, 60)
        for _ in range(2):
            answer = house.answer(ask())
            assert 480 < len(answer) <= 512
            assert read(answer).flags & dns.flags.TC
            assert 25 < len(read(answer).answer[0]) < 60

    @pytest.mark.parametrize(("payload", "limit"), [(0, 512), (512, 512), (700, 700), (1232, 1232), (4096, 1232)])
    def test_the_lesser_of_the_clients_size_and_ours(self, house: House, payload: int, limit: int) -> None:
        house.upstreams.script = lambda key: many(key, 200)
        answer = house.answer(ask(edns=True, payload=payload))
        assert limit - 16 <= len(answer) <= limit
        assert read(answer).flags & dns.flags.TC
        assert read(answer).edns == 0

    def test_ours_may_be_larger(self, house: House) -> None:
        house.policy(udp_size=4096)
        house.upstreams.script = lambda key: many(key, 200)
        answer = house.answer(ask(edns=True, payload=4096))
        assert len(read(answer).answer[0]) == 200
        assert read(answer).payload == 4096

    def test_tcp_has_it_whole(self, house: House) -> None:
        house.upstreams.script = lambda key: many(key, 250)
        for data in (ask(), ask(edns=True, payload=512)):
            answer = read(house.answer(data, transport="tcp"))
            assert len(answer.answer[0]) == 250
            assert not answer.flags & dns.flags.TC

    @pytest.mark.parametrize(("spare", "cut"), [(1, False), (0, False), (-1, True)])
    def test_what_fits_exactly_is_not_cut(self, house: House, spare: int, cut: bool) -> None:
        strings = ["x" * 200, "y" * 200, "z" * (512 - spare - 12 - 21 - 12 - 201 - 201 - 1)]
        text = " ".join(f'"{string}"' for string in strings)
        house.upstreams.script = lambda key: examined(key, f"@ 300 TXT {text}")
        answer = house.answer(ask(rdtype="TXT"))
        assert bool(read(answer).flags & dns.flags.TC) is cut
        assert len(answer) == (33 if cut else 512 - spare)

    def test_an_error_with_a_long_explanation_stays_within_the_limit(self, house: House) -> None:
        house.upstreams.script = NoAnswerError(22, "x" * 600)
        assert len(house.answer(ask(edns=True, payload=4096))) <= 1232


class TestStale:
    @pytest.fixture(autouse=True)
    def _failing(self, house: House) -> None:
        house.upstreams.script = NoAnswerError(22, "no upstream server answered in time")

    def test_a_stale_answer_says_so_and_carries_a_short_ttl(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("NOERROR", [(3, "")])
        assert read(answer).answer[0].ttl == 30
        assert house.stats.cache_stale_answers == 1
        assert sum(house.stats.durations["stale"].counts) == 1

    def test_for_want_of_room_it_is_answered_stale_or_not_at_all(self, house: House) -> None:
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        known, unknown = (parsed(ask(name, edns=True)) for name in ("www.example.com.", "other.example.com."))
        answer = house.responder.shed(known)
        assert (rcode_of(answer), edes_of(answer)) == ("NOERROR", [(3, "")])
        answer = house.responder.shed(unknown)
        assert (rcode_of(answer), edes_of(answer)) == ("SERVFAIL", [(0, "overloaded")])
        assert house.stats.dropped["overload"] == 2
        assert house.upstreams.asked == []

    def test_so_does_a_stale_nxdomain(self, house: House) -> None:
        reply = examined(KEY, authority=[f"example.com. 60 SOA {SOA}"], rcode=3)
        at = time.monotonic() - 100
        house.memory.put(KEY, entries.make(reply.message, reply.ttl_offsets, stored_at=at, lifetime=60, stale=86400))
        answer = house.answer(ask(edns=True))
        assert (rcode_of(answer), edes_of(answer)) == ("NXDOMAIN", [(19, "")])
        assert read(answer).authority[0].ttl == 30

    def test_the_ttl_is_the_operators_choice(self, house: House) -> None:
        house.policy(stale_reply_ttl=7)
        house.memory.put(KEY, stored(KEY, age=400, lifetime=300, stale=86400))
        answer = house.answer(ask())
        assert read(answer).answer[0].ttl == 7
        assert edes_of(answer) == []


class TestChaos:
    @pytest.mark.parametrize(
        ("name", "text"), [("version.bind.", "Heimdall 1"), ("ID.server.", "pod-7"), ("hostname.bind.", "pod-7")]
    )
    def test_what_heimdall_says_of_itself(self, house: House, name: str, text: str) -> None:
        answer = read(house.at_once(ask(name, "TXT", rdclass="CH")))
        assert answer.answer[0][0].to_text() == f'"{text}"'
        assert sum(house.stats.durations["local"].counts) == 1

    def test_other_names_are_refused(self, house: House) -> None:
        assert rcode_of(house.at_once(ask("authors.bind.", "TXT", rdclass="CH"))) == "REFUSED"
        assert house.upstreams.asked == []

    @pytest.mark.parametrize("name", ["id.server.", "authors.bind."])
    def test_a_probe_is_no_miss(self, house: House, name: str) -> None:
        house.at_once(ask(name, "TXT", rdclass="CH"))
        assert (house.stats.cache_hits, house.stats.cache_misses) == (0, 0)


class TestRateLimit:
    @pytest.fixture(autouse=True)
    def _two_at_once(self, house: House) -> None:
        house.policy(limiter=RateLimiter(rate=0.001, burst=2))
        house.answer(ask())
        house.answer(ask())

    def test_every_second_query_beyond_it_is_answered_with_tc(self, house: House) -> None:
        answers = [house.at_once(ask()) for _ in range(4)]
        assert [bool(answer) for answer in answers] == [False, True, False, True]
        answer = read(answers[1])
        assert answer.flags & dns.flags.TC
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert len(answers[1]) <= len(ask())
        assert house.stats.dropped["rate_limit"] == 4

    def test_each_client_is_told_in_its_turn(self, house: House) -> None:
        for client in ("127.0.0.8", "127.0.0.9"):
            for _ in range(2):
                house.responder.begin(ask(), client, "udp")
        found = [(house.at_once(ask(), client="127.0.0.8"), house.at_once(ask(), client="127.0.0.9")) for _ in range(2)]
        assert [list(map(bool, pair)) for pair in found] == [[False, False], [True, True]]

    def test_over_tcp_it_is_answered_and_has_a_rate_of_its_own(self, house: House) -> None:
        answers = [house.at_once(ask(), transport="tcp") for _ in range(4)]
        assert [bool(answer) for answer in answers] == [True, True, False, False]
        assert address_in(answers[0]) == ADDRESS

    def test_it_concerns_hits_that_are_ready_and_misses_alike(self, house: House) -> None:
        assert house.responder.ready([(ask(), LOCALHOST)], str, "udp") == ([], [(ask(), LOCALHOST)])
        assert house.at_once(ask("elsewhere.example.org.")) == NO_ANSWER
        assert house.stats.dropped["rate_limit"] == 1
        assert len(house.upstreams.asked) == 1

    def test_tokens_come_back(self, house: House) -> None:
        house.policy(limiter=RateLimiter(rate=10, burst=1))
        eventually(lambda: not house.at_once(ask()))
        eventually(lambda: house.at_once(ask())[6:8] == b"\0\1")

    def test_what_is_said_with_tc_is_no_larger_than_the_query(self, house: House) -> None:
        query = dns.message.from_wire(ask(edns=True))
        query.use_edns(0, options=[dns.edns.CookieOption(b"12345678", b"")])
        answers = [house.at_once(query.to_wire()) for _ in range(4)]
        assert max(map(len, answers)) <= len(query.to_wire())

    def test_other_clients_are_not_concerned(self, house: House) -> None:
        assert address_in(house.at_once(ask(), client="127.0.0.2")) == ADDRESS

    def test_a_query_that_waits_has_been_counted_already(self, house: House) -> None:
        query = house.responder.begin(ask(rdtype="MX"), "127.0.0.3", "udp")
        assert isinstance(query, Query)


class TestQueryLog:
    def test_it_is_off_unless_asked_for(self, house: House) -> None:
        with Lines("heimdall.query") as lines:
            house.answer(ask())
        assert list(lines) == []

    def test_one_line_a_query(self, house: House) -> None:
        house.policy(query_log=True)
        with Lines("heimdall.query") as lines:
            house.answer(ask("WWW.example.com."), transport="tcp")
            house.answer(ask("WWW.example.com."))
        assert [record.levelno for record in lines.records] == [logging.INFO] * 2
        first, second = (vars(record)["query"] for record in lines.records)
        microseconds = first.pop("microseconds")
        assert 0 <= microseconds < 10_000_000
        assert first == {
            "client": LOCALHOST,
            "transport": "tcp",
            "name": "www.example.com",
            "type": "A",
            "class": "IN",
            "rcode": "NOERROR",
            "source": "upstream",
        }
        assert (second["transport"], second["source"]) == ("udp", "l1")
        assert lines.records[0].getMessage() == (
            "query client=127.0.0.1 transport=tcp name=www.example.com type=A class=IN rcode=NOERROR "
            f"source=upstream microseconds={microseconds}"
        )

    def test_errors_are_logged_too(self, house: House) -> None:
        house.policy(query_log=True)
        with Lines("heimdall.query") as lines:
            house.at_once(ask(), client="192.0.2.77")
            house.at_once(ask()[:20])
        first, second = (vars(record)["query"] for record in lines.records)
        assert (first["client"], first["name"], first["rcode"]) == ("192.0.2.77", "www.example.com", "REFUSED")
        assert (second["name"], second["rcode"], second["source"]) == ("-", "FORMERR", "local")

    def test_a_name_cannot_forge_a_field(self, house: House) -> None:
        house.policy(query_log=True)
        with Lines("heimdall.query") as lines:
            house.answer(ask(r"a\032rcode=REFUSED\010.example.com."))
        assert "name=a\\032rcode\\061refused\\010.example.com type=A" in next(iter(lines))


VALID = [
    ask(),
    ask(edns=True),
    ask(do=True, flags=dns.flags.RD | dns.flags.CD),
    ask(flags=0, edns=True),
    ask("version.bind.", "TXT", rdclass="CH"),
    ask(rdtype="AXFR"),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A query with some octets changed, cut off or added."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=8))


class TestWhateverComes:
    @settings(derandomize=True, deadline=None, max_examples=600)
    @given(data=st.one_of(st.binary(max_size=80), damaged()), transport=st.sampled_from(("udp", "tcp")))
    def test_begin_and_finish_return_bytes_that_answer(self, data: bytes, transport: str) -> None:
        house = House()
        with Lines("heimdall.responder") as lines:
            first = house.responder.begin(data, LOCALHOST, transport)
            answer = first if isinstance(first, bytes) else house.responder.finish(first)
        assert list(lines) == []
        if not answer:
            assert len(data) < 12 or data[2] & 0x80
            return
        assert answer[:2] == data[:2]
        assert answer[2] & 0x80
        assert answer[2] & 0x78 == data[2] & 0x78
        end = wire.question_end(answer) if answer[4:6] == b"\0\1" else 12
        assert answer[12:end] == (data[12:end] if end > 12 else b"")
        kinds = [record.type for record in wire.records(answer, end)]
        assert kinds.count(wire.TYPE_OPT) <= (wire.TYPE_OPT.to_bytes(2) in data)
        if answer[3] & 0x0F in (wire.FORMERR, wire.NOTIMP, wire.REFUSED) and wire.TYPE_OPT not in kinds:
            assert len(answer) <= len(data)
        assert sum(house.stats.responses) == 1

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(data=st.one_of(BYTES, damaged()), transport=st.sampled_from(("udp", "tcp")))
    def test_a_stranger_gets_no_more_than_was_sent(self, data: bytes, transport: str) -> None:
        house = House()
        assert len(house.at_once(data, client="192.0.2.77", transport=transport)) <= len(data)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(data=st.one_of(BYTES, damaged()), transport=st.sampled_from(("udp", "tcp")))
    def test_who_cannot_be_understood_gets_no_more_than_was_sent(self, data: bytes, transport: str) -> None:
        answer = House().responder.begin(data, LOCALHOST, transport)
        if isinstance(answer, bytes) and answer and rcode_of(answer) == "FORMERR":
            assert len(answer) <= len(data)

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(data=st.one_of(BYTES, damaged()))
    def test_who_is_over_his_rate_gets_no_more_than_was_sent(self, data: bytes) -> None:
        house = House()
        house.policy(limiter=RateLimiter(rate=1e-9, burst=1))
        house.responder.begin(ask(), LOCALHOST, "udp")
        assert all(len(house.at_once(data)) <= len(data) for _ in range(2))

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(name=st.binary(min_size=1, max_size=63))
    def test_any_octets_make_a_name(self, name: bytes) -> None:
        house = House()
        question = struct.pack("!B", len(name)) + name + b"\0\0\1\0\1"
        data = ask()[:12] + question
        assert address_in(house.answer(data)) == ADDRESS
        assert house.at_once(data)[12 : 12 + len(question)] == question


def test_a_reloaded_policy_counts_from_the_next_query_on(house: House) -> None:
    house.policy(allow=AllowList(()))
    assert rcode_of(house.at_once(ask())) == "REFUSED"


def test_prefetch_keeps_a_popular_answer_fresh_without_delaying_it(house: House) -> None:
    house.memory.put(KEY, stored(KEY, age=290, lifetime=300))
    assert read(house.at_once(ask())).answer[0].ttl <= 10
    eventually(lambda: read(house.at_once(ask())).answer[0].ttl > 200)
