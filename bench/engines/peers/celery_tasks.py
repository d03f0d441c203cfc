# mypy: ignore-errors
"""Celery: settings that lose nothing (late acks, confirmed publishes, quorum queues), JSON, and no events.

`BENCH_RESULTS`: where results go; empty: they are ignored, which is Celery at its best.
"""

import os

from celery import Celery
from marks import mark
from timing import sampled, seconds

results = os.environ["BENCH_RESULTS"]
app = Celery("celery_tasks", broker=os.environ["BENCH_URL"], backend=results or None)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=not results,
    task_default_queue="celery-" + ("results" if results else "best"),
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "100")),
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
if app.conf.broker_url.startswith("amqp"):
    app.conf.update(
        broker_transport_options={"confirm_publish": True},
        task_default_queue_type=os.environ.get("BENCH_QUEUE_TYPE", "quorum"),
    )


@app.task
def noop(number):
    mark()


def one_by_one(count):
    noop.delay(0)
    return seconds(lambda: [noop.delay(number) for number in range(count)])


def fill(count):
    """One connection and one producer for all: the nearest that Celery has to a bulk call."""
    with app.producer_pool.acquire(block=True) as producer:
        return seconds(lambda: [noop.apply_async((number,), producer=producer) for number in range(count)])


def latency(count):
    return sampled(lambda: noop.delay(0).get(timeout=10), count)
