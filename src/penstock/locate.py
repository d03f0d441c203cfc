"""Where the embedded queue's file lives, so that producers and workers agree whatever their working directory is.

`broker=`, else the environment's `PENSTOCK_BROKER_URL`, else `.penstock/queue.db` in the project's root: the nearest
folder with a `pyproject.toml`, `setup.cfg`, `manage.py` or `.git`, at or above the module that makes the app; without
one, that module's own folder. `sqlite:///q.db` is relative to the same root, `sqlite:////var/q.db` is absolute.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from penstock.errors import ConfigError
from penstock.spelling import without_password

VARIABLE = "PENSTOCK_BROKER_URL"
FOLDER = ".penstock"
_MARKS = ("pyproject.toml", "setup.cfg", "manage.py", ".git")
_SQLITE = "sqlite:///"


def caller_folder() -> Path:
    """The folder of the first module up the stack that is not Penstock's own; the working directory for a console."""
    frame = sys._getframe(1)
    while True:
        name = str(frame.f_globals.get("__name__", ""))
        if name != "penstock" and not name.startswith("penstock."):
            file = frame.f_globals.get("__file__")
            return Path(file).resolve().parent if isinstance(file, str) else Path.cwd()
        if frame.f_back is None:
            return Path.cwd()
        frame = frame.f_back


def project_root(folder: Path) -> Path:
    """The nearest project at or above `folder`, else `folder`."""
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _MARKS):
            return candidate
    return folder


def broker_url(given: str | None, folder: Path) -> str:
    """The URL to open, files as absolute paths. Raises `ConfigError` for one that is none."""
    url = given or os.environ.get(VARIABLE)
    if url is None or url == "":
        return f"{_SQLITE}{project_root(folder) / FOLDER / 'queue.db'}"
    if "://" not in url:
        shown = without_password(url)
        raise ConfigError(f"broker {shown!r} is not a URL; for a file write sqlite:///{shown}")
    if not url.startswith("sqlite:"):
        return url
    if not url.startswith(_SQLITE):
        raise ConfigError(
            f"broker {url!r}: a file's URL has three slashes, sqlite:///q.db (in the project's root), or four, "
            "sqlite:////var/q.db (absolute)"
        )
    path, mark, query = url.removeprefix(_SQLITE).partition("?")
    if not path:
        raise ConfigError(f"broker {url!r} names no file; write sqlite:///q.db")
    return f"{_SQLITE}{project_root(folder) / path}{mark}{query}"


def prepare_folder(url: str) -> None:
    """Make the default folder, and keep it out of version control. Other folders are their owner's business."""
    path = Path(url.removeprefix(_SQLITE).partition("?")[0])
    if not url.startswith(_SQLITE) or path.parent.name != FOLDER:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ignore = path.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ConfigError(
            f"{path.parent} cannot be made ({error.strerror}); choose another place for the queue: "
            f"broker='sqlite:////…', or the environment variable {VARIABLE}"
        ) from error
