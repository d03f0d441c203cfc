"""A full queue of a broker that sheds: who may make it do so, and what is there after a restart."""

from __future__ import annotations

from penstock.broker import Accepted, Full
from penstock.engines.server import ServerEngine
from penstock.message import Message
from penstock.queue import Queue
from penstock.server.access.rights import Permission
from tests.unit.server.house import House


def publish(engine: ServerEngine) -> object:
    [answer] = engine.run(engine.broker.publish([Message(1, "t", b"[]", queue="job")], 5.0))
    return answer


def test_who_may_publish_may_take_the_place_of_another(house: House) -> None:
    """And needs no right to read for it, nor to configure."""
    house.permit("wes", Permission("/", "", "job", ""))
    house.do(house.broker.book.refresh)
    engine, wes = house.engine(), house.engine("wes")
    engine.run(engine.inspect.declare([Queue("job", 1, overflow="drop-oldest")]))
    first = publish(engine)
    assert isinstance(first, Accepted)
    assert isinstance(publish(wes), Accepted)
    [letter] = engine.run(engine.inspect.dead_letters("job"))
    assert letter.id == engine.broker.public_id(first.key)
    engine.run(engine.inspect.declare([Queue("job", 1)]))
    assert isinstance(publish(wes), Full)
    for one in (engine, wes):
        one.close()
