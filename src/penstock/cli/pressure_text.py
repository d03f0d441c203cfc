"""What `penstock pressure` shows: one text, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from msgspec import Struct

from penstock.cli.plan_load import slowest
from penstock.cli.show_queues import Rates, percent, rate
from penstock.cli.terminal import bar, clean, duration, faint, short, table, visible
from penstock.pressure.alarms import said
from penstock.pressure.overview import Outlook, Overview
from penstock.pressure.readings import there
from penstock.pressure.refused import Refusal
from penstock.pressure.reports import Report

HEADS = ("queue", "full", "depth/limit", "in/s", "out/s", "wait", "oldest", "refused/s", "shed/s", "threads")
TASK_HEADS = ("slowest tasks", "mean", "p50", "p99", "share")
REFUSED_HEADS = ("refused", "queue", "task", "calls/s", "in all", "last")
WORKER_HEADS = ("worker", "threads", "busy", "runs longest")
NARROW_HEADS = ("queue", "full", "depth/limit", "in/s", "out/s", "wait", "oldest", "ref/s", "shed/s")
NARROW = 100
"""Columns below which bars are short, and threads are told by worker only."""
LEAST_NAME = 8
NAMES, NARROW_NAMES = (24, 32), (12, 18)
"""Columns of a queue's name and of a task's, behind who is refused."""
SHOWN_TASKS, SHOWN_WORKERS, SHOWN_REFUSALS = 5, 8, 8
UNKNOWN = "–"


class Pace(Struct, frozen=True):
    """What a queue counted in the last seconds, by second; `None`: unknown."""

    rates: Rates
    refused: float | None
    shed: float | None


class Pressure(Struct, frozen=True):
    """One look: `paces` by namespace and queue, `alive` are the names of workers, which tell nothing while they are
    idle."""

    url: str
    view: Overview
    paces: dict[tuple[str, str], Pace]
    alive: frozenset[str] = frozenset()


def text(look: Pressure, width: int) -> str:
    view = look.view
    told = workers(view.reports, look.alive)
    parts = [f"{faint(short(look.url, width - visible(told) - 3))}   {told}", "", queues(look, width)]
    alarms = [alarm_line(one, view.at, width) for one in view.queues if one.alarms]
    if alarms:
        parts += ["", *alarms]
    refused = sorted(view.refusals, key=lambda one: (one[1].rate(view.at), one[1].count), reverse=True)
    if refused:
        names = NARROW_NAMES if width < NARROW else NAMES
        rows = [refusal_row(*one, view.at, names) for one in refused[:SHOWN_REFUSALS]]
        parts += ["", fitted(REFUSED_HEADS, rows, range(3, 6), width)]
    rows = [task_row(*one, view.samples.of_queue(None).seconds) for one in slowest(view.samples, None)[:SHOWN_TASKS]]
    if rows:
        parts += ["", fitted(TASK_HEADS, rows, range(1, 5), width)]
    if view.reports:
        busiest = sorted(view.reports, key=lambda one: one.busy, reverse=True)[:SHOWN_WORKERS]
        parts += ["", fitted(WORKER_HEADS, [worker_row(one) for one in busiest], (1, 2), width)]
    return "\n".join(parts)


def workers(reports: Sequence[Report], alive: frozenset[str]) -> str:
    idle = len(alive - {one.name for one in reports})
    if not reports:
        return f"{_workers(idle)}, idle" if idle else "no worker lives"
    slots, busy = sum(one.slots for one in reports), sum(one.busy for one in reports)
    told = f"{_workers(len(reports))}, {slots} threads, {busy} busy"
    return f"{told}; {idle} more idle" if idle else told


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number != 1 else ''}"


def queues(look: Pressure, width: int) -> str:
    if not look.view.queues:
        return "no queues yet: the first call makes one"
    heads, length = (NARROW_HEADS, 5) if width < NARROW else (HEADS, 14)
    rows = [queue_row(one, look.paces.get((one.info.namespace, one.info.name)), length) for one in look.view.queues]
    return fitted(heads, [row[: len(heads)] for row in rows], range(2, len(heads)), width)


def queue_row(one: Outlook, pace: Pace | None, length: int) -> list[str]:
    info = one.info
    name = f"{info.namespace}/{info.name}" if info.namespace else info.name
    colour = "red" if any(alarm.kind == "full" for alarm in one.alarms) else "yellow" if one.alarms else None
    full = UNKNOWN if one.full is None else f"{bar(one.full, length)} {percent(one.full):>4}"
    return [
        click.style(clean(name), bold=True, fg=colour) + (" (paused)" if info.paused else ""),
        full,
        f"{few(there(info))}/{few(info.max_length)}",
        rate(pace.rates.arriving if pace else None),
        rate(pace.rates.leaving if pace else None),
        "0 s" if one.wait == 0 else duration(one.wait),
        duration(info.oldest_age),
        rate(pace.refused if pace else None),
        rate(pace.shed if pace else None),
        UNKNOWN if one.threads is None else f"{one.threads:.3g}",
    ]


def alarm_line(one: Outlook, now: float, width: int) -> str:
    lines = [f"! {said(alarm)} (for {duration(max(0.0, now - alarm.since))})" for alarm in one.alarms]
    return "\n".join(click.style(short(line, width), fg="yellow") for line in lines)


def refusal_row(namespace: str, one: Refusal, now: float, names: tuple[int, int]) -> list[str]:
    queue = f"{namespace}/{one.queue}" if namespace else one.queue
    return [
        clean(one.who),
        cut(clean(queue), names[0]),
        cut(clean(one.task), names[1]),
        rate(one.rate(now)),
        few(one.count),
        f"{duration(max(0.0, now - one.at))} ago",
    ]


def task_row(name: str, times: Any, total: float) -> list[str]:
    return [
        clean(name) or "(others)",
        *(duration(one) for one in (times.mean, times.quantile(0.5), times.quantile(0.99))),
        percent(times.seconds / total) if total else UNKNOWN,
    ]


def worker_row(one: Report) -> list[str]:
    runs = [run for standing in one.standing for run in standing.runs]
    longest = max(runs, key=lambda run: run.seconds, default=None)
    what = f"{clean(longest.task) or 'silent'}, for {duration(longest.seconds)}" if longest else UNKNOWN
    return [clean(one.who), str(one.slots), str(one.busy), what]


def fitted(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], width: int) -> str:
    """A table of at most `width` columns: the names in the first give way."""
    others = sum(2 + max(visible(cell) for cell in column) for column in list(zip(*([heads, *rows]), strict=True))[1:])
    room = max(LEAST_NAME, width - others)
    return table(heads, [[cut(row[0], room), *row[1:]] for row in rows], right)


def cut(cell: str, width: int) -> str:
    """The styles of what is too long are lost."""
    return cell if visible(cell) <= width else short(click.unstyle(cell), width)


def few(number: int | None) -> str:
    """In few characters: 1.2k, 35k, 1M."""
    if number is None:
        return UNKNOWN
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size * 10 or (number >= size and number % (size // 10) == 0):
            part = number / size
            return f"{part:.3g}{unit}" if part < 1_000 else f"{part:.0f}{unit}"
    return str(number)


def as_data(look: Pressure) -> dict[str, Any]:
    view = look.view
    return {
        "at": view.at,
        "queues": [queue_data(one, look.paces.get((one.info.namespace, one.info.name))) for one in view.queues],
        "workers": [
            {
                "name": one.name,
                "pid": one.pid or None,
                "threads": one.slots,
                "busy": one.busy,
                "queues": list(one.queues),
                "runs": [
                    {"task": run.task, "queue": run.queue, "seconds": run.seconds}
                    for standing in one.standing
                    for run in standing.runs
                ],
            }
            for one in view.reports
        ],
        "refused": [
            {
                "who": one.who,
                "namespace": namespace,
                "queue": one.queue,
                "task": one.task,
                "calls": one.count,
                "per_second": one.rate(view.at),
                "last": one.at,
            }
            for namespace, one in view.refusals
        ],
        "slowest": [
            {"task": name, "mean": one.mean, "p50": one.quantile(0.5), "p99": one.quantile(0.99)}
            for name, one in slowest(view.samples, None)
        ],
    }


def queue_data(one: Outlook, pace: Pace | None) -> dict[str, Any]:
    data = {name: getattr(one.info, name) for name in type(one.info).__struct_fields__}
    return data | {
        "full": one.full,
        "threads": one.threads,
        "predicted_wait": one.wait,
        "enqueued_per_second": pace.rates.arriving if pace else None,
        "settled_per_second": pace.rates.leaving if pace else None,
        "refused_per_second": pace.refused if pace else None,
        "shed_per_second": pace.shed if pace else None,
        "alarms": [
            {name: getattr(alarm, name) for name in type(alarm).__struct_fields__ if name != "queue"}
            for alarm in one.alarms
        ],
    }
