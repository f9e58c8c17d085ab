"""The short way from a query to L1 and back gives what the general way gives, or nothing."""

import time

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib import entry as entries
from heimdall_lib.plain import PlainAnswers
from heimdall_lib.query import parse
from tests.properties.strategies import BITS, BYTES, CHECKED, MASKS, NAMES, TTLS, recased
from tests.support import messages
from tests.unit.test_responder import LOCALHOST, House

_FLAGS = st.sampled_from([0x0100, 0x0120, 0x0110, 0x0130, 0x0000, 0x0140, 0x0500, 0x8100])


@st.composite
def usual_queries(draw: st.DrawFn, name: bytes, qtype: int) -> bytes:
    """Draw a query as most clients send it, or nearly so."""
    opts = st.builds(
        messages.opt,
        udp_size=st.sampled_from([0, 512, 1232, 4096]),
        dnssec_ok=BITS,
        version=st.sampled_from([0, 0, 0, 1]),
        options=st.sampled_from([b"", b"", b"", messages.option(3, b"")]),
    )
    data = bytearray(
        messages.assemble(
            recased(name, draw(MASKS)) + qtype.to_bytes(2, "big") + messages.IN.to_bytes(2, "big"),
            additional=draw(st.lists(opts, max_size=1)),
            flags=draw(_FLAGS),
        )
    )
    if draw(st.sampled_from([False] * 9 + [True])):
        data[draw(st.integers(2, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


@CHECKED
@given(
    name=NAMES,
    qtype=st.sampled_from([messages.A, messages.TXT, messages.HTTPS, 97]),
    sizes=st.lists(st.integers(0, 600), min_size=1, max_size=3),
    ttl=TTLS,
    rcode=st.sampled_from([0, 3]),
    authentic=BITS,
    age=st.integers(0, 320),
    transport=st.sampled_from(["udp", "tcp"]),
    data=st.data(),
)
def test_the_short_way_answers_as_the_general_way(
    *,
    name: bytes,
    qtype: int,
    sizes: list[int],
    ttl: int,
    rcode: int,
    authentic: bool,
    age: int,
    transport: str,
    data: st.DataObject,
) -> None:
    house = House()
    asked = data.draw(usual_queries(name, qtype))
    limit, classic = (1232, 512) if transport == "udp" else (65535, 65535)
    plain = PlainAnswers(house.memory, classic=classic, limit=limit, advertised=1232)
    question = name.lower() + qtype.to_bytes(2, "big") + messages.IN.to_bytes(2, "big")
    records = [messages.record(messages.TO_QUESTION, qtype, ttl, bytes(size)) for size in sizes]
    message = bytearray(messages.assemble(question, answer=records, flags=messages.QR | 0x80, rcode=rcode))
    message[3] |= 0x20 if authentic else 0
    offsets, position = [], 12 + len(question)
    for record in records:
        offsets.append(position + 6)
        position += len(record)
    stored_at = time.monotonic() - age - 0.5  # in the middle of a second
    entry = entries.make(bytes(message), tuple(offsets), stored_at=stored_at, lifetime=300.0, stale=86400.0)
    for bits in range(4):
        house.memory.put(question + bytes((bits,)), entry)

    hit = plain.find(asked, time.monotonic())

    if hit is not None:
        query = parse(asked)
        assert query is not None
        assert hit[1:] == (query.key, entry)
        assert age < 270
        assert hit[0] == house.responder.begin(asked, LOCALHOST, transport)


@CHECKED
@given(data=BYTES)
def test_anything_can_be_looked_up(data: bytes) -> None:
    house = House()
    assert PlainAnswers(house.memory, classic=512, limit=1232, advertised=1232).find(data, 0.0) is None
