"""Many callers' work in one transaction, for whoever serves many: publishes, settlements, claims, what was answered.

Each part has its answer when `commit` returns. Nothing is synced here. If one of several fails, nothing is done, and
each is tried for itself: nobody's fault is another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from penstock.broker import Accepted, Answer, Demand, Full, LeaseLost
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite.claiming import Claimed
from penstock.engines.sqlite.hearing import Answer as Told
from penstock.engines.sqlite.hearing import Heard
from penstock.engines.sqlite.ids import runs
from penstock.engines.sqlite.leases import Held
from penstock.engines.sqlite.planning import Plan, plan, plan_packed
from penstock.engines.sqlite.publishing import Outgoing, Route, Wake, all_refused
from penstock.engines.sqlite.store import Store
from penstock.errors import DecodeError, StoreFull
from penstock.message import Message, Unique, unpack
from penstock.outcome_runs import RUN_BYTES, read_entry, read_run

IN_VAIN = 64
"""Looks for those who wait, one after the other, that found nothing: what is there is not for them."""
UNTIL_START = b"unique"
"""Part of every packed message with a `Unique` guard."""


class Finished(Struct, gc=False):
    """All of the lease `token` ended well, with the packed outcomes `run`, in order."""

    token: int
    run: bytes


class Work(Struct):
    """What one caller wants of a transaction. `mark`: (session, number) under which the answer is remembered."""

    publish: Sequence[Outgoing] = ()
    follow_up: Sequence[Message] = ()
    finished: Sequence[Finished] = ()
    settle: Sequence[Settlement] = ()
    demand: Demand | None = None
    names: Sequence[tuple[int, int, str]] = ()
    """(token, row, task) of what is settled: its worker has read the messages, and this process has not."""
    mark: tuple[int, int] | None = None
    encode: Callable[[Work], bytes] = lambda work: b""
    """Its answer as it is remembered."""

    answers: list[list[Answer]] = msgspec.field(default_factory=list)
    done: list[bool] = msgspec.field(default_factory=list)
    """Of `finished`, then of `settle`: committed, or its lease was lost."""
    claims: list[Claimed] = msgspec.field(default_factory=list)
    error: BaseException | None = None
    changed: bool = False
    """Something that must not be lost was committed."""
    plans: list[tuple[int, Plan]] = msgspec.field(default_factory=list)

    def clear(self) -> None:
        self.answers, self.done, self.claims, self.plans = [], [], [], []


Parked = Callable[[int], Iterable[Work]]
"""Those who wait for one of the queues of a bit set, whose turn is first."""


class TogetherTwice(Exception):
    """Two callers end tasks of one lease: one after the other."""


class Joint:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db
        self._heard = Heard(store.db)
        self._told: list[Told] = []
        """What this transaction answers, until it is committed."""

    def commit(self, batch: Sequence[Work], wake: Wake, parked: Parked) -> list[Work]:
        """Do all of it, or note in each part why not. `wake` collects whom it concerns; of those that are `parked`, the
        ones that got something now are returned."""
        try:
            return self._commit(batch, wake, parked)
        except Exception as error:
            if len(batch) > 1:
                return [served for work in batch for served in self.commit([work], wake, parked)]
            for work in batch:
                work.clear()
                work.error = error
            return []

    def _commit(self, batch: Sequence[Work], wake: Wake, parked: Parked) -> list[Work]:
        try:
            served = self._write(batch, wake, parked)
        except StoreFull:
            # What ends work, and what hands it out to be ended, needs space, and is what frees it.
            steps = any(work.finished or work.settle or work.demand is not None for work in batch)
            if not steps or not self._store.spare.give_up():
                raise
            served = self._write(batch, wake, parked)
        for work in batch:
            work.changed = bool(work.plans) or (bool(work.answers) and not all_refused(work.answers))
            for token, made in work.plans:
                self._store.leases.settle({token: made.gone.get(token, [])})
        self._heard.keep(self._told)
        for work in (*batch, *served):
            self._claimed(work)
        return served

    def _write(self, batch: Sequence[Work], wake: Wake, parked: Parked) -> list[Work]:
        served: list[Work] = []
        try:
            self._db.write(lambda: self._apply(batch, wake, parked, served))
        except BaseException:
            for work in served:  # they wait on
                work.claims = []
            raise
        return served

    def _apply(self, batch: Sequence[Work], wake: Wake, parked: Parked, served: list[Work]) -> None:
        for work in batch:
            work.clear()
        if not (len(batch) == 1 and self._hand_over(batch[0], parked, served)):
            self._do_all(batch, wake, parked, served)
        self._remember([work for work in (*batch, *served) if work.mark is not None])

    def _hand_over(self, work: Work, parked: Parked, served: list[Work]) -> bool:
        """A lone message goes to who waits for it, if that is all that is to be done."""
        if len(work.publish) != 1 or work.follow_up or work.finished or work.settle or work.demand is not None:
            return False
        handing = self._store.handing
        queue = handing.queue_of(work.publish[0])
        for taker in () if queue is None else parked(1 << (queue & 63)):
            claimed = None if taker.demand is None else handing.hand_over(work.publish[0], taker.demand)
            if claimed is not None:
                taker.claims = [claimed]
                served.append(taker)
                work.answers = [[Accepted(claimed.rows[0][0])]]
            return claimed is not None
        return False

    def _do_all(self, batch: Sequence[Work], wake: Wake, parked: Parked, served: list[Work]) -> None:
        self._publish(batch, wake)
        follow_up, claim = self._store.publisher.follow_up, self._store.claimer.claim
        touched: set[int] = set()
        for work in batch:
            if work.follow_up:
                work.answers = [[follow_up(message, wake) for message in work.follow_up]]
            if work.finished or work.settle:
                tokens = {one.token for one in work.finished} | {one.receipt[0] for one in work.settle}
                if not touched.isdisjoint(tokens):
                    raise TogetherTwice  # what a lease holds is known again after the commit only
                touched |= tokens
                self._settle(work, wake)
        for work in batch:
            if work.demand is not None and work.demand.limit > 0:
                work.claims = claim(work.demand)
        if wake.queues:
            self._serve(parked, wake, served)

    def _serve(self, parked: Parked, wake: Wake, served: list[Work]) -> None:
        """What is new goes to those who wait, as far as it goes."""
        left, idle = wake.tasks, 0
        for work in parked(wake.queues):
            if work.demand is not None:
                work.claims = self._store.claimer.claim(work.demand)
            if work.claims:
                served.append(work)
                left -= sum(len(claimed.rows) for claimed in work.claims)
            idle = 0 if work.claims else idle + 1
            if left <= 0 or idle >= IN_VAIN:
                break

    def _publish(self, batch: Sequence[Work], wake: Wake) -> None:
        """Those for one lane together: a lone publish costs what its pages cost."""
        by_lane: dict[Route | None, list[tuple[Work, int, Outgoing]]] = {}
        for work in batch:
            if work.publish:
                work.answers = [[] for _ in work.publish]
                for number, outgoing in enumerate(work.publish):
                    by_lane.setdefault(outgoing.lane, []).append((work, number, outgoing))
        for places in by_lane.values():
            answers = self._store.publisher.publish([outgoing for _, _, outgoing in places], wake)
            for (work, number, _), answer in zip(places, answers, strict=True):
                work.answers[number] = answer

    def _settle(self, work: Work, wake: Wake) -> None:
        """What this stores itself is told from its plans (`Work.plans`), so that nobody need look for it; what its
        effects bring about is not."""
        others = wake.results
        self._settle_all(work, wake)
        if not any(made.effects for _, made in work.plans):
            wake.results = others

    def _settle_all(self, work: Work, wake: Wake) -> None:
        settler = self._store.settler
        for finished in work.finished:
            held = settler.held(finished.token)
            if held is None:
                self._store.leases.lose(finished.token)
            else:
                made = self._plan_finished(held, finished.run)
                settler.carry_out(made, wake)
                work.plans.append((finished.token, made))
            work.done.append(held is not None)
        for token, row, task in work.names:
            index = self._store.leases.get(token)
            if index is not None and row in index.tasks:
                index.tasks[row] = (task, index.tasks[row][1])
        if work.settle:
            made = settler.settle(work.settle, settler.prepare(work.settle), wake)
            work.plans += [(token, made) for token in made.tokens]
            work.done += [not isinstance(answer, LeaseLost) for answer in made.answers]

    def _plan_finished(self, held: Held, run: bytes) -> Plan:
        """Raises `DecodeError` for a run that is none, or not of this lease."""
        entries = read_run(run)
        rows = list(held.tasks)
        if len(entries) == len(rows) and len(rows) == rows[-1] - rows[0] + 1 and len(run) < RUN_BYTES:
            return plan_packed(held, rows, run)
        if len(entries) != len(rows):
            raise DecodeError(f"{len(entries)} outcomes for the {len(rows)} tasks of a lease")
        read = [read_entry(entry, held.worker) for entry in entries]
        ends = [Settlement((held.token, row), ACK, entry and entry[2]) for row, entry in zip(rows, read, strict=True)]
        for row, entry in zip(rows, read, strict=True):
            held.tasks[row] = (entry[0] if entry else "", held.tasks[row][1])
        return plan(ends, {held.token: held})

    def _remember(self, works: Sequence[Work]) -> None:
        """What only claims need not survive this process: nothing was promised, and it comes back when its lease
        ends."""
        self._told = []
        lasting = []
        for work in works:
            if work.mark is not None and not self._all_full(work):
                told = (*work.mark, work.encode(work))
                self._told.append(told)
                if work.answers or work.plans:
                    lasting.append(told)
        if lasting:
            self._heard.write(lasting, self._store.now())

    def _all_full(self, work: Work) -> bool:
        """Nothing was done: asked again, it may be."""
        return bool(work.answers) and all(type(answers[0]) is Full for answers in work.answers if answers)

    def _claimed(self, work: Work) -> None:
        if work.claims and work.demand is not None:
            self._store.leases.add([_held(claimed, work.demand.worker) for claimed in work.claims])
            self._free_started_keys(work.claims)

    def _free_started_keys(self, claims: Sequence[Claimed]) -> None:
        for _, _, rows, _ in claims:
            for row, _, body in rows:
                if UNTIL_START in body:
                    guards = unpack(body).guards
                    keys = [guard.key for guard in guards if isinstance(guard, Unique) and guard.until == "start"]
                    if keys:
                        self._store.free_keys([(key, row) for key in keys])

    def heard(self, session: int, mark: int) -> bytes | None:
        """What was answered under this mark, if that is remembered."""
        return self._heard.find(session, mark)

    def reclaim(self, tokens: Sequence[int], worker: str) -> list[Claimed]:
        """The leases of a step whose answer was not heard, as far as they are held still."""

        def work() -> list[Claimed]:
            found = []
            for token in tokens:
                held = self._store.settler.held(token)
                if held is None or held.worker != worker or not held.tasks:
                    continue
                rows = [
                    row
                    for low, high in runs(sorted(held.tasks))
                    for row in self._db.execute(
                        "SELECT id, attempts, body FROM task WHERE id BETWEEN ? AND ?", (low, high)
                    )
                ]
                self._store.leases.add([held])
                # What expired meanwhile is discarded, too: it was paid for, or let go for nothing.
                found.append(Claimed(token, held.lane, rows, self._store.now() if held.lane.limited else None))
            return found

        return self._db.write(work, heavy=False)

    def forget_session(self, session: int) -> None:
        """It asks for nothing again."""
        self._heard.forget(session)


def _held(claimed: Claimed, worker: str) -> Held:
    return Held(claimed.token, claimed.lane, {row: ("", len(body)) for row, _, body in claimed.rows}, worker)
