"""Where the worker's log goes, unless the program has set up logging itself."""

from __future__ import annotations

import logging

from penstock.errors import ConfigError


class _OwnHandler(logging.StreamHandler):  # type: ignore[type-arg]  # of whatever standard error is
    """Ours, so that a child can tell it from the program's."""


def show_log(level: str) -> None:
    """Log to standard error. Raises `ConfigError` for an unknown level."""
    name = level.upper()
    if name not in logging.getLevelNamesMapping():
        raise ConfigError(f"unknown log level {level!r}: choose DEBUG, INFO, WARNING, ERROR or CRITICAL")
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_OwnHandler())
        root.setLevel(logging.WARNING)
        name_log("worker")
    logging.getLogger("penstock").setLevel(name)


def name_log(process: str) -> None:
    """Have our lines name this process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _OwnHandler):
            handler.setFormatter(
                logging.Formatter(f"[%(asctime)s %(levelname)s {process}/%(process)d] %(name)s: %(message)s")
            )
