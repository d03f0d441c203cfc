"""A signed-in client in its namespace: each of its requests is checked, and given to the turns or to a verb."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from penstock.broker import Accepted, Answer, Conflict, Demand, Duplicate
from penstock.delivery import RetryAt, Settlement
from penstock.engines.sqlite.claiming import Claimed
from penstock.engines.sqlite.joint import Finished, Work
from penstock.engines.sqlite.watching import Watch
from penstock.errors import ConfigError, PenstockError
from penstock.message import Message
from penstock.outcome import Report
from penstock.protocol.refusals import code_of
from penstock.protocol.replies import Added, ClaimReply, Failed, Published, Stepped, Told, answers_of, span_or_each
from penstock.protocol.requests import (
    MOST_ITEMS,
    CallRequest,
    Ended,
    FollowUpRequest,
    InterruptRequest,
    ListenRequest,
    PublishRequest,
    StartedNote,
    StepRequest,
    UnlistenRequest,
    UnwatchRequest,
    WatchRequest,
)
from penstock.server.access.identity import Identity
from penstock.server.access.rights import Right
from penstock.server.checking import check_finite, check_outcome, read_message
from penstock.server.part_listening import PartListening
from penstock.server.peer import Peer
from penstock.server.publishing import Publishing
from penstock.server.rights_check import RightsCheck
from penstock.server.space import Space
from penstock.server.turns import Entry
from penstock.server.verbs import VERBS, Call

MAX_BATCH = 1_000
"""Messages of one batch, and settlements of one step."""
MAX_WATCHED = 1_000_000
"""Tasks whose results one client waits for."""
MAX_CLAIM = 8 << 20
"""Bytes of the messages of one claim: an answer fits into a frame. A larger one comes alone."""
TOLD_AT_ONCE = 1 << 20
"""Bytes of results that are pushed together. What is beyond is told without, and asked for at the client's pace."""
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
        self._listening = PartListening(space.store, lambda key: self.peer.send(Added([key])))
        self.credit = 0
        """Tasks that it has asked for and not got yet."""
        self.published = self.delivered = self.settled = 0

    def __str__(self) -> str:
        return f"{self.identity.user}@{self.peer.address} ({self.client})"

    @property
    def watched(self) -> int:
        """Tasks whose results or parts it waits for."""
        return len(self._watches) + len(self._listening)

    def handle(self, request: Any, size: int) -> None:
        if self._turns.closed:
            self.peer.refuse("unavailable", "the broker stops")
            return
        act = HANDLERS[type(request)]
        if getattr(request, "again", False):
            self._when_done(size, lambda: act(self, request, size))
        else:
            act(self, request, size)

    def _when_done(self, size: int, act: Callable[[], None]) -> None:
        """What this repeats may be under way, from a connection that was lost: its answer is known after it."""

        def go_on() -> None:
            self.peer.answered(size)
            if not self.peer.closed:
                act()

        self.peer.began(size)
        self._turns.when_done(go_on)

    # Publishing.

    def _publish(self, request: PublishRequest, size: int) -> None:
        if request.again and self._heard(request.mark, request.number, self._send_published):
            return
        try:
            self.space.store.spare.check()
            if sum(map(len, request.batches)) > MOST_ITEMS:
                raise ConfigError(f"more than {MOST_ITEMS:,} messages in one frame")
            batches = [self._read_batch(bodies) for bodies in request.batches]
        except (PenstockError, msgspec.DecodeError) as error:
            self._fail(request.number, error)
            return
        if any(message.id is not None and message.id[:1] == "@" for batch in batches for message in batch):
            self._when_done(size, lambda: self._submit(request, batches, size))
        else:
            self._submit(request, batches, size)

    def _submit(self, request: PublishRequest, batches: list[list[Message]], size: int) -> None:
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
        try:
            batches = [] if blob is None else _read_published(blob).batches
        except msgspec.DecodeError:  # it was no publish
            return None
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
                answers = done.answers[0] if done.answers else []
                self.peer.send(Published(request.number, [span_or_each(self.named(answers))]))

        self.peer.began(size)
        self._turns.submit(Entry(work, reply, len(messages)))

    def _encode_published(self, work: Work) -> bytes:
        return _encode(Published(0, [span_or_each(self.named(answers)) for answers in work.answers]))

    def named(self, answers: list[Answer]) -> list[Answer]:
        """With public ids for a client that does not make them itself."""
        if not self._names:
            return answers
        return [
            replace(one, key=self.space.store.ids.make(one.key))
            if isinstance(one, Accepted | Duplicate | Conflict) and isinstance(one.key, int)
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
                self._check_end(one)
            if want is not None:
                self.rights.demand(want)
                if want.max_bytes > MAX_CLAIM:
                    want = request.want = replace(want, max_bytes=MAX_CLAIM)
                if request.number in self._waiting:
                    raise ConfigError(f"request {request.number} waits for its answer: each has a number of its own")
        except (PenstockError, msgspec.DecodeError) as error:
            self._fail(request.number, error)
            return

        def go_on(number: int, blob: bytes) -> None:
            self._serve_step(request, size, _read_step(blob))

        if not (request.again and self._heard(request.mark, request.number, go_on)):
            self._serve_step(request, size, None)

    def _check_end(self, end: Ended) -> None:
        if end.outcome is not None:
            check_outcome(end.outcome)
        if end.effects:
            self.rights.effects(end.effects)
        if type(end.verdict) is RetryAt:
            check_finite("the time of a retry", end.verdict.when)
            if end.verdict.message is not None:
                read_message(msgspec.msgpack.encode(end.verdict.message))

    def _serve_step(self, request: StepRequest, size: int, earlier: tuple[list[bool], list[int]] | None) -> None:
        want = request.want
        split = len(request.finished)
        done = [] if earlier is None else earlier[0]
        if earlier is not None and earlier[1] and want is not None:
            claims = self._turns.joint.reclaim(earlier[1], want.worker)
            self._send_step(request.number, done, split, _replies(claims))
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
            lambda: self._ready(want),
        )
        self.peer.began(size)
        if want is not None:
            self.credit += want.limit
        self._waiting[request.number] = entry
        if not work.finished and not work.settle and entry.waits > 0 and self._idle == (want, self._turns.wakes):
            self._turns.park(entry)  # nothing has come since it last looked; what comes due wakes who waits
        else:
            self._turns.submit(entry)

    def _ready(self, want: Demand | None) -> bool:
        """It reads, and may still do what it asked for a while ago."""
        if self.peer.stalled is not None or self.peer.closed:
            return False
        return want is None or all(self.rights.may(Right.READ, queue) for queue in want.queues)

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
        self._send_step(request.number, earlier or work.done, len(request.finished), _replies(work.claims))

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
        if self.watched + len(keys) > MAX_WATCHED:
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
        room = TOLD_AT_ONCE if self.peer.stalled is None else 0
        told = []
        for report in reports:
            if report.outcome is not None:
                room -= len(report.outcome.value)
                if room < 0:
                    report = replace(report, outcome=None)
            told.append(report)
        self.peer.send(Told(told))

    def _listen(self, request: ListenRequest, size: int) -> None:
        keys = [key for key in dict.fromkeys(request.keys) if key not in self._listening and self.rights.sees(key)]
        if self.watched + len(keys) > MAX_WATCHED:
            self.peer.cut("malformed", f"more than {MAX_WATCHED:,} results are waited for")
            return
        self._listening.add(keys)
        if keys:
            self.peer.send(Added(keys))  # what came before this was read, nobody was told

    def _unlisten(self, request: UnlistenRequest, size: int) -> None:
        self._listening.drop(request.keys)

    # The rest.

    def _started(self, note: StartedNote, size: int) -> None:
        if self.space.crew.user_of(note.worker) == self.identity.user:
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
        if not isinstance(error, PenstockError | msgspec.DecodeError | UnicodeDecodeError):
            log.error("%s: a request failed: %r", self, error, exc_info=error)
            self.peer.send(Failed(number, "failed", "the broker could not do this; its log tells why"))
            return
        code = code_of(error) if isinstance(error, PenstockError) else "malformed"
        self.peer.send(Failed(number, code, str(error)))

    def mark(self, mark: int) -> tuple[int, int] | None:
        return (self.number, mark) if self.number and mark > 0 else None

    def _heard(self, mark: int, number: int, send: Callable[[int, bytes], None]) -> bool:
        """Answer as before what was asked before, if that is known."""
        blob = self._turns.joint.heard(self.number, mark) if self.number and mark > 0 else None
        if blob is None:
            return False
        try:
            send(number, blob)
        except msgspec.DecodeError:
            self._fail(number, ConfigError(f"mark {mark} was another kind of request: each has a mark of its own"))
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
        self._listening.close()
        self.space.blocked.drop(self.peer)
        self.space.crew.lost(self, closed=clean)

    def forget(self) -> None:
        """It leaves of its own will, and asks nothing again."""
        if self.number:
            self._turns.joint.forget_session(self.number)


def session_number(user: str, session: int) -> int:
    """Under which answers are remembered: nobody can ask for another user's."""
    if not session:
        return 0
    digest = hashlib.blake2b(f"{session} {user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _replies(claims: Sequence[Claimed]) -> list[ClaimReply]:
    return [ClaimReply(one.token, one.rows, one.let_go) for one in claims]


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
        ListenRequest: ClientSession._listen,
        UnlistenRequest: ClientSession._unlisten,
    }
)
