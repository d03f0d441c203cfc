"""Options, attributes and hooks of a task, and what it sees of its call."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import Ignore, Penstock, Reject, Retry, State, Task
from penstock.contrib.clock import TravelClock
from penstock.worker import Worker, WorkerOptions
from tests.celery.conftest import Work


class Recording(Task[..., Any]):
    max_retries = 1
    default_retry_delay = 0.0
    seen: list[str]

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.seen.append(f"before_start {args} {kwargs}")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.seen.append(f"on_success {retval}")

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(f"on_retry {exc}")

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(f"on_failure {exc} {einfo.type.__name__}")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(f"after_return {status}")


def test_name_base_bind_and_hooks(app: Penstock, work: Work) -> None:
    @app.task(name="pay", base=Recording, bind=True)
    def pay(self: Recording, amount: int, *, to: str = "") -> str:
        if amount < 0:
            raise self.retry(exc=ValueError("too little"))
        return f"{amount} {to}"

    assert isinstance(pay, Recording) and app.tasks["pay"] is pay and pay.name == "pay" and pay.app is app
    pay.seen = []
    good, bad = pay.delay(5, to="Ada"), pay.delay(-1)
    work()
    assert good.get(timeout=5) == "5 Ada"
    assert isinstance(bad.get(timeout=5, propagate=False), ValueError)
    assert pay.seen == [
        "before_start (5,) {'to': 'Ada'}",
        "on_success 5 Ada",
        "after_return SUCCESS",
        "before_start (-1,) {}",
        "on_retry too little",
        "after_return RETRY",
        "before_start (-1,) {}",
        "on_failure too little ValueError",
        "after_return FAILURE",
    ]


def test_options_are_read_by_the_decorator_and_by_classes(app: Penstock) -> None:
    class Patient(Task[..., Any]):
        max_retries = 7

    said: dict[str, Any] = {
        "default_retry_delay": 3.0,
        "autoretry_for": (OSError,),
        "dont_autoretry_for": (FileNotFoundError,),
        "retry_backoff": 2,
        "retry_backoff_max": 60,
        "retry_jitter": False,
        "ignore_result": True,
        "acks_late": False,
        "time_limit": 20.0,
        "soft_time_limit": 10.0,
        "priority": 3,
        "queue": "mail",
        "expires": 60.0,
        "track_started": True,
        "serializer": "msgpack",
        "compression": "gzip",
        "throws": (KeyError,),
    }
    task = app.task(base=Patient, name="t", **said)(lambda: None)
    assert task.max_retries == 7
    assert {name: getattr(task.options, name) for name in said} == said


def test_autoretry_backs_off_and_gives_up(app: Penstock, clock: TravelClock, work: Work) -> None:
    runs: list[int] = []

    @app.task(
        bind=True,
        autoretry_for=(OSError,),
        dont_autoretry_for=(FileNotFoundError,),
        retry_backoff=2,
        retry_backoff_max=3,
        retry_jitter=False,
        max_retries=2,
        throws=(KeyError,),
    )
    def fetch(self: Any, what: str) -> str:
        runs.append(self.request.retries)
        raise {"net": ConnectionError, "file": FileNotFoundError, "key": KeyError}[what](what)

    net, file, key = fetch.delay("net"), fetch.delay("file"), fetch.delay("key")
    for seconds in (0, 2, 3):
        clock.advance(seconds)
        work()
    assert runs == [0, 0, 0, 1, 2]
    for result, kind in ((net, ConnectionError), (file, FileNotFoundError), (key, KeyError)):
        with pytest.raises(kind):
            result.get(timeout=5)
    assert (net.retries, file.retries) == (2, 0)


def test_control_exceptions(app: Penstock, work: Work) -> None:
    @app.task(bind=True, max_retries=3)
    def decide(self: Any, what: str) -> str:
        if what == "retry" and not self.request.retries:
            raise Retry(countdown=0)
        if what == "self.retry" and not self.request.retries:
            raise self.retry(countdown=0, kwargs={"what": "other arguments"}, args=())
        if what == "throw" and not self.request.retries:
            raise self.retry(countdown=0, throw=False)
        if what == "ignore":
            raise Ignore
        if what == "reject":
            raise Reject("not mine", requeue=False)
        return what

    results = {what: decide.delay(what) for what in ("retry", "self.retry", "throw", "ignore", "reject")}
    work()
    assert results["retry"].get(timeout=5) == "retry" and results["retry"].retries == 1
    assert results["self.retry"].get(timeout=5) == "other arguments"
    assert results["throw"].get(timeout=5) == "throw"
    assert results["reject"].state is State.FAILURE
    assert results["ignore"].state is State.UNKNOWN


def test_a_task_sees_its_call(app: Penstock, clock: TravelClock, work: Work) -> None:
    seen: dict[str, Any] = {}

    @app.task(bind=True, name="inner")
    def inner(self: Any) -> None:
        seen["parent"], seen["root"] = self.request.parent_id, self.request.root_id

    @app.task(bind=True, name="look")
    def look(self: Any, x: int, *, y: int) -> None:
        request = self.request
        for name in (
            "id",
            "task",
            "args",
            "kwargs",
            "retries",
            "headers",
            "eta",
            "expires",
            "hostname",
            "root_id",
            "parent_id",
            "delivery_info",
            "is_eager",
            "called_directly",
        ):
            seen[name] = getattr(request, name)
        inner.delay()

    result = look.apply_async((1,), {"y": 2}, headers={"trace": "7"}, expires=60, priority=8, queue="mail")
    work()
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL", queues=("mail", "default"), name="w")).run()
    assert (seen["id"], seen["task"], seen["args"], seen["kwargs"]) == (result.id, "look", (1,), {"y": 2})
    assert (seen["retries"], seen["headers"], seen["eta"]) == (0, {"trace": "7"}, None)
    assert seen["expires"] == clock.time() + 60 and seen["hostname"].startswith("w@")
    assert (seen["is_eager"], seen["called_directly"], seen["parent_id"]) == (False, False, None)
    assert seen["root_id"] == result.id
    assert (seen["parent"], seen["root"]) == (result.id, result.id)
    assert seen["delivery_info"] == {"queue": "mail", "priority": 8, "redelivered": False}
    assert look.request.called_directly
