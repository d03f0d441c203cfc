"""Spans of time as people write them, in queues and on the command line."""

from __future__ import annotations

import pytest

from penstock import Penstock, Queue
from penstock.durations import seconds
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "means"),
    [(2, 2.0), (0.5, 0.5), ("2s", 2.0), ("3", 3.0), (" 40ms ", 0.04), ("5m", 300.0), ("1.5 h", 5400.0), ("1d", 86400)],
)
def test_what_is_understood(given: object, means: float) -> None:
    assert seconds("it", given) == pytest.approx(means)


@pytest.mark.parametrize("given", [0, -1, "", "s", "2x", "ms2", "nan", float("inf"), True, None, [], "0s", "2sm"])
def test_what_is_not(given: object) -> None:
    with pytest.raises(ConfigError, match="it must be seconds above 0"):
        seconds("it", given)


def test_queues_take_both_and_say_which_is_wrong() -> None:
    queue = Queue("mail", max_latency="2s", max_age=60)
    assert (queue.latency, queue.age, queue.governed) == (2.0, 60.0, True)
    assert not Queue("mail").governed
    with pytest.raises(ConfigError, match=r"queue 'mail': max_latency .* not 'soon'"):
        Queue("mail", max_latency="soon")


def test_settings_files_may_say_it() -> None:
    app = Penstock("p", broker="memory://", task_queues=[{"name": "mail", "max_latency": "500ms"}])
    assert app.conf.queues[1].latency == 0.5
    app.close()
