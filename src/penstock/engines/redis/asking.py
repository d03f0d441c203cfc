"""Messages, settlements and demands as the arguments of scripts. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from penstock.broker import Demand
from penstock.delivery import Ack, Dead, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish, Put, ReleaseKey
from penstock.engines.redis.names import Lanes, Mint, check_id, escaped, queue_key
from penstock.engines.redis.pages import pack_outcome
from penstock.engines.redis.wire import Part
from penstock.errors import ConfigError, EncodeError, Unsupported
from penstock.message import Dedup, Fence, Guard, Limit, Message, Unique, pack
from penstock.queue import MAX_BYTES, MAX_LENGTH

_encode = msgspec.msgpack.Encoder().encode
ARRAY_HEAD = 3
"""Bytes before the first field of a packed message: it has 16 fields or more."""


class Publishing:
    """One batch: `args` for the script; `ids`, in the order of the messages; `order`, in which the script answers."""

    __slots__ = ("args", "ids", "order")

    def __init__(self, batch: Sequence[Message], lanes: Lanes, mint: Mint) -> None:
        self.ids: list[str] = []
        self.order: list[int] | None = None
        self.args: list[Part]
        plain = True
        groups: dict[bytes, list[Part]] = {}
        places: dict[bytes, list[int]] = {}
        try:
            for number, message in enumerate(batch):
                task_id = message.id
                if task_id is None:
                    # For the moment of packing only: the message is the caller's, who may publish it again.
                    task_id = message.id = mint()
                    data = pack(message)
                    message.id = None
                else:
                    check_id(task_id)
                    data = pack(message)
                self.ids.append(task_id)
                if message.guards or message.eta is not None or message.attempts:
                    plain = False
                lane = lanes.key(message.namespace, message.queue, message.priority, message.partition)
                group = groups.get(lane)
                if group is None:
                    group = groups[lane] = []
                    places[lane] = []
                group.append(task_id)
                group.append(lane + b" " + data)
                places[lane].append(number)
        except UnicodeEncodeError as error:
            raise EncodeError(f"a text of a message is not valid Unicode: {error}") from None
        if plain and len(set(self.ids)) == len(self.ids):
            self.args = [MAX_LENGTH, MAX_BYTES, len(groups)]
            for lane, group in groups.items():
                self.args += (lane, len(group) // 2)
                self.args += group
            self.args.append(0)
            if len(groups) > 1:
                self.order = [number for numbers in places.values() for number in numbers]
            return
        self.args = [MAX_LENGTH, MAX_BYTES, 0, len(batch)]
        for number, message in enumerate(batch):
            self.args += message_args(message, self.ids[number], lanes)


def message_args(message: Message, task_id: str, lanes: Lanes) -> list[Part]:
    """One message with all its fields, as `take_message` reads it."""
    if message.id != task_id:
        message = replace(message, id=task_id)
    limit = _limit(message)
    lane = _lane(message, lanes, limit)
    value = lane + _terms(limit, message.expires) + b" " + pack(message)
    due = "" if message.eta is None else _time(message.eta)
    # A limit is no guard there, but a part of the lane: it refuses nothing.
    args: list[Part] = [task_id, lane, value, due, max(0, message.attempts), len(message.guards)]
    for guard in message.guards:
        args += _guard(guard)
    return args


def _guard(guard: Guard) -> list[Part]:
    match guard:
        case Unique(key=key, until=until, ttl=ttl, on_conflict=on_conflict):
            return ["U", key, until, "" if ttl is None else _time(ttl), on_conflict]
        case Dedup(key=key, ttl=ttl):
            return ["D", key, _time(ttl)]
        case Fence(name=name, token=token):
            return ["F", escaped(name), str(token)]
        case Limit():
            return ["L"]


def _limit(message: Message) -> Limit | None:
    return next((guard for guard in message.guards if isinstance(guard, Limit)), None)


def _lane(message: Message, lanes: Lanes, limit: Limit | None) -> bytes:
    lane = lanes.key(message.namespace, message.queue, message.priority, message.partition)
    return lane if limit is None else lane + b"/" + escaped(limit.key).encode()


def _terms(limit: Limit | None, expires: float | None) -> bytes:
    """What stands behind the lane of a limited message, so that no script has to read the message itself."""
    if limit is None:
        return b""
    rate = "" if limit.rate is None else _time(limit.rate)
    concurrency = "" if limit.concurrency is None else limit.concurrency
    end = "" if expires is None else f";{_time(expires)}"
    return f";{_time(limit.cost)};{rate};{_time(limit.burst)};{concurrency}{end}".encode()


def fresh_value(message: Message) -> bytes:
    """What is stored of a message that takes the place of another of its id, without its lane."""
    return _terms(_limit(message), message.expires) + b" " + pack(message)


def _time(value: float) -> str:
    if not math.isfinite(value):
        raise ConfigError(f"a time must be finite, not {value!r}")
    return repr(float(value))


class Settling:
    """The settlements of one step: `args` for the script; `order`, in which it answers, by their place."""

    __slots__ = ("args", "order")

    def __init__(self, settle: Sequence[Settlement], queue_of: dict[str, str], lanes: Lanes) -> None:
        groups: dict[str, tuple[list[Part], list[int]]] = {}
        sizes: dict[str, int] = {}
        others: list[int] = []
        receipts = {item.receipt for item in settle}
        # Of two ends of one delivery, the first holds: then each is settled in its turn.
        twice = len(receipts) != len(settle)
        for number, item in enumerate(settle):
            if twice or item.effects or type(item.verdict) is not Ack:
                others.append(number)
                continue
            token, size, task, task_id = item.receipt
            group = groups.get(token)
            if group is None:
                group = groups[token] = ([], [])
                sizes[token] = 0
            sizes[token] += size
            outcome = item.outcome
            group[0].append(task_id)
            group[0].append(b"" if outcome is None else pack_outcome(outcome, task, queue_of.get(token)))
            group[1].append(number)
        self.order: list[int] = []
        self.args: list[Part] = [len(groups)]
        for token, (pairs, numbers) in groups.items():
            self.args += (token, len(numbers), sizes[token])
            self.args += pairs
            self.order += numbers
        self.args.append(len(others))
        for number in others:
            self.args += _settlement(settle[number], queue_of, lanes)
        self.order += others


def _settlement(item: Settlement, queue_of: dict[str, str], lanes: Lanes) -> list[Part]:
    token, _, task, task_id = item.receipt
    verdict = item.verdict
    record = b"" if item.outcome is None else pack_outcome(item.outcome, task, queue_of.get(token))
    letter, when, value, charge, reason = "L", "", b"", "0", ""
    match verdict:
        case Ack():
            letter = "A"
        case Dead():
            letter, reason = "D", verdict.reason
        case RetryAt():
            letter, when, charge = "R", _time(verdict.when), "1" if verdict.charge else "0"
            if verdict.message is not None:
                message = verdict.message
                value = fresh_value(message if message.id == task_id else replace(message, id=task_id))
    args: list[Part] = [token, task_id, letter, when, value, charge, reason, record, len(item.effects)]
    for effect in item.effects:
        args += _effect(effect, lanes)
    return args


def _effect(effect: Effect, lanes: Lanes) -> list[Part]:
    match effect:
        case Publish(message=message):
            return ["P", *message_args(message, _own_id(message), lanes)]
        case Join(then=then):
            head, tail = around_body(then)
            limit = _limit(then)
            is_json = "1" if _is_json(then.content_type) else "0"
            args: list[Part] = [
                "J",
                effect.id,
                effect.index,
                effect.value,
                effect.size,
                is_json,
                _lane(then, lanes, limit) + _terms(limit, then.expires) + b" " + head,
                tail,
            ]
            return [*args, *message_args(then, _own_id(then), lanes)]
        case ReleaseKey(key=key):
            return ["K", key]
        case Put(key=key, value=value, if_version=version):
            return ["S", key, int(value is None), value or b"", "" if version is None else version]


def _own_id(message: Message) -> str:
    if message.id is None:
        raise ConfigError(f"task {message.task!r}: a follow-up has an id derived from its parent's")
    check_id(message.id)
    return message.id


def _is_json(content_type: str) -> bool:
    if content_type in ("json", "msgpack"):
        return content_type == "json"
    raise Unsupported(f"a join cannot gather values of content type {content_type!r}; it can with json or msgpack")


def around_body(message: Message) -> tuple[bytes, bytes]:
    """What is before and after the body in the packed message: who gathers its values puts it between."""
    data = pack(replace(message, body=b""))
    place = ARRAY_HEAD + len(_encode(message.version)) + len(_encode(message.task))
    return data[:place], data[place + 2 :]


def demand_args(want: Demand, waiter: str, was_waiting: bool, wait: float) -> list[Part]:
    return [
        1,
        max(0, want.limit),
        want.max_bytes,
        _time(want.lease),
        escaped(want.worker),
        waiter,
        int(was_waiting),
        wait,
        len(want.queues),
        *(queue_key(want.namespace, queue) for queue in want.queues),
    ]
