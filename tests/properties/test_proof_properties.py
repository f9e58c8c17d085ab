"""What holds of the belief in replies over UDP, whatever comes."""

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib.query import cache_key
from heimdall_lib.spelling import mixed
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.proof import Proof
from tests.properties.strategies import BYTES, CHECKED, MASKS, NAMES, NUMBERS, recased
from tests.support.messages import assemble, opt, option

COOKIE = 10
OPTIONS = st.lists(st.tuples(st.sampled_from([3, COOKIE, COOKIE, 15]), st.binary(max_size=45)), max_size=3)


def proven() -> tuple[Proof, bytes]:
    """A server that is known for both proofs, and the client's half of its cookie."""
    proof = Proof("udp://192.0.2.53:53", udp_size=1232, stats=UpstreamStats())
    client = proof.cookie.opt(0, 1.0)[-8:]
    proof.case.seen()
    proof.cookies.seen()
    return proof, client


@CHECKED
@given(name=NAMES, qtype=NUMBERS)
def test_a_question_in_another_case_is_the_same_question(name: bytes, qtype: int) -> None:
    question = name.lower() + qtype.to_bytes(2, "big") + b"\0\1"
    drawn = mixed(question)
    assert cache_key(drawn, dnssec_ok=False, checking_disabled=False)[:-1] == question
    assert drawn[-4:] == question[-4:]


@CHECKED
@given(data=BYTES, question=NAMES)
def test_nothing_without_the_cookie_is_believed(data: bytes, question: bytes) -> None:
    proof, client = proven()
    assert client not in data
    assert not proof.given(data, question + b"\0\1\0\1", cookie=True)


@CHECKED
@given(options=OPTIONS, at=st.integers(0, 3))
def test_a_reply_is_believed_exactly_when_its_first_cookie_is_right(options: list[tuple[int, bytes]], at: int) -> None:
    proof, client = proven()
    asked = b"\3wWw\3Com\0\0\1\0\1"
    encoded = [option(code, data) for code, data in options]
    encoded.insert(at, option(COOKIE, client + b"8 octets"))
    reply = assemble(asked, additional=[opt(options=b"".join(encoded))])
    right = all(code != COOKIE for code, _ in options[:at])
    assert proof.given(reply, asked, cookie=True) is right


@CHECKED
@given(name=NAMES, mask=MASKS)
def test_a_reply_is_believed_exactly_when_its_case_is_right(name: bytes, mask: int) -> None:
    proof, _ = proven()
    sent, echoed = name + b"\0\1\0\1", recased(name, mask) + b"\0\1\0\1"
    assert proof.given(assemble(echoed), sent, cookie=False) is (sent == echoed)
