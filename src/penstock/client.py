"""From a call to a published message: pure up to the engine, and the same for blocking and awaiting callers."""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from msgspec.structs import replace

from penstock import apart, cautious, routing
from penstock.admission import NOTHING, Admission
from penstock.batch import open_batch
from penstock.blocking import running_loop
from penstock.broker import Accepted, Answer, Conflict, Duplicate, Full, Key, Unknown, check_message
from penstock.codec import compression_of
from penstock.errors import (
    AlreadyQueued,
    BrokerError,
    ConfigError,
    OutcomeUnknown,
    PenstockError,
    QueueFull,
    Unsupported,
)
from penstock.exchanges import Copies, needs_workers
from penstock.keyed import keyed
from penstock.keys import Given
from penstock.message import VERSION, Message, Options, Unique
from penstock.options import NO_OPTIONS, CallOptions, read_options
from penstock.outcome import Progress
from penstock.partials import Outbox
from penstock.refusals import RefusalNotes, behalf
from penstock.request import Request, current
from penstock.result import AsyncResult
from penstock.unique import unique_of

if TYPE_CHECKING:
    import asyncio

    from penstock.app import Penstock
    from penstock.coordinator import WorkerInfo
    from penstock.engine import Engine
    from penstock.task import Task

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("penstock.client")


class Client:
    """Publishes for one app."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._notes: set[asyncio.Task[None]] = set()
        self.outbox = Outbox(app)
        self.admission = Admission(app)
        self.refusals = RefusalNotes(app)

    # -- from a call to a message

    def prepare(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> Message:
        """Raises before anything is published: `TypeError` for arguments, `ConfigError` for options, `UnknownQueue`."""
        conf, ours = self._app.conf, task.options
        if task.routed:
            options = self.routed(task, args, kwargs, options or {})
        parent = current.get()
        queue = ours.queue or conf.task_default_queue
        priority = conf.task_default_priority if ours.priority is None else ours.priority
        if not options and parent is None and task.calls_plainly:
            body = (task._arguments or task.codec).encode(args, kwargs, task.format)
            return Message(
                VERSION,
                task.name,
                body,
                queue=queue,
                priority=priority,
                namespace=conf.namespace,
                content_type=task.format.name,
                sent=self._app.clock.time(),
            )
        call = read_options(CallOptions, options) if options else NO_OPTIONS
        pipeline = self._app.pipeline
        form = pipeline.serializer(call.serializer) if call.serializer else task.format
        compression = compression_of(call.compression) if call.compression else task.compression
        packed = pipeline.compress(task.codec.encode(args, kwargs, form), form.name, compression)
        if task.inherits_priority and parent is not None:
            priority = parent.priority
        message = self._message(task.name, packed, call, parent, queue, priority, ours.lifetime)
        if not task.calls_plainly or call.unique is not None:
            unique = unique_of(ours.unique if call.unique is None else call.unique)
            keyed(message, Given(task.name, task.codec, args, kwargs), unique, task.limit, ours.partition, call.cost)
        return message

    def prepare_after(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Message:
        """The message for a call whose first argument comes later (see `Arguments.encode_after`), not
        compressed."""
        conf, ours, parent = self._app.conf, task.options, current.get()
        call = read_options(CallOptions, self.routed(task, args, kwargs, options))
        form = self._app.pipeline.serializer(call.serializer) if call.serializer else task.format
        body = task.codec.encode_after(args, kwargs, form)
        priority = conf.task_default_priority if ours.priority is None else ours.priority
        if task.inherits_priority and parent is not None:
            priority = parent.priority
        queue = ours.queue or conf.task_default_queue
        message = self._message(task.name, (body, form.name), call, parent, queue, priority, ours.lifetime)
        keyed(message, Given(task.name, task.codec, args, kwargs, True), None, task.limit, ours.partition, call.cost)
        return message

    def routed(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The options of a call, with those of its route."""
        return self._routed(task.name, args, kwargs, options, task) if task.routed else options

    def prepare_unknown(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Message:
        """The message for a task that only the worker knows: nothing about its arguments can be checked here."""
        conf, parent = self._app.conf, current.get()
        if conf.task_routes:
            options = self._routed(name, args, kwargs, options, None)
        call = read_options(CallOptions, options)
        pipeline = self._app.pipeline
        form = pipeline.serializer(call.serializer or conf.task_serializer)
        compression = compression_of(call.compression or conf.task_compression)
        packed = pipeline.compress(form.encode((args, kwargs)), form.name, compression)
        queue, priority = conf.task_default_queue, conf.task_default_priority
        if conf.task_inherit_parent_priority and parent is not None:
            priority = parent.priority
        message = self._message(name, packed, call, parent, queue, priority, None)
        limit, partition = conf.limit_of(name)
        keyed(message, Given(name, None, args, kwargs), unique_of(call.unique), limit, partition, call.cost)
        return message

    def _routed(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        task: Task[..., Any] | None,
    ) -> Mapping[str, Any]:
        """The options of a call, with what its route says where neither the call nor the task does."""
        said = {option: value for option, value in options.items() if value is not None}
        found = routing.find(self._app.conf.task_routes, name, args, kwargs, said, task)
        stronger = said.keys() | (task.own if task is not None else frozenset())
        if stronger & routing.DESTINATION:
            stronger |= routing.DESTINATION
        if "deadline" in stronger:
            stronger |= {"expires"}
        return {**{option: value for option, value in found.items() if option not in stronger}, **said}

    def _message(
        self,
        name: str,
        packed: tuple[bytes, str],
        call: CallOptions,
        parent: Request | None,
        queue: str,
        priority: int,
        expires: float | None,
    ) -> Message:
        now = self._app.clock.time()
        body, content_type = packed
        if call.queue is not None:
            queue = self._app.conf.address(call.queue)
        elif call.exchange is not None:
            queue = self._app.conf.exchange_address(call.exchange, call.routing_key or "")
        message = Message(
            VERSION,
            name,
            body,
            call.task_id,
            queue,
            priority if call.priority is None else call.priority,
            self._app.conf.namespace,
            call.partition,
            call.start(now),
            call.end(now, expires),
            content_type=content_type,
            options=_worker_options(call, parent),
            headers=dict(call.headers) if call.headers else None,
            sent=now,
        )
        if not self._app.conf.task_always_eager:
            check_message(self._app.engine.broker.features, message)
        return message

    # -- publishing

    def send(
        self,
        task: Task[P, R] | None,
        message: Message,
        connection: object | None = None,
        said: Mapping[str, Any] = NOTHING,
    ) -> AsyncResult[R]:
        """`said` are the options of the call."""
        if self._app.conf.task_always_eager:
            from penstock import eager  # for tests

            return eager.run(task, self.dressed([message])[0])
        if "on_full" in said or "deadline" in said or (self.admission if task is None else task).cautious:
            other = cautious.send(self, task, message, connection, said)
            if other is not None:
                return other
        if connection is not None:
            (answer,) = self.enlist([message], connection)
            return self.result(task, message, self.key_of(message, answer))
        batch = open_batch(self)
        if batch is not None:
            return batch.add(task, message)
        (answer,) = self.engine_of([message]).run(self.publish([message]))
        return self.sent(task, message, answer)

    async def asend(
        self,
        task: Task[P, R] | None,
        message: Message,
        connection: object | None = None,
        said: Mapping[str, Any] = NOTHING,
    ) -> AsyncResult[R]:
        if self._app.conf.task_always_eager:
            from penstock import eager

            return await eager.arun(task, self.dressed([message])[0])
        if "on_full" in said or "deadline" in said or (self.admission if task is None else task).cautious:
            other = await cautious.asend(self, task, message, connection, said)
            if other is not None:
                return other
        if connection is not None:
            (answer,) = await self.aenlist([message], connection)
            return self.result(task, message, self.key_of(message, answer))
        batch = open_batch(self)
        if batch is not None:
            return batch.add(task, message)
        (answer,) = await self.apublish([message])
        return self.sent(task, message, answer)

    def sent(self, task: Task[P, R] | None, message: Message, answer: Answer) -> AsyncResult[R]:
        """The result of what was published just now. Raises as `key_of`."""
        result = self.result(task, message, self.key_of(message, answer))
        result.published_now()
        return result

    @property
    def engine(self) -> Engine:
        """The engine that runs `publish`. Opens that of results, too, where it is another: it may have to choose ids,
        and is not to be opened on the loop of this one."""
        app = self._app
        if app.result_url is not None:
            app.results  # noqa: B018
        return app.engine

    def engine_of(self, messages: Sequence[Message]) -> Engine:
        """`engine` for these: where nobody wants a result, its server need not be there."""
        return self.engine if self._need_results(messages) else self._app.engine

    def _need_results(self, messages: Sequence[Message]) -> bool:
        """Results are elsewhere, and one of these is to have one."""
        app = self._app
        if app.result_url is None:
            return False
        return not all(self.ignores_result(app.tasks.get(message.task), message) for message in messages)

    def publish(self, messages: Sequence[Message]) -> Coroutine[Any, Any, Sequence[Answer]]:
        """One answer for each, in order, none of them `Unknown`. To be run by the `run` or `arun` of `engine`."""
        client = behalf()  # here: the engine may run the rest on a thread of its own
        return self._publish_copies(messages, client) if self._app.conf.copies else self._publish(messages, client)

    async def _publish_copies(self, messages: Sequence[Message], client: str) -> Sequence[Answer]:
        workers = await self._workers() if needs_workers(messages) else ()
        copies = Copies(messages, workers, self._app.clock.time())
        return copies.answers(await self._publish(copies.messages, client))

    async def _publish(self, messages: Sequence[Message], client: str) -> Sequence[Answer]:
        called, messages = messages, self._outgoing(messages)
        clock, timeout = self._app.clock, self._app.conf.publish_timeout
        deadline = clock.monotonic() + timeout
        if self._need_results(messages):
            await self._prepare_results(timeout)
            timeout = max(0.0, deadline - clock.monotonic())
        answers = await self._app.broker.publish(messages, timeout)
        for answer in answers:
            if type(answer) is not Accepted:
                self.refusals.note(messages, answers, client)
                return await self._known(messages, answers, deadline, called, client)
        return answers

    async def apublish(self, messages: Sequence[Message]) -> Sequence[Answer]:
        """`publish`, run by the engine; on the running loop where that is allowed, and nobody else's code has a say."""
        app, engine, call = self._app, self.engine_of(messages), self.publish(messages)
        if app.publishing or app.conf.copies or app.result_url is not None:
            return await engine.arun(call)
        return await engine.apublish(call)

    def enlist(self, messages: Sequence[Message], connection: object) -> Sequence[Answer]:
        """Publish on the caller's own connection, inside the transaction that it is in."""
        from penstock import transaction  # few need it

        workers = self.engine.run(self._workers()) if needs_workers(messages) else ()
        copies = Copies(messages, workers, self._app.clock.time())
        outgoing = self._outgoing(copies.messages)
        with self._app.broker.enlisting(outgoing):
            answers = transaction.publish(self.engine, outgoing, connection)
        self.refusals.note(outgoing, answers, behalf())
        return copies.answers(answers)

    async def aenlist(self, messages: Sequence[Message], connection: object) -> Sequence[Answer]:
        """`enlist` on a connection that is awaited, on its own loop."""
        from penstock import transaction

        workers = await self.engine.arun(self._workers()) if needs_workers(messages) else ()
        copies = Copies(messages, workers, self._app.clock.time())
        outgoing = self._outgoing(copies.messages)
        with self._app.broker.enlisting(outgoing):
            answers = await transaction.apublish(self.engine, outgoing, connection)
        self.refusals.note(outgoing, answers, behalf())
        return copies.answers(answers)

    async def _workers(self) -> Sequence[WorkerInfo]:
        """Those that live, for messages that go to each of them."""
        features = self._app.broker.features
        if not features.coordination:
            raise Unsupported(f"the {features.engine} engine does not know for sure which workers live: no broadcasts")
        return await self._app.engine.coordinator.workers()

    def send_on_commit(self, task: Task[P, R] | None, message: Message, connection: object | None) -> AsyncResult[R]:
        """Publish when the transaction of `connection` has committed. The result has its id then."""
        from penstock.on_commit import after_commit

        if self._app.conf.task_always_eager:
            from penstock import eager

            return eager.run_after_commit(task, self.dressed([message])[0], connection)
        result = self.result(task, message, message.id)

        def publish() -> None:
            (answer,) = self.engine_of([message]).run(self.publish([message]))
            result.published_as(self.key_of(message, answer))

        async def apublish() -> None:
            (answer,) = await self.engine_of([message]).arun(self.publish([message]))
            result.published_as(self.key_of(message, answer))

        after_commit(connection, publish, apublish)
        return result

    def _outgoing(self, messages: Sequence[Message]) -> Sequence[Message]:
        """As the middleware wants them, with the ids that results need, and signed for an app with keys."""
        messages = self.dressed(messages)
        if self._need_results(messages):
            self._name(messages)
        trust = self._app.pipeline.trust
        if trust is not None:
            for message in messages:
                message.id = message.id or os.urandom(16).hex()  # the id is signed, too
                trust.sign(message)
        return messages

    def dressed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """As the middleware wants them."""
        for middleware in self._app.publishing:
            count = len(messages)
            messages = middleware(messages)
            if len(messages) != count:
                raise ConfigError(
                    f"publishing middleware {middleware!r} returned {len(messages)} messages for {count}; it may "
                    "replace messages, and raise to refuse them, but callers hold one result for each"
                )
        return messages

    def name(self, messages: Sequence[Message]) -> None:
        """Give ids to these, so that it is recognised when they are published again."""
        if self._need_results(messages):
            self._name(messages)
        for message in messages:
            message.id = message.id or os.urandom(16).hex()

    async def _prepare_results(self, timeout: float) -> None:
        """Where results are pushed to, there must be a place for them before the task is sent."""
        coming = self._app.backend.prepare(timeout)
        if coming is not None:
            await apart.elsewhere(self._app.results, coming)

    def _name(self, messages: Sequence[Message]) -> None:
        """Give ids where results find their way by them."""
        mint = self._app.backend.mint
        for message in messages:
            if message.id is None:
                message.id = mint()

    async def _known(
        self,
        messages: Sequence[Message],
        answers: Sequence[Answer],
        deadline: float,
        called: Sequence[Message],
        client: str,
    ) -> Sequence[Answer]:
        """Publish what is `Unknown` with the same ids until it is known, or the deadline has passed. `called` are the
        messages before the middleware changed them."""
        known = list(answers)
        while unknown := {i: answer for i, answer in enumerate(known) if isinstance(answer, Unknown)}:
            left = deadline - self._app.clock.monotonic()
            if left <= 0:
                ids = tuple(answer.id for answer in unknown.values())
                why = next((answer.why for answer in unknown.values() if answer.why), "the broker did not say in time")
                raise OutcomeUnknown(f"{len(ids)} tasks may or may not be published: {why}", ids)
            again = [replace(messages[i], id=answer.id) for i, answer in unknown.items()]
            try:
                answers = await self._app.broker.publish(again, left)
            except PenstockError as error:  # of this try: nothing was done now, but the first may have been
                ids = tuple(answer.id for answer in unknown.values())
                raise OutcomeUnknown(f"{len(ids)} tasks may or may not be published: {error}", ids) from error
            self.refusals.note(again, answers, client)
            for i, answer in zip(unknown, answers, strict=True):
                if isinstance(answer, Full) and not self._app.broker.features.knows_ids:
                    # Only this try was refused: the first may be in the queue.
                    why = f"queue {answer.queue!r} was full when it was asked again"
                    ids = tuple(one.id for one in unknown.values())
                    raise OutcomeUnknown(f"{len(ids)} tasks may or may not be published: {why}", ids)
                if isinstance(answer, Full):
                    called[i].id = unknown[i].id  # if it comes to the queue after all, a later try is recognised
                known[i] = answer
        return known

    @property
    def most(self) -> int:
        """How many messages one publish can carry."""
        return self._app.engine.broker.features.max_batch

    def result(self, task: Task[P, R] | None, message: Message, key: Key | None) -> AsyncResult[R]:
        """The result of a published message; with `key=None` of one that is in a batch."""
        return AsyncResult(key, app=self._app, task=task, ignored=self.ignores_result(task, message))

    def ignores_result(self, task: Task[P, R] | None, message: Message) -> bool:
        """Nobody wants what comes of this call to be kept."""
        options = message.options
        if options is not None and options.ignore_result is not None:
            return options.ignore_result
        return bool(task.options.ignore_result) if task is not None else self._app.conf.task_ignore_result

    def note(self, key: Key, progress: Progress) -> None:
        """Store progress; inside a running loop without waiting for it."""
        noted = apart.note(self._app.engine, self._app.results, key, progress)
        loop = running_loop()
        if loop is None:
            apart.drive(noted)
            return
        noting = loop.create_task(apart.adrive(noted))
        self._notes.add(noting)
        noting.add_done_callback(self._noted)

    def _noted(self, noting: asyncio.Task[None]) -> None:
        self._notes.discard(noting)
        if not noting.cancelled() and noting.exception() is not None:
            _log.warning("progress could not be noted: %s", noting.exception())

    def key_of(self, message: Message, answer: Answer) -> Key:
        """The key of the task that stands for `message` now. Raises `QueueFull` or `AlreadyQueued`."""
        if isinstance(answer, (Accepted, Duplicate)):
            return answer.key
        if isinstance(answer, Full):
            raise QueueFull(answer.queue, answer.depth, answer.limit, answer.retry_after, answer.unit)
        if isinstance(answer, Conflict):
            quiet = any(
                type(g) is Unique and g.key == answer.unique and g.on_conflict == "skip" for g in message.guards
            )
            if quiet and answer.key is not None:
                return answer.key
            raise AlreadyQueued(answer.unique, None if answer.key is None else self._app.broker.public_id(answer.key))
        raise BrokerError(f"the broker answered {answer!r}")


def _worker_options(call: CallOptions, parent: Request | None) -> Options | None:
    root_id = parent_id = None
    if parent is not None:
        root_id, parent_id = parent.root_id, parent.id
    options = Options(call.time_limit, call.soft_time_limit, call.ignore_result, None, root_id, parent_id)
    return None if options == _NO_WORKER_OPTIONS else options


_NO_WORKER_OPTIONS = Options()
