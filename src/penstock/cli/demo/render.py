"""The demo's app: its tasks are plain functions over files, safe to run twice."""

from __future__ import annotations

import hashlib
import io
import os
import time
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.app import Penstock
from penstock.cli.demo import pages
from penstock.cli.demo.pages import Page

RENDER, INDEX = "demo.render", "demo.index"
RETRY_DELAY = 0.5


class Hiccup(Exception):
    """Raised on purpose, for one file, once."""


def make_app(broker: str | None) -> Penstock:
    """The demo's app. The producer and the worker make one each, on the same broker."""
    app = Penstock("demo", broker=broker)
    app.task(name=RENDER, bind=True, autoretry_for=(Hiccup,), default_retry_delay=RETRY_DELAY)(render)
    app.task(name=INDEX)(write_index)
    return app


def render(self: Any, library: str, source: str, out: str, fail_once: bool) -> Page:
    """Write the page of `library`/`source` into the folder `out`. Run twice, it writes the same page twice."""
    if fail_once and self.request.retries == 0:
        raise Hiccup(f"{source}: fails once, on purpose")
    started = time.perf_counter()
    text = read_source(Path(library, source))
    page = pages.highlighted(source, text).encode("utf-8")
    target = f"lib/{source}.html"
    replace_file(Path(out, target), page)
    return Page(
        source=source,
        target=target,
        lines=text.count("\n"),
        size=len(page),
        digest=hashlib.sha256(page).hexdigest(),
        seconds=time.perf_counter() - started,
        retries=self.request.retries,
        attempts=self.request.attempts,
        pid=os.getpid(),
    )


def write_index(done: Sequence[Page], out: str, version: str) -> str:
    """Write the index of the rendered pages and their style; returns the index's path."""
    replace_file(Path(out, pages.STYLE), pages.style().encode("utf-8"))
    index = Path(out, pages.INDEX)
    replace_file(index, pages.index(done, version).encode("utf-8"))
    return str(index)


def read_source(path: Path) -> str:
    """The text in the encoding that it declares; what does not decode is shown as � (some test files are wrong on
    purpose)."""
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    return data.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def replace_file(path: Path, data: bytes) -> None:
    """Whole or not at all, whatever happens to this process: the name appears when the content is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)
