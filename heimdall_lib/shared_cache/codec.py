"""What stands in Redis: the name of a key, and the bytes of its value.

A value is magic and version, flags, the DO and CD bits, when it was stored (milliseconds of Redis's clock), its
lifetime (seconds), the size of the message, the message (compressed or not) and, when keys are set, a MAC over the
key's name and all of that. Everything is big-endian. docs/redis.md has the layout byte by byte.

Rules: no clock, no socket; nothing read from Redis is believed before it is checked, and nothing is expanded beyond
the size of a DNS message.
"""

import hashlib
import hmac
import zlib
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from heimdall_lib import wire
from heimdall_lib.errors import HeimdallError, WireError
from heimdall_lib.names import class_name, class_number, type_name, type_number
from heimdall_lib.query import CD_BIT, DO_BIT

SCHEMA = 1
_MAGIC = b"HD"
_HEADER = Struct("!2sBBBQIH")
_KEY_END = Struct("!HHB")  # type, class, DO and CD bits
_COMPRESSED, _SIGNED = 1, 2
_MAC_SIZE = 16
_KEYS_REMEMBERED = 4096  # what was read a moment ago is stored under the same


class RejectedValueError(HeimdallError):
    """A value that is not to be believed; ``reason`` is a metrics label."""

    def __init__(self, reason: str) -> None:
        """Say why, in one of a closed set of words."""
        super().__init__(reason)
        self.reason = reason


class StoredAnswer(NamedTuple):
    """A message as it was stored: its TTLs were true at ``stored_at`` (ms of Redis's clock), for ``lifetime`` s."""

    message: bytes
    stored_at: int
    lifetime: int


@lru_cache(maxsize=_KEYS_REMEMBERED)
def redis_key(prefix: str, view: str, key: bytes) -> str:
    """Return the name of the Redis key for a cache key: ``prefix:1:view:www.example.com:A:IN``, then ``:do``, ``:cd``.

    Only Heimdall's separators are colons: a name's own are escaped, so that no two cache keys share a Redis key.
    """
    qtype, qclass, bits = _KEY_END.unpack_from(key, len(key) - _KEY_END.size)
    flags = (":do" if bits & DO_BIT else "") + (":cd" if bits & CD_BIT else "")
    return f"{prefix}:{SCHEMA}:{view}:{wire.presentation(key)}:{type_name(qtype)}:{class_name(qclass)}{flags}"


def cache_key(prefix: str, view: str, name: str) -> bytes | None:
    """Return the cache key whose Redis key has this name; None when it is no name that ``redis_key`` gives."""
    before = f"{prefix}:{SCHEMA}:{view}:"
    owner, *rest = name.removeprefix(before).split(":")
    try:
        qtype, qclass = type_number(rest[0]), class_number(rest[1])
        bits = (DO_BIT if "do" in rest[2:] else 0) | (CD_BIT if "cd" in rest[2:] else 0)
        key = wire.from_presentation(owner) + _KEY_END.pack(qtype, qclass, bits)
    except (IndexError, ValueError, WireError):
        return None
    return key if redis_key(prefix, view, key) == name else None


class Codec:
    """Writes and reads values: signed with the first key and verified with every one, when there are keys."""

    def __init__(self, *, signing_keys: Sequence[str] = (), compress_min_bytes: int = 0) -> None:
        """Compress messages of at least ``compress_min_bytes``; 0 means never."""
        self._keys = tuple(hashlib.blake2b(key.encode(), digest_size=32).digest() for key in signing_keys)
        self._compress_min_bytes = compress_min_bytes

    def encode(self, redis_key: str, key: bytes, answer: StoredAnswer) -> tuple[bytes, int]:
        """Return the value for a Redis key, and how many bytes compression saved."""
        body, flags = answer.message, _SIGNED if self._keys else 0
        if self._compress_min_bytes and len(body) >= self._compress_min_bytes:
            compressed = zlib.compress(body, 1)
            if len(compressed) < len(body):
                body, flags = compressed, flags | _COMPRESSED
        size = len(answer.message)
        header = _HEADER.pack(_MAGIC, SCHEMA, flags, key[-1], answer.stored_at, answer.lifetime, size)
        value = header + body
        if self._keys:
            value += _mac(self._keys[0], redis_key, value)
        return value, size - len(body)

    def decode(self, redis_key: str, key: bytes, value: bytes) -> StoredAnswer:
        """Return what a value holds.

        Raises RejectedValueError: ``format``, ``version``, ``signature``, ``flags`` (DO or CD differ), ``size`` or
        ``compression``. The message itself is still to be examined.
        """
        if len(value) < _HEADER.size or value[:2] != _MAGIC:
            raise RejectedValueError("format")
        _, version, flags, bits, stored_at, lifetime, size = _HEADER.unpack_from(value)
        if version != SCHEMA:
            raise RejectedValueError("version")
        if self._keys:
            value = self._verified(redis_key, value, signed=bool(flags & _SIGNED))
        elif flags & _SIGNED:
            value = value[:-_MAC_SIZE]  # signed by a replica that has keys: this one cannot tell
        if bits != key[-1]:
            raise RejectedValueError("flags")
        message = value[_HEADER.size :]
        if flags & _COMPRESSED:
            message = _expand(message, size)
        if not size or len(message) != size:
            raise RejectedValueError("size")
        return StoredAnswer(message, stored_at, lifetime)

    def _verified(self, redis_key: str, value: bytes, *, signed: bool) -> bytes:
        content, mac = value[:-_MAC_SIZE], value[-_MAC_SIZE:]
        if not signed or not any(hmac.compare_digest(mac, _mac(one, redis_key, content)) for one in self._keys):
            raise RejectedValueError("signature")
        return content


def _mac(key: bytes, redis_key: str, content: bytes) -> bytes:
    # A key's name holds no NUL, so that name and content cannot be shifted against each other.
    return hashlib.blake2b(redis_key.encode() + b"\0" + content, key=key, digest_size=_MAC_SIZE).digest()


def _expand(compressed: bytes, size: int) -> bytes:
    expander = zlib.decompressobj()
    try:
        message = expander.decompress(compressed, size + 1)
    except zlib.error:
        raise RejectedValueError("compression") from None
    if not expander.eof or expander.unused_data:
        raise RejectedValueError("compression")
    return message
