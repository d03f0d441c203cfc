"""Lines of the log of which there would be thousands."""

from __future__ import annotations

import pytest

from penstock import Penstock, Queue
from penstock.clock import ManualClock
from penstock.gateway.seldom import KINDS, Seldom
from tests.unit.gateway.faces import Face


def test_one_line_of_a_kind_in_ten_seconds_tells_of_the_others() -> None:
    clock = ManualClock()
    seldom = Seldom(clock)
    assert seldom.again("a") == ""
    assert [seldom.again("a") for _ in range(3)] == [None] * 3
    assert seldom.again("b") == ""
    clock.advance(10.0)
    assert seldom.again("a") == " (3 more like it before)"
    assert seldom.again("b") == ""


def test_what_kinds_there_are_has_a_bound() -> None:
    seldom = Seldom(ManualClock())
    assert [seldom.again(str(number)) for number in range(KINDS)] == [""] * KINDS
    assert (seldom.again("x"), seldom.again("y")) == ("", None), "all others are one"


def test_an_overload_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = Penstock("full", broker="memory://", task_queues=[Queue("default", 1)])
    app.task(name="t")(lambda: None)
    face = Face("wsgi", app)
    assert [face.post("/v1/tasks/t").status for _ in range(20)] == [202] + [503] * 19
    assert caplog.text.count("QueueFull") == 1
    app.close()


def test_who_is_over_its_share_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Penstock("shared", broker="memory://")
    face = Face("wsgi", app, rate=0.001, burst=1)
    assert [face.get("/v1/info").status for _ in range(5)] == [200] + [429] * 4
    assert caplog.text.count("client 'ada' is refused: this client may send") == 1
    app.close()
