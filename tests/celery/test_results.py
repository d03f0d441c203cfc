"""What a result tells, alone and among others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import (
    AsyncResult,
    GroupResult,
    Penstock,
    ResultSet,
    ResultTimeout,
    ResultUnavailable,
    State,
    chain,
    group,
    result_from_tuple,
)
from penstock.contrib.clock import TravelClock
from tests.celery.conftest import Work


def divided(app: Penstock) -> Any:
    @app.task(name="divide")
    def divide(x: float, y: float) -> float:
        return x / y

    return divide


def test_an_async_result(app: Penstock, clock: TravelClock, work: Work) -> None:
    divide = divided(app)
    good, bad, waiting = divide.delay(6, 3), divide.delay(1, 0), divide.apply_async((1, 1), countdown=600)
    assert (good.ready(), good.state, good.result) == (False, "PENDING", None)
    work()
    assert good.get(timeout=5) == good.result == good.info == 2.0
    assert (good.state, good.status) == (State.SUCCESS, "SUCCESS")
    assert good.ready() and good.successful() and not good.failed() and good.exists()
    assert good.id == good.task_id and good.name == "divide" and good.queue == "default" and good.retries == 0
    assert good.parent is None and good.children == [] and good.traceback is None
    assert good.date_done == datetime.fromtimestamp(clock.time(), UTC)
    assert bad.failed() and bad.ready() and not bad.successful()
    assert isinstance(bad.result, ZeroDivisionError) and "ZeroDivisionError" in bad.traceback
    with pytest.raises(ZeroDivisionError):
        bad.get(timeout=5)
    assert isinstance(bad.get(timeout=5, propagate=False), ZeroDivisionError)
    with pytest.raises(TimeoutError):  # what Celery's is, too
        waiting.get(timeout=0.01)
    with pytest.raises(ResultTimeout):
        waiting.get(timeout=0.01)
    waiting.revoke()
    assert waiting.state == "REVOKED"
    good.forget()
    assert not AsyncResult(good.id, app=app).exists()
    assert AsyncResult(bad.id, app=app) == bad and {bad: 1}[AsyncResult(bad.id, app=app)] == 1


def test_a_result_set(app: Penstock, work: Work) -> None:
    divide = divided(app)
    first, second = divide.delay(6, 3), divide.delay(6, 2)
    results = ResultSet([first])
    results.add(second)
    results.add(second)
    assert len(results) == 2 and results.waiting() and results.completed_count() == 0
    work()
    assert results.get(timeout=5) == results.join(timeout=5) == [2.0, 3.0]
    assert results.ready() and results.successful() and not results.failed() and results.completed_count() == 2
    assert results.results == [first, second]
    results.remove(first)
    results.discard(first)
    results.update([second])
    assert results.results == [second]
    results.forget()
    results.revoke()
    results.clear()
    assert len(results) == 0 and first.exists() and not AsyncResult(second.id, app=app).exists()


def test_a_group_result(app: Penstock, work: Work) -> None:
    divide = divided(app)
    result = group(divide.s(6, n) for n in (1, 2, 3)).delay()
    assert isinstance(result, GroupResult) and len(result.children) == 3 and result.parent is None
    result.save()
    work()
    assert GroupResult.restore(result.id, app=app).get(timeout=5) == [6.0, 3.0, 2.0]
    result.delete()
    with pytest.raises(ResultUnavailable):
        GroupResult.restore(result.id, app=app)


def test_a_tree_of_results(app: Penstock, work: Work) -> None:
    divide = divided(app)
    result = chain(divide.s(12, 3), divide.s(2), divide.s(2)).delay()
    first = result.parent.parent
    work()
    assert first.children == [result.parent] and first.graph[first] == [result.parent]
    assert [value for _, value in first.collect(timeout=5)] == [4.0, 2.0, 1.0]
    assert [node for _, node in first.iterdeps()] == [first, result.parent, result]
    assert first.get_leaf(timeout=5) == 1.0
    assert result.as_list() == [result.id, result.parent.id, first.id]
    assert result_from_tuple(result.as_tuple(), app=app).parent.get(timeout=5) == 2.0


def test_results_expire(tmp_path: Path) -> None:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path}/queue.db", result_expires=timedelta(hours=1))
    assert app.conf.result_expires == 3600.0
    app.close()
