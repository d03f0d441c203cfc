"""The result of a call in whose place a canvas stands: its stored outcome only says whose result that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from penstock import apart
from penstock.errors import DecodeError
from penstock.message import graph_of
from penstock.outcome import Outcome, Report, State

if TYPE_CHECKING:
    from penstock.result import AsyncResult

MOVED = "penstock/moved"
"""The content type of such an outcome; its value is an id, as JSON."""
MOST = 100
"""How often one result may refer to another."""


def moved(task_id: str, now: float) -> Outcome:
    """The outcome that says: it is the result of that task."""
    return Outcome(State.SUCCESS, msgspec.json.encode(task_id), now, content_type=MOVED)


def follow(result: AsyncResult[Any], report: Report) -> bool:
    """Whether the report says that the result is elsewhere; if so `result` looks there from now on.

    Raises `SignatureError` for one that is not to be believed, `DecodeError` for one that leads nowhere."""
    outcome = report.outcome
    if outcome is None or not outcome.content_type.startswith(MOVED):
        return False
    value, _ = result._app.pipeline.result_in(report.id, outcome.value, outcome.content_type)
    try:
        there = msgspec.json.decode(value, type=str)
    except msgspec.DecodeError as error:
        raise DecodeError(f"the result of task {report.id} is said to be elsewhere, and not where: {error}") from error
    result._moves += 1
    if graph_of(there) is None or result._moves > MOST:
        raise DecodeError(f"the result of task {report.id} is said to be that of {there[:80]!r}, which leads nowhere")
    result._at = there
    return True


def reports(app: Any, results: Sequence[AsyncResult[Any]]) -> apart.Plan[list[Report]]:
    """What is known of each now, wherever it is."""
    found = list((yield from apart.reports(app.engine, app.results, [result.at for result in results])))
    left = [place for place, result in enumerate(results) if follow(result, found[place])]
    while left:
        again = yield from apart.reports(app.engine, app.results, [results[place].at for place in left])
        for place, report in zip(left, again, strict=True):
            found[place] = report
        left = [place for place in left if follow(results[place], found[place])]
    return found
