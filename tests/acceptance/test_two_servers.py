"""Tasks on one server, results on another: a worker is killed between any two steps of a settlement."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import Penstock, State, TaskRevoked
from penstock.testing.checkers import Ledger, Remains, all_started, at_most_once, no_loss, nothing_invented
from penstock.testing.history import History, Kind, read_history
from tests.acceptance.plant import Plant
from tests.acceptance.processes import Process, Stage, wait_until
from tests.acceptance.split import FIRST, STEPS, THEN, message, open_app, task_id

TASKS = 60
KILLS = 4
"""Workers killed in a row; each settles a batch of five, and dies in the next."""
SECONDS = 15.0

Urls = tuple[str, str]


def two_files(request: pytest.FixtureRequest, folder: Path) -> Urls:
    return f"sqlite:///{folder}/tasks.db", f"sqlite:///{folder}/results.db"


def redis_and_a_file(request: pytest.FixtureRequest, folder: Path) -> Urls:
    return request.getfixturevalue("redis_url"), f"sqlite:///{folder}/results.db"


def redis_and_postgres(request: pytest.FixtureRequest, folder: Path) -> Urls:
    return request.getfixturevalue("redis_url"), request.getfixturevalue("postgres_url")


def rabbitmq_and_redis(request: pytest.FixtureRequest, folder: Path) -> Urls:
    return request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("redis_url")


def rabbitmq_alone(request: pytest.FixtureRequest, folder: Path) -> Urls:
    """Results come to who asked, and are nowhere else."""
    return request.getfixturevalue("rabbitmq_url"), "rpc://"


PLACES = [two_files, redis_and_a_file, redis_and_postgres, rabbitmq_and_redis]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    urls: Urls = request.param(request, tmp_path)
    return urls


def publish(app: Penstock, run: str, history: Path) -> list[str]:
    tasks = [str(number) for number in range(1, TASKS + 1)]
    log = History(history, "producer")
    log.note_all(Kind.ASKED, [*tasks, *(f"-{task}" for task in tasks)])  # what follows is asked for, too
    app.engine.run(app.broker.publish([message(run, task) for task in tasks], 10.0))
    log.note_all(Kind.ACCEPTED, tasks)
    return tasks


def ended(app: Penstock, run: str, tasks: list[str]) -> set[str]:
    """The tasks that have a result, which must be their own."""
    reports = app.results.run(app.backend.fetch([task_id(run, task) for task in tasks]))
    found = set()
    for task, report in zip(tasks, reports, strict=True):
        if report.state.terminal:
            assert report.state is State.SUCCESS, f"{task} ended as {report.state}"
            assert report.outcome is not None
            assert report.outcome.value == task.encode()
            found.add(task)
    return found


def worker(stage: Stage, urls: Urls, run: str, *options: object) -> Process:
    return stage.start("split", "--run", run, *options, *urls, stage.history)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_any_two_steps(step: str, stage: Stage, urls: Urls, measured: Callable[[str], None]) -> None:
    run = secrets.token_hex(4)
    app = open_app(*urls, run)
    tasks = publish(app, run, stage.history)
    both = [*tasks, *(f"-{task}" for task in tasks)]
    # What follows runs at once, and has ended when the worker that published it is killed and its task repeated.
    second = worker(stage, urls, run, "--queue", THEN)
    for _ in range(KILLS):
        assert worker(stage, urls, run, "--die-after", step).wait(SECONDS) == -9
    first = worker(stage, urls, run)
    wait_until(lambda: ended(app, run, both) == set(both), SECONDS, "everything has a result", 0.1)
    wait_until(lambda: depth(app, run) == 0, SECONDS, "nothing is left", 0.1)
    for process in (first, second):
        process.terminate()
        assert process.wait(SECONDS) == 0
    ledger, remains = Ledger(read_history(stage.history)), Remains(ended=ended(app, run, both))
    follow_ups = Ledger(event for event in read_history(stage.history) if event.task.startswith("-"))
    findings = [no_loss(ledger, remains), nothing_invented(ledger, remains), all_started(ledger, remains)]
    if app.engine.broker.features.knows_ids:  # else one that waits, and is published again, is another task
        findings.append(at_most_once(follow_ups))
    for finding in findings:
        assert finding.ok, str(finding)
    measured(
        f"after {step}: {KILLS} kills, {len(both)} tasks, 0 lost, {ledger.repeated()} runs repeated, "
        f"{follow_ups.repeated()} followed twice"
    )
    app.close()


def depth(app: Penstock, run: str) -> int:
    return sum(app.engine.run(app.broker.depth(run + queue)) or 0 for queue in (FIRST, THEN))


@pytest.mark.parametrize("urls", [*PLACES, rabbitmq_alone], ids=lambda place: place.__name__, indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_whole_workers_are_killed(pool: str, stage: Stage, urls: Urls, measured: Callable[[str], None]) -> None:
    """The real worker; and callers are told of the ends by push."""
    broker, results = urls
    plant = Plant(stage.path, stage.history, broker=broker, results=results)
    options = (
        "--pool",
        pool,
        "--concurrency",
        2 if pool == "prefork" else 100,
        "--broker",
        broker,
        "--results",
        results,
    )
    task, kills = plant.touch if pool == "prefork" else plant.atouch, 2  # a third would make the first tasks poison
    calls, process = [], None
    for round_ in range(kills + 1):
        numbers = range(round_ * 500, round_ * 500 + 500)
        plant.history.note_all(Kind.ASKED, map(str, numbers))
        calls += task.delay_many([(number,) for number in numbers])
        plant.history.note_all(Kind.ACCEPTED, map(str, numbers))
        size = stage.history.stat().st_size
        process = stage.start("plant", *options, stage.path, stage.history)
        wait_for_more(stage, size)
        if round_ < kills:
            process.end()  # SIGKILL for all its processes
    values = {call.get(timeout=SECONDS) for call in calls}
    assert values == set(range(len(calls)))
    began = time.monotonic()
    assert process is not None
    process.terminate()
    assert process.wait() == 0
    ledger = Ledger(read_history(stage.history))
    measured(
        f"{kills} workers killed, {len(calls)} tasks, 0 lost, {ledger.repeated()} runs repeated; "
        f"stopped in {time.monotonic() - began:.2f} s"
    )
    plant.app.close()


def wait_for_more(stage: Stage, size: int) -> None:
    wait_until(lambda: stage.history.stat().st_size > size, 20, "it works", 0.001)


def test_what_is_revoked_does_not_start(stage: Stage, urls: Urls) -> None:
    """Also where the broker remembers no revocations."""
    broker, results = urls
    plant = Plant(stage.path, stage.history, broker=broker, results=results)
    first, second, third = (plant.touch.delay(number) for number in range(3))
    second.revoke()
    process = stage.start("plant", "--broker", broker, "--results", results, stage.path, stage.history)
    assert [first.get(timeout=SECONDS), third.get(timeout=SECONDS)] == [0, 2]
    with pytest.raises(TaskRevoked):
        second.get(timeout=SECONDS)
    process.terminate()
    assert process.wait() == 0
    assert set(Ledger(read_history(stage.history)).starts) == {"0", "2"}
    plant.app.close()
