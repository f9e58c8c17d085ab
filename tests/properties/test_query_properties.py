"""What holds of queries and of cache keys, whatever the bytes."""

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib.query import Query, cache_key, parse, question_of
from tests.properties.strategies import BITS, BYTES, CHECKED, LABELS, MASKS, NAMES, NUMBERS, queries, recased, wire
from tests.support.messages import assemble, opt

FEW_LABELS = st.sampled_from([b"a", b"A", b"@", b"b", b"ab", b"aB", b"\xe1", b"\xc1"])
FEW_NAMES = st.lists(FEW_LABELS, max_size=2).map(wire)
FEW_NUMBERS = st.sampled_from([1, 65, 97, 0x4100, 0x6100, 0x4161, 0x6141])
ASKED = st.tuples(FEW_NAMES, FEW_NUMBERS, FEW_NUMBERS, BITS, BITS)
Asked = tuple[bytes, int, int, bool, bool]


def key_of(name: bytes, qtype: int, qclass: int, dnssec_ok: bool, checking_disabled: bool) -> bytes:
    data = assemble(
        name + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big"),
        additional=[opt(dnssec_ok=True)] if dnssec_ok else [],
        flags=0x0110 if checking_disabled else 0x0100,
    )
    query = parse(data)
    assert query is not None
    assert query.problem is None
    return query.key


@CHECKED
@given(data=BYTES)
def test_any_datagram_is_a_query_or_deserves_silence(data: bytes) -> None:
    assert isinstance(parse(data), Query | None)


@CHECKED
@given(data=st.one_of(BYTES, queries()))
def test_a_query_without_a_problem_has_a_key_and_a_question_out_of_its_own_bytes(data: bytes) -> None:
    query = parse(data)
    if query is not None and query.problem is None:
        assert query.question == data[12 : 12 + len(query.question)]
        assert question_of(query.key) == query.question[:-4].lower() + query.question[-4:]
        assert query.udp_size >= 512


@CHECKED
@given(first=ASKED, second=ASKED)
def test_two_queries_share_a_key_only_if_they_ask_the_same(first: Asked, second: Asked) -> None:
    same = first[0].lower() == second[0].lower() and first[1:] == second[1:]
    assert (key_of(*first) == key_of(*second)) is same


@CHECKED
@given(name=NAMES, mask=MASKS, rest=st.tuples(NUMBERS, NUMBERS, BITS, BITS))
def test_case_alone_never_separates_two_keys(name: bytes, mask: int, rest: tuple[int, int, bool, bool]) -> None:
    assert key_of(recased(name, mask), *rest) == key_of(name, *rest)


@CHECKED
@given(labels=st.lists(LABELS, max_size=3), qtype=NUMBERS, other=NUMBERS)
def test_two_types_never_share_a_key(labels: list[bytes], qtype: int, other: int) -> None:
    keys = {
        cache_key(
            wire(labels) + number.to_bytes(2, "big") + b"\0\1",
            dnssec_ok=False,
            checking_disabled=False,
        )
        for number in (qtype, other)
    }
    assert len(keys) == len({qtype, other})
