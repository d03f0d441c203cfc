"""What `penstock pressure` says of a real queue."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from penstock import Penstock, Queue
from penstock.cli.main import cli
from penstock.cli.pressure_text import few, workers
from penstock.cli.show_pressure import paces
from penstock.cli.terminal import visible
from penstock.coordinator import WorkerInfo
from penstock.errors import QueueFull
from penstock.pressure import refused
from penstock.pressure.alarms import Alarm
from penstock.pressure.overview import Outlook, Overview
from penstock.pressure.raised import store
from penstock.pressure.reports import Report, Run, Standing, shard_name, with_report
from penstock.pressure.samples import Samples, Times
from penstock.queue import QueueInfo


def pressure(url: str, *arguments: str, columns: int = 120) -> Result:
    arguments = ("--broker", url, "pressure", "--interval", "0.2", *arguments)
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": str(columns)})


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a queue that is 80 % full, with one worker of four threads and an alarm."""
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    app = Penstock("p", broker=url, task_queues=[Queue("mail", 10), Queue("x" * 60, 5)])
    app.task(name="t", queue="mail")(lambda: None).delay_many([()] * 8)
    app.task(name="u", queue="x" * 60)(lambda: None).delay()
    times = Times()
    times.add(0.5, 100)
    runs = [Run("mail", "tasks.long\x1b[2J", 75.0)]
    report = Report(
        time.time(),
        4,
        ("mail",),
        Samples([("mail", "t", times)]),
        "me@host",
        3,
        [Standing("me@host pid 1", 1, 1, 75.0, runs)],
    )

    async def tell() -> None:
        coordinator = app.engine.coordinator
        await coordinator.put(shard_name("", 3), with_report(None, "a", report))
        now = time.time()
        await store(coordinator, "", {"mail"}, [Alarm("full", "mail", "", 0.8, 0.7, now - 12)], now)

    app.engine.run(tell())
    app.close()
    return url


def test_one_look_tells_all_that_is_known_and_no_more(url: str) -> None:
    found = pressure(url, "--once")
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0].endswith("1 worker, 4 threads, 3 busy")
    [mail] = [line for line in lines if line.startswith("mail ")]
    assert re.fullmatch(r"mail +━{11}─{3}  80% +8/10 +0\.0 +0\.0 +1\.0 s +\S+ m?s +0\.0 +0\.0 +4", mail), mail
    assert "! queue 'mail' is 80% full, warned of at 70% (for 12 s)" in lines
    assert any(re.fullmatch(r"t +500 ms +\S+ ms +500 ms +100%", line) for line in lines)
    assert any(re.fullmatch(r"me@host +4 +3  tasks\.long�\[2J, for 75 s", line) for line in lines)
    assert "\x1b" not in found.output


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(url: str, columns: int) -> None:
    found = pressure(url, "--once", columns=columns)
    assert max(visible(line) for line in found.output.splitlines()) <= columns
    assert "xxxxxxx…" in found.output


def test_scripts_get_json(url: str) -> None:
    data = json.loads(pressure(url, "--json").output)
    [mail] = [queue for queue in data["queues"] if queue["name"] == "mail"]
    assert (mail["full"], mail["threads"], mail["predicted_wait"], mail["enqueued_per_second"]) == (0.8, 4.0, 1.0, 0.0)
    assert (mail["refused"], mail["refused_per_second"]) == (0, 0.0)
    assert data["refused"] == []
    assert [(alarm["kind"], alarm["limit"]) for alarm in mail["alarms"]] == [("full", 0.7)]
    assert data["workers"][0]["runs"] == [{"task": "tasks.long\x1b[2J", "queue": "mail", "seconds": 75.0}]
    assert data["slowest"][0]["task"] == "t"


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    app = Penstock("p", broker=url)
    app.engine.run(app.engine.inspect.queues())
    app.close()
    output = pressure(url, "--once").output
    assert "no worker lives" in output
    assert "no queues yet" in output


def view(info: QueueInfo) -> Overview:
    return Overview(0.0, [Outlook(info, None, None, Times(), ())], [], Samples())


def test_who_is_refused_is_told(url: str) -> None:
    app = Penstock("me", broker=url, task_queues=[Queue("mail", 10)])
    task = app.task(name="t", queue="mail")(lambda: None)
    for _ in range(3):
        with pytest.raises(QueueFull):
            task.delay_many([()] * 5)
    app.close()
    for columns in (80, 120):
        lines = pressure(url, "--once", columns=columns).output.splitlines()
        [row] = [line for line in lines if line.startswith("me[")]
        assert re.search(r"  mail   t +\d+\.\d +15  \S+ m?s ago$", row), row
        assert any(re.match(r"mail +.* [1-9]\d*\.\d +0\.0( +4)?$", line) for line in lines)
    [one] = json.loads(pressure(url, "--json").output)["refused"]
    assert (one["queue"], one["task"], one["calls"]) == ("mail", "t", 15)
    assert one["per_second"] > 0


@pytest.mark.parametrize("columns", [80, 120])
def test_long_names_of_who_is_refused_fit(url: str, columns: int) -> None:
    app = Penstock("me", broker=url)
    who = ("shop\x1b" + "w" * 90, "x" * 60, "tasks." + "y" * 60)
    state = app.engine.coordinator
    app.engine.run(refused.tell(state, "", "p", {who: 1_234_567}, 2.0, time.time()))
    app.close()
    lines = pressure(url, "--once", columns=columns).output.splitlines()
    [row] = [line for line in lines if line.startswith("shop")]
    assert max(visible(line) for line in lines) <= columns
    assert re.fullmatch(r"shop�w+… +x+… +tasks\.y+… +617,284 +1235k +\S+ m?s ago", row), row


def test_scripts_are_told_how_many_were_refused(url: str) -> None:
    app = Penstock("me", broker=url)
    app.engine.run(refused.tell(app.engine.coordinator, "", "p", {("me", "mail", "t"): 5}, 2.0, time.time()))
    app.close()
    found = CliRunner().invoke(cli, ["--broker", url, "queues", "--json", "--sample", "0"])
    assert {one["name"]: one["refused"] for one in json.loads(found.output)} == {"mail": 5, "x" * 60: 0}


def test_who_may_not_read_who_is_refused_sees_how_many() -> None:
    before = QueueInfo("q", "", 10, 100, 1, 1, 1, 0, 0, 0, 0.0, 5, 3, refused=10)
    closed = msgspec.structs.replace(view(msgspec.structs.replace(before, refused=16)), unread=[""])
    [pace] = paces(closed, [before], 2.0).values()
    assert pace.refused == 3.0


def test_what_an_engine_does_not_tell_is_not_nought() -> None:
    info = QueueInfo("q", "", 10, 100, None, None, None, None, None, None, None, None, None)
    [pace] = paces(view(info), [info], 1.0).values()
    assert (pace.rates.arriving, pace.rates.leaving, pace.refused, pace.shed) == (None, None, None, 0.0)
    known = msgspec.structs.replace(info, enqueued=5, settled=3)
    [pace] = paces(view(known), [info], 2.0).values()
    assert (pace.rates.arriving, pace.rates.leaving) == (None, None)


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (7, "7"), (1000, "1k"), (1234, "1234"), (35_400, "35.4k"), (1_234_567, "1235k"), (1_000_000, "1M")],
)
def test_large_numbers_are_short(number: int | None, text: str) -> None:
    assert few(number) == text


def test_a_worker_that_is_idle_tells_nothing_and_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    app = Penstock("p", broker=url)
    now = app.clock.time()
    for number in range(2):
        info = WorkerInfo(f"{number}" * 32, "idler", "here", 1, 1, (), "prefork", now, now)
        app.engine.run(app.engine.coordinator.join(info))
    output = pressure(url, "--once").output
    app.close()
    assert "1 worker, idle" in output


def test_who_tells_and_who_is_idle_are_counted() -> None:
    told = Report(0.0, 4, ("mail",), Samples(), "a", 3)
    assert workers([told], frozenset("a")) == "1 worker, 4 threads, 3 busy"
    assert workers([told], frozenset("abc")) == "1 worker, 4 threads, 3 busy; 2 more idle"
