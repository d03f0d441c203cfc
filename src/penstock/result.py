"""The result of a call: its state at once, or its value when it is there (see `penstock.waiting`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from penstock import apart, replaced
from penstock.blocking import refuse_in_loop
from penstock.broker import Key
from penstock.codec import Returned, read_failure, rebuild
from penstock.coordinator import Revoked
from penstock.errors import BrokerError, ResultError, ResultUnavailable, TaskRevoked
from penstock.message import Place, graph_of
from penstock.outcome import Outcome, Part, Report, State
from penstock.stream import AsyncStream, Stream, newest
from penstock.tree import Node
from penstock.waiting import Waiting

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.task import Task

R = TypeVar("R")

JUST_NOW = 0.01
"""Seconds for which a published task has hardly ended: who waits for it is told of its end, and need not ask first."""


class AsyncResult(Node, Generic[R]):
    """The result of one call, by its id. It holds no connection; make as many as you like.

    Its properties ask the engine each time, until a terminal state was seen. In a running loop use `await r.areport()`,
    which has all of them in one answer.
    """

    __slots__ = (
        "_app",
        "_at",
        "_children",
        "_ignored",
        "_key",
        "_moves",
        "_parent",
        "_place",
        "_published",
        "_seen",
        "_task",
    )

    def __init__(
        self,
        id: Key | None,
        *,
        app: Penstock,
        task: Task[..., R] | None = None,
        ignored: bool = False,
        parent: Callable[[], Any] | None = None,
        children: Callable[[], list[Any]] | None = None,
        place: Place | None = None,
    ) -> None:
        """`id`: the public id, or the engine's key of the task. `ignored`: it is known that no result is stored.
        `place`: where it stands in a canvas; `parent` makes the result of what is before it, `children` those of what
        follows."""
        self._key = id
        self._app = app
        self._task = task
        self._ignored = ignored
        self._place = place if place is not None else _place_of(id)
        self._published = -math.inf
        self._seen: Report | None = None
        self._parent = parent
        self._children = children
        self._at: str | None = None
        self._moves = 0

    def __repr__(self) -> str:
        return f"<AsyncResult {self.id if self._key is not None else 'not published yet'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and self._app is other._app and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """The task's public id."""
        return self._app.broker.public_id(self.key)

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def key(self) -> Key:
        """The engine's key of the task. Raises `ResultUnavailable` inside the batch, or before the commit, that will
        publish it."""
        if self._key is None:
            raise ResultUnavailable(
                "this call waits in a batch that is not published, or for a commit: its id is there after the block or "
                "the commit, and only if that succeeds; give task_id= to choose the id yourself"
            )
        return self._key

    @property
    def at(self) -> Key:
        """The key of the task whose result is looked for: another one, where a canvas took the place of this."""
        return self.key if self._at is None else self._at

    def published_as(self, key: Key) -> None:
        """The batch is published; for `Batch`."""
        self._key = key

    def published_now(self) -> None:
        """This moment, by this process; for `Client`."""
        self._published = time.monotonic()

    def _is_new(self) -> bool:
        return self._seen is None and time.monotonic() - self._published < JUST_NOW

    # -- what is known now

    def report(self) -> Report:
        """All that is known now, in one look."""
        if self._seen is None:
            return self._noted(apart.drive(self._reports())[0])
        return self._seen

    async def areport(self) -> Report:
        """`report` without blocking the running loop."""
        if self._seen is None:
            return self._noted((await apart.adrive(self._reports()))[0])
        return self._seen

    def _reports(self) -> apart.Plan[Sequence[Report]]:
        return replaced.reports(self._app, [self])

    def _noted(self, report: Report) -> Report:
        if report.state.terminal:
            self._seen = report
        return report

    @property
    def state(self) -> State:
        """UNKNOWN: this id was never seen, or is forgotten; or it has not ended, and the broker does not know ids
        (RabbitMQ)."""
        return self.report().state

    status = state

    def ready(self) -> bool:
        """It has ended: in success, failure or revocation."""
        return self.state.terminal

    def successful(self) -> bool:
        return self.state is State.SUCCESS

    def failed(self) -> bool:
        return self.state is State.FAILURE

    def exists(self) -> bool:
        """The id is known."""
        return self.state is not State.UNKNOWN

    @property
    def result(self) -> Any:
        """The value, or the error as an exception object; `None` while there is none."""
        report = self.report()
        if report.outcome is None:
            return None
        return self._value(report, report.outcome) if report.state is State.SUCCESS else self._error(report)

    @property
    def info(self) -> Any:
        """`result`, or the `Progress` of a running task."""
        report = self.report()
        return report.progress if report.progress is not None and not report.state.terminal else self.result

    @property
    def traceback(self) -> str | None:
        """What the worker saw, as text."""
        report = self.report()
        if report.outcome is None or report.state is not State.FAILURE:
            return None
        return read_failure(report.outcome.value).traceback or None

    @property
    def date_done(self) -> datetime | None:
        outcome = self.report().outcome
        return None if outcome is None else datetime.fromtimestamp(outcome.done, UTC)

    @property
    def retries(self) -> int:
        report = self.report()
        return report.outcome.retries if report.outcome is not None else report.retries

    @property
    def worker(self) -> str | None:
        return self.report().worker

    @property
    def queue(self) -> str | None:
        return self.report().queue

    @property
    def name(self) -> str | None:
        """The task's name."""
        return self._task.name if self._task is not None else self.report().task

    @property
    def parent(self) -> Any:
        return None if self._parent is None else self._parent()

    @property
    def children(self) -> list[Any]:
        return [] if self._children is None else self._children()

    def _entry(self, parent: Any) -> tuple[Any, Any]:
        place = self._place
        if place is None or graph_of(self.id) is not None:
            return (self.id, parent), None
        return (self.id, parent, [place.graph, place.node]), None

    # -- waiting

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        """The value, as soon as it is there. With `propagate=False` an error is returned, not raised.

        Raises the task's error, `RemoteError` for one that is not rebuilt here, `TaskRevoked`, `ResultTimeout` after
        `timeout` seconds, and `ResultUnavailable` when no results are kept, or can no more come, or the id is unknown:
        a task is known from its publish until its result expires, so that an unknown one will never have a result. Only
        where the broker does not know ids (RabbitMQ), an unknown one is waited for.
        """
        refuse_in_loop("get()", "await r.aget()")
        self._check_stored()
        report = None if self._is_new() else self.report()
        if report is None or not report.state.terminal:
            report = self._noted(Waiting(self, timeout).wait(report))
        return self._settled(report, propagate)

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """`get` without blocking the running loop."""
        self._check_stored()
        report = None if self._is_new() else await self.areport()
        if report is None or not report.state.terminal:
            report = self._noted(await Waiting(self, timeout).await_(report))
        return self._settled(report, propagate)

    def _check_stored(self) -> None:
        if self._ignored:
            raise ResultUnavailable(
                f"results of {self._task.name if self._task is not None else 'this task'} are ignored (ignore_result): "
                "there is none to wait for"
            )
        if not self._app.keeps_results:
            raise ResultUnavailable(
                f"{self._app.engine.url} keeps no results, and result_backend names no other place for them: set it, "
                "for example to 'rpc://' or redis://localhost:6379/1"
            )

    def _lost(self, error: BrokerError) -> ResultUnavailable:
        return ResultUnavailable(f"the result of task {self.id} cannot come any more: {error}")

    def _check_known(self, report: Report) -> None:
        if report.state is State.UNKNOWN and apart.knows_waiting(self._app.engine, self._app.results):
            raise ResultUnavailable(
                f"task {self.id} is unknown here: it was never published to {self._app.engine.url}, or its result was "
                "forgotten or has expired (result_expires); it will never be there"
            )

    # -- reading it

    def _settled(self, report: Report, propagate: bool) -> R:
        if report.state is State.SUCCESS:
            if report.outcome is None:
                raise ResultUnavailable(f"task {self.id} succeeded, and its result was ignored (ignore_result)")
            return self._value(report, report.outcome)
        error = self._error(report)
        if propagate:
            raise error
        return cast(R, error)

    def _value(self, report: Report, outcome: Outcome) -> R:
        task = self._task or self._app.tasks.get(report.task or "")
        reader = self._app.pipeline.reader
        returned = task.returned if task is not None else Returned(report.task or "task", reader=reader)
        return cast(R, returned.decode(*self._trusted(report, outcome)))

    def _trusted(self, report: Report, outcome: Outcome) -> tuple[bytes, str]:
        """The value and its content type, for who believes them. Raises `SignatureError`."""
        return self._app.pipeline.result_in(report.id, outcome.value, outcome.content_type)

    def _error(self, report: Report) -> BaseException:
        if report.outcome is None or not report.outcome.value:
            if report.state is State.REVOKED:
                return TaskRevoked(f"task {self.id} was revoked, or expired, before it finished")
            return ResultError(f"task {self.id} failed; its error was not stored (ignore_result)")
        task = self._task or self._app.tasks.get(report.task or "")
        allowed: tuple[type[BaseException], ...] = self._app.conf.result_exceptions
        if task is not None:
            allowed += task.options.throws + task.options.autoretry_for
        error = rebuild(report.outcome.value, allowed)
        if report.state is State.REVOKED and not isinstance(error, TaskRevoked):
            return TaskRevoked(f"task {self.id} was revoked: {error}")
        return error

    # -- what it publishes while it runs

    @property
    def _held(self) -> Sequence[Part] | None:
        """All parts, where they are here."""
        return None

    def stream(self, offset: int = 0, timeout: float | None = None, propagate: bool = True) -> Stream[Any]:
        """What the task publishes, from index `offset` on (-1: the newest that is there now), until it has ended. See
        `Stream` for the errors; `timeout` is in seconds for each part. Raises `Unsupported` where no parts are kept."""
        return Stream(self, offset, timeout, propagate)

    def astream(self, offset: int = 0, timeout: float | None = None, propagate: bool = True) -> AsyncStream[Any]:
        """`stream` without blocking the running loop: `async for`."""
        return AsyncStream(self, offset, timeout, propagate)

    def partial(self, default: Any = None) -> Any:
        """The newest part that the task has published: its preliminary result. `default`: there is none yet."""
        return apart.drive(newest(self, default))

    async def apartial(self, default: Any = None) -> Any:
        """`partial` without blocking the running loop."""
        return await apart.adrive(newest(self, default))

    # -- ending it

    def forget(self) -> None:
        """Drop the result. Afterwards the id is unknown."""
        apart.drive(self._forgetting())
        self._seen = None

    async def aforget(self) -> None:
        """`forget` without blocking the running loop."""
        await apart.adrive(self._forgetting())
        self._seen = None

    def _forgetting(self) -> apart.Plan[None]:
        keys = [self.key] if self._at is None else [self.key, self._at]
        return apart.forget(self._app.engine, self._app.results, keys)

    def revoke(self, terminate: bool = False) -> Revoked:
        """End the task for good: at once if it waits, by its worker if it runs (`terminate`: in the middle)."""
        return apart.drive(self._revocation(terminate))

    async def arevoke(self, terminate: bool = False) -> Revoked:
        """`revoke` without blocking the running loop."""
        return await apart.adrive(self._revocation(terminate))

    def _revocation(self, terminate: bool) -> apart.Plan[Revoked]:
        answer = yield from self._revocation_of(self.at, self._place if self._at is None else None, terminate)
        if answer is Revoked.ENDED and self._seen is None:
            before = self._moves
            yield from self._reports()
            if self._moves != before:
                return (yield from self._revocation(terminate))
        return answer

    def _revocation_of(self, key: Key, place: Place | None, terminate: bool) -> apart.Plan[Revoked]:
        app, now = self._app, self._app.clock.time()
        place = place or _place_of(key)
        if place is not None:
            from penstock.canvas import revoking  # few need it

            return (yield from revoking.revocation(app, key, place, now, terminate))
        [answer] = yield from apart.revocation(app.engine, app.results, [key], now, terminate)
        return answer


def _place_of(id: Key | None) -> Place | None:
    found = graph_of(id) if isinstance(id, str) else None
    return None if found is None else Place(*found)
