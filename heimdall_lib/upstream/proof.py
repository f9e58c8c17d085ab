"""What a reply over UDP must show before it is believed: that its sender has seen the query.

The server's address and port, the query's own port and its id are checked before (``datagram.py``). What is asked for
here is the case of the question as it was sent, and the cookie. Not every server gives them back: its habits decide.

Rules: a reply that is not believed is not waited out, for the server can be asked over TCP, which nobody forges from
off the path; a server that does without is not punished for it.
"""

import logging
import time

from heimdall_lib.spelling import mixed, telling
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.cookie import Cookie
from heimdall_lib.upstream.habit import Habit
from heimdall_lib.wire import HEADER_SIZE

log = logging.getLogger("heimdall.upstream")

_CASE, _COOKIE = "case", "cookie"
_GIVEN_UP = {
    _CASE: "upstream %s does not repeat the case of a question: asked in lower case for now",
    _COOKIE: "upstream %s does not return DNS cookies as it should: asked without for now",
}


class Proof:
    """What is asked of one server's replies."""

    def __init__(self, server: str, *, udp_size: int, stats: UpstreamStats) -> None:
        """Expect case and no cookies; ``server`` is its name in the log."""
        self.case = Habit()
        self.cookies = Habit()
        self.cookie = Cookie(udp_size)
        self._server = server
        self._stats = stats

    def question(self, question: bytes, now: float) -> bytes:
        """Return ``question`` (lower case) as it is to be sent at the instant ``now``."""
        return question if now < self.case.spared_until else mixed(question)

    def spare_cookies(self, now: float) -> None:
        """Send the server no cookies for a while."""
        self.cookies.spare(now)
        self._tell()

    def given(self, reply: bytes, question: bytes, *, cookie: bool) -> bool:
        """Say whether ``reply`` is believed; ``question`` is as it was sent, with or without a cookie."""
        if reply[HEADER_SIZE : HEADER_SIZE + len(question)] == question:
            if not self.case.settled and telling(question):
                self.case.seen()
                self._tell()
        # A header alone, from a server that knows no EDNS, has no case: it brings another query and no answer.
        elif len(reply) > HEADER_SIZE and not self._excused(self.case, _CASE):
            return False
        return not cookie or self._cookie_given(reply)

    def _cookie_given(self, reply: bytes) -> bool:
        found = self.cookie.in_reply(reply)
        if found:
            if not self.cookies.settled:
                self.cookies.seen()
                self._tell()
            return True
        return (found is None and not self.cookies.kept) or self._excused(self.cookies, _COOKIE)

    def _excused(self, habit: Habit, what: str) -> bool:
        """Say whether a reply that lacks ``what`` is believed all the same."""
        given_up_before = habit.given_up
        if not habit.missed(time.monotonic()):
            self._stats.failures[what] += 1
            return False
        if not given_up_before:
            log.warning(_GIVEN_UP[what], self._server)
            self._tell()
        return True

    def _tell(self) -> None:
        self._stats.lower_case = self.case.given_up
        self._stats.cookies = self.cookies.kept
