"""The worker: reserves, runs and settles."""

from penstock.worker.settings import WorkerOptions
from penstock.worker.worker import Worker

__all__ = ["Worker", "WorkerOptions"]
