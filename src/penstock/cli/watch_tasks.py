"""`penstock watch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from penstock.cli.show_queues import Rates, rates_of
from penstock.cli.show_result import EXIT_CODES, failure_line
from penstock.cli.target import Target
from penstock.cli.terminal import clean, count, is_terminal
from penstock.outcome import Report, State
from penstock.queue import QueueInfo

if TYPE_CHECKING:
    from penstock.app import Penstock

MOST = 200
"""Tasks of a queue that are looked at to find the running ones."""
LEAST_INTERVAL = 0.05


class View(Struct, frozen=True):
    """One look: `reports` of the tasks asked for, else of all that run."""

    url: str
    queues: Sequence[QueueInfo]
    rates: dict[tuple[str, str], Rates]
    reports: Sequence[Report]
    workers: dict[str, str]
    """Id → name of the workers that live."""


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
    last = show(views)
    if last is not None:
        ctx.exit(max((EXIT_CODES.get(report.state, 1) for report in last.reports), default=0))


def look(app: Penstock, namespace: str | None, ids: Sequence[str], interval: float) -> Iterator[View]:
    """What is to be seen, every `interval` seconds; with `ids` until all have ended."""
    engine = app.engine
    before: Sequence[QueueInfo] = []
    measured = time.monotonic()
    rates: dict[tuple[str, str], Rates] = {}
    while True:
        queues = engine.run(engine.inspect.queues(namespace))
        seconds = time.monotonic() - measured
        if not before or seconds >= 1.0:  # over less than that, a rate only flickers
            rates = rates_of(before, queues, seconds) if before else {}
            before, measured = queues, time.monotonic()
        workers = {worker.id: worker.name for worker in engine.run(engine.coordinator.workers())}
        reports = engine.run(engine.backend.fetch(list(ids))) if ids else running(app, queues)
        yield View(engine.url, queues, rates, reports, workers)
        if ids and all(report.state.terminal or report.state is State.UNKNOWN for report in reports):
            return
        time.sleep(interval)


def running(app: Penstock, queues: Sequence[QueueInfo]) -> list[Report]:
    """The tasks that run now, of the first ones in each queue."""
    engine = app.engine
    leased: list[str] = []
    for queue in queues:
        if queue.leased != 0:
            peeked = engine.run(engine.inspect.peek(queue.name, MOST, queue.namespace))
            leased += [one.id for one in peeked if one.state == "leased"]
    reports = engine.run(engine.backend.fetch(leased)) if leased else []
    return [report for report in reports if report.state is State.STARTED]


def print_changes(views: Iterator[View]) -> View | None:
    """A line for whatever is new, for logs and pipes. Returns the last view, `None` after Ctrl-C."""
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
