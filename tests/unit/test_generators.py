"""Generator tasks: what they publish, what they return, how they end."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from msgspec import Struct

from penstock import EncodeError, Penstock
from penstock.generators import annotated


class Chunk(Struct):
    text: str


@pytest.fixture
def app() -> Penstock:
    return Penstock("tasks", broker="memory://")


def test_a_generator_publishes_what_it_yields_and_has_the_result_that_it_returns(app: Penstock) -> None:
    @app.task
    def count(most: int) -> Generator[int, None, str]:
        yield from range(most)
        return "all"

    result = count.apply((3,))
    assert (list(result.stream()), result.get()) == ([0, 1, 2], "all")
    assert list(count(2)) == [0, 1]  # called directly, it is the function


def test_the_last_value_of_an_async_generator_is_its_result(app: Penstock) -> None:
    @app.task
    async def count(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    result = count.apply((3,))
    assert (list(result.stream()), result.get()) == ([0, 1, 2], 2)
    nothing = count.apply((0,))
    assert (list(nothing.stream()), nothing.get(), nothing.partial("none")) == ([], None, "none")

    async def directly() -> list[int]:
        return [number async for number in count(2)]

    assert asyncio.run(directly()) == [0, 1]


def test_parts_come_back_as_they_are_annotated(app: Penstock) -> None:
    @app.task
    def chunks() -> Iterator[Chunk]:
        yield Chunk("a")

    @app.task
    async def achunks() -> AsyncIterator[Chunk]:
        yield Chunk("b")

    assert list(chunks.apply().stream()) == [Chunk("a")]
    assert chunks.apply().get() is None
    assert (list(achunks.apply().stream()), achunks.apply().get()) == ([Chunk("b")], Chunk("b"))


def test_a_bound_generator_sees_its_call(app: Penstock) -> None:
    @app.task(bind=True)
    def name(self: Any) -> Iterator[str]:
        yield self.request.id
        self.publish_partial("between")
        yield self.request.task

    assert list(name.apply(task_id="mine").stream()) == ["mine", "between", name.name]
    assert list(name()) == ["", name.name]  # and publishes nothing, called directly


def test_an_error_ends_the_stream_behind_what_was_published(app: Penstock) -> None:
    closed: list[str] = []

    @app.task(autoretry_for=(OSError,), max_retries=1)
    def fails() -> Iterator[int]:
        try:
            yield 1
            raise OSError("no")
        finally:
            closed.append("closed")

    result = fails.apply()
    seen = list[tuple[int, int | None]]()
    stream = result.stream()
    with pytest.raises(OSError, match="no"):
        for value in stream:
            seen.append((value, stream.run))
    assert seen == [(1, 0), (1, 1)]
    assert (list(result.stream(propagate=False)), closed) == ([1, 1], ["closed", "closed"])


def test_what_cannot_be_written_fails_the_run_and_closes_the_generator(app: Penstock) -> None:
    closed: list[str] = []

    @app.task
    async def bad() -> AsyncIterator[Any]:
        try:
            yield object()
        finally:
            closed.append("closed")

    with pytest.raises(EncodeError, match=r"a part \(object\) cannot be stored"):
        bad.apply().get()
    assert closed == ["closed"]


@pytest.mark.parametrize(
    ("annotation", "parts", "result"),
    [
        (Generator[int, None, str], int, str),
        (Iterator[int], int, Any),
        (AsyncIterator[int], int, int | None),
        (AsyncIterator[Any], Any, Any),
        pytest.param(AsyncIterator, Any, Any, id="bare"),
        (Any, Any, Any),
        (list[int], Any, Any),
    ],
)
def test_what_annotations_say(annotation: Any, parts: Any, result: Any) -> None:
    assert annotated(annotation) == (parts, result)
