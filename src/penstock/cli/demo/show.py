"""The demo itself: publish, watch, kill, verify."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import click

from penstock.cli.demo.crew import DemoWorker
from penstock.cli.demo.meter import Meter, make_meter
from penstock.cli.demo.pages import Page
from penstock.cli.demo.render import INDEX, RENDER, make_app
from penstock.cli.terminal import clean, duration, faint, heading, size
from penstock.completed import as_completed
from penstock.errors import ResultTimeout, WorkerError
from penstock.message import DEFAULT_QUEUE
from penstock.outcome import State
from penstock.result import AsyncResult

LOOK = 1.0
"""Seconds without news after which it is checked that the worker lives."""
PATIENCE = 30.0
"""Seconds for the worker to start, and for its log to tell of a death."""
LONG = 8 << 10
"""Bytes of a source file that takes a moment."""


class Demo:
    """One run in the folder `out`."""

    def __init__(self, library: Path, sources: Sequence[str], out: Path, processes: int, version: str) -> None:
        self._library = library
        self._sources = sources
        self._out = out
        self._processes = processes
        self._version = version
        self._broker = f"sqlite:///{quote(str(out / 'queue.db'))}"
        self._app = make_app(self._broker)
        self._pages: dict[str, Page] = {}
        self._failed: dict[str, str] = {}
        self._killed: int | None = None

    def run(self) -> int:
        """Returns 0 when every page is there, 1 otherwise."""
        click.echo(
            f"{heading('penstock demo')}: Python {self._version}'s standard library, pre-rendered in the background"
        )
        click.echo(faint(f"  from  {at_home(self._library)}\n  into  {at_home(self._out)}"))
        started = time.monotonic()
        try:
            results = self._publish()
            with DemoWorker(self._broker, self._processes, self._out / "worker.log") as worker:
                pids = self._wait_for_children(worker)
                step(f"started a worker with {len(pids)} processes {faint(' '.join(map(str, pids)))}")
                with make_meter(len(results)) as meter:
                    self._follow(results, worker, meter)
                rendered_in = time.monotonic() - started
                index = self._index(worker)
        finally:
            self._app.close()
        lost = self._verify()
        self._report(lost, index, rendered_in)
        return 1 if lost else 0

    def _publish(self) -> dict[AsyncResult[Page], str]:
        _ = self._app.engine  # made and opened first: what follows is to time the tasks
        started = time.perf_counter()
        unlucky = "this.py" if "this.py" in self._sources else self._sources[0]
        calls = [(str(self._library), source, str(self._out), source == unlucky) for source in self._sources]
        results = self._app.tasks[RENDER].delay_many(calls)
        took = time.perf_counter() - started
        step(f"published {len(results):,} tasks in {duration(took)}; each is on disk before the call returns")
        return dict(zip(results, self._sources, strict=True))

    def _wait_for_children(self, worker: DemoWorker) -> list[int]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            worker.check()
            pids = self._children()
            if len(pids) >= self._processes:
                return pids
            time.sleep(0.02)
        raise WorkerError(f"the demo's worker did not start in {PATIENCE:g} s; see {worker.log}")

    def _children(self) -> list[int]:
        return [info.pid for info in self._app.engine.run(self._app.engine.coordinator.workers())]

    def _follow(self, results: dict[AsyncResult[Page], str], worker: DemoWorker, meter: Meter) -> None:
        """Take in the results as they come; half-way, kill a child."""
        left = dict(results)
        while left:
            try:
                for result in as_completed(list(left), timeout=LOOK):
                    self._take(result, left.pop(result))
                    meter.move(len(results) - len(left))
                    if self._killed is None and len(left) <= len(results) // 2:
                        self._kill_one(left, worker, meter)
            except ResultTimeout:
                worker.check()
        meter.move(len(results))

    def _take(self, result: AsyncResult[Page], source: str) -> None:
        try:
            self._pages[source] = result.get()
        except Exception as error:  # whatever the task raised
            self._failed[source] = f"{type(error).__name__}: {error}"

    def _kill_one(self, left: dict[AsyncResult[Page], str], worker: DemoWorker, meter: Meter) -> None:
        """SIGKILL: it cannot finish, clean up, or say goodbye."""
        pid, source = self._victim({result.id: source for result, source in left.items()})
        os.kill(pid, signal.SIGKILL)
        self._killed = pid
        mark, done = click.style("✗", fg="red", bold=True), len(self._sources) - len(left)
        meter.say(f"{mark} killed process {pid} with SIGKILL after {done:,} tasks, while it rendered {clean(source)}")
        deadline = time.monotonic() + PATIENCE
        while (said := worker.said(pid)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if said is not None:
            meter.say(f"  {faint('worker.log:')} {clean(said)}")

    def _victim(self, sources: dict[str, str]) -> tuple[int, str]:
        """A process in the middle of a task, and the task's source: preferably a long one, which it will not have
        finished before the signal comes."""
        engine, deadline = self._app.engine, time.monotonic() + PATIENCE
        while True:
            pids = {info.id: info.pid for info in engine.run(engine.coordinator.workers())}
            leased = [one.id for one in engine.run(engine.inspect.peek(DEFAULT_QUEUE)) if one.state == "leased"]
            for report in engine.run(engine.backend.fetch(leased)):
                source = sources.get(report.id)
                if report.state is not State.STARTED or report.worker not in pids or source is None:
                    continue
                if (self._library / source).stat().st_size >= LONG or time.monotonic() > deadline:
                    return pids[report.worker], source
            if time.monotonic() > deadline + PATIENCE:
                raise WorkerError("no process was seen at work, to be killed")
            time.sleep(0.005)

    def _index(self, worker: DemoWorker) -> str:
        """One more task, made of the results of all others."""
        result = self._app.tasks[INDEX].delay(list(self._pages.values()), str(self._out), self._version)
        while True:
            try:
                path: str = result.get(timeout=LOOK)
                return path
            except ResultTimeout:
                worker.check()

    def _verify(self) -> list[str]:
        """The sources without a page, or with one that is not what its task said that it wrote."""
        return [source for source in self._sources if not self._is_there(source)]

    def _is_there(self, source: str) -> bool:
        page = self._pages.get(source)
        if page is None:
            return False
        path = self._out / page.target
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == page.digest

    def _report(self, lost: list[str], index: str, seconds: float) -> None:
        pages = list(self._pages.values())
        retried = [page.source for page in pages if page.retries]
        redelivered = [page.source for page in pages if page.attempts]
        total, written = len(self._sources), sum(page.size for page in pages)
        step(f"wrote the index from {len(pages):,} results")
        click.echo()
        line("rendered", total - len(lost), f"of {total:,}, compared with the files on disk; {size(written)}", "green")
        line("retried", len(retried), f"failed on purpose: {named(retried)}" if retried else "")
        line(
            "redelivered",
            len(redelivered),
            f"begun by the killed process, done by another: {named(redelivered)}" if redelivered else "",
        )
        line("lost", len(lost), named(lost), "red" if lost else "green")
        for source in lost[:5]:
            click.echo(f"  {clean(source)}: {clean(self._failed.get(source, 'its page is missing or damaged'))}")
        click.echo(f"\n{total / seconds:,.0f} tasks/s, {duration(seconds)} in all, {self._processes} processes")
        click.echo(f"Open {heading(Path(index).as_uri())}")


def at_home(path: Path) -> str:
    """The path, with ~ for the user's own folder."""
    home = Path.home()
    return clean(f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path))


def step(text: str) -> None:
    click.echo(f"{click.style('✓', fg='green', bold=True)} {text}")


def line(label: str, number: int, text: str, colour: str | None = None) -> None:
    click.echo(f"  {label:<12}{click.style(f'{number:>7,}', fg=colour, bold=True)}  {faint(text)}")


def named(sources: Sequence[str]) -> str:
    return clean(", ".join(sources[:3])) + (f" and {len(sources) - 3:,} more" if len(sources) > 3 else "")
