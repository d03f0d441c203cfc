"""RabbitMQ: `amqp://`, `amqps://`, `pyamqp://` for tasks, and `rpc://` for results."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.clock import Clock
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.engines.rabbitmq.settings import RESULT_BYTES, RESULT_EXPIRES, read_settings
from penstock.queue import Bounds, Queue


def open_engine(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    durability: str | None = None,
    result_expires: float = RESULT_EXPIRES,
    result_max_bytes: int = RESULT_BYTES,
    bounds: Bounds | None = None,
) -> RabbitEngine:
    """An engine on a RabbitMQ server of 3.10 or later. `queues` are declared at once, others when they are first used.
    `bounds` tells those that are lower now than what is declared, for all publishers alike.

    Results are kept by the process that asked: `result_expires` seconds, up to `result_max_bytes`. Raises `ConfigError`
    for a URL, a login or existing queues that cannot be used, `BrokerUnavailable` when no host answers.
    """
    return RabbitEngine(
        read_settings(
            url,
            clock=clock,
            queues=queues,
            durability=durability,
            result_expires=result_expires,
            result_max_bytes=result_max_bytes,
            bounds=bounds,
        )
    )
