"""Flags, environment and file in, one validated ``Settings`` out: whole or not at all.

Nothing is printed and nothing is silently defaulted: whatever cannot be used raises ``SettingError``, one line that
names the setting, its value and what is allowed, and never shows a secret. The text of each setting comes from
``sources.py``, its meaning from ``table.py``, and ``draft.py`` checks how they fit together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from heimdall_lib.config.draft import Draft
from heimdall_lib.config.sources import gather
from heimdall_lib.config.table import RELOADABLE, TABLE, unknown_variables
from heimdall_lib.config.upstreams import THIS_MACHINE, Machine
from heimdall_lib.settings import Settings

__all__ = ["RELOADABLE", "Invocation", "Machine", "describe", "load", "read_command_line", "unknown_variables"]


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the command line asks for: to run with ``settings``, or only to check and print them."""

    settings: Settings
    check_config: bool


def load(argv: Sequence[str], environ: Mapping[str, str], machine: Machine = THIS_MACHINE) -> Settings:
    """Read the settings, as ``read_command_line`` does, for a caller that wants nothing else (SIGHUP)."""
    return read_command_line(argv, environ, machine).settings


def read_command_line(argv: Sequence[str], environ: Mapping[str, str], machine: Machine = THIS_MACHINE) -> Invocation:
    """Read the settings and what to do with them; ``argv`` is without the program's name.

    Reads the files that the settings name, and resolv.conf; host names of upstream servers are resolved through
    ``machine``. Raises ``SettingError`` for anything that cannot be used; ``--help`` and ``--version`` print and
    raise ``SystemExit(0)``.
    """
    gathered = gather(argv, environ)
    draft = Draft(gathered.given)
    target, step = draft.complete(machine, environ)
    names = {field.name for field in fields(Settings)}
    values = {row.field: draft.values[row.flag] for row in TABLE if row.field in names}
    settings = Settings(redis_target=target, redis_step=step, shown=draft.shown(target, step), **values)
    return Invocation(settings, gathered.check_config)


def describe(settings: Settings) -> str:
    """Write the effective settings, one ``flag = value`` line each, secrets as ``***`` and ``-`` for not set."""
    return "\n".join(f"{flag} = {value}" for flag, value in settings.shown.items())
