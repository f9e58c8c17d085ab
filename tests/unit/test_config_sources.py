"""Merging flags, environment, file and defaults."""

from pathlib import Path

import pytest

from heimdall_lib import __version__
from heimdall_lib.config.sources import Given, _parser, gather
from heimdall_lib.config.table import TABLE
from heimdall_lib.errors import SettingError


def given(flag: str, argv: list[str], environ: dict[str, str] | None = None) -> Given:
    return gather(argv, environ or {}).given[flag]


def refusal(argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingError) as caught:
        gather(argv, environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "heimdall.yaml"
    file.write_text("max-ttl: 3\nmin-ttl: 1\n")
    return file


def test_without_anything_every_setting_has_its_default() -> None:
    gathered = gather([], {})
    assert gathered.given == {row.flag: Given(row.default, f"--{row.flag}", "") for row in TABLE}
    assert not gathered.check_config


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(path: Path) -> None:
    environ = {"HEIMDALL_MAX_TTL": "2", "HEIMDALL_CONFIG": str(path)}
    assert given("max-ttl", ["--max-ttl", "1"], environ) == Given("1", "--max-ttl", "--max-ttl")
    assert given("max-ttl", [], environ) == Given("2", "--max-ttl (HEIMDALL_MAX_TTL)", "HEIMDALL_MAX_TTL")
    del environ["HEIMDALL_MAX_TTL"]
    assert given("max-ttl", [], environ) == Given("3", f"--max-ttl (in {path})", f"max-ttl in {path}")
    del environ["HEIMDALL_CONFIG"]
    assert given("max-ttl", [], environ) == Given("86400", "--max-ttl", "")


def test_the_file_named_by_a_flag_wins_over_the_one_named_by_the_environment(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("max-ttl: 4")
    found = gather(["--config", str(other)], {"HEIMDALL_CONFIG": str(path)}).given
    assert (found["max-ttl"].text, found["min-ttl"].text, found["config"].text) == ("4", "0", str(other))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.flag)
def test_every_setting_has_its_flag_and_its_variable(row: object, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    flag, variable = getattr(row, "flag", ""), getattr(row, "variable", "")
    value = str(tmp_path / "empty.yaml")
    assert variable == "HEIMDALL_" + flag.replace("-", "_").upper()
    for argv in ([f"--{flag}", value], [f"--{flag}={value}"]):
        assert given(flag, argv) == Given(value, f"--{flag}", f"--{flag}")
    assert given(flag, [], {variable: value}) == Given(value, f"--{flag} ({variable})", variable)


def test_a_variable_that_is_empty_is_not_set(path: Path) -> None:
    found = given("max-ttl", ["--config", str(path)], {"HEIMDALL_MAX_TTL": ""})
    assert found.text == "3"


def test_an_empty_flag_is_given(path: Path) -> None:
    environ = {"HEIMDALL_FORWARD_ZONES": "a=192.0.2.1"}
    assert given("forward-zones", ["--forward-zones="], environ) == Given("", "--forward-zones", "--forward-zones")
    assert given("config", ["--config="], {"HEIMDALL_CONFIG": str(path)}).text == ""


def test_the_last_of_two_flags_wins() -> None:
    assert given("max-ttl", ["--max-ttl", "1", "--max-ttl=2"]).text == "2"


@pytest.mark.parametrize("value", ["-5", "a=b", "a,b", "[1,2]", " x ", "%(default)s", "--"])
def test_values_pass_through_as_they_are(value: str, path: Path) -> None:
    assert given("max-ttl", [f"--max-ttl={value}"]).text == value
    assert given("max-ttl", [], {"HEIMDALL_MAX_TTL": value}).text == value
    path.write_text(f"max-ttl: '{value}'")
    assert given("max-ttl", ["--config", str(path)]).text == value


@pytest.mark.parametrize("flag", ["query-log", "prefetch"])
@pytest.mark.parametrize(
    ("tail", "text"),
    [([], "true"), (["--max-ttl", "5"], "true"), (["off"], "off"), (["false", "--max-ttl", "5"], "false")],
)
def test_a_bare_boolean_flag_means_true(flag: str, tail: list[str], text: str) -> None:
    assert given(flag, [f"--{flag}", *tail]).text == text
    assert given(flag, [f"--{flag}", *tail], {"HEIMDALL_QUERY_LOG": "no", "HEIMDALL_PREFETCH": "no"}).text == text


@pytest.mark.parametrize(
    "argv", [["--check-config"], ["--check-config", "--max-ttl", "5"], ["--query-log", "--check-config"]]
)
def test_check_config_is_a_request(argv: list[str]) -> None:
    assert gather(argv, {}).check_config


def test_requests_have_no_variable() -> None:
    environ = {"HEIMDALL_CHECK_CONFIG": "true", "HEIMDALL_VERSION": "true", "HEIMDALL_HELP": "true"}
    assert not gather([], environ).check_config


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.flag)
def test_a_flag_without_its_value_is_refused(row: object) -> None:
    flag = getattr(row, "flag", "")
    if flag in ("query-log", "prefetch"):
        return
    allowed = getattr(row, "kind", TABLE[0].kind).allowed
    expected = f"--{flag}: '': the value is missing: {allowed} (--{flag}=VALUE for one that begins with -)"
    assert refusal([f"--{flag}"]) == expected
    assert refusal([f"--{flag}", "--check-config"]) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max-tll", "5"], "command line: '--max-tll': unknown flag; 'max-ttl' is meant?"),
        (["--max_ttl=5"], "command line: '--max_ttl': unknown flag; 'max-ttl' is meant?"),
        (["--xyzzy"], "command line: '--xyzzy': unknown flag"),
        (["--max-tt", "5"], "command line: '--max-tt': unknown flag; 'max-ttl' is meant?"),
        (["--redis-pasword=hunter2"], "command line: '--redis-pasword': unknown flag; 'redis-password' is meant?"),
        (["--redis-pasword", "hunter2"], "command line: '--redis-pasword': unknown flag; 'redis-password' is meant?"),
        (["serve"], "command line: 'serve': settings are given as --flag VALUE; see --help"),
        (["-v"], "command line: '-v': settings are given as --flag VALUE; see --help"),
        (["--redis-password", "my", "hunter2"], "command line: '***': settings are given as --flag VALUE; see --help"),
        (["--admin-token=my", "hunter2"], "command line: '***': settings are given as --flag VALUE; see --help"),
        (["--check-config=hunter2"], "--check-config: '***': takes no value"),
        (["--version=hunter2"], "--version: '***': takes no value"),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line_without_secrets(argv: list[str], message: str) -> None:
    assert refusal(argv) == message


def test_no_way_into_argparse_ends_in_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["-=hunter2"], ["-"], ["--"], ["--", "x"], ["--=x"], [""]):
        assert "hunter2" not in refusal(argv)
    with pytest.raises(SettingError, match="--help lists the flags") as caught:
        _parser().error("hunter2")
    assert "hunter2" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("request_flag", ["--help", "-h"])
def test_help_lists_every_flag_with_its_variable_and_default(
    request_flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {row.variable: "hunter2-hunter2-hunter2" for row in TABLE}
    with pytest.raises(SystemExit) as caught:
        gather([request_flag], environ)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for row in TABLE:
        assert f"--{row.flag} {row.kind.metavar}" in printed
        assert f"{row.variable}, default: {row.default or '-'}\n" in printed
        assert f"allowed: {row.kind.allowed}\n" in printed
        assert f"{row.help}\n" in printed
    assert "--check-config" in printed
    assert "--version" in printed
    assert "hunter2" not in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        gather(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"heimdall {__version__}\n"


def test_an_unusable_file_is_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    expected = f"--config: {str(absent)!r}: a readable file; No such file or directory"
    assert refusal(["--config", str(absent)]) == expected
    path = tmp_path / "heimdall.yaml"
    path.write_text("max_ttl: 5")
    expected = f"--config {path}: 'max_ttl': unknown key; 'max-ttl' is meant?"
    assert refusal([], {"HEIMDALL_CONFIG": str(path)}) == expected
