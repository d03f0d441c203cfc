"""Pyramid: settings from its own, the app on every request, and a request around every task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from pyramid.config import Configurator
from pyramid.scripting import prepare

from penstock.app import Penstock
from penstock.clock import Clock
from penstock.config import Settings
from penstock.delivery import Delivery
from penstock.errors import ConfigError
from penstock.middleware import Publishing, Running

PREFIX = "penstock."


class PyramidPenstock(Penstock):
    """An app whose tasks run as Pyramid's scripts do: with a request of their own, which
    `pyramid.threadlocal.get_current_request` finds, and whose finished callbacks are called at the end.
    `config.include(app.includeme)` says of which application. Coroutine tasks have none: it is kept for a thread."""

    def __init__(
        self,
        name: str,
        *,
        broker: str | None = None,
        clock: Clock | None = None,
        publishing: Sequence[Publishing] = (),
        running: Sequence[Running] = (),
        **settings: Unpack[Settings],
    ) -> None:
        """As `Penstock`. Raises `ConfigError`."""
        self._registry: Any = None
        self._given: dict[str, Any] = {}
        around = (self._in_request, *running)
        super().__init__(name, broker=broker, clock=clock, publishing=publishing, running=around, **settings)

    def includeme(self, config: Configurator) -> None:
        """Read the settings `penstock.…`, be `request.penstock`, and let tasks run for this application: the last one
        wins. Raises `ConfigError` for a bad setting, and for other ones than before once the app is at work."""
        given = {
            name.removeprefix(PREFIX): value
            for name, value in config.registry.settings.items()
            if name.startswith(PREFIX)
        }
        # A factory that is called again, as tests do, changes nothing.
        if given != self._given:
            self.config_from_object(given)
            self._given = given
        self._registry = config.registry
        config.add_request_method(lambda _: self, "penstock", property=True)

    def _in_request(self, _delivery: Delivery, call: Callable[[], object]) -> object:
        if self._registry is None:
            raise ConfigError(
                f"app {self.name!r} has no Pyramid application to run its tasks for: let the module that -A names make "
                "it, with config.include(app.includeme)"
            )
        with prepare(registry=self._registry):
            return call()
