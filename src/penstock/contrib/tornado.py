"""Tornado: what handlers that publish tasks, and look at results, have in common."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError, RequestHandler

from penstock import apart
from penstock.app import Penstock
from penstock.contrib.queue_full import STATUS, headers
from penstock.errors import ConfigError, QueueFull
from penstock.outcome import State
from penstock.result import AsyncResult

SETTING = "penstock"


class PenstockMixin(RequestHandler):
    """`class Orders(PenstockMixin, RequestHandler)`, in an `Application(…, penstock=app)`. A `QueueFull` that a handler
    lets through is a 503, which says when to come again."""

    @property
    def penstock(self) -> Penstock:
        """The app of this application's settings. Raises `ConfigError` when there is none."""
        found = self.settings.get(SETTING)
        if not isinstance(found, Penstock):
            raise ConfigError("this application knows no Penstock app: Application(…, penstock=app)")
        return found

    async def result_of(self, task_id: str) -> AsyncResult[Any]:
        """The result with that id; 404 for one that is not known. Whose it is, is for you to check."""
        app = self.penstock
        try:
            result: AsyncResult[Any] = app.AsyncResult(task_id)
        except ConfigError as error:
            raise HTTPError(404) from error
        report = await result.areport()
        # Some brokers do not know what waits.
        if report.state is State.UNKNOWN and apart.knows_waiting(app.engine, app.results):
            raise HTTPError(404)
        return result

    def write_error(self, status_code: int, **given: Any) -> None:
        error = given.get("exc_info", (None, None))[1]
        if isinstance(error, QueueFull):
            status_code = STATUS
            self.set_status(status_code)
            for name, value in headers(error).items():
                self.set_header(name, value)
        super().write_error(status_code, **given)

    def log_exception(self, kind: Any, error: Any, traceback: Any) -> None:
        # A full queue is no mistake of the handler's.
        if not isinstance(error, QueueFull):
            super().log_exception(kind, error, traceback)
