"""The parsed settings while they are brought together: files, limits of one another, servers, Redis.

Each step either completes the values or raises ``SettingError``; afterwards nothing about them can be wrong that can
be known before the sockets are opened. Reads the files that the settings name and nothing else of the system.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from heimdall_lib.config.addresses import covers
from heimdall_lib.config.redis_target import detect
from heimdall_lib.config.sources import Given
from heimdall_lib.config.table import TABLE, Setting
from heimdall_lib.config.upstreams import Machine, resolved, system_servers
from heimdall_lib.config.values import show
from heimdall_lib.errors import SettingError
from heimdall_lib.settings import RedisTarget, UpstreamServer

_ROWS = {row.flag: row for row in TABLE}
_SECRETS_FROM_FILES = ("redis-password", "redis-signing-key", "admin-token")
_TLS_FILES = ("redis-ca-cert", "redis-client-cert", "redis-client-key")


class Draft:
    """Typed values by flag, not yet known to fit together."""

    def __init__(self, given: Mapping[str, Given]) -> None:
        """Parse every setting by itself; raises ``SettingError`` for the first one that is not allowed."""
        self._given = given
        self.values: dict[str, Any] = {row.flag: self._parsed(row) for row in TABLE}

    def complete(self, machine: Machine, environ: Mapping[str, str]) -> tuple[RedisTarget | None, str]:
        """Finish and check the values; return where Redis is and which detection step said so."""
        self._read_secrets()
        self._check_times()
        self._fill_in_burst()
        self._check_listeners()
        self._fill_in_servers(machine)
        self._check_tls_files()
        return self._redis(environ)

    def shown(self, target: RedisTarget | None, step: str) -> dict[str, str]:
        """Write every value as text; secrets are hidden, and Redis is shown as it was found."""
        texts = {flag: show(value) for flag, value in self.values.items()}
        enabled = self.values["redis-enabled"]
        texts["redis-enabled"] = f"{'auto' if enabled is None else show(enabled)} ({step})"
        texts["redis-url"] = str(target) if target else "-"
        if target:
            texts["redis-username"] = show(target.username)
            texts["redis-password"] = show(target.password)
        return texts

    def _parsed(self, row: Setting) -> object:
        given = self._given[row.flag]
        try:
            parsed: object = row.kind.parse(given.text)
        except ValueError as error:
            raise SettingError(given.name, row.mask(given.text), str(error)) from None
        return parsed

    def _refuse(self, flag: str, allowed: str) -> NoReturn:
        given = self._given[flag]
        # Without a context: what was caught may hold the bytes of a secret.
        raise SettingError(given.name, _ROWS[flag].mask(given.text), allowed) from None

    def _read_secrets(self) -> None:
        for flag in _SECRETS_FROM_FILES:
            file_flag = f"{flag}-file"
            if not self.values[file_flag]:
                continue
            if self.values[flag]:
                self._refuse(file_flag, f"not together with {flag}; one of the two is allowed")
            content = self._content(file_flag).removesuffix("\n").removesuffix("\r")
            if not content:
                self._refuse(file_flag, "a file that is not empty")
            try:
                self.values[flag] = _ROWS[flag].kind.parse(content)
            except ValueError as error:
                self._refuse(file_flag, f"a file that holds {error}")

    def _content(self, flag: str) -> str:
        try:
            return Path(self.values[flag]).read_bytes().decode()
        except OSError as error:
            self._refuse(flag, f"a readable file; {error.strerror}")
        except UnicodeDecodeError:
            self._refuse(flag, "a file that holds UTF-8 text")

    def _check_times(self) -> None:
        values = self.values
        if values["min-ttl"] > values["max-ttl"]:
            self._refuse("min-ttl", f"at most max-ttl, which is {values['max-ttl']}")
        if values["query-timeout"] < values["upstream-timeout"]:
            self._refuse("query-timeout", f"at least upstream-timeout, which is {show(values['upstream-timeout'])}")
        if values["serve-stale"] and values["stale-client-timeout"] >= values["query-timeout"]:
            limit = show(values["query-timeout"])
            self._refuse("stale-client-timeout", f"less than query-timeout, which is {limit}, unless serve-stale is 0")

    def _fill_in_burst(self) -> None:
        rate, burst = self.values["rate-limit"], self.values["rate-limit-burst"]
        if burst is not None and not rate:
            self._refuse("rate-limit-burst", "only together with a rate-limit above 0")
        if burst is None:
            # A bucket that cannot hold one whole query would refuse every client.
            self.values["rate-limit-burst"] = max(1.0, 2 * rate) if rate else 0.0

    def _check_listeners(self) -> None:
        http = self.values["http-bind-addr"]
        for listener in self.values["bind-addr"]:
            if http is not None and covers(listener, http):
                self._refuse("http-bind-addr", f"another port than that of bind-addr, which has {listener}")

    def _fill_in_servers(self, machine: Machine) -> None:
        listeners = self.values["bind-addr"]
        servers = self.values["upstream-servers"]
        self.values["upstream-servers"] = (
            self._resolved("upstream-servers", servers, machine) if servers else system_servers(listeners, machine)
        )
        self.values["forward-zones"] = tuple(
            replace(zone, servers=self._resolved("forward-zones", zone.servers, machine))
            for zone in self.values["forward-zones"]
        )

    def _resolved(self, flag: str, servers: tuple[UpstreamServer, ...], machine: Machine) -> tuple[UpstreamServer, ...]:
        try:
            return resolved(servers, self.values["bind-addr"], machine)
        except ValueError as error:
            self._refuse(flag, str(error))

    def _check_tls_files(self) -> None:
        for flag, other in (("redis-client-cert", "redis-client-key"), ("redis-client-key", "redis-client-cert")):
            if self.values[flag] and not self.values[other]:
                self._refuse(flag, f"only together with {other}")
        for flag in _TLS_FILES:
            if self.values[flag]:
                self._content(flag)

    def _redis(self, environ: Mapping[str, str]) -> tuple[RedisTarget | None, str]:
        values = self.values
        source = self._given["redis-url"].source
        target, step = detect(values["redis-url"], source, environ, enabled=values["redis-enabled"])
        if target is None:
            if values["redis-enabled"]:
                self._refuse("redis-enabled", "no Redis was detected: set redis-url, or use auto or false")
            return None, step
        for flag in _TLS_FILES:
            if values[flag] and not target.tls:
                self._refuse(flag, f"only with a rediss:// URL, but Redis is {target} ({step})")
        username = values["redis-username"] or target.username
        password = values["redis-password"] or target.password
        if username and not password:
            name = self._given["redis-username"].name if values["redis-username"] else step
            raise SettingError(name, username, "a user name needs a password, from redis-password or -file")
        return replace(target, username=username, password=password), step
