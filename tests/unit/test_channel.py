"""Two ends of a channel, as two processes have them."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from heimdall_lib.channel import MAX_LINE, Channel
from heimdall_lib.errors import ChannelError
from tests.fakes import Lines, eventually

PATIENCE = 10.0


@dataclass
class End:
    channel: Channel
    reader: threading.Thread

    @property
    def over(self) -> bool:
        return not self.reader.is_alive()


class Ends:
    """Makes channels whose readers run, and ends them."""

    def __init__(self) -> None:
        self._made: list[End] = []
        self._raw: list[socket.socket] = []

    def pair(self, answer: Callable[[str, Any], object]) -> tuple[End, End]:
        """Return an end that asks, and the one that answers."""
        ours, theirs = socket.socketpair()
        return self._end(ours, lambda wanted, _: wanted), self._end(theirs, answer)

    def raw(self) -> tuple[End, socket.socket]:
        """Return an end, and the bare socket that it is connected to."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(PATIENCE)
        self._raw.append(theirs)
        return self._end(ours, lambda wanted, argument: [wanted, argument]), theirs

    def close(self) -> None:
        for end in self._made:
            end.channel.close()
            end.reader.join(PATIENCE)
            assert end.over
        for sock in self._raw:
            sock.close()

    def _end(self, sock: socket.socket, answer: Callable[[str, Any], object]) -> End:
        channel = Channel(sock, answer)
        end = End(channel, threading.Thread(target=channel.run, daemon=True))
        end.reader.start()
        self._made.append(end)
        return end


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.fixture
def log() -> Iterator[Lines]:
    with Lines("heimdall.channel") as lines:
        yield lines


def test_what_is_asked_with_its_argument_is_answered(ends: Ends) -> None:
    here, _ = ends.pair(lambda wanted, argument: {"wanted": wanted, "argument": argument})
    assert here.channel.ask("flush", {"name": "ä\n"}, timeout=PATIENCE) == {
        "wanted": "flush",
        "argument": {"name": "ä\n"},
    }
    assert here.channel.ask("drain", timeout=PATIENCE) == {"wanted": "drain", "argument": None}


def test_both_sides_may_ask_even_while_they_answer(ends: Ends) -> None:
    here, there = ends.pair(lambda wanted, _: there.channel.ask("back", timeout=PATIENCE) + wanted)
    assert here.channel.ask("forth", timeout=PATIENCE) == "backforth"


def test_a_long_line_arrives_whole(ends: Ends) -> None:
    here, _ = ends.pair(lambda _, argument: argument)
    text = "x" * (MAX_LINE // 2)
    assert here.channel.ask("echo", text, timeout=PATIENCE) == text


def test_a_slow_answer_holds_up_no_other_and_each_goes_to_who_asked(ends: Ends) -> None:
    gate = threading.Event()
    here, _ = ends.pair(lambda wanted, _: gate.wait(PATIENCE) if wanted == "slow" else "quick")
    answers: list[object] = []
    slow = threading.Thread(target=lambda: answers.append(here.channel.ask("slow", timeout=PATIENCE)))
    slow.start()
    assert here.channel.ask("fast", timeout=PATIENCE) == "quick"
    gate.set()
    slow.join(PATIENCE)
    assert answers == [True]


def test_who_waits_for_nothing_is_told_so_and_a_late_answer_goes_to_nobody(ends: Ends) -> None:
    gate = threading.Event()
    here, _ = ends.pair(lambda wanted, _: gate.wait(PATIENCE) if wanted == "slow" else "quick")
    with pytest.raises(ChannelError, match=r"no answer within 0\.05 s"):
        here.channel.ask("slow", timeout=0.05)
    gate.set()
    assert here.channel.ask("fast", timeout=PATIENCE) == "quick"


def test_a_side_that_hangs_is_asked_no_further_until_it_answers(ends: Ends) -> None:
    here, other = ends.raw()
    for _ in range(64):
        with pytest.raises(ChannelError, match="no answer"):
            here.channel.ask("reading", timeout=0)
    with pytest.raises(ChannelError, match="64 earlier questions"):
        here.channel.ask("reading", timeout=PATIENCE)
    asked = json.loads(other.makefile("rb").readline())
    other.sendall(json.dumps({"answer": 1, "number": asked["number"]}).encode() + b"\n")
    eventually(lambda: len(here.channel._unanswered) == 63)
    with pytest.raises(ChannelError, match="no answer"):
        here.channel.ask("reading", timeout=0)


def test_what_the_other_side_cannot_do_is_an_error_here_and_in_its_log(ends: Ends, log: Lines) -> None:
    def answer(wanted: str, _: object) -> None:
        raise ChannelError("not known here") if wanted == "nothing" else ZeroDivisionError("oops")

    here, _ = ends.pair(answer)
    with pytest.raises(ChannelError, match=r"^not known here$"):
        here.channel.ask("nothing", timeout=PATIENCE)
    assert not list(log)
    with pytest.raises(ChannelError, match=r"^ZeroDivisionError: oops$"):
        here.channel.ask("division", timeout=PATIENCE)
    assert list(log) == ["ERROR division could not be answered"]


def test_when_the_other_side_goes_who_waits_is_told_and_reading_ends(ends: Ends) -> None:
    here, other = ends.raw()
    gone = threading.Timer(0.05, other.close)
    gone.start()
    with pytest.raises(ChannelError, match="is gone"):
        here.channel.ask("reading", timeout=PATIENCE)
    eventually(lambda: here.over)
    with pytest.raises(ChannelError, match="closed"):
        here.channel.ask("reading", timeout=PATIENCE)


def test_who_hangs_up_reads_no_more_and_says_nothing_of_it(ends: Ends, log: Lines) -> None:
    here, there = ends.pair(lambda wanted, _: wanted)
    here.channel.close()
    eventually(lambda: here.over and there.over)
    assert not list(log)


@pytest.mark.parametrize(
    "line",
    [b"no json\n", b"[]\n", b"1\n", b"{}\n", b'{"ask": "x"}\n', b"\xff\n", b"[" * 20000 + b"\n", b"x" * (MAX_LINE + 1)],
    ids=["no JSON", "a list", "a number", "no number", "half a question", "no UTF-8", "too deep", "too long"],
)
def test_what_cannot_be_read_ends_the_channel(ends: Ends, log: Lines, line: bytes) -> None:
    here, other = ends.raw()
    sender = threading.Thread(target=send_all, args=(other, line))
    sender.start()
    eventually(lambda: here.over)
    sender.join(PATIENCE)
    assert "the channel broke" in next(iter(log))


def send_all(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it may be cut off
        sock.sendall(data)


@pytest.mark.parametrize("line", ['{"number": 1}', '{"number": 1, "error": {}}', '{"number": 1, "error": null}'])
def test_a_line_that_is_no_answer_is_an_error_for_who_waits(ends: Ends, line: str) -> None:
    here, other = ends.raw()

    def reply() -> None:
        other.recv(4096)
        other.sendall(line.encode() + b"\n")

    sender = threading.Thread(target=reply)
    sender.start()
    with pytest.raises(ChannelError):
        here.channel.ask("anything", timeout=PATIENCE)
    sender.join(PATIENCE)


def test_an_answer_to_what_nobody_asked_is_ignored(ends: Ends) -> None:
    here, other = ends.raw()
    other.sendall(b'{"answer": 1, "number": 99}\n{"ask": "still", "with": "there", "number": 7}\n')
    assert json.loads(other.makefile("rb").readline()) == {"answer": ["still", "there"], "number": 7}
    assert not here.over


def test_an_answer_for_a_side_that_has_gone_is_dropped(ends: Ends, log: Lines) -> None:
    gate, reached = threading.Event(), threading.Event()

    def answer(wanted: str, _: object) -> str:
        reached.set()
        gate.wait(PATIENCE)
        return wanted

    here, there = ends.pair(answer)
    with pytest.raises(ChannelError):
        here.channel.ask("reading", timeout=0)
    assert reached.wait(PATIENCE)
    here.channel.close()
    eventually(lambda: there.over)
    gate.set()
    assert not list(log)
