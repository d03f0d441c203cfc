"""Where the worker's log goes, unless the program has set up logging itself."""

from __future__ import annotations

import logging

from penstock.errors import ConfigError


class _OwnHandler(logging.StreamHandler):  # type: ignore[type-arg]  # of whatever standard error is
    """Ours, so that a child can tell it from the program's."""


class _Formatter(logging.Formatter):
    """Names, errors and notes come from outside: nothing in them may command the terminal, or look like a line of the
    log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return _printable(super().format(record), keep="\n")


def _printable(text: str, keep: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


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
            handler.setFormatter(_Formatter(f"[%(asctime)s %(levelname)s {process}/%(process)d] %(name)s: %(message)s"))
