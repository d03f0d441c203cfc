"""A signed-in client in its namespace: each of its requests is checked, and given to the turns or to a verb."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from penstock.broker import Accepted, Answer, Demand, Duplicate, Full
from penstock.delivery import Settlement
from penstock.engines.sqlite.joint import Finished, Work
from penstock.engines.sqlite.publishing import Outgoing, packed
from penstock.engines.sqlite.watching import Watch
from penstock.errors import ConfigError, PenstockError
from penstock.message import Message
from penstock.outcome import Report
from penstock.protocol.refusals import code_of
from penstock.protocol.replies import ClaimReply, Failed, Published, Stepped, Told, answers_of, span_or_each
from penstock.protocol.requests import (
    CallRequest,
    FollowUpRequest,
    InterruptRequest,
    PublishRequest,
    StartedNote,
    StepRequest,
    UnwatchRequest,
    WatchRequest,
)
from penstock.server.access.identity import Identity
from penstock.server.blocking import Held
from penstock.server.checking import read_message
from penstock.server.peer import Peer
from penstock.server.rights_check import RightsCheck
from penstock.server.space import Space
from penstock.server.turns import Entry
from penstock.server.verbs import VERBS, Call

MAX_BATCH = 1_000
"""Messages of one batch, and settlements of one step."""
MAX_WATCHED = 1_000_000
"""Tasks whose results one client waits for."""
MAX_PAIRS = 10_000
UNANSWERED = re.compile(r"@(\d{1,19})\.(\d{1,15})\.(\d{1,4})\.(\d{1,6})\Z")

log = logging.getLogger("penstock.broker")
_encode = msgspec.msgpack.Encoder().encode
_read_published = msgspec.msgpack.Decoder(Published).decode
_read_step = msgspec.msgpack.Decoder(tuple[list[bool], list[int]]).decode


class Host(Protocol):
    """What a session needs of its broker."""

    def administer(self, session: ClientSession, request: CallRequest) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class ClientSession:
    def __init__(
        self, host: Host, peer: Peer, space: Space, identity: Identity, session: int, names: bool, client: str
    ) -> None:
        """`session` is the number under which its answers are remembered, 0 for none."""
        self._host = host
        self.peer, self.space, self.identity = peer, space, identity
        self.number = session
        self.client = client
        self.rights = RightsCheck(identity, space)
        self.workers: set[str] = set()
        """Those that have joined on this connection."""
        self._names = names
        self._turns = space.turns
        self._waiting: dict[int, Entry] = {}
        self._idle: tuple[Demand, int] | None = None
        """The demand that found nothing, and how much had come by then."""
        self._watches: dict[int | str, Watch] = {}
        self.credit = 0
        """Tasks that it has asked for and not got yet."""
        self.published = self.delivered = self.settled = 0

    def __str__(self) -> str:
        return f"{self.identity.user}@{self.peer.address} ({self.client})"

    @property
    def watched(self) -> int:
        """Tasks whose results it waits for."""
        return len(self._watches)

    def handle(self, request: Any, size: int) -> None:
        if self._turns.closed:
            self.peer.refuse("unavailable", "the broker stops")
            return
        HANDLERS[type(request)](self, request, size)

    # Publishing.

    def _publish(self, request: PublishRequest, size: int) -> None:
        if request.again and self._heard(request.mark, request.number, self._send_published):
            return
        try:
            batches = [self._read_batch(bodies) for bodies in request.batches]
        except (PenstockError, msgspec.DecodeError) as error:
            self._fail(request.number, error)
            return
        self.peer.began(size)
        Publishing(self, request, batches, size).submit()

    def _read_batch(self, bodies: list[bytes]) -> list[Message]:
        if len(bodies) > MAX_BATCH:
            raise ConfigError(f"a batch of {len(bodies):,} messages; at most {MAX_BATCH:,} are taken")
        messages = [read_message(body) for body in bodies]
        self.rights.publish(messages, worker=bool(self.workers))
        return messages

    def earlier(self, task_id: str) -> Answer | None:
        """What became of a publish that was not answered in time, and is asked for by the id that its client made
        of it: `@session.mark.batch.place`."""
        found = UNANSWERED.match(task_id)
        if found is None:
            return None
        session, mark, batch, place = map(int, found.groups())
        blob = self._turns.joint.heard(session_number(self.identity.user, session), mark)
        batches = [] if blob is None else _read_published(blob).batches
        if batch >= len(batches):
            return None
        answers = answers_of(batches[batch])
        answer = answers[place] if place < len(answers) else None
        return Duplicate(answer.key) if isinstance(answer, Accepted | Duplicate) else None

    def _send_published(self, number: int, blob: bytes) -> None:
        self.peer.send(Published(number, _read_published(blob).batches))

    def _follow_up(self, request: FollowUpRequest, size: int) -> None:
        if request.again and self._heard(request.mark, request.number, self._send_published):
            return
        try:
            self.rights.consumer()
            if len(request.batch) > MAX_BATCH:
                raise ConfigError(f"a batch of {len(request.batch):,} messages; at most {MAX_BATCH:,} are taken")
            messages = [read_message(body) for body in request.batch]
            self.rights.publish(messages, worker=True)
        except PenstockError as error:
            self._fail(request.number, error)
            return
        work = Work(follow_up=messages, mark=self.mark(request.mark), encode=self._encode_published)

        def reply(done: Work) -> None:
            self.peer.answered(size)
            if done.error is not None:
                self._fail(request.number, done.error)
            else:
                self.peer.send(Published(request.number, [span_or_each(self.named(done.answers[0]))]))

        self.peer.began(size)
        self._turns.submit(Entry(work, reply, len(messages)))

    def _encode_published(self, work: Work) -> bytes:
        return _encode(Published(0, [span_or_each(self.named(answers)) for answers in work.answers]))

    def named(self, answers: list[Answer]) -> list[Answer]:
        """With public ids for a client that does not make them itself."""
        if not self._names:
            return answers
        return [
            type(one)(self.space.store.ids.make(one.key))
            if isinstance(one, Accepted | Duplicate) and isinstance(one.key, int)
            else one
            for one in answers
        ]

    # Settling and reserving.

    def _step(self, request: StepRequest, size: int) -> None:
        want = request.want
        try:
            tokens = {one.token for one in request.finished} | {one.token for one in request.ended}
            for token in tokens:
                self.rights.lease(token)
            if len(request.ended) > MAX_BATCH or len(request.finished) > MAX_BATCH:
                raise ConfigError(f"more than {MAX_BATCH:,} settlements in one step")
            for one in request.ended:
                if one.effects:
                    self.rights.effects(one.effects)
                message = getattr(one.verdict, "message", None)
                if message is not None:
                    read_message(msgspec.msgpack.encode(message))
            if want is not None:
                self.rights.demand(want)
        except (PenstockError, msgspec.DecodeError) as error:
            self._fail(request.number, error)
            return
        earlier: tuple[list[bool], list[int]] | None = None
        if request.again and self.number and request.mark:
            blob = self._turns.joint.heard(self.number, request.mark)
            earlier = None if blob is None else _read_step(blob)
        self._serve_step(request, size, earlier)

    def _serve_step(self, request: StepRequest, size: int, earlier: tuple[list[bool], list[int]] | None) -> None:
        want = request.want
        split = len(request.finished)
        done = [] if earlier is None else earlier[0]
        if earlier is not None and earlier[1] and want is not None:
            claims = self._turns.joint.reclaim(earlier[1], want.worker)
            self._send_step(request.number, done, split, [ClaimReply(one.token, one.rows) for one in claims])
            return
        work = Work(demand=want, mark=self.mark(request.mark), encode=_encode_step)
        if earlier is None:
            work.finished = [Finished(one.token, one.run) for one in request.finished]
            work.settle = [
                Settlement((one.token, one.row), one.verdict, one.outcome, one.effects) for one in request.ended
            ]
            work.names = [(one.token, one.row, one.task) for one in request.ended if one.task]
        entry = Entry(
            work,
            lambda finished: self._stepped(request, finished, done, size),
            1 + len(request.ended) + 256 * split,
            want.wait if want is not None and want.limit else 0.0,
            self._ready,
        )
        self.peer.began(size)
        if want is not None:
            self.credit += want.limit
        self._waiting[request.number] = entry
        if not work.finished and not work.settle and self._idle == (want, self._turns.wakes):
            self._turns.park(entry)  # nothing has come since it last looked
        else:
            self._turns.submit(entry)

    def _ready(self) -> bool:
        return self.peer.stalled is None

    def _stepped(self, request: StepRequest, work: Work, earlier: list[bool], size: int) -> None:
        self._waiting.pop(request.number, None)
        self.peer.answered(size)
        if request.want is not None:
            self.credit -= request.want.limit
            self._idle = None if work.claims else (request.want, self._turns.wakes)
        if work.error is not None:
            self._fail(request.number, work.error)
            return
        self.delivered += sum(len(one.rows) for one in work.claims)
        claims = [ClaimReply(one.token, one.rows) for one in work.claims]
        self._send_step(request.number, earlier or work.done, len(request.finished), claims)

    def _send_step(self, number: int, done: list[bool], split: int, claims: list[ClaimReply]) -> None:
        self.settled += sum(done)
        self.peer.send(Stepped(number, done[:split], done[split:], claims))

    def _interrupt(self, request: InterruptRequest, size: int) -> None:
        entry = self._waiting.get(request.number)
        if entry is not None:
            entry.waits = 0.0
            self._turns.unpark(entry)

    # Results.

    def _watch(self, request: WatchRequest, size: int) -> None:
        keys = [key for key in request.keys if key not in self._watches and self.rights.sees(key)]
        if len(self._watches) + len(keys) > MAX_WATCHED:
            self.peer.cut("malformed", f"more than {MAX_WATCHED:,} results are waited for")
            return
        watched = [self.space.store.watched(key) for key in keys]
        watch = self.space.store.watches.add(watched, self._tell)
        for key in keys:
            self._watches[key] = watch
        if not all(isinstance(key, int) and self.space.store.leases.is_held(key) for key in watched):
            self._turns.results()

    def _unwatch(self, request: UnwatchRequest, size: int) -> None:
        dropped = [watch for key in request.keys if (watch := self._watches.pop(key, None)) is not None]
        kept = {id(watch) for watch in self._watches.values()} if dropped else set()
        for watch in dropped:
            if id(watch) not in kept:
                watch.close()

    def _tell(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self._watches.pop(report.id, None)
            row = self.space.store.ids.number(report.id)
            if row is not None:
                self._watches.pop(row, None)
        self.peer.send(Told(list(reports)))

    # The rest.

    def _started(self, note: StartedNote, size: int) -> None:
        if self.space.crew.user_of(note.worker) == self.identity.user and len(note.pairs) <= MAX_PAIRS:
            self.space.crew.note(note.worker, note.pairs)

    def _call(self, request: CallRequest, size: int) -> None:
        if request.verb == "administer":
            self._host.administer(self, request)
            return
        verb = VERBS.get(request.verb)
        if verb is None:
            text = f"this broker has no verb {request.verb[:40]!r}: it may be older than the client; upgrade it"
            self._fail(request.number, ConfigError(text))
            return
        verb(Call(self, request, size))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._host.spawn(work)

    def fail(self, number: int, error: BaseException) -> None:
        self._fail(number, error)

    def _fail(self, number: int, error: BaseException) -> None:
        if not isinstance(error, PenstockError | msgspec.DecodeError):
            log.error("%s: a request failed: %r", self, error, exc_info=error)
            self.peer.send(Failed(number, "failed", "the broker could not do this; its log tells why"))
            return
        self.peer.send(Failed(number, code_of(error), str(error)))

    def mark(self, mark: int) -> tuple[int, int] | None:
        return (self.number, mark) if self.number and mark > 0 else None

    def _heard(self, mark: int, number: int, send: Callable[[int, bytes], None]) -> bool:
        """Answer as before what was asked before, if that is known."""
        blob = self._turns.joint.heard(self.number, mark) if self.number and mark > 0 else None
        if blob is None:
            return False
        send(number, blob)
        return True

    def writable(self) -> None:
        self._turns.wakes += 1
        self._turns.work((1 << 64) - 1, 1)

    def lost(self, clean: bool) -> None:
        for entry in list(self._waiting.values()):
            entry.waits = 0.0
            self._turns.unpark(entry)
        for watch in set(self._watches.values()):
            watch.close()
        self._watches.clear()
        self.space.blocked.drop(self.peer)
        if clean:
            self.space.crew.gone(self.workers)

    def forget(self) -> None:
        """It leaves of its own will, and asks nothing again."""
        if self.number:
            self._turns.joint.forget_session(self.number)


class Publishing:
    """One publish, until all of its batches are answered: those that find their queue full may wait for room."""

    __slots__ = ("_answers", "_held", "_known", "_open", "_outgoing", "_request", "_session", "_size", "_told")

    def __init__(
        self, session: ClientSession, request: PublishRequest, batches: list[list[Message]], size: int
    ) -> None:
        self._session, self._request, self._size = session, request, size
        self._known: dict[int, dict[int, Answer]] = {}
        """By batch and place: answers to what was asked before."""
        self._held: Held | None = None
        self._told: list[Any] | None = None
        """The answers as they go out, once they are known."""
        self._outgoing = [
            self._fresh(number, *both) for number, both in enumerate(zip(batches, request.batches, strict=True))
        ]
        self._answers: list[list[Answer]] = [[] for _ in batches]
        self._open = [number for number, one in enumerate(self._outgoing) if one.messages]

    def _fresh(self, number: int, batch: list[Message], bodies: list[bytes]) -> Outgoing:
        """The batch, without what is known to have been published before."""
        outgoing = packed(batch, bodies)
        if outgoing.lane is not None:
            return outgoing  # none of them has an id
        known = {
            place: earlier
            for place, message in enumerate(batch)
            if message.id is not None
            and message.id.startswith("@")
            and (earlier := self._session.earlier(message.id)) is not None
        }
        if not known:
            return outgoing
        self._known[number] = known
        left = [place for place in range(len(batch)) if place not in known]
        return packed([batch[place] for place in left], [bodies[place] for place in left])

    def submit(self) -> None:
        """Publish what is not answered."""
        session = self._session
        if not self._open:
            self._answer()
            return
        publish = [self._outgoing[number] for number in self._open]
        self._told = None
        work = Work(publish=publish, mark=session.mark(self._request.mark), encode=self._encode)
        tasks = len(publish[0].messages) if len(publish) == 1 else sum(len(one.messages) for one in publish)
        session.space.turns.submit(Entry(work, self._published, tasks))

    def _encode(self, work: Work) -> bytes:
        self._told = self._spans(self._merged(work))
        return _encode(Published(0, self._told))

    def _merged(self, work: Work) -> list[list[Answer]]:
        if len(self._open) == len(self._answers):
            return work.answers
        answers = list(self._answers)
        for number, found in zip(self._open, work.answers, strict=True):
            answers[number] = found
        return answers

    def _spans(self, answers: list[list[Answer]]) -> list[Any]:
        named = self._session.named
        return [span_or_each(named(self._whole(number, one))) for number, one in enumerate(answers)]

    def _whole(self, number: int, answers: list[Answer]) -> list[Answer]:
        """With those that were known before."""
        known = self._known.get(number)
        if not known:
            return answers
        fresh = iter(answers)
        return [known[place] if place in known else next(fresh) for place in range(len(known) + len(answers))]

    def _published(self, work: Work) -> None:
        session = self._session
        if work.error is not None:
            self._over()
            session.fail(self._request.number, work.error)
            return
        self._answers = self._merged(work)
        self._open = [number for number, found in enumerate(self._answers) if found and type(found[0]) is Full]
        if not self._open or session.workers or not self._wait_for_room():
            self._answer()

    def _wait_for_room(self) -> bool:
        """Whether the queue is one whose publishers wait, and there is time left."""
        full: Any = self._answers[self._open[0]][0]
        message = self._outgoing[self._open[0]].messages[0]
        blocked = self._session.space.blocked
        if self._held is None:
            deadline = blocked.deadline(self._request.timeout)
            self._held = Held(self._session.peer, deadline, self.submit, self._answer)
        return blocked.hold(self._held, message.namespace, full.queue)

    def _over(self) -> None:
        if self._held is not None:
            self._session.space.blocked.release(self._held)
        self._session.peer.answered(self._size)

    def _answer(self) -> None:
        session = self._session
        self._over()
        session.published += len(self._outgoing[0].messages) if len(self._outgoing) == 1 else self._count()
        session.peer.send(Published(self._request.number, self._told or self._spans(self._answers)))

    def _count(self) -> int:
        return sum(len(one.messages) for one in self._outgoing)


def session_number(user: str, session: int) -> int:
    """Under which answers are remembered: nobody can ask for another user's."""
    if not session:
        return 0
    digest = hashlib.blake2b(f"{session} {user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _encode_step(work: Work) -> bytes:
    return _encode((work.done, [one.token for one in work.claims]))


HANDLERS: MappingProxyType[type, Callable[[ClientSession, Any, int], None]] = MappingProxyType(
    {
        PublishRequest: ClientSession._publish,
        FollowUpRequest: ClientSession._follow_up,
        StepRequest: ClientSession._step,
        InterruptRequest: ClientSession._interrupt,
        CallRequest: ClientSession._call,
        WatchRequest: ClientSession._watch,
        UnwatchRequest: ClientSession._unwatch,
        StartedNote: ClientSession._started,
    }
)
