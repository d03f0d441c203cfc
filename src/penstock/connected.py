"""What an app has to do with its engines: when they are opened and closed, and who has others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self, Unpack, cast

from penstock.backend import Backend
from penstock.broker import check_queues
from penstock.clock import Clock
from penstock.config import Settings
from penstock.configured import KNOWN, Configured
from penstock.dispatch import Dispatch, Observer
from penstock.engine import Engine
from penstock.opening import BROKER_SETTINGS, RESULT_SETTINGS, opened
from penstock.queue import Bounds, Queue
from penstock.sources import REDIRECTED, Layer, checked


class Connected(Configured):
    """The engines of an app: that of its broker, and that of its results where it is another one. Making it opens
    nothing; the first call does."""

    def __init__(self, name: str, settings: Mapping[str, Any], clock: Clock, observers: Sequence[Observer]) -> None:
        self.clock = clock
        self._observers = tuple(observers)
        self._engine: Engine | None = None
        self._broker: Dispatch | None = None
        self._results: Engine | None = None
        self._declares = True
        super().__init__(name, settings)
        self._opening, self._pid = threading.Lock(), os.getpid()

    def _at_work(self) -> bool:
        return self._engine is not None or self._results is not None

    @property
    def engine(self) -> Engine:
        """The open engine. Raises `ConfigError` for a URL that no engine serves, `BrokerError` when it cannot be
        opened."""
        return self._engine if self._engine is not None else self._open()

    @property
    def broker(self) -> Dispatch:
        """The engine's broker, behind the checks that all engines share."""
        if self._broker is None:
            self._open()
        return cast(Dispatch, self._broker)

    @property
    def results(self) -> Engine:
        """The open engine that keeps results: the broker's, or that of `result_backend`. Raises as `engine` does."""
        if self.result_url is None:
            return self.engine
        return self._results if self._results is not None else self._open_results(self.result_url)

    @property
    def keeps_results(self) -> bool:
        """There is an engine that keeps results."""
        return self.result_url is not None or self.engine.broker.features.results

    @property
    def backend(self) -> Backend:
        return self.results.backend

    def close(self) -> None:
        """Close the engines; the next call opens them again."""
        with self._opening:
            engines = [self._results, self._engine]
            self._engine = self._broker = self._results = None
        for engine in filter(None, engines):
            engine.close()

    def _connected_to(self, broker_url: str) -> Self:
        """A copy with another URL of the broker, and engines of its own."""
        _ = self.conf  # settings that are read late would bring their own URL
        other = copy(self)
        other._engine = other._broker = other._results = None
        other._broker_url, other._declares, other._opening = broker_url, False, threading.Lock()
        return other

    @contextmanager
    def redirected(self, clock: Clock | None = None, **settings: Unpack[Settings]) -> Iterator[Self]:
        """For tests: while the block lasts, these settings win over all others, engines are opened for it, and `clock`
        is the app's. What was open before stays open, and is there again afterwards, as all settings are; tasks that
        were registered meanwhile stay. No other thread may be using the app when it begins or ends. Raises
        `ConfigError`.
        """
        given = checked(settings, "", KNOWN, "app.redirected")
        before = (self._engine, self._broker, self._results)
        own, layers = self.clock, self._layers
        self._engine = self._broker = self._results = None
        try:
            self.clock = clock or own
            self._add(Layer(REDIRECTED, lambda: given))
            yield self
        finally:
            self.close()
            self.clock = own  # before settings are read again: some look at it
            self._use(layers)
            self._engine, self._broker, self._results = before

    def _lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            # Another thread may have held the lock when this process was forked; it does not live here.
            self._opening, self._pid = threading.Lock(), os.getpid()
        return self._opening

    def _open(self) -> Engine:
        with self._lock():
            if self._engine is None:
                kept = () if self.result_url is not None else RESULT_SETTINGS
                declared = self.conf.queues if self._declares else ()
                engine = self._opened(self.broker_url, (*BROKER_SETTINGS, *kept), declared)
                check_queues(engine.broker.features, self.conf.queues)
                self._broker = Dispatch(engine.broker, self._observers)
                self._engine = engine
            return self._engine

    def _open_results(self, url: str) -> Engine:
        with self._lock():
            return self._opened_results(url)

    def _opened_results(self, url: str) -> Engine:
        if self._results is None:
            self._results = self._opened(url, RESULT_SETTINGS, ())
        return self._results

    def _bounds(self) -> Bounds | None:
        """Those that workers keep where results are, for a broker that keeps none that change."""
        if self.result_url is None:
            return None
        from penstock.pressure.bounds import followed  # few need it

        return followed(self._opened_results(self.result_url), self.clock, self.conf.pressure_grace)

    def _opened(self, url: str, honoured: Sequence[str], queues: Sequence[Queue]) -> Engine:
        return opened(url, honoured, conf=self.conf, clock=self.clock, queues=queues, bounds=self._bounds)
