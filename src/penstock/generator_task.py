"""What a type checker sees of tasks whose functions are generators. When they run, they are tasks like others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from penstock.task import Task

if TYPE_CHECKING:
    from penstock.canvas.linked import LinkedSettings
    from penstock.result import AsyncResult
    from penstock.stream import AsyncStream, Stream

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")


class StreamingTask(Task[P, R], Generic[P, R, Y]):
    """A task whose function yields parts of the type `Y`, and whose result is an `R`."""

    if TYPE_CHECKING:

        def delay(self, *args: P.args, **kwargs: P.kwargs) -> StreamedResult[R, Y]: ...
        async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> StreamedResult[R, Y]: ...
        def apply_async(
            self,
            args: Iterable[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            *,
            connection: object | None = None,
            **options: Unpack[LinkedSettings],
        ) -> StreamedResult[R, Y]: ...
        async def aapply_async(
            self,
            args: Iterable[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
            *,
            connection: object | None = None,
            **options: Unpack[LinkedSettings],
        ) -> StreamedResult[R, Y]: ...
        def AsyncResult(self, task_id: str) -> StreamedResult[R, Y]: ...


class GeneratorTask(StreamingTask[P, R, Y]):
    """A task whose function is a generator: called directly, it returns the generator."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Y]:  # type: ignore[override]  # see CoroutineTask
            ...


class AsyncGeneratorTask(StreamingTask[P, R, Y]):
    """A task whose function is an async generator: called directly, it returns that."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y]:  # type: ignore[override]  # likewise
            ...


if TYPE_CHECKING:

    class StreamedResult(AsyncResult[R], Generic[R, Y]):
        """The result of a call of a generator task."""

        def stream(self, offset: int = 0, timeout: float | None = None, propagate: bool = True) -> Stream[Y]: ...
        def astream(self, offset: int = 0, timeout: float | None = None, propagate: bool = True) -> AsyncStream[Y]: ...
        def partial(self, default: Y | None = None) -> Y | None: ...
        async def apartial(self, default: Y | None = None) -> Y | None: ...
