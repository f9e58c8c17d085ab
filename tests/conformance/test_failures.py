"""When upstream fails: how long that is remembered, how often it is tried, and what serves meanwhile."""

import pytest

from tests.conformance.replies import assembled
from tests.support import messages
from tests.support.client import addresses, extended_errors, rcode, ttl
from tests.support.messages import TO_QUESTION, opt, record
from tests.support.processes import Heimdall, eventually
from tests.support.upstream import Upstream, failing, silent


def kept_for_a_second(server: Heimdall, upstream: Upstream, name: str) -> None:
    """Have ``name`` in the cache, about to expire, and let its servers fail."""
    upstream.add(name, "A", "192.0.2.1", ttl=1)
    server.ask(name)
    upstream.on(name, failing("SERVFAIL"))


def test_a_failure_is_remembered(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 9520, section 3.2: a failure is cached for a second at least: nobody is asked again at once."""
    upstream.on(name, failing("SERVFAIL"))
    for _ in range(5):
        assert rcode(server.ask(name)) == "SERVFAIL"
    assert upstream.count(name) == 1


def test_a_remembered_failure_is_told_as_such(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8914, section 4.14: the answer from the failure cache says Cached Error."""
    upstream.on(name, failing("SERVFAIL"))
    assert 13 not in extended_errors(server.ask(name))
    assert extended_errors(server.ask(name))[0] == 13


def test_a_failure_is_of_one_question(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 9520, section 3.2: what failed is a question; another type of the same name is asked for."""
    upstream.on(name, failing("SERVFAIL"))
    server.ask(name, "A")
    server.ask(name, "AAAA")
    assert [one.type for one in upstream.questions(name)] == ["A", "AAAA"]


def test_silence_is_a_failure_after_few_tries(impatient: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 9520, section 3.1: a server that is silent is asked three times at most, and that failure is cached too."""
    upstream.on(name, silent)
    answer = impatient.ask(name)
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])
    impatient.ask(name)
    assert 1 <= upstream.count(name) <= 3


def test_a_failure_is_not_remembered_for_long(forgetful: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 9520, section 3.2: a failure is cached for five minutes at most, and then the question is asked again."""
    upstream.on(name, failing("REFUSED"))
    assert rcode(forgetful.ask(name)) == "SERVFAIL"
    upstream.on(name, assembled(record(TO_QUESTION, messages.A, 300, bytes((192, 0, 2, 1)))))
    eventually(lambda: addresses(forgetful.ask(name)) == ["192.0.2.1"])


def test_an_expired_answer_serves_while_upstream_fails(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8767, section 5: when a refresh fails, the expired answer serves, with a TTL of 30 and a word of warning."""
    kept_for_a_second(server, upstream, name)
    eventually(lambda: extended_errors(server.ask(name)) == [3])
    answer = server.ask(name)
    assert (addresses(answer), ttl(answer), extended_errors(answer)) == (["192.0.2.1"], 30, [3])


def test_a_failure_takes_no_answers_place(forgetful: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8767, section 4: a refresh that fails leaves the old answer where it is, a denial replaces it."""
    kept_for_a_second(forgetful, upstream, name)
    eventually(lambda: extended_errors(forgetful.ask(name)) == [3])
    soa = record(b"\0", messages.SOA, 300, messages.soa_data(300))
    upstream.on(name, assembled(authority=[soa], rcode=3))
    eventually(lambda: rcode(forgetful.ask(name)) == "NXDOMAIN")


def test_a_fresh_answer_is_preferred(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8767, section 5: while upstream answers, no expired answer serves."""
    upstream.add(name, "A", "192.0.2.1", ttl=1)
    server.ask(name)
    upstream.add(name, "A", "192.0.2.2", ttl=300)

    def told() -> list[str]:
        answer = server.ask(name)
        assert extended_errors(answer) == []
        return addresses(answer)

    eventually(lambda: told() == ["192.0.2.2"])


@pytest.mark.parametrize("code", [15, 18, 30000])
def test_an_error_of_upstreams_is_passed_on_whatever_its_number(
    server: Heimdall, upstream: Upstream, name: str, code: int
) -> None:
    """RFC 8914, section 2: an Extended DNS Error that is not known is passed on like any other."""
    reason = messages.option(messages.EXTENDED_ERROR, code.to_bytes(2, "big") + b"why")
    upstream.on(name, assembled(additional=[opt(options=reason)], rcode=5))
    assert extended_errors(server.ask(name)) == [code]
