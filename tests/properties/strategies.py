"""What the properties are tried on: names, keys, messages that are well-formed, and messages that no longer are."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

from tests.support import messages

CHECKED = settings(deadline=None, derandomize=True, max_examples=60)
"""The same examples in every run: a property that fails, fails for everybody."""

# Beside any octet at all: those that differ only by the bit that tells cases apart, and the separators of text.
_TRICKY = st.sampled_from([b"a", b"A", b"@", b"`", b"[", b"{", b".", b":", b"*", b"\\", b"\0", b" ", b"\n", b"\xe1"])
LABELS = st.one_of(
    _TRICKY,
    st.lists(_TRICKY, min_size=1, max_size=4).map(b"".join),
    st.text("abcxyzABCXYZ0123456789-_", min_size=1, max_size=20).map(str.encode),
    st.binary(min_size=1, max_size=63),
)


def wire(labels: list[bytes]) -> bytes:
    """Return labels as a name in wire format."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


NAMES = st.lists(LABELS, max_size=6).map(wire).filter(lambda name: len(name) <= 255)

# Octets of a type or class that are letters in ASCII: 65 is HTTPS.
NUMBERS = st.one_of(st.sampled_from([1, 28, 65, 97, 0x4100, 0x6100, 0x4161, 0x6141]), st.integers(0, 0xFFFF))
TTLS = st.one_of(st.sampled_from([0, 1, 59, 60, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, 100000))
BITS = st.booleans()
_TYPES = st.sampled_from([1, 2, 5, 6, 16, 28, 46, 65, 65280])
_DATA = {
    messages.A: st.binary(min_size=4, max_size=4),
    messages.NS: NAMES,
    messages.CNAME: NAMES,
    messages.SOA: TTLS.map(messages.soa_data),
    messages.AAAA: st.binary(min_size=16, max_size=16),
}


def recased(name: bytes, mask: int) -> bytes:
    """Return ``name`` with the case of those letters turned that ``mask`` has a bit for."""
    return bytes(
        octet ^ 0x20 if mask >> index & 1 and bytes((octet,)).isalpha() else octet for index, octet in enumerate(name)
    )


MASKS = st.integers(0, 2**255 - 1)


@dataclass(frozen=True)
class Made:
    """A well-formed reply without OPT, and where everything in it is; sections are those of the three of records."""

    question: bytes
    sections: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]
    rcode: int
    flags: int
    ttl_offsets: tuple[int, ...]
    ttls: tuple[int, ...]

    @property
    def records(self) -> list[tuple[int, bytes]]:
        """Every record with the number of its section, in order."""
        return [(number, record) for number, section in enumerate(self.sections, 1) for record in section]

    def message(self, *opt: bytes) -> bytes:
        """Return the reply, with ``opt`` at its end if given."""
        answer, authority, additional = self.sections
        return messages.assemble(
            self.question,
            answer=answer,
            authority=authority,
            additional=(*additional, *opt),
            flags=self.flags,
            rcode=self.rcode,
        )


@st.composite
def replies(draw: st.DrawFn) -> Made:
    """Draw a reply; names in record data are not compressed, owners may be."""
    name = draw(NAMES)
    question = name + draw(NUMBERS).to_bytes(2, "big") + draw(NUMBERS).to_bytes(2, "big")
    position = 12 + len(question)
    sections: list[tuple[bytes, ...]] = []
    offsets: list[int] = []
    ttls: list[int] = []
    for _ in range(3):
        section: list[bytes] = []
        for _ in range(draw(st.integers(0, 4))):
            owner = draw(st.one_of(st.just(messages.TO_QUESTION), st.just(b"\0"), NAMES))
            rtype, ttl = draw(_TYPES), draw(TTLS)
            section.append(messages.record(owner, rtype, ttl, draw(_DATA.get(rtype, st.binary(max_size=40)))))
            offsets.append(position + len(owner) + 4)
            ttls.append(ttl)
            position += len(section[-1])
        sections.append(tuple(section))
    flags = draw(st.integers(0, 0xFFF)) << 4 & 0x07F0 | messages.QR
    answer, authority, additional = sections
    return Made(question, (answer, authority, additional), draw(st.integers(0, 15)), flags, tuple(offsets), tuple(ttls))


@dataclass(frozen=True)
class Copied:
    """A reply in which a server made names of the question's: ``message(mask)`` is the one to that spelling of it."""

    name: bytes
    redirected: bool
    cuts: tuple[tuple[int, int], ...]
    """For each record the labels that its owner leaves out of the name, and those of it before it is compressed."""

    @property
    def question(self) -> bytes:
        return self.name + b"\0\1\0\1"

    def message(self, mask: int) -> bytes:
        spelled = recased(self.name, mask)
        starts = [0]
        while length := self.name[starts[-1]]:
            starts.append(starts[-1] + length + 1)
        answer = [messages.record(messages.TO_QUESTION, messages.TXT, 1, b"\1x")]
        for left_out, own in self.cuts:
            start = min(left_out, len(starts) - 1)
            end = starts[min(start + own, len(starts) - 1)]
            pointer = (0xC000 | 12 + end).to_bytes(2, "big")
            owner = spelled[starts[start] : end] + (pointer if end < len(self.name) - 1 else b"\0")
            answer.append(messages.record(owner, messages.TXT, 1, b"\1X"))
        if self.redirected:
            at = starts[len(starts) // 2]
            target = spelled[:at] + b"\3nEt\0"
            answer.append(messages.record(spelled[at:], messages.DNAME, 1, b"\3nEt\0"))
            answer.append(messages.record(messages.TO_QUESTION, messages.CNAME, 1, target))
            answer.append(messages.record(target, messages.A, 1, bytes(4)))
        return messages.assemble(spelled + self.question[-4:], answer=answer)


COPIED = st.builds(
    Copied,
    name=st.lists(LABELS, min_size=1, max_size=5).map(wire).filter(lambda name: len(name) <= 245).map(bytes.lower),
    redirected=BITS,
    cuts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4).map(tuple),
)


@dataclass(frozen=True)
class Echoed:
    """A message that came back for a question in lower case: sound or not, but with this one question in it."""

    question: bytes
    message: bytes


_OPTS = st.sampled_from(
    [
        *[[], [messages.opt()], [messages.opt(udp_size=0xFFFF, dnssec_ok=True)]] * 3,
        [messages.opt(version=1)],
        [messages.opt(extended_rcode=1)],
        [messages.opt(options=messages.option(messages.EXTENDED_ERROR, b"\0\x16text"))],
        *[[messages.opt(options=messages.option(10, bytes(size)))] for size in (8, 16, 24, 40)],
        [messages.opt(options=messages.option(10, bytes(16)) + messages.option(3, b""))],
        [messages.opt(options=messages.option(10, bytes(16))[:-1])],
        [messages.opt(owner=b"\1a\0")],
        [messages.opt(), messages.opt()],
        [messages.opt(), messages.record(messages.TO_QUESTION, messages.A, 1, bytes(4))],
    ]
)


_ADDRESS_SIZES = {messages.A: 4, messages.AAAA: 16}


@st.composite
def common_replies(draw: st.DrawFn) -> Echoed:
    """Draw the reply that most queries get, records of the name and type asked for; or one that nearly is that."""
    name = draw(NAMES).lower()
    qtype = draw(st.sampled_from([messages.A] * 3 + [messages.AAAA] * 2 + [messages.OPT, messages.ANY]))
    asked = qtype.to_bytes(2, "big") + draw(st.sampled_from([messages.IN, messages.CH])).to_bytes(2, "big")
    answers = [messages.TO_QUESTION + asked + _ttl_and_data(draw, qtype) for _ in range(draw(st.integers(1, 3)))]
    elsewhere = draw(st.sampled_from([0, 0, 0, 0, 1]))  # records that stand in the authority section
    message = bytearray(
        messages.assemble(
            recased(name, draw(MASKS)) + asked,
            answer=answers[elsewhere:],
            authority=answers[:elsewhere],
            additional=draw(_OPTS),
            flags=messages.QR | draw(st.integers(0, 0x7F)) << 4,
        )
    )
    start = 12 + len(name) + 4
    fault = draw(st.sampled_from(["none", "none", "octet", "octet", "cut", "added"]))
    if fault == "octet":
        at = draw(st.sampled_from([3, 6, 7, 8, 9, 10, 11]) | st.integers(start, len(message) - 1))
        message[at] = draw(st.sampled_from([0, 1, 2]) | st.integers(0, 255))
    elif fault == "cut":
        del message[draw(st.integers(start, len(message) - 1)) :]
    elif fault == "added":
        message += draw(st.sampled_from([b"\0", messages.TO_QUESTION, answers[0], messages.opt()]))
    return Echoed(name + asked, bytes(message))


def _ttl_and_data(draw: st.DrawFn, qtype: int) -> bytes:
    size = _ADDRESS_SIZES.get(qtype, 9)
    data = draw(st.sampled_from([bytes(size)] * 9 + [bytes(size + 1)]) | st.binary(min_size=size, max_size=size))
    return draw(TTLS).to_bytes(4, "big") + len(data).to_bytes(2, "big") + data


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """Draw a well-formed query, with OPT or without."""
    asked = draw(NAMES) + draw(NUMBERS).to_bytes(2, "big") + draw(NUMBERS).to_bytes(2, "big")
    options = b"".join(messages.option(code, data) for code, data in draw(_OPTIONS))
    opt = messages.opt(udp_size=draw(NUMBERS), dnssec_ok=draw(BITS), version=draw(st.integers(0, 1)), options=options)
    flags = draw(st.integers(0, 0xFFFF)) & 0x07FF
    return messages.assemble(asked, additional=[opt] if draw(BITS) else [], flags=flags)


_OPTIONS = st.lists(st.tuples(st.sampled_from([3, 10, 15]), st.binary(max_size=30)), max_size=3)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw one of ``whole`` and do it some harm: octets changed, cut out, or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        data[at : at + length] = draw(st.binary(max_size=3))
    return bytes(data)


SOUND = st.one_of(queries(), replies().map(Made.message))
BYTES = st.one_of(st.binary(max_size=80), damaged(SOUND))
"""Anything at all, and what is nearly a message."""
