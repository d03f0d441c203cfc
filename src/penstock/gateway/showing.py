"""A task as HTTP shows it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from penstock import apart
from penstock.app import Penstock
from penstock.codec import read_failure
from penstock.codec.values import json
from penstock.errors import DecodeError, EncodeError, SignatureError
from penstock.gateway.problems import Refused
from penstock.outcome import Outcome, Progress, Report, State

_whole = msgspec.json.Decoder(Raw)
NO_TASK = "no task of this id is known: it was never here, or its result was forgotten or has expired"


def known(app: Penstock, report: Report) -> Report:
    """The report. Raises `Refused` (404) for a task that there is not."""
    if report.state is State.UNKNOWN and apart.knows_waiting(app.engine, app.results):
        raise Refused(404, "unknown-id", NO_TASK)
    return report


def shown(app: Penstock, report: Report, links: str, traceback: bool) -> dict[str, Any]:
    """The members of a task's document. `links` is the address of all tasks; with `traceback` that of an error is
    shown. Raises `SignatureError` for a result that is not believed, and `Refused` (406)."""
    document: dict[str, Any] = {"id": report.id, "state": str(report.state)}
    document |= {
        name: value
        for name, value in (("task", report.task), ("queue", report.queue), ("retries", report.retries))
        if value
    }
    outcome = report.outcome
    if not report.state.terminal:
        document["progress"] = None if report.progress is None else progress_shown(report.progress)
    elif outcome is not None:
        document |= {"done": outcome.done, "runtime": outcome.runtime, "retries": outcome.retries}
        if report.state is State.SUCCESS:
            document["result"] = value_shown(app, report.id, outcome)
        elif outcome.value:
            document["error"] = error_shown(outcome, traceback)
    document["links"] = links_of(address(links, report.id))
    return document


def address(here: str, task_id: str) -> str:
    """Where the task is looked at. An id that somebody chose may have any characters."""
    # Most have nothing to quote, and a lone call spends a twelfth of its time here in looking for it.
    return here + (task_id if task_id.isascii() and task_id.isalnum() else quote(task_id, safe=""))


def links_of(place: str) -> dict[str, str]:
    return {"self": place, "events": f"{place}/events"}


def progress_shown(progress: Progress) -> dict[str, Any]:
    return {"done": progress.done, "total": progress.total, "note": progress.note}


def value_shown(app: Penstock, task_id: str, outcome: Outcome) -> Any:
    """The value as JSON: as it is stored, where that is JSON already."""
    data, content_type = app.pipeline.result_in(task_id, outcome.value, outcome.content_type)
    return json_of(app, data, content_type)


def json_of(app: Penstock, data: bytes, content_type: str) -> Any:
    """What is stored so, for a JSON document. Raises `Refused` (406) for what is not read here, or has no form in
    JSON."""
    try:
        if content_type == "json":
            data.decode()  # what a worker wrote is looked at: half a value would spoil the document around it
            return _whole.decode(data)
        form, part = app.pipeline.reader.open(data, content_type)
        return Raw(json.encode(form.decoder().decode(part)))
    except SignatureError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, DecodeError, EncodeError, RecursionError) as error:
        detail = f"what the task returned is kept as {content_type}, and has no form in JSON: {error}"
        raise Refused(406, "no-json", detail) from error


def error_shown(outcome: Outcome, traceback: bool) -> dict[str, Any]:
    stored = read_failure(outcome.value)
    kind = stored.type if stored.module == "builtins" else f"{stored.module}.{stored.type}"
    found: dict[str, Any] = {"type": kind, "message": stored.message}
    if traceback and stored.traceback:
        found["traceback"] = stored.traceback
    return found
