"""Which replies over UDP are believed, by what the server has given back before."""

from collections.abc import Iterator

import pytest

from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.proof import Proof
from tests.fakes import Lines
from tests.support.messages import TO_QUESTION, A, assemble, opt, option, question, record

LOWER = question("www.example.com")
SENT = question("WwW.eXamPle.cOM")
ADDRESS = record(TO_QUESTION, A, 300, bytes(4))
HEADER_ALONE = bytes((0, 0, 0x80, 1)) + bytes(8)
COOKIE = 10


class Server:
    """Replies as it is told to, and what comes of it."""

    def __init__(self) -> None:
        self.stats = UpstreamStats()
        self.proof = Proof("udp://192.0.2.53:53", udp_size=1232, stats=self.stats)
        self.client = self.proof.cookie.opt(0, 1.0)[-8:]

    def believed(
        self, asked: bytes = SENT, cookie: bytes | None = None, *, sent: bytes = SENT, edns: bool = True
    ) -> bool:
        options = b"" if cookie is None else option(COOKIE, cookie)
        reply = assemble(asked, answer=[ADDRESS], additional=[opt(options=options)])
        return self.proof.given(reply, sent, cookie=edns)

    def times(self, count: int, asked: bytes = SENT, cookie: bytes | None = None) -> list[bool]:
        return [self.believed(asked, cookie) for _ in range(count)]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.upstream") as found:
        yield found


class TestCase:
    def test_a_question_is_sent_in_any_case(self, server: Server) -> None:
        drawn = {server.proof.question(LOWER, 1.0) for _ in range(50)}
        assert len(drawn) > 40
        assert {one.lower() for one in drawn} == {LOWER}

    def test_a_reply_in_the_same_case_is_believed(self, server: Server) -> None:
        assert server.believed()
        assert server.proof.case.kept
        assert server.stats.failures == {}

    def test_one_that_hit_upon_few_letters_is_believed_and_says_nothing_of_the_server(self, server: Server) -> None:
        assert server.believed(LOWER, sent=LOWER)
        assert not server.proof.case.kept
        assert not server.proof.case.given_up

    def test_of_a_server_that_never_did_so_two_are_not_believed(self, server: Server, lines: Lines) -> None:
        assert server.times(5, LOWER) == [False, False, True, True, True]
        assert server.stats.failures == {"case": 2}
        assert server.stats.lower_case
        assert list(lines) == [
            "WARNING upstream udp://192.0.2.53:53 does not repeat the case of a question: asked in lower case for now"
        ]

    def test_such_a_server_is_asked_in_lower_case_for_a_while(self, server: Server) -> None:
        server.times(3, LOWER)
        until = server.proof.case.spared_until
        assert {server.proof.question(LOWER, until - 1.0) for _ in range(20)} == {LOWER}
        assert len({server.proof.question(LOWER, until) for _ in range(20)}) > 10

    def test_being_tried_again_in_vain_is_not_logged_again(self, server: Server, lines: Lines) -> None:
        server.times(3, LOWER)
        server.proof.case.spared_until = 1.0
        assert server.believed(LOWER)
        assert len(list(lines)) == 1
        assert server.stats.failures == {"case": 2}

    def test_a_server_that_does_so_after_all_is_asked_in_any_case_again(self, server: Server) -> None:
        server.times(3, LOWER)
        assert server.believed()
        assert not server.stats.lower_case
        assert len({server.proof.question(LOWER, 1.0) for _ in range(20)}) > 10

    def test_a_server_that_did_so_before_is_not_believed_at_once(self, server: Server) -> None:
        server.believed()
        assert not any(server.times(10, LOWER))
        assert server.stats.failures == {"case": 10}

    def test_a_header_alone_has_no_case(self, server: Server) -> None:
        assert server.proof.given(HEADER_ALONE, SENT, cookie=True)
        assert not server.proof.case.kept
        assert not server.proof.case.given_up

        server.believed()
        assert server.proof.given(HEADER_ALONE, SENT, cookie=True)
        assert server.stats.failures == {}

    def test_a_header_alone_has_no_cookie_either(self, server: Server) -> None:
        server.believed(cookie=server.client + bytes(8))
        assert not server.proof.given(HEADER_ALONE, SENT, cookie=True)


class TestCookies:
    def test_without_any_a_server_is_believed(self, server: Server) -> None:
        assert server.believed(cookie=None)
        assert not server.stats.cookies
        assert not server.proof.cookies.given_up

    def test_the_right_one_is_believed(self, server: Server) -> None:
        assert all(server.times(2, cookie=server.client + bytes(8)))
        assert server.stats.cookies

    def test_a_wrong_one_is_not_believed(self, server: Server) -> None:
        assert not server.believed(cookie=bytes(16))
        assert server.stats.failures == {"cookie": 1}
        assert not server.stats.cookies
        assert not server.proof.cookies.given_up

    def test_a_server_that_gave_one_is_not_believed_without(self, server: Server) -> None:
        server.believed(cookie=server.client + bytes(8))
        assert server.times(3) == [False] * 3
        assert server.stats.failures == {"cookie": 3}

    def test_a_server_that_has_stopped_is_believed_in_the_end(self, server: Server, lines: Lines) -> None:
        server.believed(cookie=server.client + bytes(8))
        assert server.times(31) == [False] * 29 + [True] * 2
        assert not server.stats.cookies
        assert list(lines) == [
            "WARNING upstream udp://192.0.2.53:53 does not return DNS cookies as it should: asked without for now"
        ]

    def test_where_none_was_sent_none_is_expected(self, server: Server) -> None:
        server.believed(cookie=server.client + bytes(8))
        assert server.believed(edns=False)

    def test_the_right_one_does_not_make_up_for_the_wrong_case(self, server: Server) -> None:
        assert not server.believed(LOWER, server.client + bytes(8))
        assert not server.stats.cookies
        assert not server.proof.cookies.given_up
