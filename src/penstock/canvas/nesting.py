"""How deep and how large a canvas is, found out before anybody goes through it level by level, or task by task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.canvas.calls import Canvas

DEEPEST = 100
"""Levels of nesting. Chains are flat, however long."""
MOST = 1_000_000
"""Tasks of one canvas: as many as a queue takes, unless it says otherwise."""


class Level:
    """A part that is being measured: how many levels are below it, and its tasks, as far as they are known."""

    __slots__ = ("canvas", "deep", "inner", "tasks")

    def __init__(self, canvas: Canvas[Any]) -> None:
        self.canvas = canvas
        self.inner: Iterator[Canvas[Any]] = iter(canvas.inner())
        self.deep = 0
        self.tasks = int(canvas.is_task)


def measure(canvas: Canvas[Any]) -> None:
    """Raises `ConfigError` for one that contains itself, is nested too deeply, or has too many tasks. A part that is
    there many times is looked at once: a group of itself and itself, again and again, is soon larger than any memory.
    """
    if canvas.is_task and not (canvas.links or canvas.errors):
        return
    known: dict[int, tuple[int, int]] = {}
    path, upon = [Level(canvas)], {id(canvas)}
    while True:
        level = path[-1]
        for part in level.inner:
            if part.is_task and not (part.links or part.errors):
                level.deep, level.tasks = level.deep or 1, level.tasks + 1
            elif (found := known.get(id(part))) is not None:
                level.deep, level.tasks = max(level.deep, found[0] + 1), level.tasks + found[1]
            elif id(part) in upon:
                raise ConfigError(
                    f"{type(part).__name__} contains itself: a canvas has an end; use clone() for a repeat"
                )
            else:
                upon.add(id(part))
                path.append(Level(part))
                break
        else:
            upon.discard(id(level.canvas))
            path.pop()
            if not path:
                break
            known[id(level.canvas)] = level.deep, level.tasks
            path[-1].deep = max(path[-1].deep, level.deep + 1)
            path[-1].tasks += level.tasks
    if level.deep > DEEPEST:
        raise ConfigError(
            f"this canvas is nested {level.deep:,} levels deep, and it may be {DEEPEST}: what comes one after the "
            "other is one chain, however long (a | b | c), and what goes at once is one group"
        )
    if level.tasks > MOST:
        raise ConfigError(
            f"this canvas has {level.tasks:,} tasks, and it may have {MOST:,}: use chunks, or delay_many or app.spread "
            "where nothing follows them"
        )
