"""Every command that the documentation shows: those that can run here are run, the others say what they need.

They are run as an operator would, in the repository and in the order of the page's block, with bash, against a live
Heimdall with a live Redis. Only what ``Place.here`` replaces is different: ports, and the path of a secret.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import NEEDS, Block, blocks
from tests.support.processes import PATIENCE, REPOSITORY, Heimdall, RedisServer, environment
from tests.support.upstream import Upstream

BLOCKS = blocks()
SHELL = [block for block in BLOCKS if block.language == "sh"]
RUN = [block for block in SHELL if not block.needs]
_PROGRAMS = "sudo|make|docker|kubectl|helm|curl|dig|kdig|python3?|redis-cli|ss|kind|git|systemctl"
_COMMAND = re.compile(rf"^(?:[A-Z_]+=\S* )*(?:\$ |(?:{_PROGRAMS}) )")
_SERVER = re.compile(
    r"^((?:[A-Z_]+=\S+ )*python heimdall\.py)(?= -| *$)(?!.*--(?:check-config|version|help))(.*)$", re.MULTILINE
)


class Place:
    """Where the commands find what they speak to."""

    def __init__(self, directory: Path, server: Heimdall, redis: RedisServer) -> None:
        """Put what the commands read into ``directory``."""
        password = directory / "password"
        password.write_text("a password\n")
        http, dns = server.http, server.address
        self.environment = environment({"HEIMDALL_HTTP_BIND_ADDR": f"{http[0]}:{http[1]}"})
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}:/usr/sbin:/sbin"
        self._replacements: list[tuple[str | re.Pattern[str], str]] = [
            (r"127\.0\.0\.1:8080", f"{http[0]}:{http[1]}"),
            (r"@127\.0\.0\.1( -p 1053)?", f"@{dns[0]} -p {dns[1]}"),
            (r"127\.0\.0\.1 1053", f"{dns[0]} {dns[1]}"),
            (r"redis://127\.0\.0\.1:6379", redis.url),
            (r"redis-cli", f"redis-cli -p {redis.port}"),
            (r"/run/secrets/redis", str(password)),
            # A server would stay: whether it would start is what --check-config says.
            (_SERVER, r"\1\2 --check-config"),
        ]

    def here(self, text: str) -> str:
        """Return commands as they are to be run here."""
        for pattern, replacement in self._replacements:
            text = re.sub(pattern, replacement, text)
        return text

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-e", "-o", "pipefail", "-c", self.here(text)]
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("docs")
    redis = RedisServer(directory)
    with Upstream() as upstream:
        for name in ("example.com", "www.example.com"):
            upstream.add(name, "A", "192.0.2.1")
            upstream.add(name, "AAAA", "2001:db8::1")
        server: Heimdall | None = None
        try:
            redis.start()
            server = Heimdall("--upstream-servers", upstream.address, "--redis-url", redis.url)
            server.wait_for_redis()
            for name in ("example.com", "www.example.com"):
                server.ask(name)
                redis.wait_for_key(name)
            yield Place(directory, server, redis)
            assert server.stop() == 0
        finally:
            if server is not None:
                server.kill()
            redis.kill()


def shape(line: str) -> str:
    """Return a pattern for a line like this one: other numbers, and anything for an ellipsis."""
    pattern = re.escape(line.strip()).replace("…", ".*")
    return re.sub(r"\d+", r"\\d+", pattern)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_runs_here_or_says_what_it_needs(block: Block) -> None:
    known = ", ".join(f"needs={each}" for each in NEEDS)
    assert block.info == "sh" or block.needs in NEEDS, (
        f"{block}: {block.info!r}: sh alone, or followed by one of {known}"
    )


def test_no_command_hides_in_a_block_without_a_language() -> None:
    hidden = [str(block) for block in BLOCKS if not block.language and _COMMAND.search(block.text)]
    assert not hidden, f"mark these as sh: {hidden}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_is_one_that_a_shell_reads(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_targets_of_make_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    named = {word for block in SHELL for word in re.findall(r"(?:^|&& )make ([a-z-]+)", block.text, re.MULTILINE)}
    assert "run" in named
    assert named <= targets


@pytest.mark.parametrize("block", RUN, ids=str)
def test_the_commands_of_a_block_do_what_the_page_shows(block: Block, place: Place) -> None:
    done = place.run(block.text)
    assert done.returncode == 0, f"{place.here(block.text)}\n{done.stdout}{done.stderr}"
    printed = iter((done.stdout + done.stderr).splitlines())
    for line in filter(str.strip, block.shown.splitlines()):
        assert any(re.fullmatch(shape(line), other.strip()) for other in printed), f"{line!r} not in\n{done.stdout}"
