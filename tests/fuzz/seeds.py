"""Writes the corpus: messages made by dnspython and by hand, and what no honest peer would send.

``python -m tests.fuzz --write-corpus`` writes the files; a test sees that they are what this makes.
"""

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from heimdall_lib.config.table import TABLE
from heimdall_lib.invalidations import Flush
from heimdall_lib.shared_cache import events
from heimdall_lib.shared_cache.codec import Codec, StoredAnswer
from tests.fuzz import corpus
from tests.fuzz.answers import CD, DO, HELD, LONG
from tests.fuzz.corpus import Piece
from tests.fuzz.targets.value import KEYS, NOW, key_and_name
from tests.support import messages as dns

HEADER = 12
_ROWS = [row for row in TABLE if row.flag != "config"]


class Seed(NamedTuple):
    """One input: its name, and the pieces that it is written in."""

    name: str
    pieces: tuple[Piece, ...]
    text: bool = False


def message(name: str, data: bytes) -> Seed:
    """Return a message as an input, its header on a line of its own."""
    return Seed(name, (data[:HEADER], data[HEADER:]))


def _header(
    *, flags: int = dns.RD, questions: int = 1, answer: int = 0, authority: int = 0, additional: int = 0
) -> bytes:
    return struct.pack("!6H", 0x1234, flags, questions, answer, authority, additional)


def queries() -> Iterable[Seed]:
    """Return what clients send, and what nobody should."""
    for held in HELD:
        additional = [dns.opt(dnssec_ok=True)] if held.bits & DO else []
        flags = dns.RD | (dns.CD if held.bits & CD else 0)
        data = dns.query(held.name, held.type, held.rclass, flags=flags, additional=additional)
        yield message(f"asks for {held.name} type {held.type} class {held.rclass}, DO and CD {held.bits}", data)
    asked = dns.question("www.example.com.")
    yield message("with OPT", dns.query("www.example.com.", additional=[dns.opt()]))
    yield message("with AD", dns.query("www.example.com.", flags=dns.RD | dns.AD))
    yield message("without RD", dns.query("www.example.com.", flags=0))
    yield message("without RD, not held", dns.query("nobody.example.", flags=0))
    yield message("stale, without RD", dns.query("stale.example.com.", flags=0))
    for size in (0, 512, 1231, 1232, 4096, 65535):
        yield message(
            f"large, with an OPT that says {size}", dns.query("large.example.com.", additional=[dns.opt(udp_size=size)])
        )
    yield message(
        "255 additional records, and OPT", dns.query("srv.example.com.", 33, additional=[dns.opt(udp_size=65535)])
    )
    half = next(len(held.message) for held in HELD if held.name == "half.example.com.")
    for room in (half, half + 10, half + 11):  # OPT has eleven octets
        opt = dns.opt(udp_size=room)
        yield message(
            f"a size of {room}, for an answer of {half} and OPT", dns.query("half.example.com.", additional=[opt])
        )
    yield message("in mixed case", dns.query("wWw.ExAmPlE.cOm.", additional=[dns.opt()]))
    yield message("not held", dns.query("nobody.example.", additional=[dns.opt()]))
    for name in ("version.bind.", "id.server.", "other.bind."):
        yield message(f"class CH, {name}", dns.query(name, dns.TXT, dns.CH))
    for number in (0, 41, 249, 250, 251, 252, 255, 65535):
        yield message(f"type {number}", dns.query("www.example.com.", number, additional=[dns.opt()]))
    for size in (7, 8, 9, 15, 16, 40, 41):
        option = dns.option(10, bytes(range(size)))
        yield message(f"a cookie of {size} octets", dns.query("www.example.com.", additional=[dns.opt(options=option)]))
    cookie = dns.option(10, bytes(range(8)))
    yield message(
        "a cookie and no question", dns.assemble(b"", additional=[dns.opt(options=cookie)], flags=0, questions=0)
    )
    yield message(
        "two cookies", dns.query("www.example.com.", additional=[dns.opt(options=cookie + dns.option(10, b""))])
    )
    subnet, keepalive = dns.option(8, b"\0\1\x18\0\xc0\0\2"), dns.option(11, b"")
    options = subnet + keepalive + dns.option(12, bytes(40)) + dns.option(65001, b"x")
    yield message(
        "client subnet, keepalive, padding", dns.query("www.example.com.", additional=[dns.opt(options=options)])
    )
    for cut in (1, 3, 5):
        opt = dns.opt(options=dns.option(10, bytes(8))[:-cut])
        yield message(f"an option cut by {cut}", dns.query("www.example.com.", additional=[opt]))
    yield message("EDNS version 1", dns.query("www.example.com.", additional=[dns.opt(version=1)]))
    yield message("OPT twice", dns.query("www.example.com.", additional=[dns.opt(), dns.opt()]))
    yield message("OPT not at the root", dns.query("www.example.com.", additional=[dns.opt(owner=b"\xc0\x0c")]))
    yield message("OPT in the answer section", dns.assemble(asked, answer=[dns.opt()], flags=dns.RD))
    yield message("TSIG", dns.query("www.example.com.", additional=[dns.record(b"\0", 250, 0, bytes(30), 255)]))
    address = dns.record(b"\xc0\x0c", dns.A, 1, bytes(4))
    yield message("a record beside OPT", dns.query("www.example.com.", additional=[address, dns.opt()]))
    yield message("a response", dns.query("www.example.com.", flags=dns.QR | dns.RD))
    for opcode in (1, 2, 4, 5, 15):
        yield message(f"opcode {opcode}", dns.query("www.example.com.", flags=opcode << 11))
    yield Seed("nothing", (b"",))
    yield Seed("a header cut short", (_header()[:11],))
    yield Seed("a header alone", (_header(),))
    yield Seed("a header that counts nothing", (_header(questions=0),))
    yield Seed("two questions", (_header(questions=2), asked, asked))
    yield Seed(
        "65535 of everything", (_header(questions=65535, answer=65535, authority=65535, additional=65535), asked)
    )
    yield Seed("65535 additional records, the smallest", (_header(additional=65535), asked, (b"\0" * 11, 5900)))
    yield Seed("a pointer to itself", (_header(), b"\xc0\x0c\0\1\0\1"))
    yield Seed("a pointer into the header", (_header(), b"\xc0\x04\0\1\0\1"))
    yield Seed("a pointer forwards", (_header(), b"\xc0\x20\0\1\0\1", bytes(30)))
    yield Seed("a pointer at the end", (_header(), b"\xc0"))
    yield Seed("label type 01", (_header(), b"\x41abc\0\0\1\0\1"))
    yield Seed("label type 10", (_header(), b"\x81abc\0\0\1\0\1"))
    yield Seed("a name of 256 octets", (_header(), dns.wire_name(LONG)[:-1] + b"\0", b"\1a\0\0\1\0\1"))
    yield Seed("a name of labels without end", (_header(), (b"\1a", 600)))
    yield Seed("a question cut short", (_header(), asked[:-3]))
    yield Seed("octets after the question", (_header(), asked, b"\0"))
    yield Seed("64 KiB", (_header(), asked, (b"\0", 65506)))


def replies() -> Iterable[Seed]:
    """Return what upstream servers send, well or badly."""
    www, soa = "www.example.com", "example.com. 300 IN SOA ns.example.com. host.example.com. 1 7200 900 1209600 60"
    address = f"{www}. 300 IN A 192.0.2.1"
    alias, chain = f"{www}. 30 IN CNAME a.example.com.", "a.example.com. 20 IN A 192.0.2.2"
    yield message("an address", dns.reply(www, answer=[address]))
    yield message("an address and OPT", dns.reply(www, answer=[address], edns=True))
    yield message("validated", dns.reply(www, answer=[address], flags="QR RD RA AD", edns=True))
    yield message("a chain", dns.reply(www, answer=[alias, chain], edns=True))
    yield message("a chain without its end", dns.reply(www, answer=[alias]))
    circle = "a.example.com. 20 IN CNAME www.example.com."
    yield message("aliases in a circle", dns.reply(www, answer=[alias, circle]))
    yield message("what nobody asked for", dns.reply(www, answer=[address, "evil.example. 1 IN A 192.0.2.66"]))
    dname = [
        "example.com. 60 IN DNAME example.org.",
        f"{www}. 60 IN CNAME www.example.org.",
        "www.example.org. 9 IN A 192.0.2.3",
    ]
    yield message("DNAME", dns.reply(www, answer=dname))
    yield message("NXDOMAIN", dns.reply(www, rcode="NXDOMAIN", authority=[soa], edns=True))
    yield message("NXDOMAIN behind an alias", dns.reply(www, answer=[alias], rcode="NXDOMAIN", authority=[soa]))
    yield message("NODATA", dns.reply(www, "TXT", authority=[soa]))
    yield message("NODATA without SOA", dns.reply(www, "TXT"))
    yield message(
        "a referral", dns.reply(www, authority=["example.com. 300 IN NS ns.example.com."], additional=[chain])
    )
    every = [
        address,
        f"{www}. 1 IN MX 10 a.example.com.",
        f'{www}. 2 IN TXT "text" "more"',
        f"{www}. 3 IN NS a.example.com.",
    ]
    yield message("ANY", dns.reply(www, "ANY", answer=every))
    for rtype, text in (
        ("MX", "10 a.example.com."),
        ("SRV", "1 2 3 a.example.com."),
        ("SOA", "ns.example.com. host.example.com. 1 2 3 4 4294967295"),
        ("PTR", "a.example.com."),
        ("NS", "a.example.com."),
        ("TXT", '"' + "t" * 255 + '" ""'),
        ("HTTPS", "1 . alpn=h2 ipv4hint=192.0.2.1"),
        ("CAA", '0 issue "ca.example"'),
        ("TYPE65280", "\\# 4 c00c0001"),
        ("RRSIG", "A 8 3 300 20300101000000 20200101000000 7 example.com. AAAA"),
    ):
        yield message(
            f"type {rtype}",
            dns.reply(www, rtype, answer=[f"{www}. 300 IN {rtype} {text}"], additional=[chain], edns=True),
        )
    for rcode in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "YXDOMAIN", "NOTAUTH", "BADVERS"):
        yield message(rcode, dns.reply(www, rcode=rcode, edns=True))
    yield message("YXDOMAIN with records", dns.reply(www, rcode="YXDOMAIN", answer=dname, authority=[soa], edns=True))
    yield message("truncated", dns.reply(www, answer=[address], flags="QR RD RA TC"))
    yield from _replies_by_hand()


def _replies_by_hand() -> Iterable[Seed]:
    asked, own = dns.question("www.example.com."), dns.TO_QUESTION
    address = dns.record(own, dns.A, 300, bytes(4))
    soa = dns.record(own, dns.SOA, 300, dns.soa_data(60))
    ede = dns.option(dns.EXTENDED_ERROR, b"\0\x16no\x1b[31m")

    def reply(name: str, *answer: bytes, authority: Sequence[bytes] = (), additional: Sequence[bytes] = ()) -> Seed:
        return message(name, dns.assemble(asked, answer=answer, authority=authority, additional=additional))

    six = [dns.record(own, dns.AAAA, number, bytes(15) + bytes((number,))) for number in (1, 2, 3)]
    yield message("three IPv6 addresses", dns.assemble(dns.question("www.example.com.", dns.AAAA), answer=six))
    for code in (1, 4):
        yield Seed(f"a header that says {code}", (_header(flags=dns.QR | code, questions=0),))
    yield Seed("a header that counts one question", (_header(flags=dns.QR),))
    yield reply("an Extended DNS Error", address, additional=[dns.opt(options=ede)])
    yield reply("an Extended DNS Error cut short", address, additional=[dns.opt(options=ede[:-1])])
    yield reply("an Extended DNS Error of one octet", address, additional=[dns.opt(options=dns.option(15, b"\0"))])
    for cut in (1, 2, 3, 5):
        yield reply(f"an option cut by {cut}", address, additional=[dns.opt(options=dns.option(3, b"ab")[:-cut])])
    yield reply("OPT twice", address, additional=[dns.opt(), dns.opt()])
    yield reply("OPT in the answer", address, dns.opt())
    yield reply("OPT in the authority", address, authority=[dns.opt()])
    yield reply("OPT before another record", address, additional=[dns.opt(), address])
    yield reply("OPT below a name", address, additional=[dns.opt(owner=b"\1a\0")])
    yield reply("extended response code", address, additional=[dns.opt(extended_rcode=1)])
    yield reply("TSIG", address, additional=[dns.record(b"\0", 250, 0, bytes(30), 255)])
    for ttl in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        yield reply(f"TTL {ttl}", dns.record(own, dns.A, ttl, bytes(4)), address)
        yield reply(f"a SOA whose minimum is {ttl}", authority=[dns.record(own, dns.SOA, 300, dns.soa_data(ttl))])
    yield reply("two SOAs", authority=[soa, dns.record(b"\0", dns.SOA, 5, dns.soa_data(7))])
    yield reply("SOA in the answer", soa)
    for cut in (1, 4, 19, 20, 21):
        yield reply(f"a SOA cut by {cut}", authority=[dns.record(own, dns.SOA, 300, dns.soa_data(60)[:-cut])])
    for size in (0, 3, 5):
        yield reply(f"an address of {size} octets", dns.record(own, dns.A, 300, bytes(size)))
    yield reply("a CNAME to itself", dns.record(own, dns.CNAME, 300, own))
    yield reply("a CNAME that points at its own data", dns.record(own, dns.CNAME, 300, b"\xc0\x2d"))
    yield reply("an owner that points at itself", dns.record(b"\xc0\x21", dns.A, 300, bytes(4)))
    yield reply(
        "an owner that points at a label type that is not in use",
        dns.record(own, dns.TXT, 300, b"\1\x40"),
        dns.record(b"\xc0\x2e", dns.A, 1, bytes(4)),
    )
    yield reply("an owner that points into the header", dns.record(b"\xc0\x02", dns.A, 300, bytes(4)))
    yield reply("an owner that points forwards", dns.record(b"\xc0\xff", dns.A, 300, bytes(4)))
    yield reply(
        "additional data with an owner that cannot be read",
        address,
        additional=[dns.record(b"\xc0\x11", dns.A, 1, bytes(4))],
    )
    yield message(
        "YXDOMAIN, an answer whose owner cannot be read",
        dns.assemble(
            asked,
            answer=[dns.record(own, dns.TXT, 300, b"\1\x40"), dns.record(b"\xc0\x2e", dns.A, 1, bytes(4))],
            rcode=6,
        ),
    )
    hops = [
        dns.record(b"\1a" + struct.pack("!H", 0xC000 | 12 + len(asked) + 14 * n), dns.NS, 1, b"") for n in range(130)
    ]
    yield reply("owners compressed again and again", *hops)
    for times in (16, 17):
        way, last = b"\0", 12 + len(asked) + 12
        for _ in range(times - 1):
            way, last = way + b"\1a" + (0xC000 | last).to_bytes(2, "big"), 12 + len(asked) + 12 + len(way)
        pointer, count = (0xC000 | last).to_bytes(2, "big"), 4600
        head = _header(flags=dns.QR, answer=count + 1)
        aliases = (dns.record(pointer, dns.CNAME, 1, pointer), count)
        yield Seed(f"64 KiB of names with {times} pointers", (head, asked, dns.record(own, dns.TXT, 1, way), aliases))
    yield Seed(
        "a question in another case", (_header(flags=dns.QR, answer=1), dns.question("WWW.example.COM."), address)
    )
    yield Seed("more records counted than are there", (_header(flags=dns.QR, answer=2), asked, address))
    yield Seed("fewer records counted than are there", (_header(flags=dns.QR, answer=1), asked, address, address))
    yield Seed(
        "65535 records counted",
        (_header(flags=dns.QR, answer=65535, authority=65535, additional=65535), asked, address),
    )
    yield Seed("4000 addresses", (_header(flags=dns.QR, answer=4000), asked, (address, 4000)))
    yield Seed(
        "64 KiB of one record",
        (_header(flags=dns.QR, answer=1), asked, own + b"\0\x10\0\1\0\0\0\1\xff\0", (b"\xfft", 32640)),
    )
    yield Seed(
        "aliases by the thousand",
        (_header(flags=dns.QR, answer=3000), asked, (dns.record(own, dns.CNAME, 1, own), 3000)),
    )


def values() -> Iterable[Seed]:
    """Return what replicas write to Redis, and what else may stand there."""
    www, soa = "www.example.com", "example.com. 300 IN SOA ns.example.com. host.example.com. 1 7200 900 1209600 60"
    answers = [f"{www}. {ttl} IN A 192.0.2.1" for ttl in (300,)]
    messages = {
        "an address": dns.reply(www, answer=answers),
        "NXDOMAIN": dns.reply(www, rcode="NXDOMAIN", authority=[soa]),
        "NODATA": dns.reply(www, authority=[soa]),
        "a chain": dns.reply(www, answer=[f"{www}. 30 IN CNAME a.example.com.", "a.example.com. 20 IN A 192.0.2.2"]),
        "another question's answer": dns.reply("www.example.org", answer=["www.example.org. 300 IN A 192.0.2.66"]),
        "an answer with OPT": dns.reply(www, answer=answers, edns=True),
        "a failure": dns.reply(www, rcode="SERVFAIL"),
        "an answer of TTL 0": dns.reply(www, answer=[f"{www}. 0 IN A 192.0.2.1"]),
    }
    for bits in range(4):
        for key in ((), KEYS[:1], KEYS[1:]):
            value = _value(messages["an address"], bits=bits, keys=key)
            yield Seed(f"an address, DO and CD {bits}{', signed' if key else ''}", (value[:19], value[19:]))
    for name, data in messages.items():
        for least in (0, 1):
            value = _value(data, least=least)
            yield Seed(f"{name}{', compressed' if least else ''}", (value[:19], value[19:]))
    good = _value(messages["an address"])
    yield Seed("signed by somebody else", (_value(messages["an address"], keys=("somebody else's key",)),))
    yield Seed("said to be signed", (good[:3] + b"\2" + good[4:],))
    yield Seed("said to be compressed", (good[:3] + b"\1" + good[4:],))
    yield Seed("another version", (good[:2] + b"\2" + good[3:],))
    yield Seed("stored long ago", (_value(messages["an address"], stored_at=0),))
    yield Seed("stored in the future", (_value(messages["an address"], stored_at=2**64 - 1),))
    yield Seed("a lifetime of none", (_value(messages["an address"], lifetime=0),))
    yield Seed("a lifetime without end", (_value(messages["an address"], lifetime=2**32 - 1),))
    yield Seed("of another size than it says", (good[:17] + b"\0\1" + good[19:],))
    yield Seed("no message", (good[:17] + b"\0\0",))
    yield Seed("a header cut short", (good[:18],))
    yield Seed("nothing", (b"",))
    yield Seed("text", (b"HD, or so it seems",))
    for size in (65535, 65536, 100_000_000):
        bomb = zlib.compress(bytes(size), 9)
        yield Seed(f"{size} octets, compressed", (good[:3] + b"\1" + good[4:17] + b"\xff\xff", *_runs(bomb)))
    packed = zlib.compress(messages["an address"])
    for name, body in (("cut short", packed[:-1]), ("and more", packed + b"\0"), ("of another kind", b"\x1f\x8b\x08")):
        yield Seed(f"compressed, {name}", (good[:3] + b"\1" + good[4:19], body))


def _value(
    data: bytes,
    *,
    bits: int = 0,
    keys: Sequence[str] = (),
    least: int = 0,
    stored_at: int = NOW - 1500,
    lifetime: int = 300,
) -> bytes:
    key, name = key_and_name(bits)
    codec = Codec(signing_keys=keys, compress_min_bytes=least)
    return codec.encode(name, key, StoredAnswer(data, stored_at, lifetime))[0]


def _runs(data: bytes) -> list[Piece]:
    """Return octets in pieces, those that come again and again as pairs."""
    return [
        (run[:1], len(run)) if len(run) > 8 else run
        for run in (match.group() for match in re.finditer(rb"(?s)(.)\1{8,}|(?:(?!(.)\2{8}).)+", data))
    ]


def text(name: str, written: str | bytes) -> Seed:
    """Return a text as an input."""
    return Seed(name, (written.encode() if isinstance(written, str) else written,), text=True)


def names() -> Iterable[Seed]:
    """Return names of domains, types and Redis keys."""
    for name in (
        ".",
        "www.example.com",
        "www.example.com.",
        "a..b",
        ".a",
        "",
        "\\.",
        "a\\.b",
        "\\256",
        "\\04",
        "A" * 63,
        "a" * 64,
    ):
        yield text(f"a name: {name[:20]!r}".replace("\\", "/"), name)
    for name in (
        LONG,
        f"{LONG}a.",
        "1." * 127,
        "1." * 128,
        "\\065" * 63,
        "\\000\\032\\058.*",
        "b\u00fccher.example",
        "a b",
    ):
        yield text(f"a longer one: {name[:20]!a}".replace("\\", "/"), name)
    for word in ("A", "TYPE1", "TYPE65535", "TYPE65536", "TYPE", "TYPE-1", "TYPE\u0661", "type1", "HTTPS"):
        yield text(f"a type: {word!a}".replace("\\", "/"), word)
    for rest in (
        "www.example.com:A:IN",
        "www.example.com:A:IN:do:cd",
        "www.example.com:A:IN:cd:do",
        ".:NS:IN",
        "a:TYPE1:IN",
    ):
        yield text(f"a key: {rest}", f"heimdall:dns:cache:1:view:{rest}")
    for rest in (
        "WWW:A:IN",
        "a\\098:A:IN",
        "a\\058:TYPE65280:CLASS9:do",
        "a:A:IN:lease",
        "a:A",
        "a.:A:IN",
        ":A:IN",
        "a:A:IN:do:do",
    ):
        yield text(f"no key, or an odd one: {rest}".replace("\\", "/"), f"heimdall:dns:cache:1:view:{rest}")
    yield Seed("a cache key", (b"\3www\7example\3com\0\0\1\0\1",))
    yield Seed("a cache key of odd octets", (b"\4\0\xff.:\1*\0\xff\x00\x00\x09",))


def bus() -> Iterable[Seed]:
    """Return what replicas tell each other."""
    one, other = "0123456789abcdef", "fedcba9876543210"
    key = b"\3www\7example\3com\0\0\1\0\1\2"
    for event in (
        events.Flushed(one, other, 1_800_000_000_000, Flush()),
        events.Flushed(one, other, 1_800_000_000_000, Flush(b"\3www\7example\3com\0")),
        events.Flushed(one, other, 0, Flush(b"\7example\0", 28)),
        events.Flushed(one, other, 2**53 - 1, Flush(b"\0", None, subtree=True)),
        events.Flushed(one, other, 5, Flush(b"\7example\0", 65280, subtree=True)),
        events.Flushed(one, other, 5, Flush(b"", 1)),
        events.Acked(one, other),
        events.Changed(one, key, 1_800_000_000_000),
        events.Changed(one, b"\4\0\xff.:\0\0\1\xff\xff\0", 0),
        events.Generation(one, 1_800_000_000_000),
    ):
        yield text(f"{type(event).__name__.lower()}", events.encode(event))
    for name, data in (
        ("no JSON", b"flush"),
        ("an array", b"[]"),
        ("of another version", b'{"v":2,"kind":"acked"}'),
        ("of another kind", b'{"v":1,"kind":"exploded"}'),
        ("with a kind that is no word", b'{"v":1,"kind":{}}'),
        ("an id that is none", b'{"v":1,"kind":"acked","origin":"x","number":"0123456789abcdef"}'),
        ("not UTF-8", b'{"v":1,"kind":"\xff"}'),
    ):
        yield text(name, data)
    yield Seed("nested deeply", ((b"[", 4000),))
    yield Seed("a number of 4000 digits", (b'{"v":', (b"1", 4000), b"}"))
    yield Seed("too long", ((b" ", 4097),))


def requests() -> Iterable[Seed]:
    """Return requests to the HTTP side."""
    for path in (
        "/",
        "/metrics",
        "/healthz",
        "/health",
        "/readyz",
        "/stats",
        "/nowhere",
        "/metrics/",
        "//",
        "/cache/flush",
    ):
        yield text(f"GET {path}", f"GET\n{path}\n")
    for query in (
        "name=www.example.com&type=AAAA",
        "name=.",
        "name=",
        "",
        "name=a&name=b",
        "name=a&other=b",
        "name=a%00&type=TYPE1",
    ):
        yield text(f"GET an entry: {query}", f"GET\n/cache/entry\n{query}")
    for query in (
        "name=www.example.com&type=AAAA",
        "name=example.com&subtree=true",
        "all=true",
        "all=true&name=a",
        "all=yes",
        "",
    ):
        yield text(f"POST a flush: {query}", f"POST\n/cache/flush\n{query}")
    flush = "POST\n/cache/flush\nname=a\n"
    yield text("with the token", f"{flush}HTTP_AUTHORIZATION Bearer a token for the fuzzer")
    yield text("with another token", f"{flush}HTTP_AUTHORIZATION Bearer \u00ff")
    yield text("from elsewhere", f"{flush}REMOTE_ADDR 203.0.113.9")
    yield text("from nowhere", f"{flush}REMOTE_ADDR ")
    yield text("from IPv4 in IPv6", f"{flush}REMOTE_ADDR ::ffff:127.0.0.1")
    yield text("from a web page", f"{flush}HTTP_ORIGIN http://evil.example")
    yield text(
        "OpenMetrics", "GET\n/metrics\n\nHTTP_ACCEPT application/openmetrics-text; version=1.0.0,text/plain;q=0.5"
    )
    yield text("another method", "DELETE\n/cache/flush\nall=true")
    yield text("HEAD", "HEAD\n/metrics\n")
    yield text("nothing", "")


def given_settings() -> Iterable[Seed]:
    """Return command lines, environments and files: every default, then what each setting may be, and what none may."""
    yield text("no flags", "flags")
    yield text(
        "every default in a file", "file\n" + "\n".join(f"{row.flag}: {json.dumps(row.default)}" for row in _ROWS)
    )
    yield text("a file of nothing", "file\n")
    for row in _ROWS:
        yield text(f"{row.flag} by its flag", f"flags\n--{row.flag}={row.default}")
        yield text(f"{row.flag} by its variable", f"environment\n{row.variable}={row.default or 'x'}")
    for value in (
        "forward-zones: {cluster.local: 10.96.0.10, corp.example: [10.0.0.53, 'tls://10.0.0.54#dns.example']}",
        "upstream-servers: [1.1.1.1, 'tls://8.8.8.8#dns.google', 'tcp://[::1]:5353']",
        "allow-from: [10.0.0.0/8, ::1, any]\nbind-addr: ['0.0.0.0:53', '[::]:53']",
        "redis-url: redis://user:hunter2-hunter2-hunter2@10.0.0.1:6379/1\nredis-enabled: true",
        "redis-url: redis+sentinel://a:1,b:2/mymaster/0",
        "redis-url: rediss+cluster://a:1,b:2",
        "redis-url: unix:///run/redis.sock?db=3",
        "rate-limit: 10\nrate-limit-burst: 2x",
        "min-ttl: 10\nmax-ttl: 5",
        "workers: &a 2\nmax-inflight: *a",
        "? [a]\n: b",
        "workers: !!python/object/apply:os.system [true]",
        "- a\n- b",
        "workers: 1\nworkers: 2",
        "a: " + "[" * 200,
    ):
        yield text(f"a file: {value[:50]}".replace("\n", " "), f"file\n{value}")
    for line in (
        "--redis-password=hunter2-hunter2-hunter2",
        "--admin-token=hunter2-hunter2-hunter2",
        "--redis-url=redis://:hunter2-hunter2-hunter2@h/0",
        "--query-log",
        "--prefetch\nfalse",
        "--check-config",
        "--help",
        "--version",
        "--no-such-flag",
        "stray",
        "--config=/nonexistent",
        "--bind-addr",
        "--rate-limit\n--\n",
    ):
        yield text(f"flags: {line}".replace("\n", " "), f"flags\n{line}")
    for line in (
        "REDIS_URL=redis://:hunter2-hunter2-hunter2@10.0.0.1",
        "HEIMDALL_REDIS_SERVICE_HOST=10.0.0.1\nHEIMDALL_REDIS_SERVICE_PORT=6379",
        "HEIMDALL_REDIS_SERVICE_HOST=::1\nHEIMDALL_REDIS_SERVICE_PORT=x",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
    ):
        yield text(f"environment: {line}".replace("\n", " "), f"environment\n{line}")


def streams() -> Iterable[Seed]:
    """Return what clients send over TCP."""
    framed = {seed.name: _framed(seed) for seed in queries() if seed.name != "64 KiB"}
    for name in (
        "with OPT",
        "not held",
        "large, with an OPT that says 512",
        "a header alone",
        "a response",
        "OPT twice",
        "nothing",
    ):
        yield Seed(name, (framed[name][:2], framed[name][2:]))
    for first in ("with OPT", "not held"):
        yield Seed(f"{first}, and all that follows", (framed[first], framed["without RD"], framed["in mixed case"]))
        yield Seed(f"{first}, cut short", (framed[first][:-1],))
    yield Seed("a length alone", (b"\0",))
    yield Seed("a length of none, again and again", ((b"\0\0", 50),))
    yield Seed("a length of 65535 and nothing", (b"\xff\xff",))
    yield Seed(
        "a query of 65535 octets", (b"\xff\xff", framed["with OPT"][2:], (b"\0", 65535 - len(framed["with OPT"][2:])))
    )
    yield Seed("300 queries at once", ((framed["with OPT"], 300),))
    yield Seed("300 misses at once", ((framed["not held"], 300),))


def _framed(seed: Seed) -> bytes:
    data = b"".join(piece if isinstance(piece, bytes) else piece[0] * piece[1] for piece in seed.pieces)
    return len(data).to_bytes(2, "big") + data


def redis() -> Iterable[Seed]:
    """Return what a Redis replies, and what none should."""
    for reply in (
        "*2\r\n$10\r\n1800000000\r\n$6\r\n123456\r\n",
        "*3\r\n$5\r\nvalue\r\n$-1\r\n$2\r\n01\r\n",
        "*3\r\n$5\r\nvalue\r\n$-1\r\n$1\r\n0\r\n",
        "$5\r\nvalue\r\n$-1\r\n",
        "$-1\r\n-WRONGTYPE Operation against a key\r\n",
        "+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
        ":1\r\n:0\r\n:1\r\n:2\r\n",
        "*2\r\n$1\r\n0\r\n*2\r\n$20\r\nprefix:1:view:a:A:IN\r\n$1\r\nx\r\n",
        "*2\r\n$2\r\n17\r\n*0\r\n",
        "*4\r\n$20\r\nprefix:1:view:a:A:IN\r\n$1\r\n7\r\n$1\r\nx\r\n$3\r\ninf\r\n",
        "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        "-NOSCRIPT No matching script\r\n",
        "-NOSCRIPT No matching script\r\n$40\r\n" + "a" * 40 + "\r\n*3\r\n$-1\r\n$-1\r\n$2\r\n00\r\n",
        "-LOADING Redis is loading\r\n",
        "-OOM command not allowed\r\n",
        "-MISCONF unable to persist\r\n",
        "-READONLY You can't write\r\n",
        "-NOAUTH Authentication required\r\n",
        "-MOVED 12182 10.0.0.1:6379\r\n",
        "*-1\r\n",
        "*0\r\n",
        "$-2\r\n",
        "$99999999999\r\nx\r\n",
        "*99999999999\r\n",
        ":x\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\r\n",
        "",
    ):
        yield text(f"{reply[:40]!a}".replace("\\", "/"), reply)
    yield Seed("nested deeply", ((b"*1\r\n", 3000),))
    yield Seed("a line without end", ((b"+", 70000),))


def lines() -> Iterable[Seed]:
    """Return what one process of Heimdall tells another."""
    for line in (
        '{"answer": {"a": [1, null]}, "number": 1}\n',
        '{"error": "no such thing", "number": 1}\n',
        '{"number": 1}\n',
        '{"answer": 1, "number": 2}\n{"answer": 1, "number": 1}\n',
        '{"ask": "stop", "with": null, "number": 1}\n{"answer": 1, "number": 1}\n',
        '{"ask": "stop"}\n',
        '{"answer": 1, "number": []}\n',
        '{"answer": 1, "number": 1}',
        "[]\n",
        "1\n",
        "null\n",
        "\n",
        "",
        "no JSON\n",
        '"\u00ff"\n',
    ):
        yield text(f"{line[:60]!a}".replace("\\", "/"), line.encode("latin-1"))
    yield Seed("nested deeply", ((b"[", 20000), b"\n"))
    yield Seed("a number of 5000 digits", ((b"1", 5000), b"\n"))


FILES: Mapping[str, Callable[[], Iterable[Seed]]] = {
    "query": queries,
    "reply": replies,
    "value": values,
    "name": names,
    "event": bus,
    "http": requests,
    "settings": given_settings,
    "tcp": streams,
    "redis": redis,
    "channel": lines,
}
"""By target."""


def texts() -> dict[str, str]:
    """Return what each file of the corpus is to hold, by the file's name."""
    return {
        f"{target}.txt": "\n".join(corpus.write(seed.name, seed.pieces, text=seed.text) for seed in make())
        for target, make in FILES.items()
    }


def write_all(directory: Path) -> None:
    """Write the corpus, apart from what was found."""
    for name, text in texts().items():
        (directory / name).write_text(text, "ascii")
