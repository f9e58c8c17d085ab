"""``heimdall.py flush`` and ``heimdall.py entry``: an operator's words to a server that runs, over its HTTP side.

Imports the standard library and the health check, so that it starts in a moment and runs where the server does. Exit
status: 0 done, 1 not done, or not on every replica, 2 asked wrongly.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from heimdall_lib import healthcheck

_TIMEOUT_SECONDS = 30.0
_DEFAULT = "127.0.0.1:8080"
_PLACES = {
    "both": "in L1 and L2",
    "l1": "in L1",
    "l2": "in L2",
    "stale": "in L1, past its TTL",
    "nowhere": "not in the cache",
}


class _Failed(Exception):  # noqa: N818 - an exit status with a reason
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Carry out a command; return the exit status."""
    options = _parser(environ).parse_args(argv)
    try:
        return _flush(options, environ) if options.command == "flush" else _entry(options, environ)
    except _Failed as error:
        print(f"heimdall: {error}", file=sys.stderr)
        return error.status


def _parser(environ: Mapping[str, str]) -> ArgumentParser:
    parser = ArgumentParser(prog="heimdall.py", description="Speaks to a Heimdall that runs, over HTTP.")
    commands = parser.add_subparsers(dest="command", required=True)
    flush = commands.add_parser("flush", help="forget a name, a subtree or everything, on every replica")
    entry = commands.add_parser("entry", help="say where the answer to a question is")
    flush.add_argument("name", nargs="?", help="the name to forget")
    flush.add_argument("--type", help="forget this type only")
    flush.add_argument("--subtree", action="store_true", help="forget all names below it, too")
    flush.add_argument("--all", action="store_true", help="forget everything")
    entry.add_argument("name", help="the name to look for")
    entry.add_argument("--type", default="A", help="the type to look for (A)")
    for command in (flush, entry):
        command.add_argument(
            "--http-addr",
            default=_server(environ),
            metavar="URL",
            help="where the server's HTTP side is (http://127.0.0.1:8080, or what HEIMDALL_HTTP_BIND_ADDR says)",
        )
        command.add_argument("--admin-token", metavar="TEXT", help="the server's token (HEIMDALL_ADMIN_TOKEN)")
        command.add_argument("--admin-token-file", metavar="FILE", help="a file that holds it")
    return parser


def _server(environ: Mapping[str, str]) -> str:
    try:
        host, port = healthcheck.parse_address(environ.get("HEIMDALL_HTTP_BIND_ADDR") or _DEFAULT)
    except healthcheck.Unhealthy:  # "disabled", and whatever the server would refuse
        return f"http://{_DEFAULT}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _flush(options: Namespace, environ: Mapping[str, str]) -> int:
    if options.all == bool(options.name) or (options.all and (options.type or options.subtree)):
        raise _Failed(2, "flush: a name, with --type and --subtree if need be, or --all alone")
    wanted = {"all": "true"} if options.all else {"name": options.name}
    if options.type:
        wanted["type"] = options.type
    if options.subtree:
        wanted["subtree"] = "true"
    answer = _ask(options, environ, "POST", "/cache/flush", wanted)
    expected, acknowledged = answer["replicas"]["expected"], answer["replicas"]["acknowledged"]
    print(f"{'everything' if options.all else options.name}: forgotten by {acknowledged} of {expected} replicas")
    print(f"removed: {answer['l1_removed']} from L1 here, {answer['l2_removed']} from Redis ({answer['redis']})")
    if answer["complete"]:
        return 0
    raise _Failed(1, "not complete: a replica that was not reached forgets when it hears of it, or at the TTL's end")


def _entry(options: Namespace, environ: Mapping[str, str]) -> int:
    answer = _ask(options, environ, "GET", "/cache/entry", {"name": options.name, "type": options.type})
    print(f"{answer['name']} {answer['type']}: {_PLACES[answer['where']]}; a query now is {answer['now']}")
    print(f"Redis: {answer['redis']}")
    for variant in answer["variants"]:
        bits = " ".join(word for word, bit in (("DO", "dnssec_ok"), ("CD", "checking_disabled")) if variant[bit])
        for tier in ("l1", "l2"):
            if held := variant[tier]:
                print(
                    f"{tier.upper()} {bits or '-':5} {held['rcode']:8} age {held['age']:g} s,"
                    f" TTL {held['ttl']} s, {held['size']} bytes{'' if held['fresh'] else ', stale'}"
                )
    return 0


def _ask(
    options: Namespace, environ: Mapping[str, str], method: str, path: str, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the server answers."""
    address = options.http_addr if "://" in options.http_addr else f"http://{options.http_addr}"
    token = _token(options, environ)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        parts = urlsplit(address)
        kind = {"http": HTTPConnection, "https": HTTPSConnection}[parts.scheme]
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    except (KeyError, ValueError):
        raise _Failed(2, f"--http-addr: {options.http_addr!r}: http://host:port") from None
    try:
        connection.request(method, f"{path}?{urlencode(fields)}", headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, HTTPException) as error:
        raise _Failed(1, f"{address}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        connection.close()
    try:
        answer: dict[str, Any] = json.loads(body)
    except ValueError:
        raise _Failed(1, f"{address}: {status}, and no JSON") from None
    if status != 200:
        raise _Failed(2 if status == 400 else 1, str(answer.get("error", status)))
    return answer


def _token(options: Namespace, environ: Mapping[str, str]) -> str:
    """Return the token that is given, a flag before the environment; empty when none is."""
    file = options.admin_token_file
    if options.admin_token and file:
        raise _Failed(2, "--admin-token-file: not together with --admin-token")
    given = options.admin_token or ("" if file else environ.get("HEIMDALL_ADMIN_TOKEN", ""))
    file = file or ("" if given else environ.get("HEIMDALL_ADMIN_TOKEN_FILE", ""))
    try:
        token = Path(file).read_text("ascii").strip() if file else given
    except (OSError, UnicodeDecodeError) as error:
        raise _Failed(2, f"--admin-token-file: {getattr(error, 'strerror', None) or 'not ASCII'}") from None
    if not token.isascii() or not token.isprintable():
        raise _Failed(2, "--admin-token: printable ASCII")
    return token
