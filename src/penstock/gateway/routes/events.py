"""`GET /v1/tasks/{id}/events`: follow a task, as server-sent events."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from penstock.errors import PenstockError
from penstock.gateway.answering import Answer, Events
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.problems import UNEXPECTED, problem, refusal
from penstock.gateway.routes.common import links, need, reported, result_of, until_end
from penstock.gateway.scopes import INSPECT, READ
from penstock.gateway.showing import known, shown
from penstock.gateway.steps import Plan
from penstock.outcome import Report
from penstock.result import AsyncResult

HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
QUIET = 15.0
"""Seconds after which a comment is sent, so that nobody in between takes the connection for dead."""


def follow(context: Context, asked: Asked) -> Plan[Answer]:
    """`state` whenever something changed, `end` with the result."""
    need(asked.caller, READ)
    asked.request.arguments(())
    result = result_of(context, asked.name)
    report: Report = yield reported(result)
    known(context.app, report)
    show = Show(context, links(asked), asked.caller.scopes.may(INSPECT))
    return Answer(200, headers=dict(HEADERS), events=_told(_events(context, result, show)))


class Show:
    """A report as its reader may see it."""

    def __init__(self, context: Context, here: str, traceback: bool) -> None:
        self._app, self._here, self._traceback = context.app, here, traceback

    def __call__(self, report: Report) -> dict[str, Any]:
        return shown(self._app, report, self._here, self._traceback)


def _events(context: Context, result: AsyncResult[Any], show: Show) -> Events:
    settings = context.settings
    over = time.monotonic() + settings.stream
    said, spoke = b"", time.monotonic()
    while True:
        report: Report = yield reported(result)
        if report.state.terminal:
            yield event("end", show(report))
            return
        now = time.monotonic()
        words = event("state", show(report))
        if words != said:
            yield words
            said, spoke = words, now
        elif now - spoke > QUIET:
            yield b":\n\n"
            spoke = now
        if now > over or (yield until_end(result, settings.poll)) is None:
            return


def _told(events: Events) -> Events:
    """What goes wrong half-way is an event: the status was sent long ago."""
    try:
        yield from events
    except PenstockError as error:
        yield event("error", problem(refusal(error) or UNEXPECTED))


def event(kind: str, document: object, number: int | None = None) -> bytes:
    """One event. Line ends inside JSON are space: they only stand between values."""
    data = msgspec.json.encode(document).replace(b"\r", b" ").replace(b"\n", b" ")
    head = f"event: {kind}\n" if number is None else f"id: {number}\nevent: {kind}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)
