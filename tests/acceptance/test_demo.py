"""The demo, run for real: a process is killed, and nothing is lost."""

import re
import subprocess
import sys
from pathlib import Path

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PENSTOCK, "demo", *map(str, words)], capture_output=True, text=True, timeout=110)


def number(label: str, text: str) -> int:
    found = re.search(rf"^  {label} +([\d,]+)", text, re.MULTILINE)
    assert found, text
    return int(found.group(1).replace(",", ""))


def test_every_file_is_rendered_though_a_process_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "with a space"
    done = run("--files", 60, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout
    assert (number("rendered", said), number("retried", said), number("lost", said)) == (60, 1, 0)
    # It was seen at work when it was killed; in the moment until the signal came it may have finished.
    assert number("redelivered", said) <= 1
    assert re.search(r"killed process \d+ with SIGKILL after \d+ tasks, while it rendered ", said)
    assert re.search(r"was killed by SIGKILL; tasks that it held and that are delivered again: \d+", said)
    pages = list((out / "lib").rglob("*.html"))
    assert len(pages) == 60 and not list(out.rglob("*.part"))
    assert all(page.read_text("utf-8").endswith("</html>\n") for page in pages)
    index = (out / "index.html").read_text("utf-8")
    assert all(f'href="{page.relative_to(out)}"' in index for page in pages)
    assert f"Open {(out / 'index.html').as_uri()}\n" in said
    again = run("--files", 60, "--out", out)
    assert again.returncode == 2 and "earlier run" in again.stderr


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    """The check at the end can fail."""
    code = (
        "import penstock.cli.demo.show as show\n"
        "report, seen = show.Demo._index, []\n"
        "def damage(self, worker):\n"
        "    page = next(iter(self._pages.values()))\n"
        "    (self._out / page.target).write_text('')\n"
        "    return report(self, worker)\n"
        "show.Demo._index = damage\n"
        "from penstock.cli.main import main\n"
        f"main(['demo', '--files', '20', '--out', {str(tmp_path / 'out')!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (number("rendered", done.stdout), number("lost", done.stdout)) == (19, 1)
