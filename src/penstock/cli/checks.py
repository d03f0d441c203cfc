"""What `penstock doctor` looks at, from the interpreter to the dead letters. Each check ends with what to do."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from penstock import apart
from penstock.cli.check_beat import check_beat
from penstock.cli.findings import Finding, Level
from penstock.cli.show_members import SAID, lag, members_of
from penstock.cli.show_queues import percent
from penstock.cli.target import ImportFailed, Target
from penstock.cli.terminal import duration, size
from penstock.errors import ConfigError, PenstockError, Unsupported
from penstock.pressure.alarms import REMEDIES, said
from penstock.pressure.raised import raised
from penstock.pressure.readings import fullness
from penstock.queue import only_worker
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.broker import Member
    from penstock.queue import QueueInfo

LITTLE_SPACE = 1 << 30
"""Bytes free on the disk below which it is said."""
SLOW_COMMIT = 0.05
"""Seconds for one durable write: an SSD takes about 1 ms, a disk 10."""
NEARLY_FULL = 0.8
OLD = 300.0
"""Seconds that a task has waited when one may ask why."""
SILENT = 25.0
"""Seconds without a sign: a worker gives one every ten."""
PEEK = 1000
SEEN = ("full", "age")
"""Alarms of what `check_queues` sees."""
ENGINE_LOG = logging.getLogger("penstock.engine")
OPTIONAL = {"rich": "penstock[progress]", "uvloop": "penstock[uvloop]"}
"""Module → the extra that brings it."""


def examine(target: Target) -> Iterator[Finding]:
    """Findings as they are made; ends early where nothing further can be looked at."""
    yield from check_installation()
    try:
        app = target.queues()
    except ConfigError as error:
        trace = f"\n{error.traceback.rstrip()}" if isinstance(error, ImportFailed) else ""
        yield Finding(Level.ERROR, "app", f"{error}{trace}")
        return
    if target.name is None:
        yield Finding(
            Level.NOTE,
            "app",
            "none given: only the queue is looked at",
            "penstock -A MODULE doctor looks at tasks, too",
        )
    else:
        yield from check_tasks(target.name, app)
    try:
        yield from check_engine(app)
        yield from check_results(app)
        yield from check_members(members_of(app.engine))
        found = app.engine.run(app.engine.inspect.queues(target.namespace))
        yield from check_workers(app, found, target.name)
        yield from check_queues(found)
        yield from check_alarms(app, found)
        if target.name is not None:
            yield from check_waiting(app, found)
            yield from check_beat(app)
    except PenstockError as error:
        yield Finding(Level.ERROR, "broker", str(error))


def check_installation() -> Iterator[Finding]:
    try:
        release = version("penstock")
    except PackageNotFoundError:
        release = "(not installed: run from its source)"
    system = f"Python {platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    yield Finding(Level.OK, "penstock", f"{release}, {system}")
    missing = [extra for module, extra in OPTIONAL.items() if find_spec(module) is None]
    if missing:
        yield Finding(Level.NOTE, "extras", f"not installed: {', '.join(missing)}")


def check_tasks(name: str, app: Penstock) -> Iterator[Finding]:
    if not app.tasks:
        yield Finding(
            Level.ERROR,
            "app",
            f"{app.name} has no tasks",
            "import the modules that define them, or name them in imports=[…]",
        )
        return
    yield Finding(Level.OK, "app", f"{app.name} (-A {name}) with {len(app.tasks)} tasks")
    for task in app.tasks.values():
        try:
            task.codec, task.returned  # noqa: B018  # both are made when first asked for, and raise then
        except ConfigError as error:
            yield Finding(Level.ERROR, "task", f"{task.name}: {error}", "correct the annotation")


def check_engine(app: Penstock) -> Iterator[Finding]:
    with warnings.catch_warnings(record=True) as told, Listening() as warned:
        warnings.simplefilter("always")
        engine = app.engine
    features = engine.broker.features
    given = os.environ.get("PENSTOCK_BROKER_URL")
    source = "as given" if app.conf.broker_url else "by PENSTOCK_BROKER_URL" if given else "by default"
    yield Finding(Level.OK, "broker", f"{engine.url} ({source})")
    for text in [*(str(warning.message) for warning in told), *warned.texts]:
        yield Finding(Level.WARNING, "broker", text)
    survives = {"power": "loss of power", "process": "death of any process, not loss of power"}
    kept = survives.get(features.durability)
    if kept is None:
        yield Finding(
            Level.WARNING, "durability", "tasks live in memory, and die with the process", "use sqlite:///queue.db"
        )
    else:
        level = Level.OK if features.durability == "power" else Level.NOTE
        yield Finding(level, "durability", f"accepted tasks survive {kept}")
    if not features.starts:
        text = f"{features.engine} sees no starts: a task that kills its worker comes back for ever"
        yield Finding(Level.WARNING, "poison", text, "look at its queue when workers keep dying")
    yield from check_disk(engine.url)
    yield check_write(app)


class Listening(logging.Handler):
    """Collects what engines warn of while they are opened: what can be lost with a server as it is set up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Listening:
        ENGINE_LOG.addHandler(self)
        self._before, ENGINE_LOG.propagate = ENGINE_LOG.propagate, False  # told here, and only once
        return self

    def __exit__(self, *_: object) -> None:
        ENGINE_LOG.removeHandler(self)
        ENGINE_LOG.propagate = self._before


def check_results(app: Penstock) -> Iterator[Finding]:
    if not app.keeps_results:
        remedy = "set result_backend, for example to 'rpc://' or redis://localhost:6379/1; or leave it, if nobody asks"
        yield Finding(Level.NOTE, "results", f"{app.engine.broker.features.engine} keeps none", remedy)
    elif app.result_url is not None:
        with Listening() as warned:
            url = app.results.url
        yield Finding(Level.OK, "results", url)
        for text in warned.texts:
            yield Finding(Level.WARNING, "results", text)
        yield from check_disk(url)


def check_members(members: Sequence[Member]) -> Iterator[Finding]:
    for member in members:
        text = f"{member.address} is {member.role}, behind by {lag(member)}, in sync: {SAID[member.in_sync]}"
        if not member.alive:
            remedy = "start it, or take it out: until then less can fail without loss"
            yield Finding(Level.WARNING, "servers", f"{member.address} ({member.role}) is not reached", remedy)
        elif member.role == "node":
            yield Finding(Level.OK, "servers", f"{member.address} answers; {member.note}")
        elif member.in_sync is False:
            yield Finding(Level.NOTE, "servers", text, "what it lacks is lost if it must take over")
        else:
            yield Finding(Level.OK, "servers", text)


def check_disk(url: str) -> Iterator[Finding]:
    if not url.startswith("sqlite:///"):
        return
    import apsw

    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    free = shutil.disk_usage(path.parent).free
    used = sum(file.stat().st_size for file in path.parent.glob(path.name + "*") if file.is_file())
    text = f"SQLite {apsw.sqlite_lib_version()}; the queue takes {size(used)}, {size(free)} are free"
    if free < LITTLE_SPACE:
        yield Finding(Level.WARNING, "disk", text, "free some: a full disk refuses new tasks")
    else:
        yield Finding(Level.OK, "disk", text)


def check_write(app: Penstock) -> Finding:
    """One durable write, there and back."""
    engine, coordinator = app.engine, app.engine.coordinator
    if not engine.broker.features.coordination:
        return Finding(
            Level.NOTE, "speed", f"{engine.broker.features.engine} has nothing small to write, to measure it"
        )
    key = f"penstock.doctor.{os.getpid()}"
    started = time.perf_counter()
    engine.run(coordinator.put(key, b"?"))
    took = time.perf_counter() - started
    engine.run(coordinator.put(key, None))
    text = f"a durable write takes {duration(took)}"
    if took > SLOW_COMMIT:
        return Finding(
            Level.WARNING, "speed", text, "publish in batches (delay_many), use a faster disk, or durability='process'"
        )
    return Finding(Level.OK, "speed", text)


def check_workers(app: Penstock, queues: Sequence[QueueInfo], name: str | None) -> Iterator[Finding]:
    workers = app.engine.run(app.engine.coordinator.workers())
    start = f"penstock -A {name or 'MODULE'} worker"
    if not workers:
        yield Finding(Level.WARNING, "workers", "none is running: tasks wait", f"start one: {start}")
        return
    names = Counter(worker.name for worker in workers)
    yield Finding(Level.OK, "workers", ", ".join(f"{one} ({count} processes)" for one, count in names.items()))
    silent = [worker for worker in workers if app.clock.time() - worker.seen > SILENT]
    if silent:
        age = max(app.clock.time() - worker.seen for worker in silent)
        yield Finding(
            Level.WARNING,
            "workers",
            f"{len(silent)} of {len(workers)} processes were last heard of {age:.0f} s ago",
            f"are they stopped? pid {', '.join(str(worker.pid) for worker in silent[:5])}: kill -CONT, or kill -9",
        )
    served = {queue for worker in workers for queue in worker.queues}
    for queue in queues:
        if queue.depth and queue.name not in served:
            only = only_worker(queue.name)
            yield Finding(
                Level.WARNING,
                "workers",
                f"no worker serves queue {queue.name!r}, where {queue.depth:,} tasks are",
                f"{start} -Q {queue.name}" if only is None else f"{start} -n {only}, or penstock purge {queue.name}",
            )


def check_queues(queues: Sequence[QueueInfo]) -> Iterator[Finding]:
    for queue in queues:
        full = fullness(queue)
        if full is not None and full >= NEARLY_FULL:
            yield Finding(
                Level.WARNING,
                "queue",
                f"{queue.name} is {percent(full)} full; at 100% new tasks are refused",
                "start more workers, or give it a larger bound: Queue(name, max_length=…)",
            )
        if queue.oldest_age is not None and queue.oldest_age > OLD:
            yield Finding(
                Level.WARNING,
                "queue",
                f"a task in {queue.name} has waited for {duration(queue.oldest_age)}",
                "start more workers, or see penstock peek",
            )
        if queue.paused:
            yield Finding(Level.NOTE, "queue", f"{queue.name} is paused", f"penstock queues resume {queue.name}")
        if queue.dead:
            yield Finding(
                Level.WARNING,
                "dead",
                f"{queue.dead:,} dead letters in {queue.name}",
                "penstock dead list, then dead retry or dead drop",
            )
    if not queues:
        yield Finding(Level.NOTE, "queues", "none yet: the first call makes one")


def check_alarms(app: Penstock, queues: Sequence[QueueInfo]) -> Iterator[Finding]:
    """What workers warn of now, but for what is seen here by itself."""
    shared = apart.shared(app)
    if shared is None:
        return
    for namespace in dict.fromkeys(queue.namespace for queue in queues):
        active = app.engine.run(raised(shared, namespace, app.clock.time()))
        for alarm in (alarm for alarms in active.values() for alarm in alarms if alarm.kind not in SEEN):
            yield Finding(Level.WARNING, "alarm", said(alarm), REMEDIES[alarm.kind])


def check_waiting(app: Penstock, queues: Sequence[QueueInfo]) -> Iterator[Finding]:
    """Tasks that wait and that this app does not know: its workers would give them up."""
    unknown: Counter[str] = Counter()
    for queue in queues:
        try:
            waiting = app.engine.run(app.engine.inspect.peek(queue.name, PEEK, queue.namespace))
        except Unsupported as error:
            yield Finding(Level.NOTE, "tasks", f"which tasks wait is not known: {error}")
            return
        for peeked in waiting:
            if peeked.message is not None and peeked.message.task not in app.tasks:
                unknown[peeked.message.task] += 1
    for task, count in unknown.items():
        guess = hint(task, app.tasks).lstrip("; ")
        yield Finding(
            Level.WARNING,
            "tasks",
            f"{count:,} waiting calls are of {task!r}, which {app.name} does not have",
            f"import the module that defines it (imports=[…]); {guess}".rstrip("; "),
        )
