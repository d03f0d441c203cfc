"""The file of a service's options and secrets, in the form of systemd's EnvironmentFile: NAME="value", one a line."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from penstock.cli.services.definition import check_value, check_variable
from penstock.errors import ConfigError

HEAD = "# Options and secrets of this service; only its owner may read them. Restart it after a change.\n"
LARGEST = 1 << 20
_LINE = re.compile(
    r"""\s*(?P<name>[^=\s]+)=(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<bare>[^'"\\\s]*))\s*\Z"""
)


def render(environment: Mapping[str, str]) -> str:
    lines = [f'{name}="{_escaped(value)}"\n' for name, value in sorted(environment.items())]
    return HEAD + "".join(lines)


def _escaped(value: str) -> str:
    return re.sub(r'(["\\`$])', r"\\\1", value)


def parse(text: str, where: str) -> dict[str, str]:
    """What systemd would read. Raises `ConfigError`, with the line's number but not its text, for another form."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ConfigError(f'{where}, line {number}: write NAME="value", with \\ before each ", \\, ` and $ in it')
        name = check_variable(match["name"])
        double = match["double"]
        value = double if double is not None else match["single"] or match["bare"] or ""
        found[name] = check_value(name, re.sub(r'\\(["\\`$])', r"\1", value) if double is not None else value)
    return found


def read(path: Path) -> dict[str, str]:
    """Nothing when there is no file yet. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{path} has more than {LARGEST:,} bytes: it is no environment file")
    try:
        return parse(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error


def write_file(path: Path, text: str, mode: int) -> None:
    """Replace `path` as a whole: nobody reads half of it, and a secret is never readable by others on the way."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, mode)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
