"""How the demo shows that it moves: a bar where rich and a terminal are there, else a line now and then."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol

import click

from penstock.cli.terminal import duration, is_terminal


class Meter(Protocol):
    def __enter__(self) -> Meter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    def move(self, done: int) -> None:
        """So many are done now."""
        ...

    def say(self, line: str) -> None:
        """A line above the bar; it may be styled."""
        ...


def make_meter(total: int) -> Meter:
    return BarMeter(total) if is_terminal() and find_spec("rich") is not None else LineMeter(total)


class LineMeter(AbstractContextManager["LineMeter"]):
    """A line for each tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = total / 10
        self._started = time.monotonic()

    def move(self, done: int) -> None:
        if done >= self._next:
            seconds = time.monotonic() - self._started
            self._next = (done * 10 // self._total + 1) * self._total / 10
            part = done / self._total
            click.echo(f"  {done:>6,} of {self._total:,}  {part:4.0%}  {done / max(seconds, 1e-9):,.0f} tasks/s")

    def say(self, line: str) -> None:
        click.echo(line)

    def __exit__(self, *_: object) -> None:
        pass


class BarMeter:
    """A bar that moves."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskProgressColumn
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Any) -> Text:
                speed = task.finished_speed or task.speed
                return Text("" if speed is None else f"{speed:,.0f} tasks/s", style="bold")

        class Left(ProgressColumn):
            def render(self, task: Any) -> Text:
                left = task.time_remaining
                return Text("" if not left else f"{duration(left)} left", style="dim")

        columns = (" ", BarColumn(40), MofNCompleteColumn(), TaskProgressColumn(), Speed(), Left())
        self._progress = Progress(*columns, speed_estimate_period=5)
        self._bar = self._progress.add_task("", total=total)

    def move(self, done: int) -> None:
        self._progress.update(self._bar, completed=done)

    def say(self, line: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text.from_ansi(line), soft_wrap=True)

    def __enter__(self) -> BarMeter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
