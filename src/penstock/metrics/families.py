"""Which metrics there are, and what they are made of. Pure. The manual has the same list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.metrics.counts import BOUNDS, ENDS, Counted
from penstock.metrics.text import Family, Sample, histogram
from penstock.pressure.alarms import Alarm
from penstock.pressure.overview import Outlook

MOST_QUEUES = 1_000
"""Queues that are told of, the fullest first."""


def of_queues(queues: Sequence[Outlook]) -> list[Family]:
    """What is known of queues, and of the pressure on them. What an engine cannot tell is left out."""
    shown = sorted(queues, key=lambda one: one.full or 0.0, reverse=True)[:MOST_QUEUES]

    def family(name: str, kind: str, text: str, value: Callable[[Outlook], float | None]) -> Family:
        found = [(one, value(one)) for one in shown]
        samples = [Sample(labels(one), number) for one, number in found if number is not None]
        return Family(f"penstock_queue_{name}", "counter" if kind == "counter" else "gauge", text, samples)

    return [
        family("depth_tasks", "gauge", "Tasks in the queue: ready, leased and delayed.", lambda one: one.info.depth),
        family("limit_tasks", "gauge", "Its bound now; beyond it calls are refused.", lambda one: one.info.max_length),
        family("bytes", "gauge", "Bytes of its messages.", lambda one: one.info.bytes),
        family("limit_bytes", "gauge", "Its bound in bytes.", lambda one: one.info.max_bytes),
        family("ready_tasks", "gauge", "Tasks that may start.", lambda one: one.info.ready),
        family("leased_tasks", "gauge", "Tasks that workers have.", lambda one: one.info.leased),
        family("delayed_tasks", "gauge", "Tasks that wait for their time.", lambda one: one.info.delayed),
        family("dead_tasks", "gauge", "Dead letters.", lambda one: one.info.dead),
        family("oldest_age_seconds", "gauge", "Age of the oldest ready task.", lambda one: one.info.oldest_age),
        family("paused", "gauge", "1 while it is paused.", lambda one: int(one.info.paused)),
        family("enqueued_total", "counter", "Tasks that it has accepted.", lambda one: one.info.enqueued),
        family("settled_total", "counter", "Tasks that have left it.", lambda one: one.info.settled),
        family("shed_total", "counter", "Tasks that made room for others.", lambda one: one.info.shed),
        family(
            "refused_total",
            "counter",
            "Tasks that it has refused as full.",
            lambda one: one.info.refused,
        ),
        family("threads", "gauge", "Threads that work for it.", lambda one: one.threads),
        family(
            "predicted_wait_seconds",
            "gauge",
            "How long a task that comes now will wait, by the law of the manual's page on sizing.",
            lambda one: one.wait,
        ),
        Family(
            "penstock_alarms_active",
            "gauge",
            "Alarms that are raised, by their kind.",
            [Sample({**labels(one), "kind": kind}, count) for one in shown for kind, count in _kinds(one.alarms)],
        ),
    ]


def of_worker(counts: Mapping[str, Counted], slots: int, busy: int) -> list[Family]:
    """What a worker has run, with all of its processes."""
    tasks = sorted(counts.items())
    return [
        Family(
            "penstock_worker_tasks_total",
            "counter",
            "Deliveries that have ended here, by task and how they ended.",
            [
                Sample({"task": task, "end": end}, count)
                for task, counted in tasks
                for end, count in zip(ENDS, counted.ends, strict=True)
                if count or end in ("succeeded", "failed")
            ],
        ),
        Family(
            "penstock_worker_task_run_seconds",
            "histogram",
            "How long runs took, estimated from samples where tasks are short.",
            [
                sample
                for task, counted in tasks
                for sample in histogram({"task": task}, BOUNDS, counted.buckets, counted.seconds)
            ],
        ),
        Family("penstock_worker_slots", "gauge", "Tasks that it can run at once.", [Sample({}, slots)]),
        Family("penstock_worker_slots_busy", "gauge", "Tasks that it runs now.", [Sample({}, busy)]),
    ]


def broker_up(up: bool) -> Family:
    return Family(
        "penstock_broker_up",
        "gauge",
        "1 where the broker could be asked for this answer; 0: what is known of queues is missing.",
        [Sample({}, int(up))],
    )


def labels(one: Outlook) -> dict[str, str]:
    broker = {} if one.space is None else {"broker_namespace": one.space}
    return broker | {"namespace": one.info.namespace, "queue": one.info.name}


def _kinds(alarms: Sequence[Alarm]) -> list[tuple[str, int]]:
    """Each kind, those too that are not raised: what is not there cannot be seen to end."""
    kinds = [alarm.kind for alarm in alarms]
    return [(kind, kinds.count(kind)) for kind in ("full", "age", "run_time", "slow_worker", "stuck_worker")]
