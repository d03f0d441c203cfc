"""What `@app.task(…)` with options is, for type checkers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from penstock.generator_task import AsyncGeneratorTask, GeneratorTask
from penstock.task import CoroutineTask, Task

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")


class Decorator(Protocol):
    """`@app.task(…)`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Generator[Y, Any, R]], /) -> GeneratorTask[P, R, Y]: ...
    @overload
    def __call__(self, function: Callable[P, Iterator[Y]], /) -> GeneratorTask[P, Any, Y]: ...
    @overload
    def __call__(self, function: Callable[P, AsyncIterator[Y]], /) -> AsyncGeneratorTask[P, Y | None, Y]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class BoundDecorator(Protocol):
    """`@app.task(bind=True, …)`: the function's first parameter is the task."""

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Generator[Y, Any, R]], /) -> GeneratorTask[P, R, Y]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Iterator[Y]], /) -> GeneratorTask[P, Any, Y]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], AsyncIterator[Y]], /
    ) -> AsyncGeneratorTask[P, Y | None, Y]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...
