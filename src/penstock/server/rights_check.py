"""Which right each request needs, on which names. Raises what `Identity.refusal` makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.broker import Demand, Key
from penstock.effects import Effect, Join, Publish, Put, ReleaseKey
from penstock.engines.sqlite.guards import displaces
from penstock.engines.sqlite.ids import FIRST_TASK, lane_of
from penstock.errors import AccessRefused, ConfigError
from penstock.guarding import MAX_KEY
from penstock.message import START_NOTE, Guard, Limit, Message, Unique
from penstock.server.access.identity import Identity
from penstock.server.access.rights import Right
from penstock.server.checking import MAX_QUEUES, check_message, check_number, check_route, check_seconds
from penstock.server.space import Space

MAX_LIMIT = 10_000
"""Tasks of one claim."""
MAX_LEASE = 86_400.0
MAX_WAIT = 60.0
GRANTED = 256
"""Rights of one client that are remembered, until anybody's change."""


class RightsCheck:
    """For one client in one namespace."""

    def __init__(self, identity: Identity, space: Space) -> None:
        self._identity = identity
        self._space = space
        self._granted: set[tuple[Right, str]] = set()
        self._as_of: object = None

    def need(self, right: Right, kind: str, name: str) -> None:
        if not self.may(right, name):
            raise self._identity.refusal(right, kind, self._space.name, name)

    def may(self, right: Right, name: str) -> bool:
        now = self._identity.as_of
        if self._as_of is not now or len(self._granted) > GRANTED:
            self._as_of = now
            self._granted.clear()
        elif (right, name) in self._granted:
            return True
        granted = self._identity.may(right, self._space.name, name)
        if granted:
            self._granted.add((right, name))
        return granted

    def consumer(self) -> None:
        """What is always admitted is for workers: not for those who may only publish."""
        if not self._identity.consumes(self._space.name):
            raise self._identity.refusal(Right.READ, "queue", self._space.name, "(any)")

    # Publishing.

    def publish(self, messages: Sequence[Message], *, worker: bool) -> None:
        """New work, or what follows from some: write on its queues and limits, configure where there is no such queue
        yet."""
        known = self._space.store.catalog.known_queue
        seen: set[tuple[str, str]] = set()
        for message in messages:
            name = (message.namespace, message.queue)
            if name not in seen:
                seen.add(name)
                self.need(Right.WRITE, "queue", message.queue)
                if known(*name) is None:
                    check_route(message)
                    self.need(Right.CONFIGURE, "queue", message.queue)
            if message.partition:
                check_route(message)
            if message.guards:
                self._check_guards(message.guards)
            if message.id is not None:
                self._check_minted(message, worker=worker)

    def _check_guards(self, guards: Sequence[Guard]) -> None:
        """A limit holds for all of its key, in any queue, as the newest message says: so it is a name of its own to
        have rights on. Who takes a unique key away revokes its holder: that needs what a revocation does."""
        for guard in guards:
            if isinstance(guard, Limit):
                self.need(Right.WRITE, "limit", guard.key)
            elif isinstance(guard, Unique) and displaces(guard):
                queue = self._space.store.queue_of_holder(guard.key)
                if queue is not None and not self.may(Right.WRITE, queue):
                    raise self._identity.refusal(Right.WRITE, "the holder of key", self._space.name, guard.key)

    def _check_minted(self, message: Message, *, worker: bool) -> None:
        """An id of ours names a place: only a worker may put a task back there, and only where one was."""
        row = self._space.store.ids.number(message.id or "")
        if row is None:
            return
        place = self._space.store.place(row)
        wanted = (message.namespace, message.queue, message.priority, message.partition)
        if not worker or place != wanted:
            raise ConfigError(f"task id {message.id!r} was given by this broker to another task: choose another id")

    # Consuming.

    def demand(self, want: Demand) -> None:
        if not 0 <= want.limit <= MAX_LIMIT:
            raise ConfigError(f"limit must be between 0 and {MAX_LIMIT:,}, not {want.limit!r}")
        if len(want.queues) > MAX_QUEUES:
            raise ConfigError(f"{len(want.queues):,} queues in one demand; at most {MAX_QUEUES:,} are taken")
        check_seconds("lease", want.lease, MAX_LEASE)
        check_seconds("wait", want.wait, MAX_WAIT)
        if not want.max_bytes > 0:
            raise ConfigError(f"max_bytes must be at least 1, not {want.max_bytes!r}")
        self.queues(want.queues, want.namespace)
        self.worker(want.worker)

    def queues(self, names: Iterable[str], namespace: str) -> None:
        known = self._space.store.catalog.known_queue
        for name in names:
            self.need(Right.READ, "queue", name)
            if known(namespace, name) is None:
                check_route(Message(1, "task", b"", queue=name, namespace=namespace))
                self.need(Right.CONFIGURE, "queue", name)

    def worker(self, worker: str) -> None:
        """Nobody acts for the worker of another user."""
        if not 0 < len(worker) <= 200:
            raise ConfigError(f"a worker's id has 1 to 200 characters, not {len(worker):,}")
        owner = self._space.crew.user_of(worker)
        if owner is not None and owner != self._identity.user:
            raise AccessRefused("this worker was signed on by another user")

    def lease(self, token: int) -> None:
        """To settle or extend needs the right to read the queue, and that nobody else's worker has it."""
        held = self._space.store.lease_of(token)
        if held is None:
            return  # lost, which is told as such
        worker, queue = held
        self.need(Right.READ, "queue", queue)
        self.worker(worker)

    def effects(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Publish(message=message):
                    check_message(message)
                    self.publish([message], worker=True)
                case Join(id=name, index=index, size=size, then=then):
                    self._key(name)
                    check_number("the index in a join", index)
                    check_number("the size of a join", size)
                    if size < 1:
                        raise ConfigError(f"the size of a join must be at least 1, not {size!r}")
                    check_message(then)
                    self.publish([then], worker=True)
                case Put(key=key, value=value, if_version=version):
                    self._key(key)
                    check_number("a version", version or 0)
                    self.state(Right.WRITE, key, adds=value is not None)
                case ReleaseKey(key=key):
                    self._key(key)

    def state(self, right: Right, key: str, *, adds: bool = False) -> None:
        """The small shared state. Whoever may run a task may note that he starts it."""
        task_id = key.removeprefix(START_NOTE)
        row = None if task_id == key else self._space.store.row_of(task_id)
        lane = None if row is None else self._space.store.catalog.find(lane_of(row))
        if lane is not None:
            granted = self.may(Right.READ, lane.queue_name)
        elif task_id != key and not adds:
            granted = self._identity.consumes(self._space.name)  # of a task that is gone it protects nothing any more
        else:
            granted = self.may(right, key)
        if not granted:
            raise self._identity.refusal(right, "state", self._space.name, key)

    def _key(self, key: str) -> None:
        if not 0 < len(key) <= MAX_KEY:
            raise ConfigError(f"a key has 1 to {MAX_KEY} characters, not {len(key):,}")

    # Results.

    def sees(self, key: Key) -> bool:
        """Who may write to a task's queue, or read it, may know what became of the task. Of a task that is elsewhere,
        and whose result only is kept here, whoever knows its id: its number here is easily guessed."""
        store = self._space.store
        row = store.ids.number(key) if isinstance(key, str) else key
        if row is not None and row < FIRST_TASK:
            return False
        if row is None:
            row = store.row_of(key)
        if row is None or row < FIRST_TASK:
            return True
        lane = store.catalog.find(lane_of(row))
        return lane is not None and (self.may(Right.WRITE, lane.queue_name) or self.may(Right.READ, lane.queue_name))
