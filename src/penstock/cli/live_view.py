"""`penstock watch` on a terminal, where rich is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli.looking_on import View
from penstock.cli.show_queues import percent, rate
from penstock.cli.show_result import COLOURS, failure_line
from penstock.cli.terminal import clean, count, duration, short
from penstock.outcome import Report, State
from penstock.pressure.readings import fullness
from penstock.queue import QueueInfo

MARKS = {State.SUCCESS: "✓", State.FAILURE: "✗", State.REVOKED: "✗", State.UNKNOWN: "?"}


def show_live(views: Iterator[View]) -> View | None:
    """Repaint one picture until the views end. Returns the last."""
    last = None
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        for last in views:
            live.update(picture(last, console.height - 2), refresh=True)
    return last


def picture(view: View, height: int) -> RenderableType:
    """At most `height` lines."""
    head = Text(clean(view.url), style="dim")
    workers = len(set(view.workers.values()))
    head.append(f"   {workers} worker{'s' if workers != 1 else ''}, {len(view.workers)} processes")
    room = max(3, height - len(view.queues) - 5)
    parts: list[RenderableType] = [head, queue_table(view)]
    if view.reports:
        parts += [Text(""), task_table(view, view.reports[:room])]
    if len(view.reports) > room:
        parts.append(Text(f"… and {len(view.reports) - room:,} more", style="dim"))
    if not view.workers:
        parts.append(Text("no worker lives: penstock -A MODULE worker", style="yellow"))
    return Group(*parts)


def queue_table(view: View) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("queue", "full", ""):
        table.add_column(name)
    for name in ("depth", "running", "delayed", "dead", "oldest", "in/s", "out/s"):
        table.add_column(name, justify="right")
    for queue in view.queues:
        rates = view.rates.get((queue.namespace, queue.name))
        table.add_row(
            Text(clean(queue.name), style="bold"),
            *full_cells(queue),
            count(queue.depth),
            count(queue.leased),
            count(queue.delayed),
            Text(count(queue.dead), style="red" if queue.dead else ""),
            duration(queue.oldest_age),
            rate(rates.arriving if rates else None),
            rate(rates.leaving if rates else None),
        )
    return table


def full_cells(queue: QueueInfo) -> tuple[RenderableType, str]:
    full = fullness(queue)
    if full is None:
        return "", "?"
    style = "green" if full < 0.5 else "yellow" if full < 0.8 else "red"
    return ProgressBar(1.0, full, width=14, complete_style=style, finished_style="red"), percent(full)


def task_table(view: View, reports: Sequence[Report]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(5):
        table.add_column(no_wrap=True)
    for report in reports:
        table.add_row(
            Text(short(report.id, 32), style="dim"),
            Text(short(report.task or "?", 40), style="bold"),
            *progress_cells(report),
            Text(clean(view.workers.get(report.worker or "", "")), style="dim"),
        )
    return table


def progress_cells(report: Report) -> tuple[RenderableType, Text]:
    if report.state in MARKS:
        text = failure_line(report) if report.state is State.FAILURE else str(report.state)
        style = COLOURS.get(report.state, "")
        return ProgressBar(1.0, 1.0, width=24, finished_style=style), Text(
            short(f"{MARKS[report.state]} {text}", 50), style=style
        )
    progress = report.progress
    if progress is None:
        return ProgressBar(None, width=24, pulse=report.state is State.STARTED), Text(
            str(report.state), style=COLOURS.get(report.state, "dim")
        )
    note = short(progress.note, 40)
    if not progress.total:
        return ProgressBar(None, width=24, pulse=True), Text(f"{progress.done:g}  {note}".rstrip())
    return (
        ProgressBar(progress.total, min(progress.done, progress.total), width=24),
        Text(f"{progress.done:g}/{progress.total:g}  {note}".rstrip()),
    )
