"""`penstock demo`."""

from __future__ import annotations

import platform
import sysconfig
import tempfile
from pathlib import Path

import click

from penstock.cli.demo.show import Demo
from penstock.errors import ConfigError

EXCLUDED = frozenset({"site-packages", "dist-packages", "__pycache__"})
FILES_OF_A_RUN = ("queue.db", "index.html", "worker.log")


@click.command()
@click.option("--files", type=click.IntRange(min=1), metavar="N", help="Only so many. [default: all, well over 1,000]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: a new temporary folder]")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, metavar="N")
@click.pass_context
def demo(ctx: click.Context, files: int | None, out: Path | None, processes: int) -> None:
    """See it work: every file of Python's standard library becomes a highlighted page, in the background.

    One task a file. Half-way a worker process is killed with SIGKILL, one file fails on purpose, and still every page
    is there at the end, compared with the files on disk.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = find_sources(library)
    chosen = sources if files is None else spread(sources, files)
    folder = prepare(out)
    ctx.exit(Demo(library, chosen, folder, processes, platform.python_version()).run())


def find_sources(library: Path) -> list[str]:
    """Every Python file of the standard library, as paths below it, without what was installed into it."""
    found = (path.relative_to(library) for path in library.rglob("*.py"))
    return sorted(path.as_posix() for path in found if EXCLUDED.isdisjoint(path.parts))


def spread(sources: list[str], count: int) -> list[str]:
    """`count` of them, evenly from all over."""
    count = min(count, len(sources))
    return [sources[at * len(sources) // count] for at in range(count)]


def prepare(out: Path | None) -> Path:
    """The folder to work in. Raises `ConfigError` for one with an earlier run in it, or that cannot be made."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    for name in FILES_OF_A_RUN:
        if (out / name).exists():
            raise ConfigError(f"{out} holds an earlier run ({name}): choose another folder, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}") from error
    return out.resolve()
