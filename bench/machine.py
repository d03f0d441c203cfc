"""The machine and its mood: versions, hardware, and how much of the CPU others take while we measure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import apsw

from penstock.engines.sqlite.files import file_system

TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.08
"""Foreign CPU share below which the machine counts as quiet."""


class Meter:
    """`with Meter() as meter: …`, then `meter.own`: our CPU seconds, with our children's, and `meter.foreign`: the
    share of all CPU time that others took.

    Children count once they have been waited for, so end them inside the block.
    """

    foreign = 0.0
    own = 0.0
    total = 0.0
    """CPU seconds that the machine had to give."""

    def __enter__(self) -> Meter:
        self._before = _clocks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        busy, total, self.own = (now - before for now, before in zip(_clocks(), self._before, strict=True))
        self.total = max(total, 1 / TICKS)
        self.foreign = max(0.0, (busy - self.own) / self.total)


def _clocks() -> tuple[float, float, float]:
    """Seconds: busy and altogether of all cores, and of this process with the children that have ended."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    own = os.times()
    return (sum(fields) - idle) / TICKS, sum(fields) / TICKS, own[0] + own[1] + own[2] + own[3]


def wait_for_quiet(patience: float) -> None:
    """Until others leave the machine alone for half a second, or `patience` seconds have passed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with Meter() as meter:
            time.sleep(0.5)
        if meter.foreign < QUIET:
            return


def describe(folder: Path) -> dict[str, str]:
    """What a reader must know to compare: the file system is that of `folder`."""
    return {
        "penstock": f"{package_version('penstock')} ({_commit()})",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "apsw": package_version("apsw"),
        "sqlite": apsw.sqlite_lib_version(),
        "msgspec": package_version("msgspec"),
        "uvloop": package_version("uvloop"),
        "cpu": f"{os.cpu_count()} × {_cpu()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(str(folder)) or "unknown",
        "fdatasync of 4 KiB": f"{_sync_time(folder) * 1e6:.0f} µs",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def package_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "commit unknown"
    return told.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or sys.platform
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _sync_time(folder: Path) -> float:
    """Seconds of one appended, synced page; the median of 50."""
    path = folder / "sync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        return statistics.median(_timed_sync(file) for _ in range(50))
    finally:
        os.close(file)
        path.unlink()


def _timed_sync(file: int) -> float:
    started = time.perf_counter()
    os.write(file, b"x" * 4096)
    os.fdatasync(file)
    return time.perf_counter() - started
