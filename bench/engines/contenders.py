"""All contenders of each server. They are made when a run begins; one that cannot be had raises `Missing`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench.engines import environments
from bench.engines.contender import Contender, Launch

PEERS = environments.PEERS
ANSWER = str(PEERS / "answer.py")
PENSTOCK = (str(Path(sys.executable).parent / "penstock"), "-A", "bench.engines.ours", "worker")


def ours(*, tasks: int, singles: int) -> Contender:
    client = (sys.executable, ANSWER, "bench.engines.ours")
    worker = (*PENSTOCK, "-c", "2", "-l", "WARNING")
    return Contender(
        "penstock", "Penstock", "prefork × 2, results", "ours", Launch(client, (worker,)), tasks, singles, latency=True
    )


def raw(module: str, what: str, *, tasks: int, singles: int) -> Contender:
    name = f"bench.engines.raw.{module}"
    launch = Launch((sys.executable, ANSWER, name), ((sys.executable, "-m", name),) * 2)
    how = f"{what}; 2 processes, batches of 100, results"
    return Contender("raw", "raw loop", how, "raw", launch, tasks, singles)


def celery(results: str, *, tasks: int, singles: int) -> Contender:
    """With the settings that lose nothing, and results."""
    python = environments.python("celery")
    worker = (python, "-m", "celery", "-A", "celery_tasks", *CELERY_WORKER, "--concurrency=2", "-n", "one@bench")
    env = {"PYTHONPATH": str(PEERS), "BENCH_RESULTS": results}
    launch = Launch((python, ANSWER, "celery_tasks"), (worker,), env)
    return Contender(
        "celery",
        "Celery 5.7",
        f"prefork × 2, late acks, results in {results.format(url='Redis')}",
        "celery",
        launch,
        tasks,
        singles,
        latency=True,
    )


def celery_at_best(*, tasks: int, singles: int) -> Contender:
    """As fast as it goes without losing tasks: no results, no pipes to children."""
    python = environments.python("celery")
    command = (python, "-m", "celery", "-A", "celery_tasks", *CELERY_WORKER, "--pool=solo", "-n")
    workers = ((*command, "one@bench"), (*command, "two@bench"))
    launch = Launch((python, ANSWER, "celery_tasks"), workers, {"PYTHONPATH": str(PEERS)})
    how = "2 × solo, late acks, no results"
    return Contender("celery-best", "Celery 5.7 at best", how, "peer", launch, tasks, singles)


CELERY_WORKER = ("worker", "--loglevel=ERROR", "--without-gossip", "--without-mingle")


def dramatiq(*, tasks: int, singles: int, threads: int, queues: str = "") -> Contender:
    python = environments.python("dramatiq")
    options = ("--processes", "2", "--threads", str(threads), "--skip-logging")
    env = {"PYTHONPATH": str(PEERS), "dramatiq_queue_prefetch": "1000"}
    worker = (python, "-m", "dramatiq", "dramatiq_tasks", *options)
    launch = Launch((python, ANSWER, "dramatiq_tasks"), (worker,), env)
    how = f"2 processes × {threads} threads, prefetch 1000, no results{queues}"
    return Contender("dramatiq", "Dramatiq 2.2", how, "peer", launch, tasks, singles, bulk=False)


def taskiq() -> Contender:
    python = environments.python("taskiq")
    folder = str(PEERS)
    worker = (python, "-m", "taskiq", "worker", "--workers", "2", "--log-level", "ERROR", "taskiq_tasks:broker")
    env = {"PYTHONPATH": folder, "BENCH_RESULTS": "redis"}
    launch = Launch((python, ANSWER, "taskiq_tasks"), (worker,), env)
    how = "a stream; 2 processes, results"
    return Contender("taskiq", "taskiq 0.13", how, "peer", launch, 10_000, 2_000, bulk=False, latency=True)


def bullmq() -> Contender:
    node, env = environments.program("node", "nodejs"), environments.node("bullmq")
    launch = Launch((node, str(PEERS / "bullmq_client.js")), ((node, str(PEERS / "bullmq_worker.js")),), env)
    how = "on Node; 1 process × 100, results"
    return Contender("bullmq", "BullMQ 6.7", how, "peer", launch, 40_000, 4_000, latency=True)


def sidekiq() -> Contender:
    ruby, server = environments.program("ruby"), environments.program("sidekiq", "ruby-sidekiq")
    tasks = str(PEERS / "sidekiq_tasks.rb")
    worker = (ruby, server, "-q", "default", "-c", "10", "-r", tasks)
    launch = Launch((ruby, tasks), (worker, worker))
    how = "on Ruby; 2 processes × 10 threads, no results; a killed worker loses what it held"
    return Contender("sidekiq", "Sidekiq 6.4", how, "peer", launch, 50_000, 5_000)


def pgqueuer() -> Contender:
    python = environments.python("pgqueuer")
    worker = (python, str(PEERS / "pgqueuer_tasks.py"))
    launch = Launch((python, ANSWER, "pgqueuer_tasks"), (worker, worker), {"PYTHONPATH": str(PEERS)})
    how = "2 processes, batches of 1000, a log but no results"
    return Contender("pgqueuer", "PgQueuer 1.6", how, "peer", launch, 60_000, 3_000)


def procrastinate() -> Contender:
    python = environments.python("procrastinate")
    worker = (python, str(PEERS / "procrastinate_tasks.py"))
    launch = Launch((python, ANSWER, "procrastinate_tasks"), (worker, worker), {"PYTHONPATH": str(PEERS)})
    how = "2 processes × 10, no results"
    return Contender("procrastinate", "Procrastinate 3.10", how, "peer", launch, 1_500, 500)


CONTENDERS: Mapping[str, tuple[Callable[[], Contender], ...]] = MappingProxyType(
    {
        "redis": (
            lambda: ours(tasks=150_000, singles=5_000),
            lambda: raw("redis_loop", "hiredis, a stream", tasks=250_000, singles=8_000),
            lambda: celery("{url}", tasks=2_000, singles=1_500),
            lambda: celery_at_best(tasks=5_000, singles=1_500),
            lambda: dramatiq(tasks=15_000, singles=4_000, threads=2),
            taskiq,
            bullmq,
            sidekiq,
        ),
        "rabbitmq": (
            lambda: ours(tasks=80_000, singles=2_000),
            lambda: raw("rabbitmq_loop", "pika, a quorum queue", tasks=80_000, singles=1_500),
            lambda: celery("rpc://", tasks=4_000, singles=1_000),
            lambda: celery_at_best(tasks=15_000, singles=1_000),
            lambda: dramatiq(tasks=30_000, singles=1_000, threads=1, queues=", classic queue"),
        ),
        "postgres": (
            lambda: ours(tasks=100_000, singles=3_000),
            lambda: raw("postgres_loop", "asyncpg, SKIP LOCKED", tasks=120_000, singles=4_000),
            pgqueuer,
            procrastinate,
        ),
    }
)
