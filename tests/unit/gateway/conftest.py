"""An app with tasks of all kinds, in memory, and a gateway to it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from penstock import Penstock, Queue, Unique
from tests.unit.gateway.faces import Face


@dataclass
class Point:
    x: float
    y: float = 0.0


def with_tasks(app: Penstock) -> Penstock:
    @app.task(name="tasks.add")
    def add(x: int, y: int = 0) -> int:
        """Add two numbers.

        In full."""
        return x + y

    @app.task(name="tasks.move", bind=True)
    def move(self: Any, point: Point, /, *more: Point, when: datetime.date | None = None, **by: float) -> Point:
        return point

    @app.task(name="tasks.fail")
    def fail() -> None:
        raise LookupError("nothing there")

    @app.task(name="tasks.steps", bind=True)
    def steps(self: Any, count: int) -> str:
        for step in range(count):
            self.progress(step, count, f"step {step}")
        return "done"

    @app.task(name="tasks.words")
    def words(count: int) -> Iterator[str]:
        for word in range(count):
            yield f"word {word}"

    @app.task(name="tasks.once", unique=Unique(key="once", on_conflict="raise"))
    def once() -> None:
        pass

    @app.task(name="tasks.alone", unique=Unique(key="alone"))
    def alone(number: int) -> int:
        return number

    @app.task(name="tasks.packed", serializer="msgpack", compression="gzip")
    def packed(value: Any, data: bytes = b"") -> Any:
        return value

    @app.task(name="internal.drop")
    def drop() -> None:
        pass

    return app


@pytest.fixture
def penstock_config() -> dict[str, Any]:
    return {"task_queues": [Queue("default", max_length=6)]}


@pytest.fixture(params=["asgi", "wsgi"])
def make_face(request: pytest.FixtureRequest, penstock_app: Penstock) -> Callable[..., Face]:
    with_tasks(penstock_app)
    return lambda **settings: Face(request.param, penstock_app, **settings)


@pytest.fixture
def face(make_face: Callable[..., Face]) -> Face:
    return make_face()
