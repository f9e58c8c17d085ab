"""How the scripted upstream replies: in lines of a zone file, or in bytes put together by hand.

``@`` in a line stands for the name that was asked for.
"""

from collections.abc import Iterable, Sequence

import dns.message

from tests.support import messages
from tests.support.upstream import Asked, Reaction, Sending

SOA = "example.com. 300 IN SOA ns.example.com. hostmaster.example.com. 1 7200 3600 1209600 300"


def replying(
    *answer: str,
    authority: Sequence[str] = (),
    additional: Sequence[str] = (),
    rcode: str = "NOERROR",
    flags: str = "QR RD RA",
    edns: bool = True,
) -> Reaction:
    """Reply with these records."""

    def lines(section: Sequence[str], name: str) -> list[str]:
        return [line.replace("@", f"{name}.") for line in section]

    def react(asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
        wire = messages.reply(
            asked.name,
            asked.type,
            answer=lines(answer, asked.name),
            authority=lines(authority, asked.name),
            additional=lines(additional, asked.name),
            rcode=rcode,
            flags=flags,
            edns=edns,
        )
        question = question_in(asked.wire)
        return [Sending(asked.wire[:2] + wire[2:12] + question + wire[12 + len(question) :])]

    return react


def assembled(
    *answer: bytes,
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    rcode: int = 0,
    flags: int = messages.QR | messages.RD | messages.RA,
    tail: bytes = b"",
) -> Reaction:
    """Reply with these records, sensible or not; ``tail`` comes after the last one."""

    def react(asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
        wire = messages.assemble(
            question_in(asked.wire),
            answer=answer,
            authority=authority,
            additional=additional,
            rcode=rcode,
            flags=flags,
            message_id=int.from_bytes(asked.wire[:2], "big"),
        )
        return [Sending(wire + tail)]

    return react


def question_in(query: bytes) -> bytes:
    """Return the question of a well-formed query, in its own case."""
    end = 12
    while length := query[end]:
        end += length + 1
    return query[12 : end + 5]
