"""Parts over a broker: who may add them and see them, how often they are told, and what is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from penstock.broker import Accepted, Demand
from penstock.delivery import Delivery
from penstock.engines.server import ServerEngine
from penstock.errors import AccessRefused, ConfigError
from penstock.message import Message
from penstock.outcome import Outcome, Part, Parts, State
from penstock.protocol import calls
from penstock.protocol.replies import Added, Failed, Value
from penstock.protocol.requests import CallRequest, ListenRequest, UnlistenRequest
from penstock.server import session
from penstock.server.access.rights import Permission
from tests.unit.server.house import House

DONE = Outcome(State.SUCCESS, b"5", 1.0)
NOTHING = Parts(0, 0, [], ended=True)
W, R = "w" * 32, "r" * 32


@pytest.fixture
def as_user(house: House) -> Iterator[Callable[[str], ServerEngine]]:
    """`wes` may publish to what is named job…, `rea` read it, `bob` do all in what is named other…."""
    house.permit("wes", Permission("/", "job.*", "job.*", ""))
    house.permit("rea", Permission("/", "", "", "job.*"))
    house.permit("bob", Permission("/", "other.*", "other.*", "other.*"))
    house.do(house.broker.book.refresh)
    engines: dict[str, ServerEngine] = {}

    def engine(user: str) -> ServerEngine:
        if user not in engines:
            engines[user] = house.engine(user)
        return engines[user]

    yield engine
    for one in engines.values():
        one.close()


def publish(engine: ServerEngine) -> int:
    [answer] = engine.run(engine.broker.publish([Message(1, "t", b"1", queue="job")], 5.0))
    assert isinstance(answer, Accepted)
    assert isinstance(answer.key, int)
    return answer.key


def take(engine: ServerEngine) -> Delivery:
    [delivery] = engine.run(engine.broker.step([], Demand(("job",), 1, R))).deliveries
    return delivery


def append(engine: ServerEngine, key: int | str, mark: int = 1) -> bool:
    return engine.run(engine.backend.append(key, 0, mark, [(b"5", "json")]))


def test_those_add_who_may_run_it_and_those_see_who_may_see_the_result(as_user: Callable[[str], ServerEngine]) -> None:
    wes, rea, bob = map(as_user, ("wes", "rea", "bob"))
    key = publish(wes)
    take(rea)
    with pytest.raises(AccessRefused):
        append(wes, key)
    for name in (key, wes.broker.public_id(key)):
        with pytest.raises(ConfigError, match="not known here"):
            append(bob, name)
    assert append(rea, key)
    for engine in (wes, rea):
        found = engine.run(engine.backend.parts(engine.broker.public_id(key), 0, 10))
        assert found == Parts(0, 1, [Part(0, 0, b"5")], ended=False)
    assert bob.run(bob.backend.parts(key, 0, 10)) == NOTHING


def test_a_number_that_is_not_given_yet_is_nobodys_to_write_to(as_user: Callable[[str], ServerEngine]) -> None:
    wes, rea = as_user("wes"), as_user("rea")
    key = publish(wes)
    for engine in (wes, rea):
        with pytest.raises(ConfigError, match="not known here"):
            append(engine, key + 1)
        for name in (key + 1, wes.broker.public_id(key + 1)):
            with pytest.raises(ConfigError, match="not known here"):
                engine.run(engine.backend.store([(name, DONE)]))
    assert publish(wes) == key + 1
    [report] = wes.run(wes.backend.fetch([key + 1]))
    assert report.state is State.PENDING


def test_who_may_only_publish_writes_no_result_under_an_id_that_is_still_to_come(
    as_user: Callable[[str], ServerEngine],
) -> None:
    wes = as_user("wes")
    with pytest.raises(AccessRefused):
        wes.run(wes.backend.store([("import-0", DONE)]))
    with pytest.raises(AccessRefused):
        append(wes, "import-0")
    answers = wes.run(wes.broker.publish([Message(1, "t", b"1", queue="job", id="import-0")], 5.0))
    assert answers == [Accepted("import-0")]


def test_the_result_of_a_task_that_is_elsewhere_is_for_who_knows_its_id(as_user: Callable[[str], ServerEngine]) -> None:
    rea, bob = as_user("rea"), as_user("bob")
    rea.run(rea.backend.store([("elsewhere", DONE)]))
    append(rea, "running elsewhere")
    for number in (1, 2):
        for key in (number, bob.broker.public_id(number)):
            [report] = bob.run(bob.backend.fetch([key]))
            assert (report.state, report.outcome) == (State.UNKNOWN, None)
            assert bob.run(bob.backend.parts(key, 0, 10)) == NOTHING
            with pytest.raises(ConfigError, match="not known here"):
                append(bob, key)
            bob.run(bob.backend.forget([key]))
    [report] = bob.run(bob.backend.fetch(["elsewhere"]))
    assert report.outcome == DONE
    assert append(rea, "running elsewhere", 2)


def test_who_listens_is_told_at_once_and_then_once_until_somebody_reads(
    house: House, as_user: Callable[[str], ServerEngine]
) -> None:
    wes, rea = as_user("wes"), as_user("rea")
    key = publish(wes)
    take(rea)
    name = wes.broker.public_id(key)
    with house.client("wes") as client, house.client("bob") as stranger:
        stranger.send(ListenRequest([key, name]), CallRequest(1, "depth", calls.raw(("other", ""))))
        assert isinstance(stranger.read(), Value)  # and nothing before it
        client.send(ListenRequest([key, name, key]))
        assert client.read() == Added([key, name])
        for mark in (1, 2):
            append(rea, key, mark)
        assert client.read() == Added([key])
        assert client.read() == Added([name])
        client.send(CallRequest(1, "parts", calls.raw((name, 0, 10))))
        assert isinstance(client.read(), Value)
        append(rea, key, 3)
        assert client.read() == Added([key])
        client.send(UnlistenRequest([key, name]), CallRequest(2, "parts", calls.raw((key, 0, 10))))
        client.read_until(Value)
        append(rea, key, 4)
        client.send(CallRequest(3, "depth", calls.raw(("job", ""))))
        assert client.read_until(Value).number == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("id", -1, 1, []), "malformed"),
        (("id", 0, 1 << 63, []), "malformed"),
        (("id", 0, 1, [(b"1", "json")] * 10_001), "malformed"),
        (("id", 0, 1, [(b"x" * (4 << 20), "json"), (b"x", "json")]), "too-large"),
        (("id", 0, 1, [(b"1", "x" * 101)]), "config"),
        (("", 0, 1, [(b"1", "json")]), "config"),
        ((1 << 63, 0, 1, []), "malformed"),
    ],
    ids=["run", "mark", "number", "bytes", "content type", "id", "row"],
)
def test_what_is_too_much_is_refused(house: House, arguments: tuple[object, ...], code: str) -> None:
    with house.client() as client:
        client.send(CallRequest(1, "append", calls.raw(arguments)))
        assert client.read_until(Failed).code == code


def test_offsets_of_any_size_are_answered(house: House) -> None:
    with house.client() as client:
        client.send(CallRequest(1, "append", calls.raw(("id", 0, 1, [(b"1", "json"), (b"2", "json")]))))
        client.read_until(Value)
        for offset, limit, wanted in (
            (-(1 << 63), (1 << 63) - 1, 2),
            ((1 << 63) - 1, (1 << 63) - 1, 0),
            (1, 1, 1),
            (0, 0, 0),
        ):
            client.send(CallRequest(2, "parts", calls.raw(("id", offset, limit))))
            found = calls.VERBS["parts"].read_answer(client.read_until(Value).value)
            assert (found.first, found.end, len(found.parts)) == (0, 2, wanted)


def test_listening_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_WATCHED", 3)
    with house.client() as client:
        client.send(ListenRequest(["a", "b", "c"]))
        assert client.read() == Added(["a", "b", "c"])
        client.send(ListenRequest(["c", "d"]))
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                client.read()
