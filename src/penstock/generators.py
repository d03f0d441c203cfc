"""Generator tasks: what their functions yield are the parts of a run, and how a worker calls such a function."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from penstock.task import Task

CO_GENERATOR, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x100, 0x200  # of `inspect`, which is slow to import
_PLAIN = (abc.Generator, abc.Iterator, abc.Iterable)
_ASYNC = (abc.AsyncGenerator, abc.AsyncIterator, abc.AsyncIterable)


def is_generator(flags: int) -> bool:
    """Whether code with these flags yields."""
    return bool(flags & CO_ASYNC_GENERATOR) or flags & (CO_GENERATOR | CO_ITERABLE_COROUTINE) == CO_GENERATOR


def annotated(annotation: Any) -> tuple[Any, Any]:
    """What a generator function that is annotated so yields, and what the result of its task is."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in _ASYNC and args:
        return args[0], args[0] | None if args[0] is not Any else Any
    if origin in _PLAIN and args:
        return args[0], args[2] if origin is abc.Generator and len(args) == 3 else Any
    return Any, Any


def driven(task: Task[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a generator task as a plain function, or a coroutine function, that publishes what it yields. It
    returns what the generator does; an async one, which cannot, its last value. A run that is cancelled ends between
    two values; however it ends, the generator is closed."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with closing(function(*args, **kwargs)) as values:
            while not task.cancelled:
                try:
                    value = next(values)
                except StopIteration as end:
                    return end.value
                task.publish_partial(value)
        return None

    async def arun(*args: Any, **kwargs: Any) -> Any:
        value = None
        async with aclosing(function(*args, **kwargs)) as values:
            async for value in values:
                await task.apublish_partial(value)
                if task.cancelled:
                    break
        return value

    return arun if task.is_coroutine else run
