"""What holds of examined replies and their lifetimes, whatever an upstream sends."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_lib.errors import WireError
from heimdall_lib.lifetime import TtlPolicy, bounded_message, lifetime
from heimdall_lib.reply import Kind, Reply, _any, _plain, examine, has_opt
from heimdall_lib.wire import is_reply_to, name_end
from tests.properties.strategies import BYTES, CHECKED, COPIED, MASKS, Copied, Echoed, Made, common_replies, replies
from tests.support.messages import EXTENDED_ERROR, counts_of, opt, option

FAILURES = {1, 2, 4, 5}
SECONDS = st.integers(0, 200000)
POLICIES = st.builds(TtlPolicy, min_ttl=SECONDS, max_ttl=SECONDS, max_negative_ttl=SECONDS).filter(
    lambda policy: policy.min_ttl <= policy.max_ttl
)


def examined(made: Made) -> Reply:
    question = made.question[:-4].lower() + made.question[-4:]
    return examine(made.message(), question)


@CHECKED
@given(data=BYTES)
def test_examining_anything_fails_with_a_wire_error_or_not_at_all(data: bytes) -> None:
    with suppress(WireError):
        examine(data, data[12:17])


@CHECKED
@given(data=BYTES)
def test_looking_for_edns_in_anything_never_fails(data: bytes) -> None:
    assert has_opt(data) in {True, False}


@CHECKED
@given(made=replies())
def test_records_pass_through_octet_by_octet(made: Made) -> None:
    reply = examined(made)
    if made.rcode in FAILURES:
        assert (reply.kind, reply.message) == (Kind.FAILURE, b"")
    else:
        expected = [in_the_case_kept(record, made.question[:-4].lower()) for _, record in made.records]
        assert reply.message[12 + len(made.question) :] == b"".join(expected)
        assert reply.ttl_offsets == made.ttl_offsets
        assert reply.message[4:12] == made.message()[4:12]


def in_the_case_kept(record: bytes, asked: bytes) -> bytes:
    """Return a record as it is kept: an owner that is the name asked for, or above it, is in lower case."""
    end = name_end(record, 0) if record[0] < 0xC0 else 2
    owner = record[:end]
    return (owner.lower() if asked.endswith(owner.lower()) else owner) + record[end:]


@CHECKED
@given(copied=COPIED, one=MASKS, other=MASKS)
def test_what_is_kept_does_not_depend_on_the_case_in_which_it_was_asked_for(
    copied: Copied, one: int, other: int
) -> None:
    assert examine(copied.message(one), copied.question) == examine(copied.message(other), copied.question)


@CHECKED
@given(made=replies(), text=st.binary(max_size=30))
def test_what_is_kept_says_nothing_of_the_hop_it_came_over(made: Made, text: bytes) -> None:
    asked = made.question[:-4].lower() + made.question[-4:]
    with_opt = made.message(opt(dnssec_ok=True, options=option(EXTENDED_ERROR, b"\0\0" + text)))

    reply = examine(with_opt, asked)

    assert not has_opt(reply.message)
    assert reply.message == examine(made.message(), asked).message


@CHECKED
@given(made=replies())
def test_what_is_kept_is_the_same_when_it_is_examined_again(made: Made) -> None:
    reply = examined(made)
    if reply.kind is not Kind.FAILURE:
        assert examine(reply.message, reply.message[12 : 12 + len(made.question)]) == reply


@CHECKED
@given(made=replies(), policy=POLICIES)
def test_a_lifetime_is_within_the_policy(made: Made, policy: TtlPolicy) -> None:
    reply = examined(made)
    seconds = lifetime(reply, policy)
    if reply.ttl is None:
        assert seconds == 0
    elif reply.kind is Kind.ANSWER:
        assert policy.min_ttl <= seconds <= policy.max_ttl
    else:
        assert 0 <= seconds <= min(reply.ttl, policy.max_negative_ttl)


@CHECKED
@given(made=replies(), policy=POLICIES)
def test_bounding_the_ttls_changes_the_ttls_alone_and_leaves_none_above_the_bound(
    made: Made, policy: TtlPolicy
) -> None:
    reply = examined(made)
    message = bytearray(bounded_message(reply, policy))
    for offset in reply.ttl_offsets:
        ttl = int.from_bytes(message[offset : offset + 4], "big")
        assert ttl <= (max(policy.max_ttl, lifetime(reply, policy)))
        message[offset : offset + 4] = reply.message[offset : offset + 4]
    assert message == reply.message


@CHECKED
@given(made=replies(), policy=POLICIES)
def test_no_answer_that_is_cached_tells_a_ttl_below_its_lifetime_nor_a_negative_one_above(
    made: Made, policy: TtlPolicy
) -> None:
    reply = examined(made)
    seconds = lifetime(reply, policy)
    message = bounded_message(reply, policy)
    ttls = [int.from_bytes(message[offset : offset + 4], "big") for offset in reply.ttl_offsets]
    if reply.ttl is not None and reply.kind is Kind.ANSWER:
        assert min(ttls) == seconds
    elif reply.ttl is not None:
        assert max(ttls) <= seconds


@CHECKED
@given(made=replies())
def test_the_counts_of_what_is_kept_are_those_of_its_records(made: Made) -> None:
    reply = examined(made)
    if reply.message:
        assert counts_of(reply.message) == (1, *(len(section) for section in made.sections))


def read(data: bytes, question: bytes) -> Reply | None:
    """Read a reply the long way, which knows all of them; None is one that is not well-formed."""
    try:
        return _any(data, question)
    except WireError:
        return None


def test_the_short_way_reads_what_the_long_way_reads() -> None:
    ways = [0, 0, 0]

    @settings(CHECKED, max_examples=1000)
    @given(echoed=common_replies())
    def check(echoed: Echoed) -> None:
        assert is_reply_to(echoed.message, echoed.question)
        short, long = _plain(echoed.message, echoed.question), read(echoed.message, echoed.question)
        assert short is None or short == long
        ways[0 if short else 1 if long else 2] += 1

    check()
    assert min(ways) > 100, "too few of one sort to tell"


@CHECKED
@given(made=replies())
def test_any_reply_is_read_as_the_long_way_reads_it(made: Made) -> None:
    question = made.question[:-4].lower() + made.question[-4:]
    assert examine(made.message(), question) == _any(made.message(), question)
