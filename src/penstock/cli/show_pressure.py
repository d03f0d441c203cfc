"""`penstock pressure`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from penstock import apart
from penstock.cli.pressure_text import Pace, Pressure, as_data, text
from penstock.cli.show_queues import rates_of
from penstock.cli.target import Target
from penstock.cli.terminal import columns, echo_json, is_terminal
from penstock.pressure.overview import Overview, overview
from penstock.queue import QueueInfo

if TYPE_CHECKING:
    from penstock.app import Penstock

LEAST_INTERVAL = 0.2


@click.command()
@click.option("--once", is_flag=True, help="Measure for one interval, print, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, once.")
@click.option(
    "--interval",
    type=click.FloatRange(min=LEAST_INTERVAL),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks; rates are measured over it.",
)
@click.pass_obj
def pressure(target: Target, once: bool, as_json: bool, interval: float) -> None:
    """Watch the pressure on the queues: how full, how long a task waits, what is refused, who works, what is slow.

    Until Ctrl-C. Wait is predicted: what waits, by the times that workers have sampled and the threads they run. A –
    is what nobody knows.
    """
    app = target.queues()
    looks = look(app, target.namespace, interval)
    if once or as_json:
        next(looks)
        found = next(looks)
        if as_json:
            echo_json(as_data(found))
        else:
            click.echo(text(found, columns()))
        return
    try:
        if is_terminal() and find_spec("rich") is not None:
            show_live(looks)
        else:
            for found in looks:
                click.echo(text(found, columns()) + "\n")
    except KeyboardInterrupt:
        return  # the way to end it


def look(app: Penstock, namespace: str | None, interval: float) -> Iterator[Pressure]:
    """One look after the other; the first knows no rates."""
    engine = app.engine
    before: Sequence[QueueInfo] = ()
    measured = 0.0
    while True:
        view = engine.run(overview(engine, apart.shared(app), app.clock, namespace))
        alive = frozenset(worker.name for worker in engine.run(engine.coordinator.workers()))
        seconds, now = time.monotonic() - measured, [one.info for one in view.queues]
        yield Pressure(engine.url, view, paces(view, before, seconds) if measured else {}, alive)
        before, measured = now, time.monotonic()
        time.sleep(interval)


def paces(view: Overview, before: Sequence[QueueInfo], seconds: float) -> dict[tuple[str, str], Pace]:
    """Of `view`, `seconds` after it was as `before`. Refusals are told every few seconds, with their rate; who may not
    read that sees their number grow."""
    after = [one.info for one in view.queues]
    earlier = {(one.namespace, one.name): one for one in before}
    rates = rates_of(before, after, seconds)

    def growth(queue: QueueInfo, count: str) -> float | None:
        old = earlier.get((queue.namespace, queue.name))
        now, then = getattr(queue, count), 0 if old is None else getattr(old, count)
        return None if now is None or then is None else max(0, now - then) / seconds

    def refused(queue: QueueInfo) -> float | None:
        if queue.namespace in view.unread:
            return growth(queue, "refused")
        here = (one for name, one in view.refusals if (name, one.queue) == (queue.namespace, queue.name))
        return None if queue.refused is None else sum(one.rate(view.at) for one in here)

    return {
        (one.namespace, one.name): Pace(rates[one.namespace, one.name], refused(one), growth(one, "shed"))
        for one in after
    }


def show_live(looks: Iterator[Pressure]) -> None:
    """Repaint one picture until the looks end."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        for found in looks:
            picture = Text.from_ansi(text(found, console.width))
            picture.no_wrap = True
            lines = picture.split("\n")[: console.height - 1]
            live.update(Text("\n").join(lines), refresh=True)
