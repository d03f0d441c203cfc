"""`penstock result`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from penstock import apart
from penstock.cli.target import Target
from penstock.cli.terminal import clean, duration, echo_error, echo_json, fields, moment
from penstock.codec import read_failure
from penstock.codec.readable import as_json
from penstock.outcome import State

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.outcome import Report
    from penstock.result import AsyncResult

EXIT_CODES = {State.SUCCESS: 0, State.FAILURE: 1, State.REVOKED: 1, State.UNKNOWN: 4}
NOT_YET = 3
COLOURS = {
    State.SUCCESS: "green",
    State.FAILURE: "red",
    State.REVOKED: "red",
    State.STARTED: "cyan",
    State.RETRY: "yellow",
}


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("-w", "--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: give up waiting (not the task).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def result(ctx: click.Context, task_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Show what became of a call.

    Exit code: 0 it succeeded, 1 it failed or was revoked, 3 it has not ended yet, 4 the id is unknown.
    """
    target: Target = ctx.obj
    app = target.queues()
    found: AsyncResult[Any] = app.AsyncResult(task_id)
    if wait and (found.state is not State.UNKNOWN or not apart.knows_waiting(app.engine, app.results)):
        found.get(timeout, propagate=False)
    ctx.exit(show(found, as_json=as_json, workers=partial(workers_of, app)))


def workers_of(app: Penstock) -> dict[str, str]:
    """Those that live, by their ids, as an operator finds them."""
    found = app.engine.run(app.engine.coordinator.workers())
    return {one.id: f"{one.name}, pid {one.pid} on {one.host}" for one in found}


def show(
    result: AsyncResult[Any],
    *,
    as_json: bool,
    value_only: bool = False,
    workers: Callable[[], Mapping[str, str]] = dict,
) -> int:
    """Print what is known of it; returns the exit code. `workers`: by their ids, who lives."""
    report = result.report()
    if as_json:
        echo_json(as_data(report))
    elif value_only and report.state is State.SUCCESS:
        click.echo(shown_value(report))
    elif value_only:
        echo_error(f"{report.state}: {failure_line(report)}")
    else:
        click.echo(fields(describe(report, workers)))
    return EXIT_CODES.get(report.state, NOT_YET)


def describe(report: Report, workers: Callable[[], Mapping[str, str]] = dict) -> list[tuple[str, str]]:
    state = click.style(report.state, fg=COLOURS.get(report.state), bold=True)
    if report.state is State.UNKNOWN:
        return [("id", clean(report.id)), ("state", state + ": never seen here, or its result has expired")]
    lines = [("id", clean(report.id)), ("task", clean(report.task or "?")), ("state", state)]
    if report.queue:
        lines.append(("queue", clean(report.queue)))
    if report.worker:
        lines.append(("worker", clean(workers().get(report.worker, report.worker))))
    if report.progress is not None and not report.state.terminal:
        total = "" if report.progress.total is None else f" of {report.progress.total:g}"
        lines.append(("progress", f"{report.progress.done:g}{total} {clean(report.progress.note)}".rstrip()))
    if report.outcome is None:
        return lines
    lines.append(("done", f"{moment(report.outcome.done)}, after {duration(report.outcome.runtime)}"))
    if report.outcome.retries:
        lines.append(("retries", str(report.outcome.retries)))
    if report.state is State.SUCCESS:
        return [*lines, ("result", shown_value(report))]
    lines.append(("error", failure_line(report)))
    trace = read_failure(report.outcome.value).traceback if report.outcome.value else ""
    return [*lines, ("traceback", clean(trace.rstrip(), keep="\n"))] if trace else lines


def shown_value(report: Report) -> str:
    """The value as JSON; what is not JSON as its type and size."""
    outcome = report.outcome
    if outcome is None:
        return "(not stored: ignore_result)"
    value = as_json(outcome.value, outcome.content_type)
    if value is None:
        return f"({len(outcome.value):,} bytes of {clean(outcome.content_type)})"
    return clean(value.decode("utf-8", "replace"))


def failure_line(report: Report) -> str:
    if report.outcome is None or not report.outcome.value:
        return "no error was stored"
    stored = read_failure(report.outcome.value)
    return clean(f"{stored.type}: {stored.message}" if stored.message else stored.type)


def as_data(report: Report) -> dict[str, Any]:
    """The report for scripts; times in Unix seconds."""
    data: dict[str, Any] = {
        "id": report.id,
        "state": str(report.state),
        "task": report.task,
        "queue": report.queue,
        "worker": report.worker,
        "retries": report.outcome.retries if report.outcome is not None else report.retries,
    }
    if report.progress is not None:
        data["progress"] = {"done": report.progress.done, "total": report.progress.total, "note": report.progress.note}
    if report.outcome is not None:
        data |= {"done": report.outcome.done, "runtime": report.outcome.runtime}
        if report.state is State.SUCCESS:
            value = as_json(report.outcome.value, report.outcome.content_type)
            if value is not None:
                data["result"] = json.loads(value)
        elif report.outcome.value:
            stored = read_failure(report.outcome.value)
            data["error"] = {"type": stored.type, "message": stored.message, "traceback": stored.traceback}
    return data
