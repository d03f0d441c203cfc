"""What the system knows of a process: when it began, who is in its group, its memory.

A process id is used again once its process is gone; id and beginning together are not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc/self/stat").exists()
"""Linux; elsewhere `ps` is asked."""
ZOMBIES = "ZX"


class Process(Struct, frozen=True):
    """`began` means something only in comparison with another one of the same id; `state` is a letter as of ps."""

    pid: int
    group: int
    began: str
    state: str
    command: str


def look(pid: int) -> Process | None:
    """The process of that id; `None` when there is none, or only its remains."""
    found = _from_proc(pid) if PROC else _from_ps(pid)
    return None if found is None or found.state[:1] in ZOMBIES else found


def group(pid: int) -> list[Process]:
    """Those that are alive in the process group that `pid` leads or led."""
    if PROC:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    else:
        rows = (row.split() for row in _ps("-axo", "pid=,pgid=").splitlines())
        pids = [int(row[0]) for row in rows if row[1] == str(pid)]
    found = (look(one) for one in pids)
    return [one for one in found if one is not None and one.group == pid]


def terminate(process: Process) -> bool:
    """TERM to this very process; False when it is gone, whoever has its id now."""
    handle = None
    try:
        # From here on the id cannot change its meaning, where the system has such handles.
        handle = os.pidfd_open(process.pid) if PROC else None
        now = look(process.pid)
        if now is None or now.began != process.began:
            return False
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        else:
            os.kill(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def memory(processes: list[Process]) -> int | None:
    """Bytes of all together; what they share counts once where the system tells. `None` when it does not."""
    known = [one for one in (_memory(process.pid) for process in processes) if one is not None]
    return sum(known) if known else None


def _memory(pid: int) -> int | None:
    if not PROC:
        text = _ps("-o", "rss=", "-p", str(pid)).strip()
        return int(text) * 1024 if text.isdigit() else None
    for file, label in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(label):
                    return int(line.split()[1]) * 1024
    return None


def _from_proc(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    head, _, rest = text.rpartition(") ")
    fields = rest.split()  # from the third on; the second, its name, may hold anything
    return Process(pid, int(fields[2]), fields[19], fields[0], _command(pid) or head.partition("(")[2])


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _from_ps(pid: int) -> Process | None:
    # Five words of lstart, whatever the locale: "Fri Nov 27 22:20:28 2026".
    words = _ps("-o", "pgid=,state=,lstart=,command=", "-p", str(pid)).split(maxsplit=7)
    return Process(pid, int(words[0]), " ".join(words[2:7]), words[1], words[7]) if len(words) == 8 else None


def _ps(*arguments: str) -> str:
    return subprocess.run(
        ["ps", "-ww", *arguments], capture_output=True, text=True, errors="replace", env={**os.environ, "LC_ALL": "C"}
    ).stdout
