"""Make docs/images/*.svg: pictures of real commands, run in a real terminal (tmux) and drawn by rich.

    .venv/bin/python tools/terminal_pictures.py [NAME]…

Needs tmux. Each scene has a project of its own in a temporary folder, with workers that are stopped at the end.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
PENSTOCK = Path(sys.executable).with_name("penstock")
WIDTH, HEIGHT = 110, 40
MOST = 100_000
"""Bytes of a picture."""
PATIENCE = 180.0
SHOP = """
import time

from penstock import Penstock, Queue

app = Penstock("shop", task_queues=[Queue("mail", max_length=2_000), Queue("images", max_length=500)])


@app.task(queue="images", bind=True)
def resize(self, photo: str, sizes: int) -> int:
    for done in range(sizes):
        self.progress(done, sizes, f"{photo} at {200 * (done + 1)} px")
        time.sleep(0.15)
    return sizes


@app.task(queue="mail")
def send(to: str) -> str:
    time.sleep(0.004)
    return f"sent to {to}"


@app.task
def charge(order: int) -> None:
    raise ValueError(f"order {order} has no card")
"""


class Terminal:
    """A tmux of its own, in the folder of a small project."""

    def __init__(self, folder: Path) -> None:
        self._socket = f"penstock-pictures-{os.getpid()}"
        self._folder = folder
        # Typed as one would, found in this environment.
        path = f"{PENSTOCK.parent}:{os.environ['PATH']}"
        self._environ = {**os.environ, "PATH": path, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "main", *size, "bash --norc --noprofile")
        self.type("PS1='$ '; clear")
        self.wait_for(r"^\$\n")

    def type(self, command: str) -> None:
        self._tmux("send-keys", "-t", "main", "-l", command)
        self._tmux("send-keys", "-t", "main", "Enter")

    def interrupt(self) -> None:
        self._tmux("send-keys", "-t", "main", "C-c")

    def screen(self, colours: bool = False) -> str:
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []), "-t", "main")

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.screen()):
            if time.monotonic() > deadline:
                raise SystemExit(f"never seen: {pattern}\n{self.screen()}")
            time.sleep(0.1)

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._socket, *words]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environ, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout


@contextmanager
def project() -> Iterator[tuple[Path, Terminal]]:
    """A folder with the shop's tasks, and a terminal in it."""
    folder = Path(tempfile.gettempdir(), "shop")  # not a random name: it is in the pictures
    folder.mkdir()
    try:
        (folder / "shop.py").write_text(SHOP)
        (folder / "pyproject.toml").touch()
        terminal = Terminal(folder)
        try:
            yield folder, terminal
        finally:
            terminal.close()
    finally:
        shutil.rmtree(folder)


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    command = [str(PENSTOCK), "-A", "shop", "worker", "-c", "3"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def publish(folder: Path, code: str) -> None:
    subprocess.run([sys.executable, "-c", f"from shop import *\n{code}"], cwd=folder, check=True)


@contextmanager
def publishing(folder: Path, code: str) -> Iterator[None]:
    command = [sys.executable, "-c", f"from shop import *\n{code}"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def worker_scene() -> str:
    with project() as (folder, terminal):
        publish(folder, "send.delay('ada@example.org'); charge.delay(17)")
        terminal.type("penstock -A shop worker --loglevel=info")
        terminal.wait_for(r"has no card")
        time.sleep(0.5)
        terminal.interrupt()
        terminal.wait_for(r"worker: stopped")
        return terminal.screen(colours=True)


def queues_scene() -> str:
    with project() as (folder, terminal):
        publish(folder, "[charge.delay(order) for order in range(3)]")
        publish(folder, "resize.delay_many([(f'photo-{n}.jpg', 12) for n in range(430)])")
        with worker(folder):
            time.sleep(3)
            publish(folder, "send.delay_many([(f'{n}@example.org',) for n in range(1900)])")
            terminal.type("penstock -A shop queues")
            terminal.wait_for(r"\n *mail[^\n]*\n\$")
            return terminal.screen(colours=True)


def pressure_scene() -> str:
    """More is sent than three processes can send on; a stream of calls goes on meanwhile."""
    feed = """
from penstock import QueueFull
import itertools
for number in itertools.count():
    try:
        send.delay_many([(f'{number}@example.org',)] * 30)
        resize.delay(f'photo-{number}.jpg', 2 + number % 3)
    except QueueFull:
        pass
    time.sleep(0.05)
"""
    with project() as (folder, terminal):
        publish(folder, "send.delay_many([(f'{n}@example.org',) for n in range(1950)])")
        with worker(folder), publishing(folder, feed):
            terminal.type("penstock -A shop pressure")
            terminal.wait_for(r"! queue [^$]*\nrefused [^$]*shop\.resize +\S+ m?s[^$]*\bworker")
            time.sleep(3)
            picture = terminal.screen(colours=True)
            terminal.interrupt()
            return picture


def watch_scene() -> str:
    with project() as (folder, terminal):
        publish(folder, "resize.delay_many([(f'photo-{n}.jpg', 20 + n % 7 * 5) for n in range(200)])")
        with worker(folder):
            terminal.type("penstock -A shop watch")
            terminal.wait_for(r"photo-\d+\.jpg at 1\d00 px")
            picture = terminal.screen(colours=True)
            terminal.interrupt()
            return picture


def demo_scene() -> str:
    with project() as (folder, terminal):
        terminal.type(f"penstock demo --out {shlex.quote(str(folder / 'demo'))}")
        terminal.wait_for(r"Open file://")
        return terminal.screen(colours=True)


SCENES: dict[str, Callable[[], str]] = {
    "worker": worker_scene,
    "queues": queues_scene,
    "pressure-live": pressure_scene,
    "watch": watch_scene,
    "demo": demo_scene,
}


def draw(screen: str, title: str) -> str:
    """The screen as SVG, without the fonts that rich would have fetched from elsewhere."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        text = Text.from_ansi(screen)
        text.right_crop(len(text.plain) - len(text.plain.rstrip(" \n$")))
        console.print(text, no_wrap=True, crop=True)
        svg = console.export_svg(title=title, unique_id=f"penstock-{title.split()[-1]}")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace(
        "Fira Code", "ui-monospace, Menlo, Consolas"
    )


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or SCENES:
        svg = draw(SCENES[name](), f"penstock {name.partition('-')[0]}")
        if len(svg) > MOST:
            raise SystemExit(f"{name}: {len(svg):,} bytes are more than {MOST:,}")
        (IMAGES / f"{name}.svg").write_text(svg)
        print(f"docs/images/{name}.svg: {len(svg):,} bytes")


if __name__ == "__main__":
    main()
