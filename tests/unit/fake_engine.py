"""An engine that answers as it is told, and remembers what it was asked; for what `memory://` cannot be made to do."""

import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from penstock import Penstock
from penstock.backend import Lost, Notify
from penstock.broker import Accepted, Answer, Features, Key
from penstock.coordinator import Revoked
from penstock.dispatch import Dispatch
from penstock.message import Message
from penstock.outcome import Progress, Report, State

FEATURES = Features(
    engine="fake",
    atomic_settle=True,
    max_batch=3,
    effects=frozenset({"ReleaseKey"}),
    guards=frozenset({"Unique", "Limit"}),
    max_message=1000,
)


class FakeBroker:
    def __init__(self, features: Features = FEATURES) -> None:
        self.features = features
        self.batches: list[list[Message]] = []
        self.timeouts: list[float] = []
        self.answer: Callable[[Message], Answer] | None = None
        self.published = 0

    @property
    def messages(self) -> list[Message]:
        return [message for batch in self.batches for message in batch]

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        self.batches.append(list(batch))
        self.timeouts.append(timeout)
        return [self._answer(message) for message in batch]

    def _answer(self, message: Message) -> Answer:
        if self.answer is not None:
            return self.answer(message)
        self.published += 1
        return Accepted(message.id or self.published)

    def public_id(self, key: Key) -> str:
        return f"id-{key}" if isinstance(key, int) else key

    def record_start(self, slot: int, receipt: object) -> None: ...

    def interrupt(self) -> None: ...


class FakeBackend:
    def __init__(self, public_id: Callable[[Key], str]) -> None:
        self.reports: dict[str, Report] = {}
        self.subscribed: list[tuple[str, Notify]] = []
        self.watched = threading.Event()
        """Somebody has subscribed."""
        self.closed = 0
        self.notes: list[tuple[Key, Progress]] = []
        self._public_id = public_id

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        ids = [self._public_id(key) for key in keys]
        return [self.reports.get(id, Report(id, State.UNKNOWN)) for id in ids]

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> "FakeBackend":
        for key in keys:
            id = self._public_id(key)
            self.subscribed.append((id, notify))
            if self.reports[id].state.terminal:
                notify([self.reports[id]])
        self.watched.set()
        return self

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        self.closed += 1

    def finish(self, report: Report) -> None:
        self.reports[report.id] = report
        for id, notify in self.subscribed:
            if id == report.id:
                notify([report])

    async def forget(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self.reports.pop(self._public_id(key), None)

    async def note(self, key: Key, progress: Progress) -> None:
        self.notes.append((key, progress))


class FakeCoordinator:
    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        return [Revoked.RUNNING if terminate else Revoked.REMOVED for _ in keys]


class FakeEngine:
    url = "fake://"
    transactional = None

    def __init__(self, features: Features = FEATURES) -> None:
        self.broker = FakeBroker(features)
        self.backend = FakeBackend(self.broker.public_id)
        self.coordinator = FakeCoordinator()
        self.closed = 0

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            call.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("the fake engine's coroutines do not wait")

    async def arun(self, call: Coroutine[Any, Any, Any]) -> Any:
        return await call

    apublish = arun

    def close(self) -> None:
        self.closed += 1


def fake_app(features: Features = FEATURES, **settings: Any) -> tuple[Penstock, FakeEngine]:
    """An app whose engine is open already."""
    app = Penstock("tests", broker="fake://", **settings)
    engine = FakeEngine(features)
    app._engine, app._broker = engine, Dispatch(engine.broker)  # type: ignore[assignment,arg-type]
    return app, engine
