"""Asynchronous work: call a function later, anywhere; it is never lost, and the system never drowns.

app = Penstock("tasks")

@app.task
def add(x: int, y: int) -> int:
    return x + y

add.delay(4, 4).get(timeout=10)
"""

from __future__ import annotations

from penstock.app import Penstock
from penstock.canvas.calls import Signature, chain, chord, group
from penstock.canvas.chunks import chunks
from penstock.canvas.plain import maybe_signature
from penstock.canvas.results import GroupResult, ResultSet, result_from_tuple
from penstock.canvas.stamping import StampingVisitor
from penstock.completed import as_completed
from penstock.eager_result import EagerResult
from penstock.errors import (
    AccessRefused,
    AlreadyQueued,
    BlockingCallInLoop,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    DeadlineUnmeetable,
    DecodeError,
    EncodeError,
    Ignore,
    MessageTooLarge,
    OutcomeUnknown,
    PartsLost,
    PenstockError,
    PublishError,
    QueueFull,
    Reject,
    RemoteError,
    Replace,
    ResultError,
    ResultTimeout,
    ResultUnavailable,
    Retry,
    SignatureError,
    Snooze,
    SoftTimeLimitExceeded,
    StoreError,
    StoreFull,
    TaskError,
    TaskRevoked,
    TaskShed,
    TimeLimitExceeded,
    UnknownQueue,
    UnknownTask,
    Unsupported,
    WorkerError,
    WorkerLost,
)
from penstock.on_full import Backoff
from penstock.outcome import Progress, State
from penstock.queue import Broadcast, Exchange, Queue, worker_direct
from penstock.request import Request
from penstock.result import AsyncResult
from penstock.schedules import crontab, once, schedule, solar
from penstock.task import Task
from penstock.unique import Unique, debounce, singleton, throttle

__all__ = [
    "AccessRefused",
    "AlreadyQueued",
    "AsyncResult",
    "Backoff",
    "BlockingCallInLoop",
    "Broadcast",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "DeadlineUnmeetable",
    "DecodeError",
    "EagerResult",
    "EncodeError",
    "Exchange",
    "GroupResult",
    "Ignore",
    "MessageTooLarge",
    "OutcomeUnknown",
    "PartsLost",
    "Penstock",
    "PenstockError",
    "Progress",
    "PublishError",
    "Queue",
    "QueueFull",
    "Reject",
    "RemoteError",
    "Replace",
    "Request",
    "ResultError",
    "ResultSet",
    "ResultTimeout",
    "ResultUnavailable",
    "Retry",
    "Signature",
    "SignatureError",
    "Snooze",
    "SoftTimeLimitExceeded",
    "StampingVisitor",
    "State",
    "StoreError",
    "StoreFull",
    "Task",
    "TaskError",
    "TaskRevoked",
    "TaskShed",
    "TimeLimitExceeded",
    "Unique",
    "UnknownQueue",
    "UnknownTask",
    "Unsupported",
    "WorkerError",
    "WorkerLost",
    "as_completed",
    "chain",
    "chord",
    "chunks",
    "crontab",
    "debounce",
    "group",
    "maybe_signature",
    "once",
    "result_from_tuple",
    "schedule",
    "singleton",
    "solar",
    "throttle",
    "worker_direct",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # 5 ms that few need

        return version("penstock")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
