"""`penstock watch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import click

from penstock.cli.looking_on import View, look
from penstock.cli.show_result import EXIT_CODES, failure_line
from penstock.cli.target import Target
from penstock.cli.terminal import clean, count, is_terminal
from penstock.outcome import Report, State

LEAST_INTERVAL = 0.05


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--interval", type=click.FloatRange(min=LEAST_INTERVAL), default=0.5, show_default=True, metavar="SECONDS"
)
@click.pass_context
def watch(ctx: click.Context, ids: tuple[str, ...], interval: float) -> None:
    """Watch tasks run, with their progress: all, until Ctrl-C, or those given, until they have ended.

    Exit code with ids: 0 all succeeded, 1 one failed, 4 an id is unknown.
    """
    target: Target = ctx.obj
    app = target.queues()
    views = look(app, target.namespace, ids, interval)
    show: Callable[[Iterator[View]], View | None] = print_changes
    if is_terminal() and find_spec("rich") is not None:
        from penstock.cli.live_view import show_live

        show = show_live
    try:
        last = show(views)
    except KeyboardInterrupt:
        if ids:
            raise
        return  # the way to end it
    if last is not None:
        ctx.exit(max((EXIT_CODES.get(report.state, 1) for report in last.reports), default=0))


def print_changes(views: Iterator[View]) -> View | None:
    """A line for whatever is new, for logs and pipes. Returns the last view."""
    seen: dict[str, Any] = {}
    last = None
    for last in views:
        for queue in last.queues:
            depth = f"{count(queue.depth)} of {count(queue.max_length)}, {count(queue.leased)} running"
            _print_new(seen, f"queue {queue.namespace}/{queue.name}", f"queue {clean(queue.name)}: {depth}")
        for report in last.reports:
            _print_new(seen, report.id, task_line(report))
    return last


def _print_new(seen: dict[str, Any], key: str, line: str) -> None:
    if seen.get(key) != line:
        seen[key] = line
        click.echo(f"{time.strftime('%H:%M:%S')} {line}")


def task_line(report: Report) -> str:
    line = f"{clean(report.id)} {clean(report.task or '?')} {report.state}"
    if report.state is State.FAILURE:
        return f"{line} {failure_line(report)}"
    if report.progress is None or report.state.terminal:
        return line
    total = "" if report.progress.total is None else f"/{report.progress.total:g}"
    return f"{line} {report.progress.done:g}{total} {clean(report.progress.note)}".rstrip()
