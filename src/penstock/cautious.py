"""Calls that are looked at before they are published, or that a full queue does not end: for blocking and awaiting
callers.

What is decided is decided in `penstock.admission`; here it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from penstock import apart
from penstock.admission import Way
from penstock.batch import Many, open_batch
from penstock.broker import Answer
from penstock.message import Message
from penstock.on_full import RUN_INLINE, OnFull

if TYPE_CHECKING:
    from penstock.canvas.calls import Signature
    from penstock.client import Client
    from penstock.result import AsyncResult
    from penstock.task import Task

P = ParamSpec("P")
R = TypeVar("R")


def send(
    client: Client, task: Task[..., Any] | None, message: Message, connection: object | None, said: Mapping[str, Any]
) -> AsyncResult[Any] | None:
    """The result of a call with the options `said`; `None`: it is to be published as any other. Raises what publishing
    raises, and `DeadlineUnmeetable`."""
    admission = client.admission
    terms = admission.terms(task, message, said, _within(client, connection))
    if terms is None:
        return None
    way = apart.drive(admission.let_in(message, terms))
    if way == "publish":
        if terms.on_full == "raise":
            return None
        (answer,) = apart.drive(admission.published([message], terms.on_full))
        if not admission.runs_here(task, message, answer, terms.on_full):
            return client.sent(task, message, answer)
        way = "here"
    return _run(client, task, message, way)


async def asend(
    client: Client, task: Task[..., Any] | None, message: Message, connection: object | None, said: Mapping[str, Any]
) -> AsyncResult[Any] | None:
    """`send` without blocking the running loop."""
    admission = client.admission
    terms = admission.terms(task, message, said, _within(client, connection))
    if terms is None:
        return None
    way = await apart.adrive(admission.let_in(message, terms))
    if way == "publish":
        if terms.on_full == "raise":
            return None
        (answer,) = await apart.adrive(admission.published([message], terms.on_full))
        if not admission.runs_here(task, message, answer, terms.on_full):
            return client.sent(task, message, answer)
        way = "here"
    return await _arun(client, task, message, way)


def send_many(
    client: Client, task: Task[P, R], calls: Iterable[tuple[Any, ...] | Signature[Any]], on_full: OnFull | None
) -> list[AsyncResult[R]]:
    """`on_full=None`: as the task says."""
    many, wanted = Many(client, task, calls), client.admission.of_many(task, on_full)
    if task.app.conf.task_always_eager:
        return [client.send(task, message) for message in many.messages()]
    for chunk in many.chunks(client.most):
        with many.counting():
            answers = apart.drive(client.admission.published_many(task, chunk, wanted))
            for message, answer in _one_by_one(many, chunk, answers, wanted):
                if client.admission.runs_here(task, message, answer, wanted):
                    many.results.append(_run(client, task, message, "here"))
                else:
                    many.published([message], [answer])
    return many.results


async def asend_many(
    client: Client, task: Task[P, R], calls: Iterable[tuple[Any, ...] | Signature[Any]], on_full: OnFull | None
) -> list[AsyncResult[R]]:
    """`send_many` without blocking the running loop."""
    many, wanted = Many(client, task, calls), client.admission.of_many(task, on_full)
    if task.app.conf.task_always_eager:
        return [await client.asend(task, message) for message in many.messages()]
    for chunk in many.chunks(client.most):
        with many.counting():
            answers = await apart.adrive(client.admission.published_many(task, chunk, wanted))
            for message, answer in _one_by_one(many, chunk, answers, wanted):
                if client.admission.runs_here(task, message, answer, wanted):
                    many.results.append(await _arun(client, task, message, "here"))
                else:
                    many.published([message], [answer])
    return many.results


def _one_by_one(
    many: Many, chunk: Sequence[Message], answers: Sequence[Answer], on_full: OnFull
) -> Iterable[tuple[Message, Answer]]:
    """What is to be looked at one by one; the rest has its results."""
    if on_full == RUN_INLINE:
        return zip(chunk, answers, strict=True)
    many.published(chunk, answers)
    return ()


def _within(client: Client, connection: object | None) -> str | None:
    if connection is not None:
        return "a transaction"
    return None if open_batch(client) is None else "a batch"


def _run(client: Client, task: Task[..., Any] | None, message: Message, way: Way) -> AsyncResult[Any]:
    from penstock import eager  # few calls run here

    assert task is not None  # nothing else is told to run here
    message = client.dressed([message])[0]
    return eager.run_here(task, message) if way == "here" else eager.run(task, message)


async def _arun(client: Client, task: Task[..., Any] | None, message: Message, way: Way) -> AsyncResult[Any]:
    from penstock import eager

    assert task is not None
    message = client.dressed([message])[0]
    return await (eager.arun_here(task, message) if way == "here" else eager.arun(task, message))
