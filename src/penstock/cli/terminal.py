"""What people see: text that is safe to print, tables, durations, bars."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import click

CUT = "…"
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that move the cursor, hide text, turn its direction, or cannot be printed."""


def clean(text: str, keep: str = "") -> str:
    """`text` without anything that a terminal obeys: what came from outside must pass here. `keep`: newlines, say."""
    if text.isprintable():
        return text
    return "".join(_shown(char) if char not in keep else char for char in text)


def _shown(char: str) -> str:
    if char in "\n\r\t":
        return " "
    if char.isprintable():
        return char
    return "�" if unicodedata.category(char) in _UNSAFE else " "


def short(text: str, width: int) -> str:
    """The cleaned `text` in at most `width` characters."""
    line = clean(text)
    return line if len(line) <= width else line[: max(0, width - 1)] + CUT


def columns() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def is_terminal() -> bool:
    return sys.stdout.isatty()


def heading(text: str) -> str:
    return click.style(text, bold=True)


def faint(text: str) -> str:
    return click.style(text, dim=True)


def echo_json(value: Any) -> None:
    """One JSON document; control characters are escaped by JSON itself."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def echo_error(text: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(text)}", err=True)


def count(number: int | None) -> str:
    """`?` is unknown, which is not 0."""
    return "?" if number is None else f"{number:,}"


def size(number: float | None) -> str:
    if number is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def moment(unix: float) -> str:
    """Local time."""
    from datetime import datetime

    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def bar(part: float, width: int = 12) -> str:
    """A bar of `width` characters, `part` of 1 full, in the colour of its urgency."""
    part = min(1.0, max(0.0, part))
    full = min(width, max(round(part * width), 1 if part > 0 else 0))
    colour = "green" if part < 0.5 else "yellow" if part < 0.8 else "red"
    return click.style("━" * full, fg=colour) + click.style("─" * (width - full), dim=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Lines up cells, which may be styled; `right`: the columns that are aligned to the right."""
    widths = [
        max(len(head), *(visible(row[at]) for row in rows)) if rows else len(head) for at, head in enumerate(heads)
    ]
    lines = ["  ".join(faint(_pad(head, widths[at], at in right)) for at, head in enumerate(heads)).rstrip()]
    lines += ["  ".join(_pad(cell, widths[at], at in right) for at, cell in enumerate(row)).rstrip() for row in rows]
    return "\n".join(lines)


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """`label  text`, one a line; further lines of a text are indented."""
    width = max(len(label) for label, _ in pairs)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{faint(label.ljust(width))}  {text.replace(chr(10), indent)}" for label, text in pairs)


def visible(text: str) -> int:
    return len(click.unstyle(text))


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - visible(text))
    return space + text if right else text + space
