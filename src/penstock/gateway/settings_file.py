"""Settings in a TOML file, which may be changed while the gateway runs."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

import msgspec
from msgspec.structs import asdict

from penstock.errors import ConfigError
from penstock.gateway.settings import GatewaySettings
from penstock.spelling import hint

log = logging.getLogger("penstock.gateway")
MOST = 1 << 20
"""Bytes of such a file."""


class SettingsFile:
    """`GatewaySettings` by their names; what is not in the file is as in `base`."""

    def __init__(self, path: Path, base: GatewaySettings) -> None:
        self.path, self._base = path, base
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> GatewaySettings:
        """Raises `ConfigError` for a file that is not there, and for what is wrong in it."""
        self._stamp = self._stamped()
        try:
            with self.path.open("rb") as file:
                given = tomllib.loads(file.read(MOST).decode())
        except OSError as error:
            raise ConfigError(f"the settings in {self.path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path} is no TOML: {error}") from error
        known = GatewaySettings.__struct_fields__
        for name in given:
            if name not in known:
                raise ConfigError(f"{self.path}: there is no setting {name!r}{hint(name, known)}")
        try:
            return msgspec.convert(asdict(self._base) | given, GatewaySettings)
        except (msgspec.ValidationError, ConfigError) as error:
            raise ConfigError(f"{self.path}: {error}") from error

    def changed(self) -> GatewaySettings | None:
        """What is in it now, if it has changed since; a bad one is logged, and nothing changes."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return None
        try:
            found = self.read()
        except ConfigError as error:
            log.error("%s; settings stay as they were", error)
            return None
        log.info("the settings in %s are in force", self.path)
        return found

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
