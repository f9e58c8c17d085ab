"""The YAML file: every value comes back as the text that was written, keyed by flag.

Scalars are not typed by YAML, because that would change them: ``010`` would be 8, ``1:30`` would be 90 and a password
of digits would lose its zeros. Errors give a line, never its content, which may be a secret.
"""

from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import configargparse  # type: ignore[import-untyped,unused-ignore]
import yaml

from heimdall_lib.config.table import ONLY_FLAGS, TABLE
from heimdall_lib.errors import SettingError

_TAG = "tag:yaml.org,2002:"
_ROWS = {row.flag: row for row in TABLE if row.flag != "config"}


class _TextLoader(yaml.SafeLoader):
    """Loads scalars as text, null as None, lists and mappings; refuses any other tag and a key that is there twice."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        """Build the mapping; raises ``_DuplicateKeyError``, where YAML's own loader lets the last key win."""
        if not isinstance(node, yaml.MappingNode):  # written with an explicit !!map
            raise yaml.constructor.ConstructorError(problem_mark=node.start_mark)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _DuplicateKeyError(key.value, key.start_mark.line + 1)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag == _TAG + "null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TextLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in ("null", "str", "seq", "map")
}


class _DuplicateKeyError(Exception):
    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


def read_settings_file(path: Path) -> dict[str, str]:
    """Read the file into flag → text, leaving out keys whose value is null.

    Raises ``SettingError`` for a file that cannot be read or is not YAML, and for a key that is unknown, there twice,
    or has a value of another shape than its setting.
    """
    content = _load(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingError("--config", str(path), "a YAML mapping of settings to values")
    for key in content:
        _check_key(path, str(key))
    return {key: _text(path, key, value) for key, value in content.items() if value is not None}


def _load(path: Path) -> object:
    try:
        # The loader is a safe one that builds even less: text, null, lists and mappings.
        content: object = yaml.load(path.read_text(encoding="utf-8"), _TextLoader)  # noqa: S506
    except OSError as error:
        raise SettingError("--config", str(path), f"a readable file; {error.strerror}") from None
    except _DuplicateKeyError as error:
        raise SettingError(f"--config {path}", error.key, f"a key may be there once; line {error.line}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        hint = "quote a value that begins with * & ! % @ or holds ': '"
        raise SettingError("--config", str(path), f"valid YAML in UTF-8{where}; {hint}") from None
    return content


def _check_key(path: Path, key: str) -> None:
    if key in _ROWS:
        return
    if key in ("config", *ONLY_FLAGS):
        allowed = "only a flag, not a key of the file"
    else:
        allowed = "unknown key" + suggestion(key.replace("_", "-").lower().removeprefix("--"))
    raise SettingError(f"--config {path}", key, allowed)


def suggestion(word: str) -> str:
    """Name the flag that ``word`` is closest to, as the tail of an error; empty when none is close."""
    close = get_close_matches(word, [*_ROWS, "config", *ONLY_FLAGS], n=1)
    return f"; {close[0]!r} is meant?" if close else ""


def _text(path: Path, key: str, value: object) -> str:
    row = _ROWS[key]
    if isinstance(value, dict) and key == "forward-zones":
        return ",".join(f"{zone}={_joined(path, key, servers, '+')}" for zone, servers in value.items())
    if row.kind.many:
        return _joined(path, key, value, ",")
    return _scalar(path, key, value)


def _joined(path: Path, key: str, value: object, separator: str) -> str:
    if isinstance(value, list):
        return separator.join(_scalar(path, key, item) for item in value)
    return _scalar(path, key, value)


def _scalar(path: Path, key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    shape = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "null"
    raise SettingError(f"--{key} (in {path})", shape, f"not possible here; {_ROWS[key].kind.allowed}")


class SettingsFile(configargparse.ConfigFileParser):  # type: ignore[misc]
    """Lets configargparse read the file through ``read_settings_file``; its "stream" is the path, not yet opened."""

    def parse(self, stream: Path) -> dict[str, str]:
        """Return flag → text; raises ``SettingError``."""
        return read_settings_file(stream)
