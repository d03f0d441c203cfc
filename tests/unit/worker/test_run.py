"""One task, from a delivery to its settlement."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.app import Penstock
from penstock.clock import ManualClock
from penstock.codec import read_failure
from penstock.delivery import Ack, Dead, Delivery, RetryAt, Settlement
from penstock.effects import ReleaseKey
from penstock.errors import Ignore, Reject, Retry, TimeLimitExceeded
from penstock.limiting import GRACE
from penstock.message import Message, Options, Unique
from penstock.outcome import State
from penstock.pools.threads import Threads
from penstock.request import current
from penstock.task import Task
from penstock.worker.plan import Plans
from penstock.worker.run import Runner
from penstock.worker.slot import Batch, Slot
from penstock.worker.unstarted import TRIES_HEADER, UNKNOWN_TRIES, UNREADABLE_TRIES
from tests.unit.worker.one_run import run_once


class Bench:
    """A runner, a slot, and an app whose tasks note what is called."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.app = Penstock("unit", broker="memory://", clock=self.clock)
        self.slot = Slot(0, Batch())
        self.runner = Runner(Plans(self.app), self.app.engine.broker, "me", self.clock, rng=lambda: 1.0)
        self.starts: list[Any] = []
        self.runner._record_start = lambda slot, receipt: self.starts.append((slot, receipt))

    def deliver(self, task: str = "t", body: bytes = b"[[],{}]", **fields: Any) -> Delivery:
        return Delivery((7, 1), "id-1", Message(1, task, body, id="id-1", **fields))

    def run(self, delivery: Delivery) -> Settlement:
        return run_once(self.runner, self.slot, delivery, self.clock.monotonic)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def state(settlement: Settlement) -> State | None:
    return settlement.outcome.state if settlement.outcome else None


def error_of(settlement: Settlement) -> str:
    assert settlement.outcome is not None
    return read_failure(settlement.outcome.value).type


def test_a_value_is_acknowledged_and_stored(bench: Bench) -> None:
    @bench.app.task(name="t")
    def add(x: int, y: int) -> int:
        bench.clock.advance(2.5)
        return x + y

    settlement = bench.run(bench.deliver(body=b"[[1,2],{}]", retries=1))
    assert isinstance(settlement.verdict, Ack)
    outcome = settlement.outcome
    assert outcome is not None
    assert (outcome.state, outcome.value, outcome.runtime, outcome.retries) == (State.SUCCESS, b"3", 2.5, 1)
    assert outcome.done == bench.clock.time()
    assert settlement.effects == ()
    assert bench.starts == [(0, (7, 1))]


def test_the_start_is_recorded_before_the_function_runs_and_the_request_is_there(bench: Bench) -> None:
    seen: list[Any] = []

    @bench.app.task(name="t")
    def look() -> None:
        request = current.get()
        assert request is not None
        seen.append((list(bench.starts), request.id, request.hostname, request.retries))

    bench.run(bench.deliver(retries=2))
    assert seen == [([(0, (7, 1))], "id-1", "me", 2)]


def test_an_ignored_result_stores_nothing_either_way(bench: Bench) -> None:
    @bench.app.task(name="t", ignore_result=True)
    def fine() -> int:
        return 1

    @bench.app.task(name="u")
    def bad() -> None:
        raise ValueError

    assert bench.run(bench.deliver()).outcome is None
    settlement = bench.run(bench.deliver("u", options=Options(ignore_result=True)))
    assert settlement.outcome is None
    assert isinstance(settlement.verdict, Dead)


def test_a_final_failure_is_stored_and_a_dead_letter(bench: Bench) -> None:
    @bench.app.task(name="t")
    def bad() -> None:
        raise ValueError("no good")

    settlement = bench.run(bench.deliver())
    assert settlement.verdict == Dead("ValueError: no good")
    assert (state(settlement), error_of(settlement)) == (State.FAILURE, "ValueError")
    assert settlement.outcome is not None
    # The traceback begins in the function, not in the worker.
    assert b"worker/run.py" not in settlement.outcome.value


def test_a_result_that_cannot_be_encoded_is_a_failure(bench: Bench) -> None:
    @bench.app.task(name="t")
    def odd() -> Any:
        return object()

    assert error_of(bench.run(bench.deliver())) == "EncodeError"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_nothing_that_a_function_raises_ends_the_worker(bench: Bench, error: BaseException) -> None:
    @bench.app.task(name="t")
    def leave() -> None:
        raise error

    assert state(bench.run(bench.deliver())) == State.FAILURE


def test_a_retry_is_put_off_with_the_next_count(bench: Bench) -> None:
    @bench.app.task(name="t", autoretry_for=(OSError,), default_retry_delay=30.0)
    def shaky() -> None:
        raise ConnectionError

    settlement = bench.run(bench.deliver(retries=1))
    assert settlement.outcome is None
    verdict = settlement.verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert (verdict.when, verdict.message.retries, verdict.charge) == (bench.clock.time() + 30, 2, False)


def test_a_retry_may_replace_the_arguments(bench: Bench) -> None:
    @bench.app.task(name="t")
    def again(x: int) -> None:
        raise Retry(args=(x + 1,), countdown=1)

    verdict = bench.run(bench.deliver(body=b"[[1],{}]")).verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert verdict.message.body == b"[[2],{}]"


def test_a_retry_with_arguments_that_do_not_fit_fails(bench: Bench) -> None:
    @bench.app.task(name="t")
    def again(x: int) -> None:
        raise Retry(args=("no number",), countdown=1)

    assert error_of(bench.run(bench.deliver(body=b"[[1],{}]"))) == "EncodeError"


def test_a_hard_limit_is_never_retried(bench: Bench) -> None:
    @bench.app.task(name="t", autoretry_for=(Exception,))
    def long() -> None:
        raise TimeLimitExceeded("over")

    assert isinstance(bench.run(bench.deliver()).verdict, Dead)


def test_ignore_reject_and_requeue(bench: Bench) -> None:
    raised: list[BaseException] = []

    @bench.app.task(name="t")
    def raising() -> None:
        raise raised[-1]

    raised.append(Ignore())
    settlement = bench.run(bench.deliver())
    assert isinstance(settlement.verdict, Ack)
    assert settlement.outcome is None
    raised.append(Reject("broken"))
    settlement = bench.run(bench.deliver())
    assert (settlement.verdict, state(settlement)) == (Dead("broken"), State.FAILURE)
    raised.append(Reject(requeue=True))
    settlement = bench.run(bench.deliver(retries=1))
    assert isinstance(settlement.verdict, RetryAt)
    assert settlement.verdict.message is not None
    assert settlement.verdict.message.retries == 1


def test_an_expired_task_does_not_run(bench: Bench) -> None:
    @bench.app.task(name="t")
    def late() -> None:
        raise AssertionError

    settlement = bench.run(bench.deliver(expires=bench.clock.time()))
    assert isinstance(settlement.verdict, Ack)
    assert state(settlement) == State.REVOKED
    assert bench.starts == []


def test_one_that_may_run_once_and_was_lost_is_not_called_late(bench: Bench) -> None:
    @bench.app.task(name="t", acks_late=False)
    def once() -> None:
        raise AssertionError

    settlement = bench.run(bench.deliver(expires=bench.clock.time(), attempts=1))
    assert isinstance(settlement.verdict, Dead)
    assert state(settlement) == State.FAILURE
    assert "the worker died while it ran" in settlement.verdict.reason


def test_a_limited_task_runs_as_its_limit_let_it_go_whatever_the_clock_of_the_worker_says(bench: Bench) -> None:
    @bench.app.task(name="t")
    def late() -> None: ...

    now = bench.clock.time()
    for expires, let_go, wanted in (
        (now + 3600, now + 3600, State.REVOKED),  # the engine's clock is ahead: it has not paid
        (now - 0.5, now - 0.6, State.SUCCESS),  # it has paid
        (now - GRACE, now - 3600, State.REVOKED),  # it has waited here since
    ):
        delivery = bench.deliver(expires=expires)
        delivery.let_go = let_go
        assert state(bench.run(delivery)) == wanted


def test_a_task_that_killed_its_workers_does_not_run_again(bench: Bench) -> None:
    @bench.app.task(name="t", max_attempts=2)
    def poison() -> int:
        return 1

    assert state(bench.run(bench.deliver(attempts=1))) == State.SUCCESS
    settlement = bench.run(bench.deliver(attempts=2))
    assert isinstance(settlement.verdict, Dead)
    assert error_of(settlement) == "WorkerLost"
    assert state(bench.run(bench.deliver(attempts=2, options=Options(max_attempts=3)))) == State.SUCCESS


def test_arguments_that_do_not_fit_are_a_failure(bench: Bench) -> None:
    @bench.app.task(name="t")
    def typed(x: int) -> None: ...

    settlement = bench.run(bench.deliver(body=b'[["x"],{}]'))
    assert isinstance(settlement.verdict, Dead)
    assert error_of(settlement) == "DecodeError"
    assert bench.starts == []


def test_an_unknown_task_is_put_off_and_in_the_end_dead_without_being_charged(bench: Bench) -> None:
    message = Message(1, "nobody", b"[[],{}]", id="id-1", headers={"mine": "kept"})
    for tries in range(UNKNOWN_TRIES):
        verdict = bench.run(Delivery((7, 1), "id-1", message)).verdict
        assert isinstance(verdict, RetryAt)
        assert verdict.message is not None
        assert verdict.when == bench.clock.time() + min(60.0, 2.0**tries)
        assert not verdict.charge
        message = verdict.message
    assert message.headers == {"mine": "kept", TRIES_HEADER: str(UNKNOWN_TRIES)}
    settlement = bench.run(Delivery((7, 1), "id-1", message))
    assert isinstance(settlement.verdict, Dead)
    assert error_of(settlement) == "UnknownTask"


@pytest.mark.parametrize("forged", ["-1", "x", "9" * 5000])
def test_a_forged_count_of_tries_is_harmless(bench: Bench, forged: str) -> None:
    settlement = bench.run(bench.deliver("nobody", headers={TRIES_HEADER: forged}))
    assert isinstance(settlement.verdict, Dead)


def test_an_unreadable_message_is_put_off_and_in_the_end_dead(bench: Bench) -> None:
    settlement = bench.run(Delivery((7, 1), "id-1", None, "version 9", b"x", attempts=1))
    assert settlement.verdict == RetryAt(bench.clock.time() + 4, None, charge=True)
    settlement = bench.run(Delivery((7, 1), "id-1", None, "version 9", b"x", attempts=UNREADABLE_TRIES))
    assert isinstance(settlement.verdict, Dead)


def test_a_revoked_run_is_revoked_however_it_ends(bench: Bench) -> None:
    @bench.app.task(name="t", autoretry_for=(Exception,))
    def running(fail: bool) -> None:
        bench.slot.cancelled = bench.slot.delivery
        if fail:
            raise ValueError

    for body in (b"[[true],{}]", b"[[false],{}]"):
        settlement = bench.run(bench.deliver(body=body))
        assert isinstance(settlement.verdict, Ack)
        assert state(settlement) == State.REVOKED


def test_unique_keys_are_freed_at_the_end_only(bench: Bench) -> None:
    @bench.app.task(name="t")
    def once(again: bool) -> None:
        if again:
            raise Retry(countdown=1)

    guards = (Unique("k"),)
    assert bench.run(bench.deliver(body=b"[[false],{}]", guards=guards)).effects == (ReleaseKey("k"),)
    assert bench.run(bench.deliver(body=b"[[true],{}]", guards=guards)).effects == ()
    assert bench.run(bench.deliver(guards=guards, expires=1.0)).effects == (ReleaseKey("k"),)


def test_hooks_are_called_and_their_errors_change_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Any] = []

    class Noting(Task[..., Any]):
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            calls.append(("success", retval, task_id))
            raise RuntimeError("hook broke")

        def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            calls.append(("failure", type(exc), "ValueError" in str(einfo)))

        def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            calls.append(("retry", type(exc)))

        def after_return(self, status: State, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            calls.append(status)

    @bench.app.task(name="t", base=Noting, autoretry_for=(OSError,))
    def run(what: str) -> str:
        if what == "value":
            raise ValueError
        if what == "os":
            raise OSError
        return what

    assert state(bench.run(bench.deliver(body=b'[["fine"],{}]'))) == State.SUCCESS
    assert calls == [("success", "fine", "id-1"), State.SUCCESS]
    assert "hook broke" in caplog.text
    calls.clear()
    bench.run(bench.deliver(body=b'[["value"],{}]'))
    assert calls == [("failure", ValueError, True), State.FAILURE]
    calls.clear()
    bench.run(bench.deliver(body=b'[["os"],{}]'))
    assert calls == [("retry", OSError), State.RETRY]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there are no words")


@pytest.mark.parametrize(
    "error", [Unspeakable(), ValueError("\udcff"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration()]
)
def test_whatever_is_raised_the_run_ends_in_a_settlement(
    bench: Bench, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "penstock.worker")  # what cannot be printed cannot be reported by pytest either

    @bench.app.task(name="t")
    def fails() -> None:
        raise error

    settlement = bench.run(bench.deliver())
    assert isinstance(settlement.verdict, Dead)
    settlement.verdict.reason.encode()
    assert state(settlement) is State.FAILURE
    assert error_of(settlement) == type(error).__name__


def test_a_hook_that_wants_to_exit_does_not_take_the_run_along(bench: Bench) -> None:
    class Leaving(Task[Any, Any]):
        def on_success(self, *args: Any) -> None:
            raise SystemExit

    @bench.app.task(name="t", base=Leaving)
    def works() -> None:
        pass

    assert isinstance(bench.run(bench.deliver()).verdict, Ack)


def test_a_limit_of_one_call_that_the_pool_cannot_keep_is_left_to_another_worker(bench: Bench) -> None:
    ran: list[int] = []

    @bench.app.task(name="t")
    def works() -> None:
        ran.append(1)

    bench.runner._traits = Threads.traits
    limited = Options(time_limit=5.0)
    settlement = bench.run(bench.deliver(options=limited))
    verdict = settlement.verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert (verdict.message.retries, verdict.message.attempts, verdict.charge) == (0, 0, False)
    assert verdict.message.options == limited
    late = bench.run(bench.deliver(options=limited, headers={TRIES_HEADER: str(UNKNOWN_TRIES)}))
    assert isinstance(late.verdict, Dead)
    assert "time_limit=5" in late.verdict.reason
    assert "threads pool" in late.verdict.reason
    assert ran == []
    # What it can keep, and what has no limit, runs.
    for options in (Options(soft_time_limit=5.0), Options(root_id="r")):
        assert isinstance(bench.run(bench.deliver(options=options)).verdict, Ack)
    assert ran == [1, 1]
