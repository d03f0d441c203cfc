"""Who works, as far as RabbitMQ lets them be asked."""

from __future__ import annotations

import time

import pytest

from penstock.coordinator import WorkerInfo
from penstock.engines.rabbitmq import open_engine
from penstock.errors import BrokerUnavailable

OLD = WorkerInfo("0" * 32, "one", "here", 1, 1, ("default",), "prefork", started=1000.0, seen=1000.0)


def test_who_answers_was_seen_now(rabbitmq_url: str) -> None:
    worker, asker = open_engine(rabbitmq_url), open_engine(rabbitmq_url)
    try:
        worker.run(worker.coordinator.join(OLD))
        found = [one for one in asker.run(asker.coordinator.workers()) if one.id == OLD.id]
        assert [time.time() - one.seen < 60 for one in found] == [True]
        assert found[0].started == 1000.0
    finally:
        worker.close()
        asker.close()


def test_in_an_alarm_it_is_not_said_that_nobody_works(rabbitmq_url: str) -> None:
    asker = open_engine(rabbitmq_url)
    try:
        asker.run(asker.coordinator.workers())
        connection = asker.core.post.link.connection
        assert connection is not None
        connection.alarm = "low on memory"
        with pytest.raises(BrokerUnavailable, match="it has an alarm: low on memory; free memory"):
            asker.run(asker.coordinator.workers())
        connection.alarm = None
    finally:
        asker.close()
