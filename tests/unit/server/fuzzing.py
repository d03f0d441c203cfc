"""Frames that no honest client sends: requests of random values, honest ones with a few bytes changed, and noise."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.broker import Demand
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, RELEASE, Dead, RetryAt
from penstock.effects import Join, Publish, Put, ReleaseKey
from penstock.message import Dedup, Fence, Message, Unique, pack
from penstock.outcome import Outcome, Progress, State
from penstock.protocol import calls
from penstock.protocol.frames import frame
from penstock.protocol.requests import (
    CallRequest,
    Ended,
    FinishedLease,
    FollowUpRequest,
    Hello,
    InterruptRequest,
    ListenRequest,
    Ping,
    Pong,
    PublishRequest,
    StartedNote,
    StepRequest,
    UnlistenRequest,
    UnwatchRequest,
    WatchRequest,
)
from penstock.queue import OVERFLOWS, Queue

QUEUES = ("default", "other", "", "x" * 300, "a\0b", "é")
WORKERS = ("w" * 32, "v" * 32, "", "x" * 500)
NUMBERS = (0, 1, 2, 63, 64, 255, 1 << 32, (1 << 45) | 1, (1 << 46) | 3, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1)
TIMES = (0.0, 1.0, -1.0, 1e308, float("nan"), float("inf"), 30.0, 0.01)
TEXTS = ("", "a", "@1.1.0.0", "@77.3.0.0", "x" * 300, "a\0b", "0" * 32)
VALUES = (b"", b"1", b"null", b"[1", b"\xff\xfe", b'"' + b"x" * 200 + b'"')
RUNS = (b"[]", b'[["SUCCESS",1.0,0.1,0,"t",1,null]]', b"[null]", b"[1,2]", b"{}", b"[" * 500, b"\xff")
ADMINISTERED = ("users list", "broker set", "broker status", "nothing", "broker x", "users add", "tokens list")


class Fuzzer:
    """`known` are ids, rows and tokens that the broker has told; they are used as well as invented ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self._makers: tuple[Callable[[], object], ...] = (
            *(self.publish,) * 3,
            self.follow_up,
            *(self.step,) * 3,
            self.interrupt,
            *(self.call,) * 3,
            self.watch,
            self.unwatch,
            self.listen,
            self.unlisten,
            self.started,
            Ping,
            Pong,
        )

    def frame(self) -> bytes:
        """One frame, or what looks like some of one."""
        way = self.rng.random()
        if way < 0.55:
            return frame(self.rng.choice(self._makers)())
        if way < 0.85:
            return self._mutated(frame(self.rng.choice(self._makers)()))
        if way < 0.97:
            return frame(self._tree(0))
        return self.rng.randbytes(self.rng.randrange(1, 60))

    def hello(self) -> bytes:
        way = self.rng.random()
        honest = Hello(
            self.number(), self.number(), self.text(), self.text(), self.text(), self.text(), abs(self.number()) >> 2
        )
        if way < 0.5:
            return frame(honest)
        return self._mutated(frame(honest)) if way < 0.9 else self.frame()

    def _mutated(self, data: bytes) -> bytes:
        """With the length that its body has, mostly: else nothing behind it would be looked at."""
        body = bytearray(data[4:])
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            place = self.rng.randrange(len(body)) if body else 0
            match self.rng.randrange(4):
                case 0 if body:
                    body[place] = self.rng.randrange(256)
                case 1 if body:
                    del body[place : place + self.rng.randrange(1, 8)]
                case 2:
                    body[place:place] = self.rng.randbytes(self.rng.randrange(1, 5))
                case _ if body:
                    body[place] ^= 1 << self.rng.randrange(8)
        length = len(body) if self.rng.random() < 0.98 else self.rng.randrange(1 << 24)
        return length.to_bytes(4, "big") + body

    def _tree(self, depth: int) -> Any:
        if depth > 4 or self.rng.random() < 0.5:
            return self.rng.choice((None, True, self.number(), self.text(), self.moment(), self.value(), 10, 12, 20))
        if self.rng.random() < 0.8:
            return [self._tree(depth + 1) for _ in range(self.rng.randrange(8))]
        return {self.text(): self._tree(depth + 1) for _ in range(self.rng.randrange(3))}

    # Values.

    def number(self) -> int:
        return self.rng.choice(NUMBERS)

    def row(self) -> int:
        return self.rng.choice(self.rows) if self.rows and self.rng.random() < 0.7 else self.number()

    def token(self) -> int:
        return self.rng.choice(self.tokens) if self.tokens and self.rng.random() < 0.8 else self.number()

    def key(self) -> int | str:
        return self.row() if self.rng.random() < 0.7 else self.text()

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def queue(self) -> str:
        return QUEUES[0] if self.rng.random() < 0.8 else self.rng.choice(QUEUES)

    def worker(self) -> str:
        return WORKERS[0] if self.rng.random() < 0.8 else self.rng.choice(WORKERS)

    def moment(self) -> float:
        return self.rng.choice(TIMES)

    def value(self) -> bytes:
        return self.rng.choice(VALUES)

    def maybe(self, make: Callable[[], Any], nothing: Any = None, chance: float = 0.3) -> Any:
        return make() if self.rng.random() < chance else nothing

    def some(self, make: Callable[[], Any], most: int = 4) -> list[Any]:
        return [make() for _ in range(self.rng.randrange(most))]

    def message(self) -> Message:
        guards = self.rng.choice(
            ((), (), (), (Unique("k"),), (Dedup("d", self.moment()),), (Fence("f", self.number()),))
        )
        return Message(
            1 if self.rng.random() < 0.95 else self.number(),
            self.rng.choice(("t", "t", "", "x" * 300)) if self.rng.random() < 0.1 else "t",
            self.value(),
            id=self.maybe(self.text, None, 0.1),
            queue=self.queue(),
            priority=self.maybe(self.number, 5, 0.05),
            namespace=self.maybe(self.text, "", 0.02),
            partition=self.maybe(self.text, "", 0.05),
            eta=self.maybe(self.moment, None, 0.1),
            expires=self.maybe(self.moment, None, 0.1),
            guards=guards,
        )

    def body(self) -> bytes:
        body = pack(self.message())
        return self._mutated(b"\0\0\0\0" + body)[4:] if self.rng.random() < 0.1 else body

    def outcome(self) -> Outcome:
        state = State.SUCCESS if self.rng.random() < 0.9 else self.rng.choice(list(State))
        done = time.time() if self.rng.random() < 0.9 else self.moment()
        kind = self.rng.choice(("json", "json", "msgpack", "?"))
        value = self.rng.choice((b"1", b"null", b'"x"')) if kind == "json" else self.value()
        return Outcome(state, value, done, 0.1, self.maybe(self.number, 0, 0.05), kind)

    def effect(self) -> Any:
        return self.rng.choice(
            (
                lambda: Publish(self.message()),
                lambda: Join(self.text(), self.number(), b"1", self.number(), self.message()),
                lambda: ReleaseKey(self.text()),
                lambda: Put(self.text(), self.value(), self.maybe(self.number)),
            )
        )()

    def verdict(self) -> Any:
        return self.rng.choice(
            (ACK, ACK, ACK, RELEASE, Dead("no"), RetryAt(self.moment(), self.maybe(self.message), charge=True))
        )

    def demand(self) -> Demand:
        return Demand(
            tuple(self.some(self.queue, 3)) or ("default",),
            self.rng.choice((0, 1, 5, 50)) if self.rng.random() < 0.95 else self.number(),
            self.worker(),
            lease=self.maybe(self.moment, 30.0, 0.05),
            wait=self.maybe(self.moment, 0.0, 0.2),
            max_bytes=self.maybe(self.number, 1000, 0.05),
        )

    # Requests.

    def publish(self) -> object:
        batches = self.some(lambda: self.some(self.body), 3)
        return PublishRequest(self.number(), abs(self.number()), self.rng.random() < 0.2, self.moment(), batches)

    def follow_up(self) -> object:
        return FollowUpRequest(self.number(), abs(self.number()), self.rng.random() < 0.2, self.some(self.body))

    def step(self) -> object:
        finished = self.some(lambda: FinishedLease(abs(self.token()), self.rng.choice(RUNS)), 2)
        ended = self.some(
            lambda: Ended(
                self.token(),
                self.row(),
                self.verdict(),
                self.maybe(self.outcome, None, 0.7),
                tuple(self.some(self.effect, 2)),
                self.text(),
            )
        )
        again = self.rng.random() < 0.2
        return StepRequest(self.number(), self.number(), again, finished, ended, self.maybe(self.demand, None, 0.7))

    def interrupt(self) -> object:
        return InterruptRequest(self.number())

    def watch(self) -> object:
        return WatchRequest(self.some(self.key))

    def unwatch(self) -> object:
        return UnwatchRequest(self.some(self.key))

    def listen(self) -> object:
        return ListenRequest(self.some(self.key))

    def unlisten(self) -> object:
        return UnlistenRequest(self.some(self.key))

    def started(self) -> object:
        return StartedNote(self.worker(), self.some(lambda: (self.token(), self.row())))

    def call(self) -> object:
        verb = self.rng.choice((*calls.VERBS, "nothing"))
        if verb in ("purge", "reap") and self.rng.random() < 0.9:
            verb = "depth"
        arguments = self._tree(0) if self.rng.random() < 0.2 else self._arguments(verb)
        return CallRequest(self.number(), verb, calls.raw(arguments))

    def _arguments(self, verb: str) -> tuple[object, ...]:
        pair = lambda: (self.token(), self.row())  # noqa: E731
        worker = lambda: WorkerInfo(  # noqa: E731
            self.worker(),
            self.text(),
            self.text(),
            abs(self.number()),
            self.number(),
            (self.queue(),),
            "p",
            self.moment(),
        )
        made: dict[str, tuple[object, ...]] = {
            "extend": (self.some(pair), self.moment()),
            "depth": (self.queue(), ""),
            "store": (self.some(lambda: (self.key(), self.outcome())),),
            "fetch": (self.some(self.key),),
            "forget": (self.some(self.key),),
            "note": (self.key(), Progress(self.moment(), self.maybe(self.moment), self.text())),
            "append": (self.key(), self.number(), self.number(), self.some(lambda: (self.value(), self.text()))),
            "parts": (self.key(), self.number(), self.number()),
            "revoke": (self.some(self.key), self.rng.random() < 0.5),
            "join": (worker(),),
            "renew": (self.some(self.worker), self.moment()),
            "leave": (self.worker(),),
            "bury": (self.worker(), self.some(pair)),
            "acquire": (self.text(), self.text(), self.moment()),
            "resign": (self.text(), self.text()),
            "get": (self.text(),),
            "put": (self.text(), self.maybe(self.value), self.maybe(self.number)),
            "declare": (self.some(self._queue), ""),
            "queues": (self.maybe(self.text),),
            "peek": (self.queue(), self.number(), ""),
            "purge": (self.queue(), ""),
            "dead_letters": (self.maybe(self.queue), self.number(), ""),
            "retry_dead": (self.some(self.text),),
            "drop_dead": (self.some(self.text),),
            "administer": (self.rng.choice(ADMINISTERED), self.rng.choice((b"{}", b"[", b'{"slow":-1}', b"\xff"))),
        }
        return made.get(verb, ())

    def _queue(self) -> object:
        try:
            return Queue(
                self.queue(),
                max_length=self.rng.choice((1, 1000, 100_000)),
                overflow=self.rng.choice(OVERFLOWS),
            )
        except msgspec.MsgspecError:
            raise
        except Exception:
            return Queue("default")
