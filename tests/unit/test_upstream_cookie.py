"""DNS cookies towards an upstream server (RFC 7873): what is sent, and what of a reply is believed."""

import pytest

from heimdall_lib.upstream.cookie import Cookie
from tests.support.messages import EXTENDED_ERROR, TO_QUESTION, TXT, A, assemble, opt, option, question, record

ASKED = question("www.example.com")
ADDRESS = record(TO_QUESTION, A, 300, bytes(4))
COOKIE = 10
SERVERS_HALF = b"the server's"
DAY = 86400.0


def sent(cookie: Cookie, bits: int = 0, now: float = 1.0) -> bytes:
    """The data of the cookie that a query has."""
    return cookie.opt(bits, now)[15:]


def reply(*options: bytes) -> bytes:
    return assemble(ASKED, answer=[ADDRESS], additional=[opt(options=b"".join(options))])


def with_cookie(data: bytes) -> bytes:
    return reply(option(COOKIE, data))


@pytest.fixture
def cookie() -> Cookie:
    """One whose client's half is drawn."""
    made = Cookie(1232)
    made.opt(0, 1.0)
    return made


class TestQueries:
    @pytest.mark.parametrize("bits", [0, 1, 2, 3])
    def test_the_first_has_a_clients_half_alone(self, bits: int) -> None:
        cookie = Cookie(1232)
        record_sent = cookie.opt(bits, 1.0)
        assert record_sent == opt(dnssec_ok=bool(bits & 1), options=option(COOKIE, record_sent[-8:]))

    def test_no_two_servers_get_the_same(self) -> None:
        assert len({sent(Cookie(1232)) for _ in range(10)}) == 10

    def test_it_stays_the_same_for_a_day(self, cookie: Cookie) -> None:
        first = sent(cookie)
        assert sent(cookie, now=DAY) == first
        assert sent(cookie, now=DAY + 1.0) != first

    @pytest.mark.parametrize("bits", [0, 1])
    def test_those_after_a_reply_have_the_servers_half(self, cookie: Cookie, bits: int) -> None:
        client = sent(cookie)
        assert cookie.in_reply(with_cookie(client + SERVERS_HALF))
        assert cookie.opt(bits, 2.0) == opt(dnssec_ok=bool(bits), options=option(COOKIE, client + SERVERS_HALF))

    def test_with_a_new_clients_half_the_servers_is_forgotten(self, cookie: Cookie) -> None:
        cookie.in_reply(with_cookie(sent(cookie) + SERVERS_HALF))
        assert len(sent(cookie, now=DAY + 1.0)) == 8


class TestReplies:
    def test_the_newest_servers_half_counts(self, cookie: Cookie) -> None:
        client = sent(cookie)
        for half in (SERVERS_HALF, b"01234567", b"01234567", bytes(32)):
            assert cookie.in_reply(with_cookie(client + half))
            assert sent(cookie) == client + half

    @pytest.mark.parametrize(
        "data",
        [
            assemble(ASKED, answer=[ADDRESS]),
            reply(),
            reply(option(EXTENDED_ERROR, b"\0\1")),
            assemble(ASKED, answer=[record(TO_QUESTION, TXT, 1, option(COOKIE, bytes(8)))]),
            assemble(ASKED, answer=[record(TO_QUESTION, TXT, 1, option(COOKIE, bytes(8)))], additional=[opt()]),
            with_cookie(bytes(16))[:-1],
            with_cookie(bytes(16))[:11],
        ],
        ids=["no OPT", "no option", "another option", "no OPT but data", "data", "cut short", "no message"],
    )
    def test_a_reply_without_a_cookie(self, cookie: Cookie, data: bytes) -> None:
        assert cookie.in_reply(data) is None

    @pytest.mark.parametrize("where", ["first", "last"])
    def test_a_cookie_among_other_options(self, cookie: Cookie, where: str) -> None:
        client = sent(cookie)
        options = [option(COOKIE, client + SERVERS_HALF), option(EXTENDED_ERROR, b"\0\1")]
        assert cookie.in_reply(reply(*(options if where == "first" else reversed(options))))
        assert sent(cookie) == client + SERVERS_HALF

    def test_of_several_cookies_the_first_counts(self, cookie: Cookie) -> None:
        mine = option(COOKIE, sent(cookie) + SERVERS_HALF)
        assert cookie.in_reply(reply(option(COOKIE, bytes(16)), mine, option(65001, b""))) is False
        assert cookie.in_reply(reply(mine, option(COOKIE, bytes(16)))) is True

    def test_the_clients_half_alone_is_proof_too(self, cookie: Cookie) -> None:
        cookie.in_reply(with_cookie(sent(cookie) + SERVERS_HALF))
        assert cookie.in_reply(with_cookie(sent(cookie)[:8]))
        assert len(sent(cookie)) == 8

    def test_another_clients_half_is_wrong_and_nothing_is_learned_from_it(self, cookie: Cookie) -> None:
        before = sent(cookie)
        assert cookie.in_reply(with_cookie(bytes(8) + SERVERS_HALF)) is False
        assert sent(cookie) == before

    @pytest.mark.parametrize("size", [9, 15, 41, 200])
    def test_a_size_that_no_cookie_has_is_wrong(self, cookie: Cookie, size: int) -> None:
        before = sent(cookie)
        assert cookie.in_reply(with_cookie(before + bytes(size - 8))) is False
        assert sent(cookie) == before
