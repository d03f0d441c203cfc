"""What comes in is verified first, what goes out is compressed and signed, and refusals keep the message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import Penstock
from penstock.canvas.graph import Call, Edge, Gathering, Go, Graph, Into, Span
from penstock.clock import ManualClock
from penstock.codec import Trust, fate_in, read_failure
from penstock.codec.signing import key_id
from penstock.delivery import Ack, Dead, Delivery, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish
from penstock.engines.memory.settling import array
from penstock.errors import Retry, SignatureError
from penstock.message import Message, Options, Place, pack, unpack
from penstock.outcome import State
from penstock.pools.threads import Threads
from penstock.request import current
from penstock.worker.banner import banner
from penstock.worker.packing import PackingRunner, runner_of
from penstock.worker.plan import Plans
from penstock.worker.run import Runner
from penstock.worker.settings import WorkerOptions
from penstock.worker.slot import Batch, Slot
from tests import keys
from tests.unit.worker.one_run import run_once

OURS, THEIRS = keys.private(), keys.private()


@pytest.fixture(autouse=True)
def no_request_stays() -> Iterator[None]:
    yield
    current.set(None)


class Bench:
    """A worker's runner for one app, and another app that sends to it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        security = {"security_key": keys.pem(OURS), "security_cert_store": [keys.public_pem(THEIRS)], **settings}
        self.app = Penstock("unit", broker="memory://", clock=self.clock, **security)
        self.sender = Penstock("sender", broker="memory://", clock=self.clock, security_key=keys.pem(THEIRS))
        self.slot = Slot(0, Batch())
        self.runner = runner_of(self.app, Plans(self.app), self.app.engine.broker, "me", self.clock, Threads.traits)
        self.runner._record_start = lambda slot, receipt: None

    def sent(self, task: str = "t", *args: Any, **options: Any) -> Message:
        """A call as the sender publishes it."""
        message = self.sender.client.prepare_unknown(task, args, {}, {"task_id": "id-1", **options})
        (message,) = self.sender.client._outgoing([message])
        return unpack(pack(message))

    def run(self, message: Message, key: str = "id-1") -> Settlement:
        return run_once(self.runner, self.slot, Delivery((7, 1), key, message), self.clock.monotonic)

    @property
    def trust(self) -> Trust:
        assert self.app.pipeline.trust is not None
        return self.app.pipeline.trust


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refusal(settlement: Settlement) -> str:
    """Why a message is a dead letter; its caller is told the same."""
    assert isinstance(settlement.verdict, Dead)
    assert settlement.outcome is not None
    assert settlement.outcome.state is State.FAILURE
    stored = read_failure(settlement.outcome.value)
    assert stored.message in settlement.verdict.reason
    return f"{stored.type}: {stored.message}"


def test_a_signed_call_runs_and_its_result_is_signed(bench: Bench) -> None:
    bench.app.task(name="t")(lambda x: 2 * x)
    settlement = bench.run(bench.sent("t", 4))
    assert isinstance(settlement.verdict, Ack)
    outcome = settlement.outcome
    assert outcome is not None
    assert outcome.content_type == "json+signed"
    assert bench.app.pipeline.result_in("id-1", outcome.value, outcome.content_type) == (b"8", "json")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"signed": None}, "it is not signed"),
        ({"body": b"[[5],{}]"}, "does not hold"),
        ({"content_type": "pickle"}, "does not hold"),
        ({"expires": None}, "does not hold"),
    ],
    ids=str,
)
def test_what_is_not_trusted_is_a_dead_letter(bench: Bench, changes: dict[str, Any], why: str) -> None:
    ran: list[int] = []
    bench.app.task(name="t")(ran.append)
    settlement = bench.run(replace(bench.sent("t", 4, expires=60), **changes))
    assert refusal(settlement).startswith("SignatureError: ")
    assert why in refusal(settlement)
    assert not ran


def test_a_replay_under_another_id_is_a_dead_letter(bench: Bench) -> None:
    bench.app.task(name="t")(lambda x: x)
    assert "it is a replay: it was signed as task id-1" in refusal(bench.run(bench.sent("t", 4), "id-2"))


def test_nothing_is_looked_at_before_the_signature(bench: Bench) -> None:
    # Each of these would have an end of its own if it were believed.
    for message in (
        replace(bench.sent("nobody knows"), signed=None),
        replace(bench.sent("t"), signed=None, expires=1.0),
        replace(bench.sent("t"), signed=None, attempts=99),
        replace(bench.sent("t"), signed=None, body=b"\xff", content_type="json+zlib"),
    ):
        assert "it is not signed" in refusal(bench.run(message))


def test_a_retry_keeps_the_senders_signature(bench: Bench) -> None:
    @bench.app.task(name="t", autoretry_for=(OSError,), default_retry_delay=5.0)
    def shaky(x: int) -> None:
        raise OSError

    first = bench.sent("t", 4)
    verdict = bench.run(first).verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert verdict.message.signed == first.signed
    bench.clock.advance(5.0)
    assert isinstance(bench.run(unpack(pack(verdict.message))).verdict, RetryAt)


def test_a_retry_with_new_arguments_is_signed_by_the_worker(bench: Bench) -> None:
    @bench.app.task(name="t")
    def shaky(x: int) -> None:
        raise Retry(args=(x + 1,), countdown=5.0)

    verdict = bench.run(bench.sent("t", 4)).verdict
    assert isinstance(verdict, RetryAt)
    again = verdict.message
    assert again is not None
    assert (again.body, again.retries) == (b"[[5],{}]", 1)
    bench.clock.advance(5.0)
    bench.trust.accepted(again, "id-1")
    assert bench.sender.pipeline.trust is not None
    with pytest.raises(SignatureError, match="not in security_cert_store"):
        bench.sender.pipeline.trust.accepted(again, "id-1")  # it does not accept the worker's key


def test_an_unknown_task_is_put_off_with_its_signature(bench: Bench) -> None:
    verdict = bench.run(bench.sent("later", 4)).verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert verdict.message.headers == {"penstock-unknown": "1"}
    bench.trust.accepted(verdict.message, "id-1")


def test_what_follows_is_signed(bench: Bench) -> None:
    following = Message(1, "next", b"[[],{}]", id="id-1-next")
    settle(bench, Publish(following))
    bench.trust.accepted(following, "id-1-next")


def run_part(bench: Bench, task: str, edge: Edge, *, sender: Penstock | None = None) -> Settlement:
    """The end of a task that something follows."""
    graph = Graph(
        "0" * 32, [Span(1, 1, (edge,))], {2: Call(Message(1, "next", b"[[],{}]"), b"[")}, [Gathering(2, 2)], 2
    )
    message = bench.sender.client.prepare_unknown(task, (), {}, {"task_id": "id-1"})
    message.options = Options(place=Place(graph.id, 1))
    (message,) = (sender or bench.sender).client._outgoing([message])
    delivery = Delivery((7, 1), "id-1", unpack(pack(message)), graph=graph)
    return run_once(bench.runner, bench.slot, delivery, bench.clock.monotonic)


def test_what_is_not_trusted_brings_nothing_about(bench: Bench) -> None:
    stranger = Penstock("stranger", broker="memory://", clock=bench.clock, security_key=keys.pem(keys.private()))
    settlement = run_part(bench, "t", Go(2), sender=stranger)
    assert "not in security_cert_store" in refusal(settlement)
    assert settlement.effects == ()


@pytest.mark.parametrize("edge", [Go(2), Into(0, 1)])
def test_who_cannot_sign_what_follows_fails_the_task(edge: Edge) -> None:
    bench = Bench(security_certificate=keys.certificate(OURS))  # it is valid today, and not when this clock says
    bench.app.task(name="good")(lambda: 5)
    bench.app.task(name="bad")(lambda: 1 / 0)
    for task, why in (("good", "ConfigError: security_certificate is valid from"), ("bad", "ZeroDivisionError")):
        settlement = run_part(bench, task, edge)
        assert isinstance(settlement.verdict, Dead)
        assert settlement.verdict.reason.startswith(why)
        assert settlement.effects == ()


def test_a_value_that_cannot_be_encoded_is_handed_on_as_one_signed_failure(bench: Bench) -> None:
    bench.app.task(name="t")(object)
    whole = gathered([effect for index in range(2) for effect in run_part(bench, "t", Into(0, index)).effects])
    fate = fate_in(bench.trust.accepted(whole, whole.id or ""), "json")
    assert fate is not None
    assert read_failure(fate.failure).type == "EncodeError"


def test_a_value_that_no_message_can_carry_signed_fails_the_task(bench: Bench) -> None:
    bench.app.task(name="t")(lambda: "x" * 4_800)
    assert isinstance(bench.runner, PackingRunner)
    bench.runner._largest = 5_000
    settlement = run_part(bench, "t", Into(0, 1))
    assert isinstance(settlement.verdict, Dead)
    assert "bytes with its signature, and a message at most 5,000" in settlement.verdict.reason
    (join,) = settlement.effects
    assert isinstance(join, Join)
    assert len(join.value) < 5_000


def settle(bench: Bench, effect: Effect) -> Effect:
    """The effect of a task that ended, as it leaves the worker."""
    bench.app.tasks.get("t") or bench.app.task(name="t")(lambda: None)
    delivery = Delivery((7, 1), "id-1", bench.sent("t"))
    assert bench.runner.prepare(bench.slot, delivery, bench.clock.monotonic()) is None
    assert isinstance(bench.runner, PackingRunner)
    settlement = Settlement((7, 1), Ack(), None, (effect,))
    (signed,) = bench.runner._packed(delivery, settlement).effects
    return signed


@pytest.mark.parametrize(("content_type", "value"), [("json", b'{"n":%d}'), ("msgpack", b"\x81\xa1n\xcc%c")])
def test_what_a_join_gathers_is_signed_in_parts(bench: Bench, content_type: str, value: bytes) -> None:
    then = Message(1, "body", b"", id="chord", content_type=content_type)
    values = [value % number for number in range(100, 103)]
    joins = [settle(bench, Join("j", n, item, 3, then)) for n, item in enumerate(values)]
    whole = gathered(joins)
    assert bench.trust.accepted(replace(whole), "chord") == array(values, content_type)

    def refused(body: bytes, why: str) -> None:
        with pytest.raises(SignatureError, match=why):
            bench.trust.accepted(replace(whole, body=body), "chord")

    refused(array(values, content_type), "not made of signed values|does not have the form")
    refused(gathered(joins[::-1]).body, "the part j/0: the signature by key .* does not hold")
    refused(gathered(joins[:2]).body, "it gathers 2 values, and is signed for 3")
    refused(gathered([*joins[:2], joins[1]]).body, "the part j/2")
    other = [settle(bench, Join("k", n, item, 3, then)) for n, item in enumerate(values)]
    refused(gathered(other).body, "the part j/0")
    assert bench.trust.accepted(replace(whole, body=b""), "chord") == b""  # it was too much to be gathered
    for junk in (b"[", b"{}", b"[[[", b'["!!!"]', b"\xff"):
        refused(junk, "not made of signed values")


def gathered(joins: list[Effect]) -> Message:
    """What the memory engine makes of them."""
    first = joins[0]
    assert isinstance(first, Join)
    values = [join.value for join in joins if isinstance(join, Join)]
    return unpack(pack(replace(first.then, body=array(values, first.then.content_type))))


def test_a_gathered_call_is_signed_anew_for_its_retry(bench: Bench) -> None:
    @bench.app.task(name="body", autoretry_for=(OSError,), default_retry_delay=5.0)
    def total(*numbers: int) -> None:
        raise OSError

    # As a canvas would: what is gathered are the two halves of a body.
    then = Message(1, "body", b"", id="id-1")
    whole = gathered([settle(bench, Join("j", n, item, 2, then)) for n, item in enumerate((b"[1,2]", b"{}"))])
    verdict = bench.run(replace(whole)).verdict
    assert isinstance(verdict, RetryAt)
    assert verdict.message is not None
    assert verdict.message.body == b"[[1,2],{}]"
    bench.clock.advance(5.0)
    assert isinstance(bench.run(unpack(pack(verdict.message))).verdict, RetryAt)


def test_errors_are_stored_as_they_are(bench: Bench) -> None:
    def bad() -> None:
        raise ValueError("no good")

    bench.app.task(name="t")(bad)
    outcome = bench.run(bench.sent("t")).outcome
    assert outcome is not None
    assert outcome.content_type == "json"
    assert read_failure(outcome.value).message == "no good"


def test_a_result_that_nobody_would_look_at_fails_the_task() -> None:
    bench = Bench(inflate_max_bytes=1000)
    bench.app.task(name="t")(lambda: "x" * 2000)
    settlement = bench.run(bench.sent("t"))
    assert isinstance(settlement.verdict, Dead)
    assert settlement.verdict.reason.startswith("EncodeError: a result of 2,002 bytes")


def test_results_are_compressed_for_apps_without_keys() -> None:
    app = Penstock("unit", broker="memory://", result_compression="zlib")
    runner = runner_of(app, Plans(app), app.engine.broker, "me", app.clock, Threads.traits)
    app.task(name="t")(lambda: "x" * 2000)
    slot = Slot(0, Batch())
    now = app.clock.monotonic()
    assert runner.prepare(slot, Delivery((7, 1), "id-1", Message(1, "t", b"[[],{}]", id="id-1")), now) is None
    outcome = runner.succeed(slot, "x" * 2000, now).outcome
    assert outcome is not None
    assert outcome.content_type == "json+zlib"
    assert len(outcome.value) < 100


def test_the_banner_says_whom_this_worker_believes(bench: Bench) -> None:
    settings = WorkerOptions(pool="threads").settle(bench.app)
    said = banner(bench.app, settings, Threads.traits)
    ours, theirs = (key_id(key.public_key()) for key in (OURS, THEIRS))
    assert f"signs      as {ours}, and accepts {theirs}\n" in said
    app = Penstock("unit", broker="memory://", security_key=keys.pem(OURS), security_accept_unsigned=True)
    assert f"as {ours}, and accepts no other key, and what is not signed" in banner(app, settings, Threads.traits)
    assert "signs" not in banner(Penstock("unit", broker="memory://"), settings, Threads.traits)


def test_apps_that_ask_for_nothing_get_the_plain_runner() -> None:
    app = Penstock("unit", broker="memory://")
    assert type(runner_of(app, Plans(app), app.engine.broker, "me", app.clock, Threads.traits)) is Runner
