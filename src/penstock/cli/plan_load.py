"""`penstock plan`."""

from __future__ import annotations

from typing import Any

import click

from penstock import apart
from penstock.cli.target import Target
from penstock.cli.terminal import clean, count, duration, echo_json, fields, table
from penstock.durations import seconds
from penstock.errors import ConfigError
from penstock.pressure import law
from penstock.pressure.reports import told
from penstock.pressure.samples import Samples, Times, merged

SHOWN = 10
HEADS = ("task", "samples", "mean", "p50", "p99", "share of the time")
RIGHT = (1, 2, 3, 4, 5)


@click.command()
@click.option("--latency", required=True, metavar="TIME", help="How long a call may take until it is done: 2s, 500ms.")
@click.option("--rate", required=True, metavar="NUMBER", help="Calls to plan for: 500/s, 100/m, 1000/h.")
@click.option("--time", "given", metavar="TIME", help="How long one task takes, instead of what was sampled: 40ms.")
@click.option("--queue", metavar="NAME", help="Count only the samples of this queue.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def plan(target: Target, latency: str, rate: str, given: str | None, queue: str | None, as_json: bool) -> None:
    """Work out threads and queue length for a load, and show the slowest tasks.

    Times are what the workers of the app have sampled lately, or those of --time.
    """
    patience, per_second = seconds("--latency", latency), _rate(rate)
    samples = Samples() if given is not None else sampled(target)
    times = samples.of_queue(queue)
    if given is not None:
        times.add(seconds("--time", given))
    found = law.plan(patience, per_second, times)
    if found is None:
        what = f" of queue {queue!r}" if queue else ""
        raise ConfigError(
            f"no task{what} was sampled yet: run a worker for a while, or say how long one task takes: --time 40ms"
        )
    if as_json:
        echo_json(as_data(found, times, samples, queue))
        return
    click.echo(text(found, patience, per_second, times))
    rows = slowest(samples, queue)
    if rows:
        click.echo("\nThe biggest win is a faster task: half the time is twice the capacity. Most time goes to\n")
        click.echo(table(HEADS, [_row(name, one, times.seconds) for name, one in rows], RIGHT))


def sampled(target: Target) -> Samples:
    """What live workers have told. Raises `ConfigError` where they have nowhere to tell it."""
    app = target.queues()
    shared = apart.shared(app)
    if shared is None:
        raise ConfigError(
            f"{app.engine.broker.features.engine} keeps no samples without results on another server: say how long one "
            "task takes: --time 40ms"
        )
    reports = app.engine.run(told(shared, app.conf.namespace))
    return merged(one.samples for one in reports.values())


def slowest(samples: Samples, queue: str | None) -> list[tuple[str, Times]]:
    """The tasks that take most of the threads' time."""
    return sorted(samples.of_tasks(queue).items(), key=lambda item: item[1].seconds, reverse=True)[:SHOWN]


def text(found: law.Plan, patience: float, per_second: float, times: Times) -> str:
    return fields(
        [
            ("load", f"{per_second:,.4g} tasks/s of {duration(times.mean)} each: {found.fewest:,.3g} threads' work"),
            ("threads", f"{count(found.threads)}, busy {found.busy:.0%} of the time"),
            ("queue length", f"{count(found.length)} tasks, {_promise(patience, times)}"),
            ("so", f"penstock worker -c {found.threads}, and Queue(…, max_latency={patience:g})"),
        ]
    )


def _promise(patience: float, times: Times) -> str:
    alone = times.quantile(0.99) or 0.0
    if (times.mean or 0.0) > patience:
        return f"one for each thread, and late all the same: one alone takes longer than {duration(patience)}"
    if alone > patience:
        return f"and late is what takes longer than {duration(patience)} by itself: 1 % take {duration(alone)}"
    return f"of which 99 % are done in {duration(patience)}"


def as_data(found: law.Plan, times: Times, samples: Samples, queue: str | None) -> dict[str, Any]:
    return {
        "threads": found.threads,
        "fewest_threads": found.fewest,
        "queue_length": found.length,
        "busy": found.busy,
        "mean": times.mean,
        "slowest": [
            {"task": name, "mean": one.mean, "p50": one.quantile(0.5), "p99": one.quantile(0.99), "count": one.count}
            for name, one in slowest(samples, queue)
        ],
    }


def _row(name: str, times: Times, total: float) -> list[str]:
    return [
        clean(name) or "(others)",
        count(round(times.count)),
        *(duration(one) for one in (times.mean, times.quantile(0.5), times.quantile(0.99))),
        f"{times.seconds / total:.0%}" if total else "–",
    ]


def _rate(given: str) -> float:
    from penstock.limit import rate_of

    try:
        found = rate_of(given)
    except ConfigError as error:
        raise ConfigError(f"--rate must be a number a second, or text such as '500/s' or '100/m': {error}") from None
    if found is None:
        raise ConfigError(f"--rate must be above 0, not {given!r}")
    return found
