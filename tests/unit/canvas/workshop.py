"""An app with small tasks, on an engine of this process, and a worker that runs until nothing is left."""

from __future__ import annotations

from typing import Any, cast

from penstock import Ignore, Penstock, Reject, Retry
from penstock.worker.settings import WorkerOptions
from penstock.worker.worker import Worker


class Workshop:
    """`made` notes each run of a task: its name and arguments."""

    def __init__(self, broker: str, **settings: Any) -> None:
        self.app = app = Penstock("workshop", broker=broker, **settings)
        self.made: list[tuple[Any, ...]] = []
        self.errors: list[dict[str, str]] = []
        task = app.task
        self.add = task(name="add")(self._add)
        self.total = task(name="total")(self._total)
        self.give = task(name="give")(self._give)
        self.fail = task(name="fail")(self._fail)
        self.ignore = task(name="ignore")(self._ignore)
        self.reject = task(name="reject")(self._reject)
        self.again = task(name="again", max_retries=2, default_retry_delay=0.0)(self._again)
        self.tell = task(name="tell")(self._tell)
        self.grow = task(name="grow")(lambda size: "x" * (size << 20))
        self.pack = task(name="pack", serializer="msgpack")(self._pack)

    def _add(self, x: int, y: int) -> int:
        self.made.append(("add", x, y))
        return x + y

    def _total(self, numbers: list[int], start: int = 0) -> int:
        self.made.append(("total", numbers))
        return sum(numbers, start)

    def _give(self, value: Any = None) -> Any:
        self.made.append(("give", value))
        return value

    def _fail(self, value: Any = None) -> Any:
        raise ValueError(f"no {value}")

    def _ignore(self, value: Any = None) -> Any:
        raise Ignore("not today")

    def _reject(self, value: Any = None) -> Any:
        raise Reject("not me")

    def _again(self, value: Any = None) -> Any:
        self.made.append(("again", value))
        if sum(one[0] == "again" for one in self.made) < 3:
            raise Retry(countdown=0.0)
        return value

    def _tell(self, error: dict[str, str]) -> None:
        self.errors.append(error)

    def _pack(self, value: Any, more: bytes = b"\0") -> Any:
        return [value, more]

    def run(self) -> None:
        """All that is there, and what follows it."""
        assert Worker(self.app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL")).run() == 0

    def count(self, name: str) -> int:
        return sum(one[0] == name for one in self.made)

    def nothing_is_stored(self) -> bool:
        """Of the shared state, but who was refused; on the memory engine."""
        return all(key.startswith("refused:") for key in cast(Any, self.app.engine)._store.values)
