"""What upstream servers send: matched, examined, given a life, kept and rendered; or refused, and nothing else.

What a reply has to become is made here a second time, out of what the reference reads, and compared to the octet.
"""

import zlib
from collections.abc import Sequence
from random import Random

from heimdall_lib import entry as entries
from heimdall_lib import reply as replies
from heimdall_lib import wire
from heimdall_lib.errors import WireError
from heimdall_lib.lifetime import TtlPolicy, bounded_message, lifetime
from heimdall_lib.query import Query, parse
from heimdall_lib.reply import Kind, Reply, examine, has_opt
from tests.fuzz import judge, reference
from tests.fuzz.mutation import Mutator, pick
from tests.fuzz.target import Target
from tests.support import messages

PIECES = [
    messages.opt(),
    messages.opt(extended_rcode=1),
    messages.opt(options=messages.option(messages.EXTENDED_ERROR, b"\0\x16text\n\xff")),
    messages.record(messages.TO_QUESTION, messages.A, 300, bytes(4)),
    messages.record(messages.TO_QUESTION, messages.A, 0x80000000, bytes(4)),
    messages.record(messages.TO_QUESTION, messages.AAAA, 300, bytes(16)),
    messages.record(messages.TO_QUESTION, messages.CNAME, 30, messages.wire_name("target.example.com")),
    messages.record(messages.wire_name("target.example.com"), messages.A, 20, bytes(4)),
    messages.record(messages.TO_QUESTION, messages.SOA, 300, messages.soa_data(60)),
    messages.record(b"\0", messages.NS, 300, b"\xc0\x0c"),
    messages.record(b"\0", 250, 0, b""),
    messages.record(messages.wire_name("com"), 39, 60, messages.wire_name("org")),
    messages.TO_QUESTION,
    b"\xc0\x00",
    b"\xc0\xff",
    b"\x40",
    b"\0",
]
POLICIES = (
    TtlPolicy(),
    TtlPolicy(min_ttl=30, max_ttl=3600, max_negative_ttl=60),
    TtlPolicy(min_ttl=0, max_ttl=0, max_negative_ttl=0),
)
_BROKEN = {1, 2, 4, 5}
_STORED_AT = 1000.0
LARGE = 8192
_LARGEST_TTL = 2**31 - 1
_TTLS = (0, 1, 29, 30, 31, 59, 61, 3599, 3601, 86401, _LARGEST_TTL, 2**31, 2**32 - 1)


class ReplyTarget(Target):
    """Any bytes as the reply to a question of ours."""

    name = "reply"
    block = 10_000
    seconds = 0.15  # for 64 KiB of records, which only TCP brings, and their rendering

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._questions = dict.fromkeys(question for data in inputs if (question := question_in(data)))
        self._all_questions = list(self._questions)
        self._mutator = Mutator(PIECES)
        self._places = [[at for at in reference.places(data) if not 4 <= at <= 5] for data in inputs]

    def vary(self, random: Random) -> bytes:
        """Return a reply with some faults, most of them behind its question."""
        draw = random.random
        index = pick(self.inputs, draw)
        data = self.inputs[index]
        if draw() < 0.3:
            return self._retold(data, random)
        harmed = self._mutator.vary(random, data, self.inputs, self._places[index])
        if draw() < 0.8 and len(data) > 16:  # the question and QR are as they were: who harms those is soon found out
            end = 12 + len(question_in(data))
            return data[:2] + harmed[2:4] + data[4:6] + harmed[6:12] + data[12:end] + harmed[end:]
        return harmed

    def _retold(self, data: bytes, random: Random) -> bytes:
        """Return a reply that says the same, or nearly so: with other flags and TTLs."""
        draw = random.random
        told = bytearray(data)
        if len(told) > 3:
            told[2] ^= int(draw() * 4) << 1 if draw() < 0.2 else 0
            told[3] ^= 1 << int(draw() * 8) if draw() < 0.5 else 0
        at = 12 + len(question_in(data)) + 6  # where the first TTL is when a pointer stands before it
        if draw() < 0.5 and at + 4 <= len(told):
            told[at : at + 4] = random.choice(_TTLS).to_bytes(4, "big")
        return bytes(told)

    def check(self, data: bytes) -> str:
        """See the module; the question is that in the bytes, if it is one of ours."""
        mark = zlib.crc32(data)
        asked = question_in(data)
        question = asked if asked in self._questions else self._all_questions[mark % len(self._all_questions)]
        ours = wire.is_reply_to(data, question)
        assert ours is reference.is_reply_to(data, question)
        if not ours:
            return "not ours"
        try:
            reply = examine(data, question)
        except WireError:
            assert mark & 3 or len(data) > LARGE or not sound(data), "refused, though there is nothing wrong with it"
            return "malformed"
        if len(data) > LARGE:  # whoever judges it would be slower than what is judged
            return f"large {reply.kind.value}"
        short = replies._plain(data, question)
        assert short is None or short == replies._any(data, question)
        if len(data) == 12:
            assert reply.kind is Kind.FAILURE
            return "header alone"
        message = reference.read(data, owners=False)
        assert has_opt(data) is bool(message.of(41))
        judged = Judged(data, question, message)
        judged.agrees(reply)
        if reply.kind is Kind.FAILURE:
            return f"failure {reply.rcode if reply.rcode < 16 else 'extended'}"
        return f"{reply.kind.value}{' short' if short else ''} {judged.rendered(reply, mark)}"


class Judged:
    """A reply that was believed, and what it has to become."""

    def __init__(self, data: bytes, question: bytes, message: reference.Message) -> None:
        self.data = data
        self.question = question
        opts = message.of(41)
        self.rcode = data[3] & 15 | (opts[0].ttl >> 24 << 4 if opts else 0)
        before = opts[0].start if opts else len(data)
        self.kept = [record for record in message.records if record.start < before]
        self.end = before

    def agrees(self, reply: Reply) -> None:
        """Assert that the reply is of the kind that it has to be, and lives as long as its records allow."""
        assert reply.rcode == self.rcode
        if self.rcode in _BROKEN or self.rcode > 15:
            assert reply.kind is Kind.FAILURE
            return
        answers = [record for record in self.kept if record.section == 1]
        qtype = int.from_bytes(self.question[-4:-2], "big")
        whole = not self.data[2] & 0x02 and belongs(self.data, self.question[:-4], answers)
        answered = any(qtype in (record.type, 255) for record in answers)
        assert (reply.kind is Kind.ANSWER) is (self.rcode == 0 and whole and answered)
        if reply.kind is Kind.ANSWER:
            assert reply.ttl == min(map(ttl_of, self.kept))
        elif reply.kind in (Kind.NODATA, Kind.NXDOMAIN):
            assert whole
            assert self.rcode == (3 if reply.kind is Kind.NXDOMAIN else 0)
            soas = [record for record in self.kept if record.section == 2 and record.type == 6]
            assert (reply.ttl is None) is (not soas)
            if reply.ttl is not None:
                assert reply.ttl <= min(min(ttl_of(soa), int.from_bytes(soa.data[-4:], "big")) for soa in soas)
                assert reply.ttl <= min(map(ttl_of, answers), default=_LARGEST_TTL)
        else:
            assert reply.ttl is None
            assert reply.kind is Kind.FAILURE or self.rcode not in (0, 3)

    def rendered(self, reply: Reply, mark: int) -> str:
        """Assert that a client's answer has the reply's records, and TTLs within bounds; say how it is kept."""
        policy = POLICIES[mark % len(POLICIES)]
        seconds, age = lifetime(reply, policy), mark >> 4 & 63
        most = policy.max_ttl if reply.kind is Kind.ANSWER else policy.max_negative_ttl
        assert 0 <= seconds <= most
        if reply.ttl is None or not reply.ttl:
            assert seconds == (policy.min_ttl if reply.kind is Kind.ANSWER else 0)
        entry = entries.make(
            bounded_message(reply, policy), reply.ttl_offsets, stored_at=_STORED_AT, lifetime=seconds, stale=0.0
        )
        query = client(self.question, mark)
        answer = bytes(entries.render(entry, query, _STORED_AT + age + 0.5))
        assert answer == self._expected(query, reply, policy, age)
        try:
            read = reference.read(answer)
        except ValueError:  # a pointer into a TTL, whose octets are a name only until they change
            assert reference.read(self._expected(query, reply, None, 0))
            return "a name in a TTL"
        if judge.sampled(answer):
            judge.dnspython_reads(answer, read)
        assert entries.same_answer(entry, entry)
        limit = 12 + len(self.question) + mark % 700
        if len(answer) > limit:
            cut = bytes(wire.truncate(answer, limit))
            kept = reference.read(cut).records
            assert len(cut) <= limit
            assert kept == read.records[: len(kept)]
            assert bool(cut[2] & 0x02) is any(record.section < 3 for record in read.records[len(kept) :])
        return "kept" if seconds else "passed"

    def _expected(self, query: Query, reply: Reply, policy: TtlPolicy | None, age: int) -> bytes:
        """Return the answer that a client has to get; without a policy its TTLs are the reply's own."""
        hidden = 0 if query.dnssec_ok or query.authentic_data else 0x20
        flags = bytes((0x80 | query.recursion_desired, 0x80 | self.data[3] & (0x2F ^ hidden) | query.checking_disabled))
        additional = sum(record.section == 3 for record in self.kept)
        body = bytearray(query.id + flags + self.data[4:10] + additional.to_bytes(2, "big"))
        body += query.question + self.data[len(body) + len(query.question) : self.end]
        for at in self._made_of_the_question():
            own = _own_labels(self.data, at)
            body[own] = body[own].lower()
        if policy is None:
            return bytes(body)
        if reply.ttl is None:
            least, most = 0, policy.max_ttl
        elif reply.kind is Kind.ANSWER:
            least, most = policy.min_ttl, policy.max_ttl
        else:
            least, most = 0, min(reply.ttl, policy.max_negative_ttl)
        for record in self.kept:
            ttl = max(0, min(max(ttl_of(record), least), most) - age)
            body[record.fixed + 4 : record.fixed + 8] = ttl.to_bytes(4, "big")
        return bytes(body)

    def _made_of_the_question(self) -> list[int]:
        """Return where the names are whose case a server has from the question, and not from its zone."""
        asked, _ = reference.read_name(self.question, 0)
        redirected = any(record.type == 39 for record in self.kept)
        places = [record.fixed + 10 for record in self.kept if redirected and record.type == 5]
        for record in self.kept:
            owner = tuple(label.lower() for label in reference.read_name(self.data, record.start)[0])
            if self.data[record.start] < 0xC0 and (redirected or asked[len(asked) - len(owner) :] == owner):
                places.append(record.start)
        return places


def _own_labels(data: bytes, at: int) -> slice:
    """Return where a name's labels are that stand there, and are not pointed to."""
    end = at
    while 0 < data[end] < 0xC0:
        end += data[end] + 1
    return slice(at, end)


def question_in(data: bytes) -> bytes:
    """Return the question of a message, its name in lower case; empty when it cannot be read."""
    try:
        _, end = reference.read_name(data, 12)
        reference.number(data, end, 4)
    except ValueError:
        return b""
    return data[12:end].lower() + data[end : end + 4]


def client(question: bytes, mark: int) -> Query:
    """Return a client's query for a question, in some case and with some flags."""
    data = bytearray(messages.assemble(question, flags=mark >> 10 & 0x0130, additional=[]))
    for at in range(12, len(data) - 4):
        if mark >> at % 31 & 1 and 0x60 < data[at] < 0x7B:
            data[at] ^= 0x20
    query = parse(bytes(data))
    assert query is not None
    assert query.question == data[12:]
    return query


def belongs(data: bytes, asked: bytes, answers: Sequence[reference.Record]) -> bool:
    """Say whether every answer is for a name that the question, or an alias of it, leads to."""
    owners = [reference.read_name(data, record.start)[0] for record in answers]
    led: set[tuple[bytes, ...]] = set()
    targets = {reference.read_name(asked, 0)[0]}
    while targets:
        led |= targets
        targets = {
            reference.read_name(data, record.fixed + 10)[0]
            for owner, record in zip(owners, answers, strict=True)
            if record.type == 5 and owner in targets
        } - led
    above = {name[start:] for name in led for start in range(1, len(name) + 1)}
    return all(
        owner in led or (record.type == 39 and owner in above) for owner, record in zip(owners, answers, strict=True)
    )


def sound(data: bytes) -> bool:
    """Say whether nothing is wrong with a reply that any reader would mind."""
    try:
        records = reference.read(data).records
        opts = [record for record in records if record.type == 41]
        for opt in opts:
            reference.options(opt.data)
        kept = [record for record in records if not opts or record.start < opts[0].start]
        whole = data[: kept[-1].end] if kept else b""
        for record in kept:
            reference.read_name(whole, record.start)
    except ValueError:
        return False
    if len(opts) > 1 or any(opt.section != 3 for opt in opts):
        return False
    return all(reference.is_readable(whole, record) and not 128 <= record.type < 256 for record in kept)


def ttl_of(record: reference.Record) -> int:
    """Return a record's TTL, which is 0 with the top bit set (RFC 2181, section 8)."""
    return record.ttl if record.ttl <= _LARGEST_TTL else 0
