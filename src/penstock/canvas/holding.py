"""Where graphs are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock import apart
from penstock.canvas.graph import Graph
from penstock.errors import Unsupported

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.engine import Engine


def holder(app: Penstock, graph: Graph) -> Engine:
    """The engine that keeps it. Raises `Unsupported` where there is none, or one that cannot follow it."""
    features = app.engine.broker.features
    if graph.gatherings and "Join" not in features.effects:
        raise Unsupported(
            f"the {features.engine} engine cannot gather values: chains and plain groups of tasks run on it, chords "
            "and groups of chains do not"
        )
    found = apart.coordinating(app.engine, app.results)
    if found is None:
        raise Unsupported(
            f"the {features.engine} engine cannot store a graph, and no other keeps the results: set result_backend, "
            "for example to redis://localhost:6379/1"
        )
    return found
