"""The graphs that reserved tasks are parts of, fetched before they run: what follows a task is decided from values."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock import apart
from penstock.canvas.graph import KIND, Graph, read_graph
from penstock.delivery import Delivery
from penstock.errors import BrokerError, PenstockError
from penstock.message import graph_key, is_graph_id
from penstock.worker.outage import Outage

if TYPE_CHECKING:
    from penstock.app import Penstock

KEPT = 1_000
KEPT_BYTES = 32 << 20
"""Stored bytes of the graphs that a process keeps at hand. They never change."""

log = logging.getLogger("penstock.worker")


class Graphs:
    """The graphs of one process. Thread-safe."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._kept: OrderedDict[str, tuple[Graph, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._outage = Outage("fetching graphs")

    def attach(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give each delivery its graph. Returns those that have to be handed back, because their graphs cannot be had
        now."""
        parts = [
            one
            for one in deliveries
            if one.message is not None and one.message.options is not None and one.message.options.place is not None
        ]
        if not parts:
            return ()
        names = dict.fromkeys(one.message.options.place.graph for one in parts)  # type: ignore[union-attr]  # see above
        try:
            graphs = {name: self._get(name) for name in names}
        except BrokerError as error:
            threading.Event().wait(self._outage.go_on(error))
            return parts
        self._outage.over()
        for one in parts:
            one.graph = graphs[one.message.options.place.graph]  # type: ignore[union-attr]  # see above
        return ()

    def _get(self, name: str) -> Graph | None:
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                self._kept.move_to_end(name)
                return kept[0]
        if not is_graph_id(name):
            return None  # no caller of ours wrote that
        app = self._app
        try:
            holder = apart.coordinating(app.engine, app.results if app.keeps_results else app.engine)
            found = None if holder is None else holder.run(holder.coordinator.get(graph_key(name)))
            graph = None if found is None else read_graph(app.pipeline.state_in(KIND, name, found[0]))
        except BrokerError:
            raise
        except PenstockError as error:
            log.error("graph %s cannot be read, and what follows its tasks is not started: %s", name, error)
            return None
        if graph is not None and found is not None:
            self._keep(name, graph, len(found[0]))
        return graph

    def _keep(self, name: str, graph: Graph, size: int) -> None:
        with self._lock:
            if name not in self._kept:
                self._kept[name] = graph, size
                self._bytes += size
            while len(self._kept) > KEPT or (self._bytes > KEPT_BYTES and len(self._kept) > 1):
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= dropped
