"""One publish of a client, until all of its batches are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.broker import Answer, Full
from penstock.engines.sqlite.joint import Work
from penstock.engines.sqlite.publishing import Outgoing, packed
from penstock.message import Message
from penstock.protocol.replies import Published, span_or_each
from penstock.protocol.requests import PublishRequest
from penstock.server.blocking import Held
from penstock.server.turns import Entry

if TYPE_CHECKING:
    from penstock.server.session import ClientSession

_encode = msgspec.msgpack.Encoder().encode


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

    def _note_refused(self) -> None:
        session = self._session
        who = f"{session.identity.user}@{session.peer.address}"
        for number in self._open:
            for message, found in zip(self._outgoing[number].messages, self._answers[number], strict=True):
                if type(found) is Full:
                    session.space.refuse(who, message)

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
        if self._open:
            self._note_refused()
        session.published += len(self._outgoing[0].messages) if len(self._outgoing) == 1 else self._count()
        session.peer.send(Published(self._request.number, self._told or self._spans(self._answers)))

    def _count(self) -> int:
        return sum(len(one.messages) for one in self._outgoing)
