"""The HTTP side's application: any request is answered, and nothing is changed by whoever may not."""

from collections.abc import Mapping, Sequence

from heimdall_lib.admin import Admin
from heimdall_lib.invalidations import Flush
from heimdall_lib.metrics import StatsCollector, registry
from heimdall_lib.stats import Stats
from heimdall_lib.tally import Reading
from tests.fuzz import reference
from tests.fuzz.targets.texts import TextTarget

TOKEN = "a token for the fuzzer"
_STATUSES = {"200", "400", "403", "404", "405"}


class HttpTarget(TextTarget):
    """Lines of text: method, path, query string, then ``NAME value`` of what else a WSGI server says."""

    name = "http"
    block = 4000
    pieces = (
        *(
            b"GET\n",
            b"HEAD\n",
            b"POST\n",
            b"/cache/flush\n",
            b"/cache/entry\n",
            b"/metrics\n",
            b"/stats\n",
            b"/healthz\n",
        ),
        *(b"?", b"&", b"=", b";", b"%", b"%00", b"%ff", b"%2e", b"+", b"name=www.example.com", b"name=", b"type=A"),
        *(b"type=TYPE65536", b"type=28", b"subtree=true", b"subtree=", b"all=true", b"all=1", b"\xff", b"\0", b"\n"),
        *(b"HTTP_AUTHORIZATION Bearer a token for the fuzzer\n", b"HTTP_ORIGIN http://evil.example\n", b"\xe2\x82\xac"),
        *(b"HTTP_ACCEPT application/openmetrics-text; version=1.0.0\n", b"REMOTE_ADDR ::ffff:127.0.0.1\n", b"q=0.5"),
    )

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._flushed: list[Flush] = []
        self._apps = [self._app(""), self._app(TOKEN)]

    def check(self, data: bytes) -> str:
        """See the module."""
        lines = data.decode("latin-1").split("\n")
        method, path, query, *rest = [*lines, "", "", ""]
        environ = {"REMOTE_ADDR": "127.0.0.1"}
        environ |= {name: value for name, _, value in (line.partition(" ") for line in rest) if name.isupper()}
        environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
        return " ".join(self._request(app, environ, bool(number)) for number, app in enumerate(self._apps))

    def _request(self, app: Admin, environ: Mapping[str, str], needs_token: bool) -> str:
        self._flushed.clear()
        started: list[tuple[str, dict[str, str]]] = []
        body = b"".join(app(environ, lambda status, headers: started.append((status, dict(headers)))))
        ((status, headers),) = started
        assert status[:3] in _STATUSES, status
        assert not any("\n" in text for pair in headers.items() for text in pair)
        assert len(body) == int(headers["Content-Length"]) or environ["REQUEST_METHOD"] == "HEAD"
        assert TOKEN.encode() not in body
        for flush in self._flushed:
            assert status.startswith("200")
            assert environ["REQUEST_METHOD"] == "POST"
            given = environ.get("HTTP_AUTHORIZATION") == f"Bearer {TOKEN}"
            assert given if needs_token else "HTTP_ORIGIN" not in environ
            assert not flush.name or reference.read_name(flush.name, 0)[1] == len(flush.name)
        return f"{status[:3]}{' flushed' * len(self._flushed)}"

    def _app(self, token: str) -> Admin:
        return Admin(
            registry=registry(StatsCollector(lambda: Reading(Stats()))),
            answers=lambda: "",
            ready=lambda: "",
            stats=dict,
            flush=self._flush,
            entry=lambda name, qtype: {"name": name.hex(), "type": qtype},
            token=token,
        )

    def _flush(self, flush: Flush) -> Mapping[str, object]:
        self._flushed.append(flush)
        return {}
