"""One call to several queues, and one to each worker, on the embedded engine and on servers."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import wait_until
from tests.acceptance.shell import Shell
from tests.acceptance.sites import Site
from tests.servers import Server

APP = """
from penstock import Broadcast, Exchange, Penstock, Queue

NEWS = Exchange("news", "topic")
app = Penstock(
    "tasks",
    broker={broker!r},
    result_backend={results!r},
    namespace={namespace!r},
    task_queues=[
        Queue("sport", exchange=NEWS, routing_key="#.sport"),
        Queue("italy", exchange=NEWS, routing_key="italy.#"),
        Broadcast("reload"),
    ],
    task_routes={{"tasks.publish": {{"exchange": "news", "routing_key": "italy.sport"}}}},
)

@app.task(bind=True, name="tasks.note")
def note(self, name: str) -> None:
    with open("notes", "a") as notes:
        notes.write(f"{{name}} {{self.request.hostname}} {{self.request.queue}}\\n")

@app.task(bind=True, name="tasks.publish")
def publish(self, name: str) -> None:
    note.function(self, name)
"""
Open = Callable[..., Shell]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Open]:
    shells: list[Shell] = []

    def open_project(site: Site | None = None) -> Shell:
        namespace = "" if site is None else f"several-{tmp_path.name}"[:40]
        broker, results = (None, None) if site is None else (site.server.url, site.results)
        shells.append(Shell(tmp_path, APP.format(broker=broker, results=results, namespace=namespace)))
        return shells[-1]

    yield open_project
    for shell in shells:
        shell.close()


def call(shell: Shell, code: str) -> None:
    """Python in a process of its own, as the publisher."""
    done = subprocess.run(
        [sys.executable, "-c", f"import tasks\n{code}\ntasks.app.close()"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def notes(shell: Shell) -> "Counter[tuple[str, ...]]":
    path = shell.folder / "notes"
    return Counter(tuple(line.split()) for line in path.read_text().splitlines()) if path.exists() else Counter()


def start(shell: Shell, name: str) -> "subprocess.Popen[str]":
    """A worker that has begun to serve."""
    worker = shell.worker("-n", f"{name}@here")
    workers = "[w.name for w in tasks.app.engine.run(tasks.app.engine.coordinator.workers())]"

    def serves() -> bool:
        script = f"import tasks, json; print(json.dumps({workers}))"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=shell.folder, capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout).count(f"{name}@here") == 2

    wait_until(serves, 20, f"both children of {name} have signed on", 0.05)
    return worker


def expect(shell: Shell, wanted: "Counter[tuple[str, ...]]") -> None:
    wait_until(lambda: notes(shell).total() >= wanted.total(), 20, f"{wanted} is noted, and not only {notes(shell)}")
    assert notes(shell) == wanted


def copies(shell: Shell, prefix: str) -> None:
    one, two = start(shell, "one"), start(shell, "two")
    call(shell, "tasks.note.apply_async(('all',), queue='reload')")
    wanted = Counter({("all", f"{name}@here", f"reload{prefix}.to.{name}@here"): 1 for name in ("one", "two")})
    expect(shell, wanted)

    two.send_signal(signal.SIGTERM)
    two.communicate(timeout=20)
    call(shell, "tasks.note.apply_async(('left',), queue='reload')")
    wanted["left", "one@here", f"reload{prefix}.to.one@here"] = 1
    expect(shell, wanted)

    call(shell, "tasks.publish.delay('news')")
    wait_until(lambda: notes(shell).total() >= 5, 20, "both queues have theirs")
    assert {one[2] for one in notes(shell) if one[0] == "news"} == {"sport", "italy"}
    one.send_signal(signal.SIGTERM)
    one.communicate(timeout=20)
    assert notes(shell).total() == 5, "nobody got a copy twice"


def test_on_a_file(project: Open) -> None:
    copies(project(), "")


def test_at_the_broker(project: Open, broker: Server) -> None:
    shell = project(Site("broker", broker))
    copies(shell, f".in.{f'several-{shell.folder.name}'[:40]}")


def test_on_a_server(project: Open, site: Site) -> None:
    shell = project(site)
    if site.kind != "rabbitmq":
        namespace = shell.folder.name
        copies(shell, f".in.{f'several-{namespace}'[:40]}")
        return
    # Who lives is only told by those who answer at once, which is not enough to promise anything.
    call(
        shell,
        "from penstock import Unsupported\ntry:\n    tasks.note.apply_async(('all',), queue='reload')\n"
        "except Unsupported as error:\n    assert 'no broadcasts' in str(error)\nelse:\n    exit('accepted')",
    )
    shell.worker("-n", "one@here")
    call(shell, "tasks.publish.delay('news')")
    wait_until(lambda: notes(shell).total() >= 2, 20, "both queues have theirs")
    assert {one[2] for one in notes(shell)} == {"sport", "italy"}
