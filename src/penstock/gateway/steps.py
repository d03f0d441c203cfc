"""How one text serves blocking and awaiting servers: handlers are plans, and a face carries out their steps.

A plan yields a step, and is sent what came of it. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from msgspec import Struct

from penstock.blocking import at_most, bounded
from penstock.engine import Engine

T = TypeVar("T")


class Step(Struct, frozen=True):
    """One thing to do, as a call that blocks and as one that is awaited."""

    block: Callable[[], Any]
    awaited: Callable[[], Awaitable[Any]]


class Waiting(Step, frozen=True):
    """A step that may take long, and only waits. A face may cut it short, when nobody wants the answer any more or the
    server is about to stop; it is answered with `None` then."""


class ReadBody(Struct, frozen=True):
    """The request's body, of up to `most` bytes. A face throws `Refused` into the plan when it is larger, or does not
    come in time."""

    most: int


Plan = Generator[Step | ReadBody, Any, T]


def on(engine: Engine, call: Callable[[], Coroutine[Any, Any, Any]]) -> Step:
    """A coroutine of one of the engine's contracts."""
    return Step(lambda: engine.run(call()), lambda: engine.arun(call()))


def within(seconds: float, engine: Engine, call: Callable[[], Coroutine[Any, Any, Any]]) -> Step:
    """The same; `BrokerUnavailable` when it takes longer."""

    def block() -> Any:
        with at_most(seconds):
            return engine.run(call())

    return Step(block, lambda: bounded(engine.arun(call()), seconds, engine.url))
