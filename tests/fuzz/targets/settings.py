"""Flags, environment and file: settings that are whole, or one line that says what is wrong and tells no secret."""

import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from heimdall_lib.config import Machine, describe, read_command_line
from heimdall_lib.config.table import TABLE
from heimdall_lib.errors import SettingError
from heimdall_lib.wiring import forwarding_plan, resolver_policy, responder_policy
from tests.fuzz.targets.texts import TextTarget

SECRET = "hunter2-hunter2-hunter2"


def _unknown(_name: str) -> str:
    raise OSError("unknown host")


_MACHINE = Machine(resolve=_unknown, resolv_conf="/nonexistent/resolv.conf", is_local=lambda _: False)


class SettingsTarget(TextTarget):
    """A command line, an environment or a file: the first line says which, and each other line is a part of it."""

    name = "settings"
    block = 500
    seconds = 0.5  # a parser of 60 flags is built for every input
    pieces = (
        *(f"{row.flag}: ".encode() for row in TABLE),
        *(f"--{row.flag}".encode() for row in TABLE),
        *(
            b"flags\n",
            b"environment\n",
            b"file\n",
            b"=",
            b"\n",
            b"\0",
            b"\xff",
            b"\xc3\xa4",
            b"-",
            b"--",
            b": ",
            b"\n  - ",
        ),
        *(b"0", b"-1", b"1e999", b"nan", b"inf", b"9" * 5000, b"true", b"auto", b"disabled", b"null", b"~", b"[", b"{"),
        *(b"&a", b"*a", b"!!python/object:os.system", b"!!map", b"<<", b"? ", b"| ", b"@", b"`", b"%", b"---", b"\t"),
        *(
            b"127.0.0.1",
            b"[::1]",
            b":53",
            b":99999",
            b"tls://",
            b"udp://",
            b"#name",
            b"redis://",
            b"unix:///",
            b"@",
            b",",
        ),
        *(b"rediss+sentinel://h:1/m", b"/0", b"?db=1", b"%zz", b"%ff", b"10.0.0.0/8", b"::/129", b"example=1.1.1.1"),
        *(
            SECRET.encode(),
            b"HEIMDALL_",
            b"REDIS_URL",
            b"HEIMDALL_REDIS_SERVICE_HOST",
            b"\xd9\xa1\xd9\xa2",
            b"\xc2\xb2",
        ),
    )

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._directory = tempfile.TemporaryDirectory(prefix="heimdall-fuzz-")
        self._file = Path(self._directory.name) / "settings.yaml"

    def check(self, data: bytes) -> str:
        """See the module."""
        kind, _, rest = data.partition(b"\n")
        text = rest.decode("utf-8", "surrogateescape")
        argv: list[str] = []
        environ: dict[str, str] = {}
        if kind == b"flags":
            argv = text.split("\n")
        elif kind == b"environment":
            pairs = (line.partition("=") for line in text.split("\n"))
            environ = {name: value for name, _, value in pairs if name and "\0" not in value}
        else:
            self._file.write_bytes(rest)
            argv = ["--config", str(self._file)]
        return f"{kind.decode('ascii', 'replace') if kind in _KINDS else 'file'} {self._read(argv, environ)}"

    def _read(self, argv: Sequence[str], environ: dict[str, str]) -> str:
        try:
            with redirect_stdout(StringIO()):
                invocation = read_command_line(argv, environ, _MACHINE)
        except SettingError as error:
            told = str(error)
            assert told.strip()
            assert "\n" not in told
            assert SECRET not in told or not _is_hidden(argv, environ)
            return "refused"
        except SystemExit as end:
            return {0: "help"}[end.code]  # type: ignore[index]
        settings = invocation.settings
        shown = describe(settings)
        assert (
            settings.redis_target is None
            or not settings.redis_target.password
            or settings.shown["redis-password"] == "***"
        )
        assert len(shown.splitlines()) >= len(TABLE)
        for part in (forwarding_plan, resolver_policy, responder_policy):
            part(settings)
        return "settings"

    def close(self) -> None:
        """Remove the file."""
        self._directory.cleanup()


_KINDS = (b"flags", b"environment")


def _is_hidden(argv: Sequence[str], environ: dict[str, str]) -> bool:
    """Say whether the secret stands nowhere but where a secret belongs."""
    places = [*argv, *(f"{name}={value}" for name, value in environ.items())]
    holders = ("--redis-password=", "--admin-token=", "--redis-signing-key=")
    variables = ("HEIMDALL_REDIS_PASSWORD=", "HEIMDALL_ADMIN_TOKEN=", "HEIMDALL_REDIS_SIGNING_KEY=")
    return all(SECRET not in place or place.startswith((*holders, *variables)) for place in places)
