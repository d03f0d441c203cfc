"""`GET /v1/tasks/{id}/events`: follow a task, as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import msgspec

from penstock import apart
from penstock.errors import PenstockError
from penstock.gateway.answering import Answer, Events
from penstock.gateway.asking import number
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.news import News
from penstock.gateway.problems import UNEXPECTED, problem, refusal
from penstock.gateway.routes.common import links, need, reported, result_of, until_end
from penstock.gateway.scopes import INSPECT, READ
from penstock.gateway.showing import json_of, known, shown
from penstock.gateway.steps import Plan, Step, Waiting, on
from penstock.outcome import Part, Parts, Report
from penstock.result import AsyncResult

HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
QUIET = 15.0
"""Seconds after which a comment is sent, so that nobody in between takes the connection for dead."""


FIRST, MOST = 2, 256
"""Parts that are read, and held, at once: of the first page, whose size tells how many more, and of any."""
HELD = 128 << 10
"""Bytes of them, about: a thousand readers who do not read hold as many."""


def follow(context: Context, asked: Asked) -> Plan[Answer]:
    """`state` whenever something changed, `part` for each value that the task publishes while it runs, `end` with the
    result. Who comes again, with the id of the last part, goes on behind it."""
    need(asked.caller, READ)
    offset = _offset(asked)
    result = result_of(context, asked.name)
    report: Report = yield reported(result)
    known(context.app, report)
    followed = Followed(context, result, links(asked), asked.caller.scopes.may(INSPECT), offset)
    return Answer(200, headers=dict(HEADERS), events=_told(_events(context, followed)))


def _offset(asked: Asked) -> int:
    given = number(asked.request.arguments(("offset",)), "offset")
    last = asked.request.headers.get("last-event-id")
    if given is not None or not last:
        return given or 0
    return (number({}, "last-event-id", last) or 0) + 1


class Followed:
    """A task, and how far its reader has come."""

    def __init__(self, context: Context, result: AsyncResult[Any], here: str, traceback: bool, offset: int) -> None:
        self.result = result
        self.offset = offset
        self._app, self._here, self._traceback = context.app, here, traceback
        self._streams = context.app.results.broker.features.streams
        [self._key] = apart.stored_keys(context.app.engine, context.app.results, [result.key])
        self._news: News | None = None

    def shown(self, report: Report) -> dict[str, Any]:
        return shown(self._app, report, self._here, self._traceback)

    def parts(self, over: float) -> Generator[Step | bytes, Any, bool]:
        """The events of all parts that are there; answered with whether that was all, when the time was over: who
        publishes without end may be faster than who reads."""
        more, page = self._streams, FIRST
        while more:
            if time.monotonic() > over:
                return False
            found: Parts = yield self._read(page)
            size = 1 + sum(len(part.value) for part in found.parts)
            more = len(found.parts) == page
            page = max(1, min(MOST, HELD * len(found.parts) // size))
            for part in found.parts:
                yield event("part", self._part(part), part.index)
                self.offset = part.index + 1
        return True

    def _read(self, most: int) -> Step:
        return on(self._app.results, lambda: self._app.backend.parts(self._key, self.offset, most))

    def _part(self, part: Part) -> dict[str, Any]:
        data, content_type = self._app.pipeline.part_in(self.result.id, part.run, part.value, part.content_type)
        return {"index": part.index, "run": part.run, "value": json_of(self._app, data, content_type)}

    def until_news(self, seconds: float) -> Waiting:
        if not self._streams:
            return until_end(self.result, seconds)
        if self._news is None:
            self._news = News(lambda told, lost: self._app.backend.subscribe_parts(self._key, told, lost))
        return self._news.within(seconds)

    def close(self) -> None:
        if self._news is not None:
            self._news.close()


def _events(context: Context, followed: Followed) -> Events:
    settings = context.settings
    over = time.monotonic() + settings.stream
    said, spoke = b"", time.monotonic()
    try:
        while True:
            report: Report = yield reported(followed.result)
            before = followed.offset
            # After the look: what has ended has published all of them.
            if not (yield from followed.parts(over)):
                return
            if report.state.terminal:
                yield event("end", followed.shown(report))
                return
            now = time.monotonic()
            words = event("state", followed.shown(report))
            if words != said:
                yield words
                said, spoke = words, now
            elif followed.offset != before:
                spoke = now
            elif now - spoke > QUIET:
                yield b":\n\n"
                spoke = now
            if now > over or (yield followed.until_news(settings.poll)) is None:
                return
    finally:
        followed.close()


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
