"""Collects the text of every setting: flag before environment before file before default.

configargparse does the merging; here it is told the table, kept from printing and exiting on errors, and asked where
each value came from, so that an error can name the variable or the file to correct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import configargparse  # type: ignore[import-untyped,unused-ignore]

from heimdall_lib import __version__
from heimdall_lib.config.file import SettingsFile, suggestion
from heimdall_lib.config.table import TABLE, Setting
from heimdall_lib.errors import SettingError

_BARE_MEANS_TRUE = frozenset({"--query-log", "--prefetch"})
_SECRET_FLAGS = frozenset({"--redis-url", "--redis-password", "--redis-signing-key", "--admin-token"})
_ROWS = {f"--{row.flag}": row for row in TABLE}
_EPILOG = """\
A server that runs is spoken to with "heimdall.py flush NAME" (or --all) and "heimdall.py entry NAME"; each has --help.

A flag wins over its environment variable, the variable over the file, the file over the default. Durations are
seconds, sizes are bytes. The same flags without "--" are the keys of the YAML file.
"""


@dataclass(frozen=True, slots=True)
class Given:
    """The text of one setting; ``name`` is how errors call it and ``source`` where it came from, "" for the default."""

    text: str
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """Every setting by flag (without ``--``), and whether ``--check-config`` was asked for."""

    given: Mapping[str, Given]
    check_config: bool


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:  # noqa: ARG002
        """Raise where argparse would print its usage; the message may repeat a secret, so it is dropped."""
        raise SettingError("command line", "***", "cannot be understood; --help lists the flags")


def gather(argv: Sequence[str], environ: Mapping[str, str]) -> Gathered:
    """Merge the sources; only variables that belong to a setting and are not empty are looked at.

    Raises ``SettingError`` for an unknown flag or key, a missing value or an unusable file. ``--help`` and
    ``--version`` print and raise ``SystemExit(0)``.
    """
    parser = _parser()
    variables = {row.variable: environ[row.variable] for row in TABLE if environ.get(row.variable)}
    try:
        namespace, rest = parser.parse_known_args(_spelled_out(argv), env_vars=variables)
    except configargparse.ArgumentError as error:
        raise _usage_error(error.argument_name or "command line") from None
    if rest:
        raise _unknown(rest[0], argv)
    # Some versions of argparse take a value that is exactly "--" away and leave an empty list.
    texts = {row.field: "--" if (text := getattr(namespace, row.field)) == [] else text for row in TABLE}
    sources = parser.get_source_to_settings_dict()
    given = {row.flag: _given(row, texts[row.field], texts["config"], sources) for row in TABLE}
    return Gathered(given, bool(namespace.check_config))


def _parser() -> _Parser:
    parser = _Parser(
        prog="heimdall.py",
        usage="heimdall.py [--flag VALUE ...]",
        description="A caching DNS server whose replicas share one cache in Redis.",
        epilog=_EPILOG,
        formatter_class=configargparse.RawTextHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_parser_class=SettingsFile,
        # Hands the path to SettingsFile unopened, so that all that can be wrong with a file is found in one place.
        config_file_open_func=Path,
    )
    for row in TABLE:
        parser.add_argument(
            f"--{row.flag}",
            env_var=row.variable,
            is_config_file_arg=row.flag == "config",
            metavar=row.kind.metavar,
            help=_help(row),
        )
    parser.add_argument("--check-config", action="store_true", help="validate, print the settings, exit 0 or 2")
    parser.add_argument("--version", action="version", version=f"heimdall {__version__}", help="print the version")
    return parser


def _help(row: Setting) -> str:
    lines = (row.help, f"allowed: {row.kind.allowed}", f"{row.variable}, default: {row.default or '-'}")
    return "\n".join(lines).replace("%", "%%")


def _spelled_out(argv: Sequence[str]) -> list[str]:
    pairs = zip(argv, [*argv[1:], "--"], strict=False)
    return [f"{word}=true" if word in _BARE_MEANS_TRUE and after.startswith("-") else word for word, after in pairs]


def _usage_error(flag: str) -> SettingError:
    if flag not in _ROWS:
        return SettingError(flag, "***", "takes no value")
    allowed = _ROWS[flag].kind.allowed
    return SettingError(flag, "", f"the value is missing: {allowed} ({flag}=VALUE for one that begins with -)")


def _unknown(word: str, argv: Sequence[str]) -> SettingError:
    flag, _, _ = word.partition("=")
    if flag.startswith("--"):
        return SettingError("command line", flag, "unknown flag" + suggestion(flag.removeprefix("--")))
    # A stray word may be the second half of a secret that was not quoted.
    secret = any(each.partition("=")[0] in _SECRET_FLAGS for each in argv)
    return SettingError("command line", "***" if secret else flag, "settings are given as --flag VALUE; see --help")


def _given(row: Setting, text: str | None, path: str | None, sources: Mapping[str, Mapping[str, object]]) -> Given:
    option = f"--{row.flag}"
    if text is None:
        return Given(row.default, option, "")
    if row.variable in sources.get("environment_variables", {}):
        return Given(text, f"{option} ({row.variable})", row.variable)
    if any(row.flag in keys for source, keys in sources.items() if source.startswith("config_file|")):
        return Given(text, f"{option} (in {path})", f"{row.flag} in {path}")
    return Given(text, option, option)
