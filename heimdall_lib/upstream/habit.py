"""Something that a server does in every reply, or never does: whether a reply without it is to be believed.

Whoever forges a reply from off the path cannot do it, so that a reply without it is not believed from a server that
has been seen to do it. A server that does not do it must not suffer for that, though; nor one that has stopped.

Rules: no clock, no socket.
"""

_TRIALS = 3  # replies without it, in a row, from a server that was never seen to do it
_TRIALS_AFTER_BETTER_DAYS = 30  # from one that was: longer than any forger is lucky, and a server may be replaced
_SPARED_SECONDS = 900.0


class Habit:
    """One habit of one server."""

    __slots__ = ("_missed", "kept", "settled", "spared_until")

    def __init__(self) -> None:
        """Know nothing yet."""
        self.kept = False
        """Whether the server was seen to do it, and not given up since."""
        self.settled = False
        """Whether the server does it and nothing speaks against that: another reply with it says nothing more."""
        self.spared_until = 0.0
        """Until when nothing is expected of the server."""
        self._missed = 0

    @property
    def given_up(self) -> bool:
        """Whether the server does not do it, as far as anybody can tell."""
        return self.spared_until > 0.0

    def seen(self) -> None:
        """Take note of a reply with it."""
        self.kept = self.settled = True
        self.spared_until = 0.0
        self._missed = 0

    def missed(self, now: float) -> bool:
        """Take note of a reply without it; say whether nothing is expected any longer, so that it is believed.

        A server that was given up before has one trial only: to be tried again costs it nothing.
        """
        if now < self.spared_until:
            return True
        self.settled = False
        self._missed += 1
        trials = _TRIALS_AFTER_BETTER_DAYS if self.kept else 1 if self.given_up else _TRIALS
        if self._missed < trials:
            return False
        self.spare(now)
        return True

    def spare(self, now: float) -> None:
        """Expect nothing of the server for a while."""
        self.kept = self.settled = False
        self.spared_until = now + _SPARED_SECONDS
        self._missed = 0
