"""What the dispatch refuses for every engine, by its features."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.broker import Broker, Features
from penstock.delivery import ACK, Settlement
from penstock.dispatch import Call, Dispatch
from penstock.effects import KINDS, Effect, Join, Publish, Put, ReleaseKey
from penstock.engines.memory import MemoryEngine, open_engine
from penstock.engines.memory.broker_face import FEATURES, MemoryBroker
from penstock.errors import ConfigError, MessageTooLarge, Unsupported
from penstock.message import VERSION, Fence, Message, Unique


def message(**fields: Any) -> Message:
    return Message(VERSION, "t", b"[]", **fields)


def engine_with(calls: list[Call], **lacks: Any) -> tuple[MemoryEngine, Dispatch]:
    """A memory engine that says it lacks something, behind a dispatch."""
    engine = open_engine("memory://")
    features: Features = replace(FEATURES, **lacks)

    class Lacking(MemoryBroker):
        @property
        def features(self) -> Features:
            return features

    broker: Broker = Lacking(engine._store)
    return engine, Dispatch(broker, [calls.append])


@pytest.mark.parametrize(
    ("lacks", "fields", "says"),
    [
        ({"priority": False}, {"priority": 9}, "no priorities"),
        ({"delay": False}, {"eta": 1e12}, "cannot delay"),
        ({"partition": False}, {"partition": "p"}, "no partitions"),
        ({"guards": frozenset()}, {"guards": (Unique("k"),)}, "no Unique guard"),
        ({"guards": frozenset({"Unique"})}, {"guards": (Fence("f", 1),)}, "no Fence guard"),
        ({"effects": frozenset({"Publish"})}, {"guards": (Unique("k"),)}, "no ReleaseKey effect to free its key"),
    ],
)
@pytest.mark.parametrize("verb", ["publish", "follow_up"])
def test_what_the_engine_lacks_is_refused_and_nothing_is_sent(
    verb: str, lacks: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    calls: list[Call] = []
    engine, dispatch = engine_with(calls, **lacks)
    with pytest.raises(Unsupported, match=says):
        engine.run(getattr(dispatch, verb)([message(), message(**fields)], 5.0))
    assert engine.run(dispatch.depth("default")) == 0
    assert calls == []


def test_what_is_too_much_or_out_of_range_is_refused_by_every_engine() -> None:
    engine, dispatch = engine_with([], max_batch=1)
    with pytest.raises(MessageTooLarge, match="2 messages in one batch; memory accepts 1"):
        engine.run(dispatch.publish([message(), message()], 5.0))
    with pytest.raises(ConfigError, match=re.escape("priority must be between 0 and 9, not 10")):
        engine.run(dispatch.publish([message(priority=10)], 5.0))


@pytest.mark.parametrize(
    "effect",
    [Publish(message()), Join("j", 0, b"1", 2, message()), ReleaseKey("k"), Put("k", b"v")],
    ids=lambda one: type(one).__name__,
)
def test_an_effect_that_the_engine_lacks_is_refused(effect: Effect) -> None:
    kind = type(effect).__name__
    engine, dispatch = engine_with([], effects=KINDS - {kind})
    with pytest.raises(Unsupported, match=f"no {kind} effect"):
        engine.run(dispatch.step([Settlement((1, "x"), ACK, None, (effect,))], None))


def test_observers_see_follow_ups() -> None:
    calls: list[Call] = []
    engine, dispatch = engine_with(calls)
    engine.run(dispatch.follow_up([message(id="a"), message(id="b")], 5.0))
    assert [(call.verb, call.items, call.error) for call in calls] == [("follow_up", 2, None)]
