"""Compressed and signed work through a real worker: each combination that matters, and what is hostile."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock import AsyncResult, SignatureError, State, chain, chord, group
from penstock.apart import retry_dead
from penstock.broker import Accepted, DeadLetter, Duplicate
from penstock.codec.compression import NAMES, compressor
from penstock.message import Message
from penstock.outcome import Outcome
from tests.acceptance.processes import Process, Stage, wait_until
from tests.acceptance.sites import Site
from tests.acceptance.vault import RATIO, Parcel, Place, Vault
from tests.servers import broker_server
from tests.servers.process import children

TEXT = "all work and no play " * 40
PATIENCE = 20.0


def start(stage: Stage, place: Place) -> Process:
    results = ("--results", place.results) if place.results else ()
    return stage.start("vault", *results, "--queue", place.queue, place.folder, place.broker)


@pytest.fixture
def place(stage: Stage) -> Place:
    place = Place(stage.folder, f"sqlite:///{stage.path}")
    place.prepare()
    return place


@pytest.fixture
def vault(place: Place) -> Iterator[Vault]:
    vault = Vault(place, "sender")
    yield vault
    vault.app.close()


def stored(result: AsyncResult[str]) -> Outcome:
    outcome = result.report().outcome
    assert outcome is not None
    return outcome


def letters(vault: Vault) -> Sequence[DeadLetter]:
    app = vault.app
    return app.engine.run(app.engine.inspect.dead_letters(app.conf.task_default_queue))


def publish(vault: Vault, message: Message) -> object:
    """Past the client, as somebody who has the broker's password does."""
    (answer,) = vault.app.engine.run(vault.app.broker.publish([message], 10.0))
    return answer


def outgoing(vault: Vault, text: str, task_id: str) -> Message:
    """A call as the client publishes it."""
    message = vault.app.client.prepare(vault.double, (text,), {}, {"task_id": task_id, "compression": "zlib"})
    (message,) = vault.app.client._outgoing([message])
    return message


def test_every_serializer_with_every_compression(stage: Stage, place: Place, vault: Vault) -> None:
    start(stage, place)
    results = {
        (form, compression): vault.double.apply_async((TEXT,), serializer=form, compression=compression)
        for form in ("json", "msgpack", "yaml", "pickle")
        for compression in (*NAMES, "none")
    }
    for combination, result in results.items():
        assert result.get(PATIENCE) == TEXT + TEXT, combination
        assert stored(result).content_type == "json+zstd+signed", combination
    parcel = vault.open.apply_async((Parcel("precious"),), serializer="pickle")
    assert parcel.get(PATIENCE) == "precious"


def test_keys_and_packing_may_be_given_after_the_tasks(stage: Stage, place: Place) -> None:
    late = Vault(place, "stranger")
    late.app.configure(**place.security("sender"), task_serializer="msgpack", task_compression="zlib")
    late.app.configure(
        task_annotations={"open": {"serializer": "pickle"}}, task_routes={"dou*": {"compression": "gzip"}}
    )
    start(stage, place)
    prepare = late.app.client.prepare
    assert prepare(late.double, (TEXT,), {}).content_type == "msgpack+gzip"
    assert prepare(late.open, (Parcel(TEXT),), {}).content_type == "pickle+zlib"
    assert late.double.delay(TEXT).get(PATIENCE) == TEXT + TEXT
    assert late.open.delay(Parcel(TEXT)).get(PATIENCE) == TEXT
    assert not letters(late)
    late.app.close()


def check_runs(vault: Vault) -> None:
    """Retries, follow-ups, batches and results work for who signs."""
    stubborn, hasty, parent = vault.stubborn.delay(1), vault.hasty.delay("d"), vault.parent.delay(TEXT)
    many = vault.double.delay_many([("a",), ("b",)])
    later = vault.double.apply_async(("c",), countdown=0.1, expires=60)
    assert stubborn.get(PATIENCE) == 2
    assert hasty.get(PATIENCE) == "dd"
    assert [result.get(PATIENCE) for result in (*many, later)] == ["aa", "bb", "cc"]
    child = vault.app.AsyncResult(parent.get(PATIENCE), vault.double)
    assert child.get(PATIENCE) == TEXT + TEXT
    assert stored(child).content_type == "json+zstd+signed"


def check_canvas(vault: Vault) -> None:
    """What follows is signed by the worker, and values are put together whatever they were written as."""
    double, glue = vault.double, vault.glue
    linked = chain(double.s(TEXT).set(serializer="yaml", compression="gzip"), double.s(), double.si("b")).delay()
    assert linked.get(PATIENCE) == "bb"
    assert linked.parent.get(PATIENCE) == TEXT * 4
    if "Join" not in vault.app.engine.broker.features.effects:
        return
    parcel = vault.open.s(Parcel("parcel")).set(serializer="pickle", compression="zlib")
    texts = chord([double.s("a"), chain(double.s("b"), double.s()), parcel], glue.s()).delay()
    assert texts.get(PATIENCE) == "aa-bbbb-parcel"
    lists = (group(double.s("a"), double.s("b")) | group(glue.s(), glue.s())).delay()
    assert lists.get(PATIENCE) == ["aa-bb", "aa-bb"]
    broken = chord([double.s("a"), vault.moody.s("/nowhere")], glue.s()).delay()
    assert isinstance(broken.get(PATIENCE, propagate=False), FileNotFoundError)


def check_refusals(vault: Vault, stranger: Vault) -> None:
    """Unsigned, changed, strangers' and replayed messages end in the dead letters, whole, with the reason."""
    good = outgoing(vault, TEXT, "good")
    assert good.content_type == "json+zlib"
    bad = {
        "unsigned": (replace(good, id="unsigned", signed=None), "it is not signed, and only signed messages"),
        "replayed": (replace(good, id="replayed"), "it is a replay: it was signed as task good"),
        "changed": (
            replace(outgoing(vault, TEXT, "changed"), body=zlib.compress(b'[["rm -rf"],{}]')),
            "the message was changed, or somebody else signed it",
        ),
        "downgraded": (replace(outgoing(vault, TEXT, "downgraded"), content_type="pickle"), "the message was changed"),
        "strange": (outgoing(stranger, TEXT, "strange"), "which is not in security_cert_store"),
    }
    for message, _ in bad.values():
        assert isinstance(publish(vault, message), Accepted)
    for task_id, (_, why) in bad.items():
        result = vault.app.AsyncResult(task_id)
        error = result.get(PATIENCE, propagate=False)
        assert isinstance(error, SignatureError), task_id
        assert why in str(error)
    wait_until(lambda: len(letters(vault)) == len(bad), PATIENCE, "all are dead letters")
    dead = {letter.id: letter for letter in letters(vault)}
    for task_id, (message, why) in bad.items():
        kept = dead[task_id].message
        assert kept is not None
        assert why in dead[task_id].reason
        assert (kept.task, kept.body, kept.content_type) == ("double", message.body, message.content_type)


def check_replay(vault: Vault) -> None:
    """A second publish under the same id is recognised while the task or its result is there."""
    again = outgoing(vault, "once", "once")
    assert isinstance(publish(vault, replace(again)), Accepted)
    assert vault.app.AsyncResult("once", vault.double).get(PATIENCE) == "onceonce"
    assert isinstance(publish(vault, replace(again)), Duplicate)


def check_dead_letters_come_back(vault: Vault, path: Path) -> None:
    """What died for another reason is trusted when it is put back: it keeps its signature and its id."""
    call = vault.moody.apply_async((str(path),), countdown=0.05, task_id="moody")
    assert isinstance(call.get(PATIENCE, propagate=False), FileNotFoundError)
    path.write_text("mended")
    wait_until(lambda: "moody" in {letter.id for letter in letters(vault)}, PATIENCE, "it is a dead letter")
    assert vault.app.engine.run(retry_dead(vault.app.engine, vault.app.results, ["moody"])) == 1
    assert vault.app.AsyncResult("moody", vault.moody).get(PATIENCE) == "mended"


def test_signed_work_on_the_embedded_engine(stage: Stage, place: Place, vault: Vault) -> None:
    stranger = Vault(place, "stranger")
    start(stage, place)
    check_runs(vault)
    check_refusals(vault, stranger)
    check_replay(vault)
    check_canvas(vault)
    check_dead_letters_come_back(vault, stage.folder / "file")
    with pytest.raises(SignatureError, match=r"the result once: signed by key .* not in security_cert_store"):
        stranger.app.AsyncResult("once").get(1.0)
    stranger.app.close()


def test_signed_work_on_a_server(site: Site, stage: Stage) -> None:
    check_place(stage, Place(stage.folder, site.server.url, site.results, "vault"), site.knows_ids)


def test_signed_work_on_a_broker_of_our_own(stage: Stage) -> None:
    with broker_server(stage.folder) as server:
        check_place(stage, Place(stage.folder, server.url), knows_ids=True)


def check_place(stage: Stage, place: Place, knows_ids: bool) -> None:
    place.prepare()
    vault, stranger = Vault(place, "sender"), Vault(place, "stranger")
    try:
        worker = start(stage, place)
        check_runs(vault)
        check_refusals(vault, stranger)
        if knows_ids:
            check_replay(vault)
        check_canvas(vault)
        check_dead_letters_come_back(vault, stage.folder / "file")
        worker.terminate()
        assert worker.wait() == 0
    finally:
        vault.app.close()
        stranger.app.close()


def test_a_result_cannot_be_forged(stage: Stage, place: Place, vault: Vault) -> None:
    start(stage, place)
    real = vault.double.delay("real")
    assert real.get(PATIENCE) == "realreal"
    other = vault.double.apply_async(("other",), countdown=3600)
    backend, run = vault.app.backend, vault.app.engine.run
    assert run(backend.store([(other.key, Outcome(State.SUCCESS, b'"forged"', 0.0))])) == [True]
    with pytest.raises(SignatureError, match="is not signed, and only signed ones are accepted here"):
        other.get(1.0)
    third = vault.double.apply_async(("third",), countdown=3600)
    assert run(backend.store([(third.key, stored(real))])) == [True]  # a true one, of another task
    with pytest.raises(SignatureError, match="does not hold"):
        third.get(1.0)


def peak(worker: Process) -> int:
    """The most memory, in bytes, that the worker's child ever had."""
    (child,) = children(worker.pid)
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_bombs_end_in_the_dead_letters_and_memory_stays_flat(stage: Stage, place: Place, vault: Vault) -> None:
    worker = start(stage, place)
    for name in NAMES:  # loads the libraries
        assert vault.double.apply_async((TEXT,), compression=name).get(PATIENCE) == TEXT + TEXT
    before = peak(worker)
    bombs = {}
    for name in NAMES:
        message = vault.app.client.prepare(vault.double, ("x",), {}, {"task_id": f"bomb-{name}"})
        message.body, message.content_type = compressor(name).compress(bytes(80 << 20)), f"json+{name}"
        # Signed by a sender that is accepted, and does not mean well.
        (message,) = vault.app.client._outgoing([message])
        bombs[name] = message
        assert isinstance(publish(vault, message), Accepted)
    for name, message in bombs.items():
        error = str(vault.app.AsyncResult(f"bomb-{name}").get(PATIENCE, propagate=False))
        assert "inflate to more than" in error, error
        assert f"inflate_max_ratio={RATIO}" in error
        dead = {letter.id: letter for letter in letters(vault)}
        kept = dead[f"bomb-{name}"].message
        assert kept is not None
        assert kept.body == message.body
    assert vault.double.delay("still here").get(PATIENCE) == "still herestill here"
    assert peak(worker) - before < 48 << 20
