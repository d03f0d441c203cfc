"""One run of one task, as a pool makes it."""

from collections.abc import Callable

from penstock.delivery import Delivery, Settlement
from penstock.request import current
from penstock.worker.run import Runner
from penstock.worker.slot import Slot


def run_once(runner: Runner, slot: Slot, delivery: Delivery, now: Callable[[], float]) -> Settlement:
    token = current.set(None)
    try:
        return _run(runner, slot, delivery, now)
    finally:
        current.reset(token)


def _run(runner: Runner, slot: Slot, delivery: Delivery, now: Callable[[], float]) -> Settlement:
    settlement = runner.prepare(slot, delivery, now())
    if settlement is not None:
        return settlement
    try:
        value = slot.plan.function(*slot.args, **slot.kwargs)
    except BaseException as error:
        return runner.fail(slot, error, now())
    return runner.succeed(slot, value, now())
