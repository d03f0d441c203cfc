"""The worker's log on a terminal."""

import logging

import pytest

from penstock.worker.log import _Formatter

HOSTILE = "\x1b]0;owned\x07\x1b[2J name\r\n[2026-11-20 ERROR] forged \u202e \x9b31m \udcff"


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error is not None else None
    return logging.LogRecord("penstock.worker", logging.INFO, "f.py", 1, "task %s", (message,), info)


@pytest.mark.parametrize("error", [None, ValueError(HOSTILE)])
def test_nothing_in_a_line_commands_the_terminal_or_forges_a_line(error: BaseException | None) -> None:
    text = _Formatter("%(message)s").format(record(HOSTILE, error))
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("task \\x1b]0;owned")
    assert len(lines) == 1 or error is not None


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        found = logging.LogRecord("x", logging.INFO, "f", 1, "ü", (), (type(error), error, error.__traceback__))
    text = _Formatter("%(message)s").format(found)
    assert text.startswith("ü\nTraceback")
    assert text.endswith("ValueError: first\nsecond")
