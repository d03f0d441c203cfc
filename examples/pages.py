"""Static pages, rendered again on every change, and all of them every hour.

    penstock -A pages worker -B                    runs the tasks, and publishes the hourly one
    python pages.py index "Hello"                  write a text; its page follows
    penstock -A pages beat trigger hourly          all pages, now

A change renders one page, within milliseconds. The hourly round renders those whose text somebody changed behind the
program's back, and those whose rendering was lost to a bug that is mended by now.
"""

from __future__ import annotations

import html
import os
import re
import sys
from pathlib import Path

from penstock import Penstock, Unique, crontab

HERE = Path(__file__).parent
TEXTS, SITE = HERE / "texts", HERE / "site"
NAME = re.compile(r"[a-z0-9-]{1,100}")

app = Penstock("pages")


@app.task(unique=Unique("page:{name}", until="start"))
def render(name: str) -> None:
    """Make the page of a text. While it waits, another change asks for nothing more: this one will see it."""
    source, text = TEXTS / f"{checked(name)}.txt", None
    # Once more if it was changed meanwhile: two of these may run at a time, and the older must not have the last word.
    while text != (text := source.read_text("utf-8")):
        paragraphs = "\n".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n"))
        replace(SITE / f"{name}.html", f"<!doctype html>\n<title>{name}</title>\n{paragraphs}\n")


@app.task
def render_all() -> int:
    """Publish a task for each text; returns how many."""
    return len(render.delay_many([(path.stem,) for path in sorted(TEXTS.glob("*.txt"))]))


app.add_periodic_task(crontab(minute=0), render_all.s(), name="hourly", jitter=60)


def save(name: str, text: str) -> None:
    """Write a text, and have its page rendered."""
    replace(TEXTS / f"{checked(name)}.txt", text)
    render.delay(name)


def checked(name: str) -> str:
    """A name comes from outside, and becomes a path."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a page: small letters, digits and hyphens, please")
    return name


def replace(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a half."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)


if __name__ == "__main__":
    save(sys.argv[1], sys.argv[2])
