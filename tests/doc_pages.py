"""The manual's pages as tests read them: their blocks, links and tables; and how a page's code is run.

A fenced block may have a comment on the line before it: `<!-- file: tasks.py -->` writes a block to that file,
`<!-- run -->` runs the commands of a shell block. Readers do not see either.
A page with a file is a project: its files, scripts and workers are real, each in a process of its own. On any other
page all Python blocks are one module `tasks`, on `memory://`, with a worker in the same process.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TIMEOUT = 60.0
BRINGS_ITS_WORKER = "tested"
"""The name of an app whose worker the page itself starts."""


class Block(NamedTuple):
    language: str
    code: str
    mark: str
    line: int


def pages() -> list[Path]:
    return [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(found["language"], found["code"], found["mark"] or "", text.count("\n", 0, found.start("code")))
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that MkDocs makes of the headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower().replace("`", ""))).strip("-") for head in heads}


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def table(page: Path, heading: str | None = None) -> list[list[str]]:
    """The cells of all table rows of the page, or of what stands below one heading; without the heads."""
    text = prose(page)
    if heading is not None:
        text = re.split(
            r"^#+ ", re.split(rf"^#+ {re.escape(heading)}\n", text, flags=re.MULTILINE)[1], flags=re.MULTILINE
        )[0]
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in cells]
        for at, cells in enumerate(lines)
        if not cells[0].startswith("---") and not (at + 1 < len(lines) and lines[at + 1][0].startswith("---"))
    ]


def first_cells(page: Path, heading: str | None = None) -> list[list[str]]:
    """What is `code` in the first cell of each row that begins with code."""
    return [re.findall(r"`([^`]+)`", cells[0]) for cells in table(page, heading) if cells[0].startswith("`")]


def rows(page: Path, heading: str | None = None) -> dict[str, str]:
    """First cell → second cell, of rows that begin with `code`."""
    return {cells[0].strip("`"): cells[1].strip("`") for cells in table(page, heading) if cells[0].startswith("`")}


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `penstock` command in the page's shell blocks and in its prose."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.code.splitlines()]
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose(page)) if code.startswith("penstock ")]
    for line in lines:
        words = shlex.split(line.partition(" | ")[0], comments=True)
        if "penstock" in [word.rpartition("/")[2] for word in words]:
            at = next(at for at, word in enumerate(words) if word.rpartition("/")[2] == "penstock")
            yield [word for word in words[at + 1 :] if word != "&"]


class Project:
    """A folder in which a page with files is followed step by step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "COLUMNS": "120", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._environment.pop("PENSTOCK_BROKER_URL", None)
        self._worker: subprocess.Popen[str] | None = None

    def follow(self, block: Block) -> None:
        kind, _, value = block.mark.partition(": ")
        if kind == "file":
            (self._folder / value).write_text(block.code)
        elif block.language == "python":
            self._run([sys.executable, "-W", "error", "-c", block.code], block)
        elif block.language == "sh":
            for line in block.code.splitlines():
                self._shell(shlex.split(line, comments=True), block)

    def _shell(self, words: list[str], block: Block) -> None:
        if words[:1] == ["pytest"] and block.mark == "run":
            self._run([sys.executable, "-m", "pytest", "-p", "penstock.contrib.pytest", "-q", *words[1:]], block)
        if words[:1] != ["penstock"]:
            return
        if "worker" in words:
            self.stop()
            self._start(words[1:])
        elif block.mark == "run":
            self._run([sys.executable, "-m", "penstock.cli", *words[1:]], block)

    def _run(self, command: list[str], block: Block) -> None:
        ended = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert ended.returncode == 0, f"line {block.line}: {ended.stdout}{ended.stderr}{self._log()}"

    def _start(self, arguments: list[str]) -> None:
        with (self._folder / "worker.log").open("a") as log:
            command = [sys.executable, "-m", "penstock.cli", *arguments]
            self._worker = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, text=True
            )

    def _log(self) -> str:
        log = self._folder / "worker.log"
        return f"\nworker.log:\n{log.read_text()}" if log.exists() else ""

    def stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.terminate()
        try:
            assert worker.wait(TIMEOUT) == 0, self._log()
        finally:
            worker.kill()


def run_in_memory(page: Path, folder: Path) -> None:
    """Run the page's Python blocks as one module, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.doc_pages", str(page)],
        cwd=REPOSITORY,
        env={**os.environ, "PENSTOCK_BROKER_URL": "memory://", "DOC_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _main(page: Path) -> None:
    """Statement by statement; as soon as there is an app, a worker of its tasks."""
    import threading
    import types

    from penstock import Penstock
    from penstock.worker import Worker, WorkerOptions

    os.chdir(os.environ["DOC_FOLDER"])
    module = types.ModuleType("tasks")
    module.__file__ = str(Path("tasks.py").resolve())
    sys.modules["tasks"] = module
    served: list[tuple[Worker, threading.Thread]] = []
    apps: set[int] = set()
    for block in blocks(page):
        if block.language != "python":
            continue
        for statement in ast.parse("\n" * block.line + block.code, str(page)).body:
            exec(compile(ast.Module([statement], []), str(page), "exec"), module.__dict__)
            for value in list(vars(module).values()):
                if isinstance(value, Penstock) and value.name != BRINGS_ITS_WORKER and id(value) not in apps:
                    apps.add(id(value))
                    worker = Worker(value, WorkerOptions(pool="threads", concurrency=2, loglevel="CRITICAL"))
                    thread = threading.Thread(target=worker.run, daemon=True)
                    thread.start()
                    served.append((worker, thread))
    for worker, thread in served:
        while worker._runs is None and thread.is_alive():
            time.sleep(0.01)
        worker.stop()
        thread.join(10.0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
