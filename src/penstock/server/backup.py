"""Copies of a broker's data: taken while it runs, each database at one moment; put back where there is nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw

from penstock.engines.sqlite.files import APPLICATION_ID
from penstock.errors import ConfigError, StoreError
from penstock.server.access.database import FILE as ACCESS_FILE
from penstock.server.space import FILE, FOLDER

BACKUPS = "backups"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
BUSY = 10_000


def databases(data: Path) -> Iterator[Path]:
    """Relative paths of all that there is."""
    for found in (Path(ACCESS_FILE), Path(FILE)):
        if (data / found).exists():
            yield found
    for found in sorted((data / FOLDER).glob(f"*/{FILE}")):
        yield found.relative_to(data)


def backup(data: Path, target: Path) -> list[str]:
    """Copy every database of `data` into the new folder `target`; returns their names. Others may write meanwhile:
    each copy is of one moment. Raises `ConfigError` when there is something already, or nothing to copy."""
    if target.exists():
        raise ConfigError(f"{target} is there already: choose another place")
    found = list(databases(data))
    if not found:
        raise ConfigError(f"there is no broker's data in {data}")
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name in found:
            _copy(data / name, unfinished / name)
        os.replace(unfinished, target)
    except (OSError, apsw.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StoreError(f"the backup to {target} failed: {error}") from error
    return [str(name) for name in found]


def _copy(source: Path, target: Path) -> None:
    os.makedirs(target.parent, mode=0o700, exist_ok=True)
    connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY)
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.close()
    os.chmod(target, 0o600)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def restore(source: Path, data: Path) -> list[str]:
    """Put a backup into the folder `data`, in which there is none yet; returns the names. Raises `ConfigError`."""
    found = list(databases(source))
    if Path(FILE) not in found:
        raise ConfigError(f"{source} is no backup of a broker: there is no {FILE} in it")
    taken = list(databases(data)) if data.exists() else []
    if taken:
        raise ConfigError(f"{data} has data already ({taken[0]}): restore into an empty folder, then start with that")
    for name in found:
        check(source / name)
    try:
        for name in found:
            os.makedirs((data / name).parent, mode=0o700, exist_ok=True)
            shutil.copyfile(source / name, data / name)
            os.chmod(data / name, 0o600)
            with open(data / name, "rb") as file:
                os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"restoring into {data} failed: {error}") from error
    return [str(name) for name in found]


def check(path: Path) -> None:
    """Raise `StoreError` unless the database is whole. Reads all of it."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    try:
        connection.set_busy_timeout(BUSY)
        wrong = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
        if wrong != ["ok"]:
            raise StoreError(f"{path} is damaged: {'; '.join(wrong)}: stop the broker, and restore a backup")
        number = connection.pragma("application_id")
        if path.name == FILE and number != APPLICATION_ID:
            raise StoreError(f"{path} is no database of penstock")
    except apsw.Error as error:
        raise StoreError(f"{path} is damaged: {error}: stop the broker, and restore a backup") from error
    finally:
        connection.close()


def named(data: Path, name: str) -> Path:
    """Where a backup of that name goes, that a client asks for. Raises `ConfigError` for a name that is a path."""
    if not NAME.match(name):
        raise ConfigError(f"a backup's name has letters, digits, '.', '_' and '-', not {name[:100]!r}")
    return data / BACKUPS / name
