"""Flask: settings from its config, and its application context around every task."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from inspect import iscoroutine
from typing import Any, Unpack

from flask import Flask, Response

from penstock.app import Penstock
from penstock.clock import Clock
from penstock.config import Settings
from penstock.contrib.queue_full import STATUS, body, headers
from penstock.delivery import Delivery
from penstock.errors import ConfigError, QueueFull
from penstock.middleware import Publishing, Running

NAMESPACE = "PENSTOCK"
EXTENSION = "penstock"


class FlaskPenstock(Penstock):
    """An app whose tasks run in the application context of a Flask application, which `init_app` names: at once, or in
    the factory that makes it. Each run has a context of its own, outermost, so that `teardown_appcontext` ends it."""

    def __init__(
        self,
        name: str,
        flask: Flask | None = None,
        *,
        broker: str | None = None,
        clock: Clock | None = None,
        publishing: Sequence[Publishing] = (),
        running: Sequence[Running] = (),
        **settings: Unpack[Settings],
    ) -> None:
        """As `Penstock`. Raises `ConfigError`."""
        self._flask: Flask | None = None
        self._given: dict[str, Any] = {}
        around = (self._in_context, *running)
        super().__init__(name, broker=broker, clock=clock, publishing=publishing, running=around, **settings)
        if flask is not None:
            self.init_app(flask)

    def init_app(self, flask: Flask) -> None:
        """Read the settings `PENSTOCK_…` of `flask.config`, and let tasks run for this application: the last one wins.
        It finds this app as `flask.extensions["penstock"]`. A `QueueFull` that a view lets through is a 503 with
        Retry-After, unless the application has a handler of its own for it. Raises `ConfigError` for a bad setting, and
        for other ones than before once the app is at work."""
        given = {name: value for name, value in flask.config.items() if name.startswith(f"{NAMESPACE}_")}
        # A factory that is called again, as tests do, changes nothing.
        if given != self._given:
            self.config_from_object(given, namespace=NAMESPACE)
            self._given = given
        self._flask = flask
        flask.extensions[EXTENSION] = self
        if QueueFull not in flask.error_handler_spec[None][None]:
            flask.register_error_handler(QueueFull, _told_to_come_again)

    def _in_context(self, delivery: Delivery, call: Callable[[], object]) -> object:
        flask = self._flask
        if flask is None:
            raise ConfigError(
                f"app {self.name!r} has no Flask application to run its tasks in: let the module that -A names make it "
                "and call init_app"
            )
        with flask.app_context():
            value = call()
            if not iscoroutine(value):
                return value
        return _awaited(flask, value)


def _told_to_come_again(error: QueueFull) -> Response:
    """Flask would make it 500 before any middleware of WSGI could see it."""
    return Response(body(error), STATUS, headers(error), mimetype="text/plain")


async def _awaited(flask: Flask, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with flask.app_context():
        return await coroutine
