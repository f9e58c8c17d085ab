"""The exceptions that Heimdall's own modules raise across a boundary.

Adapters translate foreign exceptions (``OSError``, ``redis.RedisError``, ``ssl.SSLError``) into these where they meet
them; only ``responder.py`` turns them into response codes, and only ``app.py`` turns them into exit statuses.
"""


class HeimdallError(Exception):
    """The root of everything Heimdall raises on purpose."""


class SettingError(HeimdallError):
    """A setting that cannot be used; the message is the one line that the operator reads."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        """Name the setting, show the value as given and say what would be accepted."""
        super().__init__(f"{name}: {value!r}: {allowed}")
        self.name = name


class ListenError(HeimdallError):
    """An address that could not be bound; the message says which and why."""


class WorkerError(HeimdallError):
    """The workers could not be started; the message says why."""


class ChannelError(HeimdallError):
    """The process on the other end of a channel gave no answer; the message says why."""


class WireError(HeimdallError):
    """Bytes that are not a well-formed DNS message (RFC 1035, section 4)."""


class UpstreamError(HeimdallError):
    """One exchange with one upstream server failed; ``reason`` is a metrics label."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep ``reason`` (one of a closed set) apart from the human detail."""
        super().__init__(detail)
        self.reason = reason


class NoAnswerError(HeimdallError):
    """No upstream server gave an answer; ``code`` and ``text`` are the Extended DNS Error (RFC 8914) that says why."""

    def __init__(self, code: int, text: str) -> None:
        """Keep the Extended DNS Error."""
        super().__init__(text)
        self.code = code
        self.text = text


class SharedCacheError(HeimdallError):
    """One operation on the shared cache failed; ``reason`` is a metrics label."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep ``reason`` (one of a closed set) apart from the human detail."""
        super().__init__(detail)
        self.reason = reason
