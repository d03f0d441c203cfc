"""A spread is fed by a process that is killed, several times: each item is there once, and none is missing."""

from __future__ import annotations

import time

from tests.acceptance.feeding import feeding_app
from tests.acceptance.processes import Stage, wait_until

COUNT, RATE = 1_000, 400.0


def test_a_killed_feeder_is_followed_by_one_that_goes_on(stage: Stage) -> None:
    url = f"sqlite:///{stage.path}"
    app = feeding_app(url)
    depths = [0]
    began = time.monotonic()

    def depth() -> int:
        return app.engine.run(app.engine.broker.depth("default")) or 0

    for killed in range(3):
        feeder = stage.start("feeding", url, COUNT, RATE)
        assert feeder.line() == "fed"
        wait_until(lambda: depth() > depths[-1] + 100, 20.0, "it goes on")
        time.sleep(0.01 * killed)  # at another moment of its turn each time
        feeder.kill()
        depths.append(depth())
    last = stage.start("feeding", url, COUNT, RATE)
    words = last.output().split()
    assert words[0] == "fed"
    seconds = time.monotonic() - began
    spread = app.spread(app.tasks["feed"], range(COUNT), name="import", rate=RATE)
    assert (spread.published, spread.before) == (0, COUNT)
    waiting = [one.id for one in app.engine.run(app.engine.inspect.peek("default", COUNT * 2))]
    assert waiting == [f"import-{number}" for number in range(COUNT)]
    assert 0 < int(words[-1].removeprefix("before=").rstrip(")")) <= depths[-1], "it went on from what was noted"
    assert seconds > COUNT / RATE * 0.7, "four processes, and still no faster than it was told"
    app.close()
