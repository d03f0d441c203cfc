"""The watchdog: a thread of the worker process that looks after what the slots are doing while they do it.

- A function that blocks must not hold back its batch: what had ended before is settled, what has not started is handed
back.
- Time limits. Revocations of what runs. Leases of what runs long.
- The supervisor's commands; its death is a warm stop.
It sleeps while nothing runs.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

from penstock.blocking import bounded
from penstock.broker import Cancelled, Lost
from penstock.clock import Clock
from penstock.delivery import RELEASE, Delivery, Settlement
from penstock.errors import BrokerError, SoftTimeLimitExceeded, TimeLimitExceeded
from penstock.worker.bench import Bench
from penstock.worker.limits import Armed
from penstock.worker.outage import Outage
from penstock.worker.run import Runner
from penstock.worker.slot import Batch, Slot
from penstock.worker.tally import Sampling

TICK = 0.025
"""Seconds between two looks while something runs."""
CALM = 80
"""Ticks without work until it sleeps. Waking it costs a task its first 0.1 ms, so not after each little pause."""
HELD = 0.05
"""Seconds after which a batch that does not move is given up."""
LONG = 1.0
"""Seconds after which a run is long: its lease is extended, and revocations are asked for, this often."""
UPKEEP = 1.0
GRACE = 1.0
"""Seconds that a cancelled coroutine has to end, beyond its hard limit, before its process is ended."""
STUCK = 12.0
"""Seconds that a stopping process may take to settle, once nothing runs any more: longer than `settle.STOPPING`. A call
to a server that does not answer cannot be broken off, and may take much longer."""
WARM, COLD = b"w", b"c"
EXIT_COLD, EXIT_LIMIT, EXIT_REVOKED = 70, 71, 72

log = logging.getLogger("penstock.worker")


class Watchdog:
    def __init__(
        self,
        bench: Bench,
        runner: Runner,
        armed: Callable[[int], Armed | None],
        clock: Clock,
        *,
        killable: bool,
        commands: int | None,
        sampling: Sampling,
        upkeep: Callable[[float], None] | None = None,
    ) -> None:
        """`killable`: this process may be ended in the middle of a function. `commands` is the pipe from the
        supervisor. `sampling` looks at each look; `upkeep` about every second where there is no supervisor to
        do it."""
        self._bench = bench
        self._runner = runner
        self._armed = armed
        self._clock = clock
        self._killable = killable
        self._commands = commands
        self._sampling = sampling
        self._upkeep = upkeep
        self._closed = False
        self._cold = False
        self._leases_early = bench.engine.broker.features.notes_starts
        self._stale: dict[int, tuple[object, object, float]] = {}
        self._extended = 0.0
        self._outage = Outage("extending leases")
        self._idle_since: float | None = None
        """Since when a stopping process runs nothing."""
        self._soft_told: dict[int, Delivery] = {}
        self._hard_told: dict[int, Delivery] = {}
        self._thread = threading.Thread(target=self._main, name="penstock-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; returns when it has ended."""
        self._closed = True
        self._bench.wake()
        self._thread.join()

    def cold(self) -> None:
        """Give up what runs. Safe in a signal handler."""
        self._cold = True
        self._bench.stop()

    def _main(self) -> None:
        poll = select.poll()
        poll.register(self._bench.bell, select.POLLIN)
        if self._commands is not None:
            poll.register(self._commands, select.POLLIN | select.POLLHUP)
        self._sampling.wakes(self._clock.monotonic())
        quiet = 0
        while not self._closed:
            try:
                busy = any(slot.delivery is not None for slot in self._bench.slots) or any(
                    batch.waiting or batch.finished for batch in self._bench.batches
                )
                quiet = 0 if busy or self._bench.stirred else quiet + 1
                self._bench.stirred = False
                self._wait(poll, asleep=quiet > CALM and not self._bench.warm)
                if self._cold:
                    self._end([], EXIT_COLD)
                now = self._clock.monotonic()
                self._sampling.tick(now)
                if self._upkeep is not None:
                    self._upkeep(now)
                if self._bench.warm:
                    self._check_stop(now)
                if busy:
                    self._look(now)
            except Exception:
                log.exception("the watchdog stumbled")
                self._clock_pause()

    def _clock_pause(self) -> None:
        threading.Event().wait(LONG)

    def _wait(self, poll: select.poll, *, asleep: bool) -> None:
        timeout: float | None = TICK * 1000
        if asleep:
            timeout = UPKEEP * 1000 if self._upkeep is not None else None
            self._sampling.sleeps()
            self._bench.asleep = True
            # It may have started to run just before it could know that we sleep.
            if any(slot.delivery is not None for slot in self._bench.slots):
                self._bench.asleep = False
                self._sampling.wakes(self._clock.monotonic())
                return
        for descriptor, _ in poll.poll(timeout):
            if descriptor == self._bench.bell:
                os.read(descriptor, 4096)
            else:
                self._obey(poll, os.read(descriptor, 64))
        self._bench.asleep = False
        if asleep:
            self._sampling.wakes(self._clock.monotonic())

    def _obey(self, poll: select.poll, command: bytes) -> None:
        if COLD in command:
            self._cold = True
        if not command and self._commands is not None:
            log.warning("the supervisor is gone: stopping")
            poll.unregister(self._commands)
            self._commands = None
        self._bench.stop()

    def _look(self, now: float) -> None:
        for batch in self._bench.batches:
            self._unblock(batch, now)
        long = []
        for slot in self._bench.slots:
            delivery, started = slot.delivery, slot.started
            if delivery is None or slot.delivery is not delivery:
                continue
            self._check_limits(slot, delivery, now - started)
            if now - started >= LONG and (self._leases_early or not slot.plan.early):
                long.append((slot, delivery))
        if not long:
            self._outage.forget()
        elif now - self._extended >= LONG:
            self._extended = now
            self._extend(long)

    def _check_stop(self, now: float) -> None:
        """End a process that has nothing left to do but to tell a server that does not answer."""
        if self._idle_since is None or any(slot.delivery is not None for slot in self._bench.slots):
            self._idle_since = now
        elif now - self._idle_since >= STUCK:
            log.error("the server does not answer; what is not settled will be delivered again")
            self._end([], EXIT_COLD)

    def _unblock(self, batch: Batch, now: float) -> None:
        """Give up a batch whose head has not moved for a while: the function before it blocks."""
        waiting, finished = _first(batch.waiting), _first(batch.finished)
        seen_waiting, seen_finished, since = self._stale.get(id(batch), (None, None, now))
        if waiting is not seen_waiting or finished is not seen_finished:
            self._stale[id(batch)] = (waiting, finished, now)
            return
        if now - since < HELD or (waiting is None and finished is None):
            return
        settled = batch.take()
        settled += batch.hand_back()
        if settled and not self._bench.settler.attempt(settled):
            batch.finished.extend(settled)
            self._stale[id(batch)] = (waiting, finished, now + LONG)

    def _check_limits(self, slot: Slot, delivery: Delivery, elapsed: float) -> None:
        soft, hard = slot.plan.soft, slot.plan.hard
        if hard is not None and elapsed >= hard:
            self._hard(slot, delivery, hard, elapsed)
        elif soft is not None and elapsed >= soft:
            self._soft(slot, delivery, soft)

    def _soft(self, slot: Slot, delivery: Delivery, soft: float) -> None:
        first = self._soft_told.get(slot.number) is not delivery
        if first:
            self._soft_told[slot.number] = delivery
            log.warning("soft time limit (%g s) of task %s[%s]", soft, slot.plan.name, slot.request.id)
        armed = self._armed(slot.number)
        if slot.plan.is_coroutine:
            if first:
                self._cancel(slot, delivery, SoftTimeLimitExceeded(f"the soft time limit of {soft:g} s passed"))
        elif armed is not None:
            armed.fire(delivery)

    def _hard(self, slot: Slot, delivery: Delivery, hard: float, elapsed: float) -> None:
        error = TimeLimitExceeded(f"the task was ended at its time limit of {hard:g} s")
        first = self._hard_told.get(slot.number) is not delivery
        if first:
            self._hard_told[slot.number] = delivery
            log.error("time limit (%g s) of task %s[%s]", hard, slot.plan.name, slot.request.id)
            if slot.plan.is_coroutine:
                self._cancel(slot, delivery, error)
        if self._killable and (not slot.plan.is_coroutine or elapsed >= hard + GRACE):
            last = self._runner.give_up(slot, delivery, error, self._clock.monotonic())
            if slot.delivery is delivery:
                self._end([last], EXIT_LIMIT)

    def _cancel(self, slot: Slot, delivery: Delivery, reason: BaseException | None) -> None:
        interrupt = slot.interrupt
        if interrupt is not None and slot.delivery is delivery:
            slot.overdue = (delivery, reason) if reason is not None else None
            interrupt(delivery)

    def _extend(self, running: list[tuple[Slot, Delivery]]) -> None:
        engine = self._bench.engine
        receipts = [delivery.receipt for _, delivery in running]
        try:
            leases = engine.run(bounded(engine.broker.extend(receipts, self._bench.lease), LONG))
        except BrokerError as error:
            self._outage.go_on(error)
            return
        self._outage.over()
        for (slot, delivery), lease in zip(running, leases, strict=True):
            if slot.delivery is not delivery:
                continue
            if isinstance(lease, Lost):
                if not slot.request.cancelled:
                    log.warning("task %s[%s] was lost while it ran", slot.plan.name, slot.request.id)
                slot.request.cancelled = True
                self._cancel(slot, delivery, None)
            elif isinstance(lease, Cancelled):
                self._revoke(slot, delivery, terminate=lease.terminate)

    def _revoke(self, slot: Slot, delivery: Delivery, *, terminate: bool) -> None:
        slot.cancelled = delivery
        slot.request.cancelled = True
        self._cancel(slot, delivery, None)
        if terminate and self._killable and not slot.plan.is_coroutine:
            log.info("task %s[%s] was revoked: ending it", slot.plan.name, slot.request.id)
            last = self._runner.revoke(slot, delivery, self._clock.monotonic())
            if slot.delivery is delivery:
                self._end([last], EXIT_REVOKED)

    def _end(self, settled: list[Settlement], code: int) -> None:
        """Settle what can be settled, hand back the rest, and end this process in the middle of what it runs."""
        # Should the function return just now, nothing else is started.
        self._bench.warm = True
        ended = {item.receipt for item in settled}
        running = [slot.delivery for slot in self._bench.slots]
        for batch in self._bench.batches:
            settled += batch.take()
            settled += batch.hand_back()
        for delivery in running:
            if delivery is not None and delivery.receipt not in ended:
                settled.append(Settlement(delivery.receipt, RELEASE))
        engine = self._bench.engine
        if settled:
            self._bench.settler.attempt(settled)
        try:
            engine.run(bounded(engine.coordinator.leave(self._bench.worker), LONG))
        except BrokerError as error:
            log.warning("could not sign off: %s", error)
        self._sampling.close(self._clock.monotonic())
        logging.shutdown()
        os._exit(code)


def _first(items: object) -> object:
    try:
        return items[0]  # type: ignore[index]  # a deque or a list
    except IndexError:
        return None
