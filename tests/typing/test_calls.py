"""mypy refuses exactly the marked lines of calls.py, for the reasons that are marked."""

import re
import subprocess
import sys
from pathlib import Path

CALLS = Path(__file__).with_name("calls.py")
ROOT = CALLS.parents[2]
MARK = re.compile(r"  # type: ignore\[([\w,-]+)\]  # refused$")


def test_mypy_refuses_wrong_calls_and_nothing_else(tmp_path: Path) -> None:
    expected, bare = {}, []
    for number, line in enumerate(CALLS.read_text().splitlines(), 1):
        marked = MARK.search(line)
        if marked:
            expected[number] = set(marked[1].split(","))
        bare.append(MARK.sub("", line))
    copy = tmp_path / "calls.py"
    copy.write_text("\n".join(bare) + "\n")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--no-pretty",
            "--no-error-summary",
            "--config-file",
            "pyproject.toml",
            str(copy),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found: dict[int, set[str]] = {}
    for line in run.stdout.splitlines():
        match = re.match(r".*calls\.py:(\d+): error: .*\[([\w-]+)\]$", line)
        if match:
            found.setdefault(int(match[1]), set()).add(match[2])
    assert len(expected) > 10
    assert found == expected, run.stdout + run.stderr
