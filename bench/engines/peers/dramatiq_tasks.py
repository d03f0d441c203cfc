# mypy: ignore-errors
"""Dramatiq, without results. On RabbitMQ publishes are confirmed one by one, into classic queues: it has no others."""

import os

import dramatiq
from marks import mark
from timing import seconds

url = os.environ["BENCH_URL"]
confirm = not os.environ.get("BENCH_UNCONFIRMED")


def _broker(confirm):
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=url, confirm_delivery=confirm)
    from dramatiq.brokers.redis import RedisBroker

    return RedisBroker(url=url)


broker = _broker(True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="dramatiq")
def noop(number):
    mark()


def one_by_one(count):
    noop.send(0)
    return seconds(lambda: [noop.send(number) for number in range(count)])


def fill(count):
    """Unconfirmed on RabbitMQ, where it has no bulk call: this only fills the queue for the drain."""
    quick = _broker(False)
    quick.declare_queue("dramatiq")
    return seconds(lambda: [quick.enqueue(noop.message(number)) for number in range(count)])
