"""Canvases in tests of apps: rehearsed, and refused where calls run at once."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, Penstock, State, chain, chord, group
from penstock.contrib.rehearsal import rehearse
from tests import keys


@pytest.fixture(params=["plain", "signed"])
def app(request: pytest.FixtureRequest) -> Penstock:
    settings: dict[str, Any] = {} if request.param == "plain" else {"security_key": keys.pem(keys.private())}
    app = Penstock("unit", broker="memory://", **settings)
    app.task(name="add")(lambda x, y: x + y)
    app.task(name="total")(sum)
    app.task(name="fail")(lambda: 1 / 0)
    return app


def sig(app: Penstock, name: str, *args: Any, **options: Any) -> Any:
    return app.tasks[name].s(*args).set(**options)


def test_canvases_are_rehearsed(app: Penstock) -> None:
    with rehearse(app) as rehearsal:
        adds = [sig(app, "add", n, n) for n in range(3)]
        result = chain(chord(adds, sig(app, "total", countdown=60.0)), sig(app, "add", 1)).delay()
        assert [one.task for one in rehearsal.run_all()] == ["add"] * 3
        (waits,) = rehearsal.assert_enqueued(app.tasks["total"], ([0, 2, 4],))
        assert waits.countdown == pytest.approx(60.0)
        assert [one.task for one in rehearsal.run_to_end()] == ["total", "add"]
        assert result.get() == 7


def test_what_runs_no_function_is_shown_without_arguments(app: Penstock) -> None:
    with rehearse(app) as rehearsal:
        (group(sig(app, "add", 1, 2), sig(app, "add", 3, 4)) | group(sig(app, "total"), sig(app, "total"))).delay()
        chord([sig(app, "add", 1, 2), sig(app, "fail")], sig(app, "total")).delay()
        chain(sig(app, "fail"), sig(app, "add", 1)).delay()
        seen, states = set[str](), list[State]()
        while (ran := rehearsal.run_one()) is not None:
            states.append(ran.state)
            seen |= {f"{call.task}{call.args}" for call in rehearsal.enqueued()}
        assert {"penstock.relay()", "total()", "total([3, 7],)", "add()"} <= seen
        assert states.count(State.FAILURE) == 4
        rehearsal.assert_nothing_enqueued()


def test_canvases_do_not_run_at_once(app: Penstock) -> None:
    app.configure(task_always_eager=True)
    with pytest.raises(ConfigError, match="task_always_eager runs single calls"):
        chain(sig(app, "add", 1, 2), sig(app, "add", 1)).delay()
    assert sig(app, "add", 1, 2).delay().get() == 3
