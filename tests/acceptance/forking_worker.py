"""A worker that leases one task, forks a helper which stays, prints the helper's pid, and waits to be killed."""

import os
import sys
import time

from penstock.broker import Demand
from penstock.coordinator import WorkerInfo
from penstock.testing.history import History
from tests.acceptance.actor import QUEUE, open_store, publish

engine = open_store(sys.argv[1])
publish(engine, History(sys.argv[2], "forking"), ["1"])
now = time.time()
engine.run(engine.coordinator.join(WorkerInfo("a" * 32, "forking", "here", os.getpid(), 1, (QUEUE,), "solo", now, now)))
engine.run(engine.broker.step((), Demand((QUEUE,), 1, "a" * 32, lease=60)))
helper = os.fork()
if helper:
    print(helper, flush=True)
else:
    os.close(1)
time.sleep(60)
