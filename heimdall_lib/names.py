"""DNS types, classes and response codes in words, and what Heimdall says of itself in class CH.

The one module that uses dnslib.
"""

from collections.abc import Mapping

from dnslib import CLASS, QTYPE, RCODE, RR, TXT, DNSBuffer, DNSHeader, DNSQuestion

from heimdall_lib import wire
from heimdall_lib.query import Query

_TYPES = {**QTYPE.forward, 53: "SMIMEA"}  # which dnslib calls HIP, the name of 55
_CLASSES = {1: "IN", 3: "CH", 4: "HS", 254: "NONE", 255: "ANY"}
_TYPE_NUMBERS = {name: number for number, name in _TYPES.items()}
_CLASS_NUMBERS = {name: number for number, name in _CLASSES.items()}
_RCODES = {**RCODE.forward, wire.BADVERS: "BADVERS"}


def type_name(qtype: int) -> str:
    """Return a type's mnemonic, or ``TYPE1234`` (RFC 3597, section 5)."""
    return str(_TYPES.get(qtype, f"TYPE{qtype}"))


def class_name(qclass: int) -> str:
    """Return a class's mnemonic, or ``CLASS1234`` (RFC 3597, section 5)."""
    return _CLASSES.get(qclass, f"CLASS{qclass}")


def type_number(name: str) -> int:
    """Return the type that ``type_name`` calls so; raises ValueError when there is none."""
    return _number(name, _TYPE_NUMBERS, "TYPE")


def class_number(name: str) -> int:
    """Return the class that ``class_name`` calls so; raises ValueError when there is none."""
    return _number(name, _CLASS_NUMBERS, "CLASS")


def _number(name: str, known: Mapping[str, int], prefix: str) -> int:
    number = known.get(name, -1)
    digits = name.removeprefix(prefix)
    if number < 0 and digits != name and digits.isdecimal():
        number = int(digits)
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"no {prefix} is called {name!r}")
    return number


def rcode_name(rcode: int) -> str:
    """Return a response code's mnemonic, or ``RCODE12``."""
    return str(_RCODES.get(rcode, f"RCODE{rcode}"))


class ChaosAnswers:
    """The answers to ``version.bind`` and ``id.server`` (RFC 4892) and their synonyms."""

    def __init__(self, *, version: str, server_id: str) -> None:
        """Prepare the answers; each text is at most 255 octets."""
        self._messages = {
            name: _message(name, text)
            for name, text in (
                ("version.bind", version),
                ("version.server", version),
                ("id.server", server_id),
                ("hostname.bind", server_id),
            )
        }

    def find(self, query: Query) -> bytes | None:
        """Return the reply with id 0 to a query of class CH; None when there is none for its name and type."""
        if query.qtype not in (wire.TYPE_TXT, wire.TYPE_ANY):
            return None
        return self._messages.get(wire.presentation(query.key))


def _message(name: str, text: str) -> bytes:
    buffer = DNSBuffer()
    DNSHeader(id=0, qr=1, aa=0, ra=1, rd=0, q=1, a=1).pack(buffer)
    DNSQuestion(name, QTYPE.TXT, CLASS.CH).pack(buffer)
    RR(name, QTYPE.TXT, CLASS.CH, 0, TXT(text)).pack(buffer)
    return bytes(buffer.data)
