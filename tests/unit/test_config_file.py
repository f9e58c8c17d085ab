"""The YAML file: text in, text out, and every way in which it can be wrong."""

from pathlib import Path

import pytest

from heimdall_lib.config.file import SettingsFile, read_settings_file, suggestion
from heimdall_lib.config.table import TABLE
from heimdall_lib.errors import SettingError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heimdall.yaml"


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingError) as caught:
        read_settings_file(path)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "flag", "text"),
    [
        ("max-ttl: 300", "max-ttl", "300"),
        ("upstream-timeout: 0.50", "upstream-timeout", "0.50"),
        ("prefetch: true", "prefetch", "true"),
        ("prefetch: No", "prefetch", "No"),
        ("redis-enabled: off", "redis-enabled", "off"),
        ("redis-enabled: auto", "redis-enabled", "auto"),
        ("bind-addr: 127.0.0.1:53", "bind-addr", "127.0.0.1:53"),
        ("bind-addr: [127.0.0.1:53, '[::1]:53']", "bind-addr", "127.0.0.1:53,[::1]:53"),
        ("bind-addr:\n  - 127.0.0.1:53\n  - '[::1]:53'\n", "bind-addr", "127.0.0.1:53,[::1]:53"),
        ("upstream-servers: [192.0.2.1]", "upstream-servers", "192.0.2.1"),
        ("allow-from: []", "allow-from", ""),
        ("forward-zones: a=192.0.2.1", "forward-zones", "a=192.0.2.1"),
        ("forward-zones: [a=192.0.2.1, b=192.0.2.2]", "forward-zones", "a=192.0.2.1,b=192.0.2.2"),
        ("forward-zones: {cluster.local: 10.96.0.10}", "forward-zones", "cluster.local=10.96.0.10"),
        ("forward-zones: {a: [192.0.2.1, 192.0.2.2], b: 192.0.2.3}", "forward-zones",
         "a=192.0.2.1+192.0.2.2,b=192.0.2.3"),
        ("redis-signing-key: [new-key, old-key]", "redis-signing-key", "new-key,old-key"),
        ("redis-url: 'redis://cache'", "redis-url", "redis://cache"),
        ("redis-view: ''", "redis-view", ""),
        ("redis-view: 'null'", "redis-view", "null"),
        ("'max-ttl': !!str 5", "max-ttl", "5"),
    ],
)  # fmt: skip
def test_values_come_back_as_text(path: Path, line: str, flag: str, text: str) -> None:
    path.write_text(line)
    assert read_settings_file(path) == {flag: text}


@pytest.mark.parametrize("text", ["010", "0x1F", "1:30", "1_000", "1e3", "2024-01-01", ".inf", "+1", "<<", "=", "yes"])
def test_yaml_does_not_change_what_was_written(path: Path, text: str) -> None:
    path.write_text(f"redis-password: {text}")
    assert read_settings_file(path) == {"redis-password": text}


@pytest.mark.parametrize("null", ["", "~", "null", "NULL"])
def test_null_is_not_set(path: Path, null: str) -> None:
    path.write_text(f"max-ttl: {null}\nmin-ttl: 5\n")
    assert read_settings_file(path) == {"min-ttl": "5"}


@pytest.mark.parametrize("content", ["", "\n", "# only a comment\n", "---\n", "null", "{}"])
def test_an_empty_file_sets_nothing(path: Path, content: str) -> None:
    path.write_text(content)
    assert read_settings_file(path) == {}


@pytest.mark.parametrize("row", [row for row in TABLE if row.flag != "config"], ids=lambda row: row.flag)
def test_every_setting_but_config_has_a_key(path: Path, row: object) -> None:
    flag = getattr(row, "flag", "")
    path.write_text(f"{flag}: value")
    assert read_settings_file(path) == {flag: "value"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_ttl", "'max_ttl': unknown key; 'max-ttl' is meant?"),
        ("Max-TTL", "'Max-TTL': unknown key; 'max-ttl' is meant?"),
        ("--max-ttl", "'--max-ttl': unknown key; 'max-ttl' is meant?"),
        ("max-cach-size", "'max-cach-size': unknown key; 'max-cache-size' is meant?"),
        ("zzz", "'zzz': unknown key"),
        ("1", "'1': unknown key"),
        ("~", "'None': unknown key"),
        ("config", "'config': only a flag, not a key of the file"),
        ("check-config", "'check-config': only a flag, not a key of the file"),
        ("version", "'version': only a flag, not a key of the file"),
        ("help", "'help': only a flag, not a key of the file"),
    ],
)
def test_a_key_that_is_no_setting_is_refused(path: Path, key: str, message: str) -> None:
    assert refusal(path, f"min-ttl: 1\n{key}: 5\n") == f"--config {path}: {message}"
    assert refusal(path, f"{key}:\n") == f"--config {path}: {message}"


def test_a_key_that_is_there_twice_is_refused(path: Path) -> None:
    message = refusal(path, "max-ttl: 1\nmin-ttl: 1\n'max-ttl': 2\n")
    assert message == f"--config {path}: 'max-ttl': a key may be there once; line 3"
    message = refusal(path, "forward-zones: {a: 192.0.2.1, a: 192.0.2.2}")
    assert message == f"--config {path}: 'a': a key may be there once; line 1"


@pytest.mark.parametrize(
    ("content", "flag", "shape"),
    [
        ("max-ttl: [5]", "max-ttl", "a list"),
        ("max-ttl: {a: 5}", "max-ttl", "a mapping"),
        ("redis-url: [redis://a, redis://b]", "redis-url", "a list"),
        ("bind-addr: {a: b}", "bind-addr", "a mapping"),
        ("bind-addr: [[a]]", "bind-addr", "a list"),
        ("bind-addr: [{a: b}]", "bind-addr", "a mapping"),
        ("bind-addr: [127.0.0.1:53, ]\nallow-from: [~]", "allow-from", "null"),
        ("forward-zones: {a: }", "forward-zones", "null"),
        ("forward-zones: {a: {b: c}}", "forward-zones", "a mapping"),
        ("forward-zones: {a: [[b]]}", "forward-zones", "a list"),
        ("forward-zones: &loop [*loop]", "forward-zones", "a list"),
        ("redis-password: {hunter2: hunter2}", "redis-password", "a mapping"),
    ],
)
def test_a_value_of_another_shape_is_refused(path: Path, content: str, flag: str, shape: str) -> None:
    message = refusal(path, content)
    assert message.startswith(f"--{flag} (in {path}): '{shape}': not possible here; ")
    assert "hunter2" not in message


@pytest.mark.parametrize("content", ["text", "- max-ttl: 5", "5", "'null'"])
def test_a_file_that_is_no_mapping_is_refused(path: Path, content: str) -> None:
    assert refusal(path, content) == f"--config: {str(path)!r}: a YAML mapping of settings to values"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("min-ttl: 1\nredis-password: *hunter2\n", " (line 2, column 17)"),
        ("redis-password: !hunter2 x\n", " (line 1, column 17)"),
        ("redis-password: @hunter2\n", " (line 1, column 17)"),
        ("redis-password: %hunter2\n", " (line 1, column 17)"),
        ("redis-password: hunter2: x\n", " (line 1, column 24)"),
        ("redis-password: 'hunter2\n", " (line 2, column 1)"),
        ("redis-password: hunter2\n---\nmax-ttl: 5\n", " (line 2, column 1)"),
        ("max-ttl: !!int 5\n", " (line 1, column 10)"),
        ("max-ttl: !!python/object/apply:os.system [id]\n", " (line 1, column 10)"),
        ("? [hunter2]\n: 5\n", " (line 1, column 3)"),
        ("max-ttl: !!map [5]\n", " (line 1, column 10)"),
        (b"redis-password: hunter2\xff\n", ""),
        (b"redis-password: hunter2\x00\n", ""),
        ("[" * 5000, ""),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place_and_without_its_text(
    path: Path, content: str | bytes, place: str
) -> None:
    message = refusal(path, content)
    assert message.startswith(f"--config: {str(path)!r}: valid YAML in UTF-8{place}; quote a value")
    assert "hunter2" not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "absent", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingError) as caught:
            read_settings_file(path)
        assert str(caught.value) == f"--config: {str(path)!r}: a readable file; {reason}"


def test_configargparse_reads_through_the_same_function(path: Path) -> None:
    path.write_text("max-ttl: 5")
    assert SettingsFile().parse(path) == {"max-ttl": "5"}


def test_a_suggestion_is_made_only_when_one_is_close() -> None:
    assert suggestion("upstream-server") == "; 'upstream-servers' is meant?"
    assert suggestion("conf") == "; 'config' is meant?"
    assert suggestion("xyzzy") == ""
