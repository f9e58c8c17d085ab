"""The settings as a whole: built completely, or refused with one line that shows no secret."""

import dataclasses
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from heimdall_lib.config import (
    RELOADABLE,
    Invocation,
    Machine,
    describe,
    load,
    read_command_line,
    unknown_variables,
)
from heimdall_lib.config.table import TABLE, is_service_link
from heimdall_lib.errors import SettingError
from heimdall_lib.settings import Endpoint, ForwardZone, RedisTarget, Secret, Settings, UpstreamServer

LOOP = "is where Heimdall itself listens (bind-addr), which would be a loop"
SECRET = "hunter2-hunter2-hunter2"
PUBLIC = (UpstreamServer("udp", "1.1.1.1", 53), UpstreamServer("udp", "8.8.8.8", 53))


def unknown_host(name: str) -> str:
    raise OSError("unknown host")


MACHINE = Machine(
    resolve=lambda name: "192.0.2.53" if name == "dns.example" else unknown_host(name),
    resolv_conf="/nonexistent/resolv.conf",
    is_local=lambda host: host in ("127.0.0.1", "10.0.0.7"),
)


def settings(*argv: str, **environ: str) -> Settings:
    return load(argv, environ, MACHINE)


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingError) as caught:
        load(argv, environ, MACHINE)
    message = str(caught.value)
    assert "\n" not in message
    assert "hunter2" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.write_text("certificate\n")
    return str(path)


DEFAULTS: dict[str, Any] = {
    "config": "",
    "bind_addr": (Endpoint("127.0.0.1", 1053),),
    "http_bind_addr": Endpoint("127.0.0.1", 8080),
    "upstream_servers": PUBLIC,
    "forward_zones": (),
    "upstream_policy": "fastest",
    "upstream_timeout": 1.5,
    "query_timeout": 4.5,
    "max_cache_size": 100000,
    "max_cache_bytes": 268435456,
    "min_ttl": 0,
    "max_ttl": 86400,
    "max_negative_ttl": 3600,
    "failure_ttl": 5.0,
    "serve_stale": 86400,
    "stale_reply_ttl": 30,
    "stale_client_timeout": 1.8,
    "prefetch": True,
    "purge_interval": 30.0,
    "redis_target": None,
    "redis_step": "not detected",
    "redis_ca_cert": "",
    "redis_client_cert": "",
    "redis_client_key": "",
    "redis_key_prefix": "heimdall:dns:cache",
    "redis_view": "auto",
    "redis_timeout": 0.25,
    "redis_read_budget": 0.02,
    "redis_max_connections": 16,
    "redis_compress_min_bytes": 512,
    "redis_signing_key": (),
    "warm_cache_entries": 10000,
    "workers": 1,
    "max_inflight": 4096,
    "allow_from": tuple(
        ip_network(network)
        for network in (
            *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("fc00::/7", "169.254.0.0/16", "fe80::/10"),
        )
    ),
    "rate_limit": 0.0,
    "rate_limit_burst": 0.0,
    "edns_udp_size": 1232,
    "tcp_idle_timeout": 10.0,
    "max_tcp_connections": 1024,
    "max_tcp_connections_per_client": 128,
    "admin_token": "",
    "drain_seconds": 5.0,
    "log_level": "info",
    "log_format": "text",
    "query_log": False,
}


def test_the_defaults_are_those_of_the_contract() -> None:
    found = settings()
    assert {name: getattr(found, name) for name in DEFAULTS} == DEFAULTS
    assert {field.name for field in dataclasses.fields(Settings)} == {*DEFAULTS, "shown"}
    assert {name: type(getattr(found, name)) for name in DEFAULTS} == {
        name: type(default) for name, default in DEFAULTS.items()
    } | {"admin_token": Secret}


CHANGED: dict[str, tuple[str, Any]] = {
    "bind-addr": ("0.0.0.0:53,[::]:53", (Endpoint("0.0.0.0", 53), Endpoint("::", 53))),
    "http-bind-addr": ("disabled", None),
    "upstream-servers": ("tls://dns.example", (UpstreamServer("tls", "192.0.2.53", 853, "dns.example"),)),
    "forward-zones": (
        "corp=10.0.0.1+dns.example",
        (ForwardZone("corp", (UpstreamServer("udp", "10.0.0.1", 53), UpstreamServer("udp", "192.0.2.53", 53))),),
    ),
    "upstream-policy": ("Random", "random"),
    "upstream-timeout": ("0.5", 0.5),
    "query-timeout": ("9", 9.0),
    "max-cache-size": ("1", 1),
    "max-cache-bytes": ("1", 1),
    "min-ttl": ("60", 60),
    "max-ttl": ("2147483647", 2147483647),
    "max-negative-ttl": ("0", 0),
    "failure-ttl": ("0", 0.0),
    "serve-stale": ("0", 0),
    "stale-reply-ttl": ("1", 1),
    "stale-client-timeout": ("0", 0.0),
    "prefetch": ("off", False),
    "purge-interval": ("0.5", 0.5),
    "redis-key-prefix": ("prod:dns", "prod:dns"),
    "redis-view": ("eu-1", "eu-1"),
    "redis-timeout": ("1", 1.0),
    "redis-read-budget": ("0.5", 0.5),
    "redis-max-connections": ("1", 1),
    "redis-compress-min-bytes": ("0", 0),
    "redis-signing-key": (SECRET, (SECRET,)),
    "warm-cache-entries": ("0", 0),
    "workers": ("0", 0),
    "max-inflight": ("1", 1),
    "allow-from": ("any", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
    "rate-limit": ("0.5", 0.5),
    "edns-udp-size": ("4096", 4096),
    "tcp-idle-timeout": ("0.1", 0.1),
    "max-tcp-connections": ("1", 1),
    "max-tcp-connections-per-client": ("1", 1),
    "admin-token": (SECRET, SECRET),
    "drain-seconds": ("0", 0.0),
    "log-level": ("DEBUG", "debug"),
    "log-format": ("JSON", "json"),
    "query-log": ("1", True),
}


@pytest.mark.parametrize("flag", CHANGED)
def test_every_source_sets_the_same_field(flag: str, tmp_path: Path) -> None:
    text, value = CHANGED[flag]
    field = flag.replace("-", "_")
    path = tmp_path / "heimdall.yaml"
    path.write_text(f"{flag}: '{text}'")
    assert getattr(settings(f"--{flag}", text), field) == value
    assert getattr(settings(**{f"HEIMDALL_{field.upper()}": text}), field) == value
    assert getattr(settings("--config", str(path)), field) == value


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("bind-addr", ""), ("bind-addr", "localhost:53"), ("http-bind-addr", ""), ("http-bind-addr", "off"),
        ("upstream-servers", ""), ("upstream-servers", "2001:db8::1"), ("upstream-servers", "tls://no.example"),
        ("forward-zones", "."), ("forward-zones", "corp=no.example"), ("upstream-policy", "best"),
        ("upstream-timeout", "0"), ("upstream-timeout", "nan"), ("query-timeout", "inf"), ("query-timeout", "3601"),
        ("max-cache-size", "0"), ("max-cache-size", "1e5"), ("max-cache-bytes", "0"), ("max-cache-bytes", "256M"),
        ("min-ttl", "-1"), ("max-ttl", "2147483648"), ("max-ttl", "1.0"), ("max-negative-ttl", "x"),
        ("failure-ttl", "-1"), ("failure-ttl", "301"), ("serve-stale", "-1"), ("stale-reply-ttl", "0"),
        ("stale-client-timeout", "-0.1"), ("prefetch", "maybe"), ("purge-interval", "0"), ("redis-url", "cache:6379"),
        ("redis-enabled", "perhaps"), ("redis-username", "a b"), ("redis-key-prefix", "a*"), ("redis-key-prefix", ""),
        ("redis-view", "a b"), ("redis-view", ""), ("redis-timeout", "0"), ("redis-timeout", "61"),
        ("redis-read-budget", "0"), ("redis-max-connections", "0"), ("redis-compress-min-bytes", "-1"),
        ("warm-cache-entries", "-1"), ("workers", "65"), ("workers", "-1"), ("workers", "auto"), ("max-inflight", "0"),
        ("allow-from", ""), ("allow-from", "10.0.0.1/8"), ("rate-limit", "-1"), ("rate-limit-burst", "0"),
        ("rate-limit-burst", "3x"), ("edns-udp-size", "511"), ("edns-udp-size", "65536"), ("tcp-idle-timeout", "0"),
        ("max-tcp-connections", "0"), ("max-tcp-connections-per-client", "0"), ("drain-seconds", "-1"),
        ("log-level", "trace"), ("log-format", "xml"), ("query-log", "2"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_and_shown_from_every_source(flag: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    path.write_text(f"{flag}: '{text}'")
    message = refusal(f"--{flag}={text}")
    assert message.startswith(f"--{flag}: ")
    tail = message.removeprefix(f"--{flag}")
    assert repr(text) in tail or flag == "redis-url"
    assert refusal("--config", str(path)) == f"--{flag} (in {path}){tail}"
    if text:
        variable = "HEIMDALL_" + flag.replace("-", "_").upper()
        assert refusal(**{variable: text}) == f"--{flag} ({variable}){tail}"


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("redis-url", "redis://ann:hunter2@cache/x"),
        ("redis-url", "hunter2"),
        ("redis-password", "hunter2\udcff"),
        ("redis-signing-key", "hunter2"),
        ("redis-signing-key", f"{SECRET},hunter2"),
        ("admin-token", "hunter2"),
        ("admin-token", f"{SECRET}\n"),
    ],
)
def test_a_wrong_secret_is_named_but_not_shown(flag: str, text: str) -> None:
    for message in (refusal(f"--{flag}={text}"), refusal(**{"HEIMDALL_" + flag.replace("-", "_").upper(): text})):
        assert message.startswith(f"--{flag}")
        assert "***" in message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--min-ttl=10", "--max-ttl=9"], "--min-ttl: '10': at most max-ttl, which is 9"),
        (["--query-timeout=1"], "--query-timeout: '1': at least upstream-timeout, which is 1.5"),
        (["--upstream-timeout=5"], "--query-timeout: '4.5': at least upstream-timeout, which is 5"),
        (
            ["--stale-client-timeout=4.5"],
            "--stale-client-timeout: '4.5': less than query-timeout, which is 4.5, unless serve-stale is 0",
        ),
        (["--rate-limit-burst=5"], "--rate-limit-burst: '5': only together with a rate-limit above 0"),
        (
            ["--bind-addr=0.0.0.0:8080"],
            "--http-bind-addr: '127.0.0.1:8080': another port than that of bind-addr, which has 0.0.0.0:8080",
        ),
        (
            ["--upstream-servers=127.0.0.1:1053"],
            f"--upstream-servers: '127.0.0.1:1053': udp://127.0.0.1:1053 {LOOP}",
        ),
        (
            ["--bind-addr=0.0.0.0:53", "--forward-zones=corp=10.0.0.7"],
            f"--forward-zones: 'corp=10.0.0.7': udp://10.0.0.7:53 {LOOP}",
        ),
        (
            ["--redis-enabled=true"],
            "--redis-enabled: 'true': no Redis was detected: set redis-url, or use auto or false",
        ),
        (
            ["--redis-url=redis://cache", "--redis-username=ann"],
            "--redis-username: 'ann': a user name needs a password, from redis-password or -file",
        ),
        (
            ["--redis-url=redis://ann@cache"],
            "--redis-url: 'ann': a user name needs a password, from redis-password or -file",
        ),
    ],
)
def test_combinations_that_are_refused(argv: list[str], message: str) -> None:
    assert refusal(*argv) == message


@pytest.mark.parametrize(
    "argv",
    [
        ["--min-ttl=9", "--max-ttl=9"],
        ["--query-timeout=1.5", "--stale-client-timeout=1.4"],
        ["--stale-client-timeout=60", "--serve-stale=0"],
        ["--rate-limit-burst=5", "--rate-limit=1"],
        ["--rate-limit-burst=2X"],
        ["--bind-addr=0.0.0.0:8080", "--http-bind-addr=disabled"],
        ["--bind-addr=127.0.0.1:0", "--http-bind-addr=127.0.0.1:0"],
        ["--redis-username=ann"],
        ["--redis-url=redis://ann@cache", "--redis-enabled=false"],
        ["--bind-addr=127.0.0.1:53", "--upstream-servers=10.0.0.7"],
    ],
)
def test_combinations_that_are_accepted(argv: list[str]) -> None:
    assert isinstance(settings(*argv), Settings)


@pytest.mark.parametrize(
    ("argv", "burst"),
    [
        ([], 0.0),
        (["--rate-limit=10"], 20.0),
        (["--rate-limit=10", "--rate-limit-burst=2x"], 20.0),
        (["--rate-limit=0.1"], 1.0),
        (["--rate-limit=10", "--rate-limit-burst=15.5"], 15.5),
    ],
)
def test_the_burst_is_twice_the_rate_unless_it_is_given(argv: list[str], burst: float) -> None:
    assert settings(*argv).rate_limit_burst == burst


def target(*argv: str, **environ: str) -> RedisTarget:
    found = settings(*argv, **environ).redis_target
    assert found is not None
    return found


def test_every_detection_step_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    path.write_text("redis-url: redis://cache")
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    service = {"HEIMDALL_REDIS_SERVICE_HOST": "10.96.0.20"}
    steps = [
        settings("--redis-url=redis://cache", REDIS_URL="redis://other"),
        settings(HEIMDALL_REDIS_URL="redis://cache", REDIS_URL="redis://other"),
        settings("--config", str(path), REDIS_URL="redis://other"),
        settings(REDIS_URL="redis://other", **service, **pod),
        settings(**service, **pod),
        settings(**pod),
        settings(),
        settings(HEIMDALL_REDIS_ENABLED="No", HEIMDALL_REDIS_URL="redis://cache"),
    ]
    assert [each.redis_step for each in steps] == [
        "--redis-url",
        "HEIMDALL_REDIS_URL",
        f"redis-url in {path}",
        "REDIS_URL",
        "HEIMDALL_REDIS_SERVICE_HOST",
        "Kubernetes service name heimdall-redis",
        "not detected",
        "--redis-enabled false",
    ]
    assert [each.shown["redis-enabled"] for each in steps] == [
        *(f"auto ({each.redis_step})" for each in steps[:-1]),
        "false (--redis-enabled false)",
    ]
    for each in steps:
        assert each.redis_target is None or each.redis_target.step == each.redis_step
    assert [each.redis_target is None for each in steps] == [False] * 6 + [True] * 2


def test_an_empty_redis_url_leaves_the_search_to_the_next_step() -> None:
    assert settings("--redis-url=", REDIS_URL="redis://cache").redis_step == "REDIS_URL"


def test_a_redis_that_has_to_be_there_and_is_not_detected_is_refused_from_every_source() -> None:
    tail = "no Redis was detected: set redis-url, or use auto or false"
    assert refusal("--redis-enabled=yes") == f"--redis-enabled: 'yes': {tail}"
    assert refusal(HEIMDALL_REDIS_ENABLED="1") == f"--redis-enabled (HEIMDALL_REDIS_ENABLED): '1': {tail}"


def test_true_hears_about_the_guess_that_auto_keeps_silent_about() -> None:
    assert target(KUBERNETES_SERVICE_HOST="10.96.0.1").guessed
    assert not target("--redis-enabled=yes", KUBERNETES_SERVICE_HOST="10.96.0.1").guessed
    assert settings("--redis-enabled=yes", REDIS_URL="redis://cache").shown["redis-enabled"] == "true (REDIS_URL)"


def test_user_and_password_of_their_own_win_over_the_url(secret_file: str) -> None:
    url = "--redis-url=redis://ann:url-password@cache"
    assert (target(url).username, target(url).password) == ("ann", "url-password")
    found = target(url, "--redis-password=own")
    assert (found.username, found.password) == ("ann", "own")
    found = target(url, "--redis-username=bob")
    assert (found.username, found.password) == ("bob", "url-password")
    found = target("--redis-username=bob", f"--redis-password-file={secret_file}", REDIS_URL="redis://cache")
    assert (found.username, found.password) == ("bob", SECRET)
    found = target("--redis-password=own", KUBERNETES_SERVICE_HOST="10.96.0.1")
    assert (found.username, found.password) == ("", "own")
    assert target("--redis-url=redis://ann@cache", "--redis-password=own").username == "ann"


def test_the_wrong_user_of_a_foreign_url_is_named_after_it() -> None:
    message = refusal(REDIS_URL="redis://ann@cache")
    assert message == "REDIS_URL: 'ann': a user name needs a password, from redis-password or -file"


SECRETS = ["redis-password", "redis-signing-key", "admin-token"]


@pytest.mark.parametrize("flag", SECRETS)
@pytest.mark.parametrize("tail", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_its_file_without_its_final_newline(flag: str, tail: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes((SECRET + tail).encode())
    found = settings(f"--{flag}-file", str(path), REDIS_URL="redis://cache")
    assert found.redis_target is not None
    values: dict[str, object] = {
        "redis-password": found.redis_target.password,
        "redis-signing-key": ",".join(found.redis_signing_key),
        "admin-token": found.admin_token,
    }
    assert values[flag] == SECRET
    assert found.shown[flag] == "***"
    assert found.shown[f"{flag}-file"] == str(path)


def test_only_one_newline_is_taken_off_a_password(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b" pass word \n\n")
    assert target(f"--redis-password-file={path}", REDIS_URL="redis://cache").password == " pass word \n"


def test_signing_keys_of_a_file_are_a_list_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{SECRET},{SECRET}-old\n")
    assert settings(f"--redis-signing-key-file={path}").redis_signing_key == (SECRET, f"{SECRET}-old")


@pytest.mark.parametrize("flag", SECRETS)
def test_a_secret_and_its_file_are_not_combined(flag: str, secret_file: str) -> None:
    expected = f"--{flag}-file: {secret_file!r}: not together with {flag}; one of the two is allowed"
    assert refusal(f"--{flag}={SECRET}", f"--{flag}-file={secret_file}") == expected
    variable = "HEIMDALL_" + flag.replace("-", "_").upper()
    assert refusal(f"--{flag}-file={secret_file}", **{variable: SECRET}) == expected


@pytest.mark.parametrize("flag", SECRETS)
@pytest.mark.parametrize(
    ("content", "allowed"),
    [
        (b"", "a file that is not empty"),
        (b"\n", "a file that is not empty"),
        (b"hunter2\xff", "a file that holds UTF-8 text"),
        (None, "a readable file; No such file or directory"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_refused(
    flag: str, content: bytes | None, allowed: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    assert refusal(f"--{flag}-file={path}") == f"--{flag}-file: {str(path)!r}: {allowed}"


@pytest.mark.parametrize("flag", ["redis-signing-key", "admin-token"])
def test_a_secret_file_with_a_short_secret_is_refused(flag: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("hunter2")
    message = refusal(f"--{flag}-file={path}")
    assert message.startswith(f"--{flag}-file: {str(path)!r}: a file that holds ")
    assert "at least 16" in message


def test_a_directory_is_no_secret_file(tmp_path: Path) -> None:
    expected = f"--admin-token-file: {str(tmp_path)!r}: a readable file; Is a directory"
    assert refusal(f"--admin-token-file={tmp_path}") == expected


def test_tls_files(file: str) -> None:
    argv = [f"--redis-ca-cert={file}", f"--redis-client-cert={file}", f"--redis-client-key={file}"]
    found = settings(*argv, REDIS_URL="rediss://cache")
    assert (found.redis_ca_cert, found.redis_client_cert, found.redis_client_key) == (file, file, file)
    # Without a Redis they have no effect, so that --redis-enabled false is all it takes to switch it off.
    assert settings(*argv).redis_target is None
    assert settings(*argv, "--redis-enabled=false", REDIS_URL="redis://cache").redis_target is None


@pytest.mark.parametrize("url", ["redis://cache", "unix:///run/redis.sock", "redis+cluster://:hunter2@cache"])
def test_tls_files_need_a_tls_url(url: str, file: str) -> None:
    message = refusal(f"--redis-ca-cert={file}", REDIS_URL=url)
    assert message.startswith(f"--redis-ca-cert: {file!r}: only with a rediss:// URL, but Redis is ")
    assert message.endswith("(REDIS_URL)")


@pytest.mark.parametrize(
    ("flag", "other"), [("redis-client-cert", "redis-client-key"), ("redis-client-key", "redis-client-cert")]
)
def test_certificate_and_key_go_together(flag: str, other: str, file: str) -> None:
    expected = f"--{flag}: {file!r}: only together with {other}"
    assert refusal(f"--{flag}={file}", REDIS_URL="rediss://cache") == expected


@pytest.mark.parametrize("flag", ["redis-ca-cert", "redis-client-cert", "redis-client-key"])
def test_tls_files_have_to_be_there(flag: str, file: str) -> None:
    argv = dict.fromkeys(("redis-ca-cert", "redis-client-cert", "redis-client-key"), file) | {flag: f"{file}.no"}
    message = refusal(*(f"--{name}={path}" for name, path in argv.items()), REDIS_URL="rediss://cache")
    assert message == f"--{flag}: {f'{file}.no'!r}: a readable file; No such file or directory"


def test_auto_reads_resolv_conf_and_leaves_ourselves_out(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.7\nnameserver 192.0.2.1\n")
    machine = dataclasses.replace(MACHINE, resolv_conf=str(path))
    servers = load([], {}, machine).upstream_servers
    assert [server.host for server in servers] == ["10.0.0.7", "192.0.2.1"]
    servers = load(["--bind-addr=0.0.0.0:53"], {}, machine).upstream_servers
    assert [server.host for server in servers] == ["192.0.2.1"]


POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "HEIMDALL_SERVICE_HOST": "10.96.0.10",
    "HEIMDALL_SERVICE_PORT": "53",
    "HEIMDALL_SERVICE_PORT_DNS": "53",
    "HEIMDALL_SERVICE_PORT_DNS_TCP": "53",
    "HEIMDALL_PORT": "udp://10.96.0.10:53",
    "HEIMDALL_PORT_53_UDP": "udp://10.96.0.10:53",
    "HEIMDALL_PORT_53_UDP_PROTO": "udp",
    "HEIMDALL_PORT_53_UDP_PORT": "53",
    "HEIMDALL_PORT_53_UDP_ADDR": "10.96.0.10",
    "HEIMDALL_PORT_53_TCP": "tcp://10.96.0.10:53",
    "HEIMDALL_PORT_53_TCP_ADDR": "10.96.0.10",
    "HEIMDALL_HTTP_SERVICE_HOST": "10.96.0.11",
    "HEIMDALL_HTTP_SERVICE_PORT_METRICS": "8080",
    "HEIMDALL_HTTP_PORT": "tcp://10.96.0.11:8080",
    "HEIMDALL_HTTP_PORT_8080_TCP_ADDR": "10.96.0.11",
    "HEIMDALL_REDIS_SERVICE_HOST": "10.96.0.20",
    "HEIMDALL_REDIS_SERVICE_PORT": "6379",
    "HEIMDALL_REDIS_SERVICE_PORT_REDIS": "6379",
    "HEIMDALL_REDIS_PORT": "tcp://10.0.0.1:6379",
    "HEIMDALL_REDIS_PORT_6379_TCP": "tcp://10.0.0.1:6379",
    "HEIMDALL_REDIS_PORT_6379_TCP_PROTO": "tcp",
    "HEIMDALL_REDIS_PORT_6379_TCP_PORT": "6379",
    "HEIMDALL_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    "HEIMDALL_2_PORT_5353_SCTP_ADDR": "10.0.0.2",
}


def test_the_service_links_of_a_pod_set_nothing_but_where_redis_is() -> None:
    found = settings(**POD)
    assert str(found.redis_target) == "redis://10.96.0.20:6379/0"
    assert found.redis_step == "HEIMDALL_REDIS_SERVICE_HOST"
    for name, default in DEFAULTS.items():
        if not name.startswith("redis_target") and name != "redis_step":
            assert getattr(found, name) == default
    assert unknown_variables(POD) == ()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.flag)
def test_no_setting_has_a_variable_that_kubernetes_could_set(row: Any) -> None:
    assert not is_service_link(row.variable)


def test_unknown_variables_are_listed_for_a_warning() -> None:
    known = {row.variable: "x" for row in TABLE}
    typos = {"HEIMDALL_MAX_CACH_SIZE": "5", "HEIMDALL_VERSION": "1", "HEIMDALL_": "", "HEIMDALL_PORT_X": "1"}
    assert unknown_variables({"PATH": "/bin", "heimdall_x": "1", "HEIMDALLX": "1"}) == ()
    assert unknown_variables(known | POD | typos) == tuple(sorted(typos))
    assert settings(**typos) == settings()


def test_sighup_can_change_these() -> None:
    names = (
        "log_level query_log upstream_servers forward_zones upstream_policy upstream_timeout query_timeout min_ttl"
        " max_ttl max_negative_ttl failure_ttl serve_stale stale_reply_ttl stale_client_timeout prefetch allow_from"
        " rate_limit rate_limit_burst max_inflight"
    )
    assert frozenset(names.split()) == RELOADABLE
    assert {field.name for field in dataclasses.fields(Settings)} >= RELOADABLE


def test_the_command_line_says_whether_to_check_only() -> None:
    expected = Invocation(settings("--workers=3"), check_config=True)
    assert read_command_line(["--check-config", "--workers=3"], {}, MACHINE) == expected
    assert not read_command_line([], {}, MACHINE).check_config


def test_what_is_wrong_is_found_when_checking_too() -> None:
    assert refusal("--check-config", "--workers=x").startswith("--workers: 'x': an integer from 0 to 64")


def test_the_description_is_one_line_per_setting() -> None:
    lines = describe(settings("--bind-addr=127.0.0.1:53,[::1]:53", "--forward-zones=a=10.0.0.1")).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [row.flag for row in TABLE]
    assert "bind-addr = 127.0.0.1:53,[::1]:53" in lines
    assert "upstream-servers = udp://1.1.1.1:53,udp://8.8.8.8:53" in lines
    assert "forward-zones = a=udp://10.0.0.1:53" in lines
    assert "redis-url = -" in lines
    assert "prefetch = true" in lines
    assert "drain-seconds = 5" in lines


def test_nothing_shows_a_secret() -> None:
    found = settings(
        f"--redis-signing-key={SECRET},{SECRET}", f"--admin-token={SECRET}", REDIS_URL="redis://ann:hunter2@cache/2"
    )
    assert found.redis_target is not None
    assert found.redis_target.password == "hunter2"
    for text in (describe(found), repr(found), str(found.shown), str(found.redis_target)):
        assert "hunter2" not in text
    assert found.shown["redis-url"] == "redis://cache:6379/2"
    assert found.shown["redis-username"] == "ann"
    assert found.shown["redis-password"] == "***"
    assert found.shown["redis-signing-key"] == "***,***"
    assert found.shown["admin-token"] == "***"


def test_what_is_shown_can_be_set_again() -> None:
    first = settings(*(f"--{flag}={text}" for flag, (text, _) in CHANGED.items()), "--redis-url=redis://cache/3")
    hidden = {"redis-signing-key", "admin-token", "redis-enabled"}
    again = settings(*(f"--{flag}={text}" for flag, text in first.shown.items() if text != "-" and flag not in hidden))
    assert {**again.shown, **{flag: first.shown[flag] for flag in hidden}} == first.shown


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    path.write_text(
        """
bind-addr: ["0.0.0.0:1053", "[::]:1053"]
http-bind-addr: 0.0.0.0:8080
upstream-servers:
  - tls://9.9.9.9#dns.quad9.net
  - 192.0.2.1
forward-zones:
  cluster.local: 10.96.0.10
  corp.example: [10.0.0.53, "10.0.0.54:5353"]
max-ttl: 3600
failure-ttl: 2.5
prefetch: no
redis-enabled: off
allow-from: [10.0.0.0/8, any]
redis-view: ~
"""
    )
    found = settings(HEIMDALL_CONFIG=str(path), HEIMDALL_MAX_TTL="60")
    assert found.config == str(path)
    assert found.bind_addr == (Endpoint("0.0.0.0", 1053), Endpoint("::", 1053))
    assert [str(server) for server in found.upstream_servers] == [
        "tls://9.9.9.9:853#dns.quad9.net",
        "udp://192.0.2.1:53",
    ]
    zones = [(zone.name, len(zone.servers)) for zone in found.forward_zones]
    assert zones == [("cluster.local", 1), ("corp.example", 2)]
    assert (found.max_ttl, found.failure_ttl, found.prefetch, found.redis_view) == (60, 2.5, False, "auto")
    assert found.redis_step == "--redis-enabled false"
    assert len(found.allow_from) == 3
