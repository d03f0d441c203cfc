"""A task that is part of a canvas: whether it is to be run, and what its end brings about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from penstock.broker import Key
from penstock.canvas.beginning import begun
from penstock.canvas.follow import ended, fate_of, succeeded
from penstock.canvas.graph import BEGIN, END, RELAY, VALUES, Graph
from penstock.codec import check_encoded, check_fate, fate_in, parted, spread
from penstock.delivery import ACK, Delivery, Settlement
from penstock.effects import MOST_GATHERED, Effect
from penstock.errors import DecodeError, MessageTooLarge
from penstock.message import Fate, Message, Place
from penstock.outcome import Outcome, State

INNER = frozenset({RELAY, END, BEGIN})
"""Tasks of a canvas that have no function."""

log = logging.getLogger("penstock.worker")


class Parts:
    """For one process. `now` is always Unix time."""

    def __init__(self, public_id: Callable[[Key], str], largest: int) -> None:
        """`largest`: bytes of a message."""
        self._public_id = public_id
        self._largest = largest

    def unstarted(self, delivery: Delivery, message: Message, place: Place, now: float) -> Settlement | None:
        """What ends a part that is not to be run: it hands on what it is given, or has to end as that did. `None`: it
        is to be run. Raises `DecodeError`, `EncodeError`, `MessageTooLarge`."""
        if message.task == BEGIN:
            return Settlement(delivery.receipt, ACK, None, begun(message, place))
        fate = place.fate
        if fate is None and place.head is not None:
            if not message.body:
                raise MessageTooLarge(
                    f"the values that were gathered for it take more than {MOST_GATHERED:,} bytes: store the data "
                    "elsewhere, and return its keys"
                )
            fate = fate_in(message.body, message.content_type)
            if fate is None:
                message.body = spread(message.body, message.content_type)
        if fate is not None:
            check_fate(fate)
            return self._ends_as(delivery, message, place, fate, now)
        inner = message.task in INNER or place.bridge
        return self._hands_on(delivery, message, place, now) if inner else None

    def _ends_as(self, delivery: Delivery, message: Message, place: Place, fate: Fate, now: float) -> Settlement:
        state = State(fate.state)
        silent = place.instead or place.bridge or message.task == END
        outcome = None if silent else Outcome(state, fate.failure, now)
        log.info("task %s[%s] is not started: %s", message.task, self._public_id(delivery.key), state)
        return Settlement(delivery.receipt, ACK, outcome, self._without(delivery, message, place, fate, now))

    def _hands_on(self, delivery: Delivery, message: Message, place: Place, now: float) -> Settlement:
        value = place.body(message.body)
        check_encoded(value, message.content_type)  # it is stored as it is
        more: Sequence[bytes] = ()
        if place.bridge == VALUES:
            value, more = parted(value, message.content_type)
        effects = self.after(delivery, message, place, value, message.content_type, now, more)
        done = Outcome(State.SUCCESS, value, now, 0.0, 0, message.content_type)
        return Settlement(delivery.receipt, ACK, None if message.task == END or place.bridge else done, effects)

    def after(
        self,
        delivery: Delivery,
        message: Message,
        place: Place,
        value: bytes,
        content_type: str,
        now: float,
        more: Sequence[bytes] = (),
    ) -> tuple[Effect, ...]:
        """What a value brings about. Raises `EncodeError`, `MessageTooLarge`, `DecodeError`."""
        graph = self._graph(delivery, message)
        if graph is None:
            return ()
        name = partial(self._public_id, delivery.key)
        return tuple(succeeded(graph, place.node, value, content_type, name, now, self._largest, more))

    def ended(self, delivery: Delivery, message: Message, state: State, why: bytes, now: float) -> tuple[Effect, ...]:
        """What an end without a value brings about: nothing, for a task that is no part of a canvas."""
        place = message.options.place if message.options is not None else None
        if place is None:
            return ()
        fate = fate_of(state, why, place.node, message.task, self._public_id(delivery.key))
        return self._without(delivery, message, place, fate, now)

    def _without(
        self, delivery: Delivery, message: Message, place: Place, fate: Fate, now: float
    ) -> tuple[Effect, ...]:
        graph = self._graph(delivery, message)
        if graph is None:
            return ()
        try:
            return tuple(ended(graph, place.node, fate, message, self._public_id(delivery.key), now))
        except DecodeError:
            log.exception("nothing follows task %s[%s]", message.task, self._public_id(delivery.key))
            return ()

    def _graph(self, delivery: Delivery, message: Message) -> Graph | None:
        graph: Graph | None = delivery.graph
        if graph is None:
            log.warning(
                "task %s[%s] is part of a canvas that has ended, or was not published whole: nothing follows it",
                message.task,
                self._public_id(delivery.key),
            )
        return graph
