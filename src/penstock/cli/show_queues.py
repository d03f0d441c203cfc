"""`penstock queues`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from msgspec import Struct

from penstock.cli.pause_queue import pause, resume
from penstock.cli.show_members import members_of, members_table
from penstock.cli.target import Target
from penstock.cli.terminal import bar, clean, count, duration, echo_json, faint, size, table
from penstock.engine import Engine
from penstock.pressure.readings import fullness
from penstock.pressure.refused import with_totals
from penstock.queue import QueueInfo

HEADS = (
    "queue",
    "depth / bound",
    "",
    "%",
    "ready",
    "running",
    "delayed",
    "dead",
    "shed",
    "bytes",
    "oldest",
    "in/s",
    "out/s",
)
RIGHT = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


class Rates(Struct, frozen=True):
    """Tasks a second; `None`: unknown. What was shed has not left in that sense."""

    arriving: float | None
    leaving: float | None


@click.group(invoke_without_command=True)
@click.option(
    "--sample",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to measure the rates; 0: do not.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def queues(ctx: click.Context, sample: float, as_json: bool) -> None:
    """Show depth, bound, age and rates of queues; pause and resume them.

    Depth is ready + running + delayed. Oldest is the age of the first task that waits to run. A ? is what the server
    does not tell. The servers of a replicated engine come first.
    """
    if ctx.invoked_subcommand is not None:
        return
    target: Target = ctx.obj
    app = target.queues()
    engine = app.engine
    found, rates = read(engine, target.namespace, sample)
    if as_json:
        found = engine.run(with_totals(engine, found, app.clock.time()))
        echo_json([as_data(queue, rates.get((queue.namespace, queue.name))) for queue in found])
        return
    click.echo(faint(clean(engine.url)))
    members = members_of(engine)
    if members:
        click.echo(members_table(members) + "\n")
    if not found:
        click.echo("no queues yet: the first call makes one")
        return
    click.echo(table(HEADS, [row(queue, rates.get((queue.namespace, queue.name))) for queue in found], RIGHT))


queues.add_command(pause)
queues.add_command(resume)


def read(
    engine: Engine, namespace: str | None, sample: float
) -> tuple[Sequence[QueueInfo], dict[tuple[str, str], Rates]]:
    """The queues now, and what came and went in `sample` seconds."""
    before, started = engine.run(engine.inspect.queues(namespace)), time.monotonic()
    if not sample:
        return before, {}
    time.sleep(sample)
    after, seconds = engine.run(engine.inspect.queues(namespace)), time.monotonic() - started
    return after, rates_of(before, after, seconds)


def rates_of(before: Sequence[QueueInfo], after: Sequence[QueueInfo], seconds: float) -> dict[tuple[str, str], Rates]:
    earlier = {(queue.namespace, queue.name): queue for queue in before}
    found = {}
    for queue in after:
        old = earlier.get((queue.namespace, queue.name))
        found[queue.namespace, queue.name] = Rates(
            _rate(old.enqueued if old else 0, queue.enqueued, seconds),
            _rate(_worked_off(old) if old else 0, _worked_off(queue), seconds),
        )
    return found


def _worked_off(queue: QueueInfo) -> int | None:
    return None if queue.settled is None else queue.settled - queue.shed


def _rate(before: int | None, after: int | None, seconds: float) -> float | None:
    return None if before is None or after is None else max(0, after - before) / seconds


def row(queue: QueueInfo, rates: Rates | None) -> list[str]:
    full = fullness(queue)
    name = clean(f"{queue.namespace}/{queue.name}" if queue.namespace else queue.name)
    return [
        click.style(name, bold=True) + (click.style(" paused", fg="yellow") if queue.paused else ""),
        f"{count(queue.depth)} / {count(queue.max_length)}",
        bar(full or 0.0),
        "?" if full is None else percent(full),
        count(queue.ready),
        count(queue.leased),
        count(queue.delayed),
        click.style(count(queue.dead), fg="red") if queue.dead else count(queue.dead),
        count(queue.shed),
        size(queue.bytes),
        duration(queue.oldest_age),
        rate(rates.arriving if rates else None),
        rate(rates.leaving if rates else None),
    ]


def percent(part: float) -> str:
    return "<1%" if 0 < part < 0.01 else f"{part * 100:.0f}%"


def rate(per_second: float | None) -> str:
    return "–" if per_second is None else f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def as_data(queue: QueueInfo, rates: Rates | None) -> dict[str, Any]:
    data = {name: getattr(queue, name) for name in QueueInfo.__struct_fields__}
    if rates is not None:
        data |= {"enqueued_per_second": rates.arriving, "settled_per_second": rates.leaving}
    return data
