"""What the data of the oldest record types must look like."""

import pytest

from heimdall_lib import rdata, wire
from heimdall_lib.errors import WireError
from tests.support.messages import TO_QUESTION, A, assemble, question, record, soa_data

NUMBERS = bytes(20)


def check(rtype: int, data: bytes) -> None:
    message = assemble(question("www.example.com"), answer=[record(TO_QUESTION, rtype, 1, data)])
    (found,) = wire.records(message, wire.question_end(message))
    rdata.check(message, found)


@pytest.mark.parametrize(
    ("rtype", "data"),
    [
        (A, bytes(4)),
        (28, bytes(16)),
        (2, b"\2ns\xc0\x10"),
        (5, b"\0"),
        (12, TO_QUESTION),
        (39, b"\1a\0"),
        (6, soa_data(1, primary=TO_QUESTION, mailbox=b"\1m\xc0\x10")),
        (15, b"\0\x0a" + TO_QUESTION),
        (33, bytes(6) + b"\1a\0"),
    ],
)
def test_data_of_the_right_shape_passes_and_an_octet_more_or_less_does_not(rtype: int, data: bytes) -> None:
    check(rtype, data)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(WireError):
            check(rtype, wrong)


@pytest.mark.parametrize("target", [0, 11, 200], ids=["header", "end of the header", "forward"])
@pytest.mark.parametrize(("rtype", "before", "after"), [(2, b"", b""), (6, b"\0", NUMBERS), (15, b"\0\1", b"")])
def test_a_pointer_only_points_backwards(rtype: int, before: bytes, after: bytes, target: int) -> None:
    with pytest.raises(WireError):
        check(rtype, before + bytes((0xC0, target)) + after)


@pytest.mark.parametrize("rtype", [128, 249, 250, 255])
def test_a_meta_type_is_no_data(rtype: int) -> None:
    with pytest.raises(WireError):
        check(rtype, b"")


@pytest.mark.parametrize("rtype", [0, 16, 46, 65, 127, 256, 65280])
def test_other_types_are_opaque(rtype: int) -> None:
    for data in (b"", b"\xc0\xff", bytes(300)):
        check(rtype, data)
