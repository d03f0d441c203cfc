"""Commands as they are typed, in the folder of a project."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# The script, not `-m`: that would put the working directory on the path by itself.
PENSTOCK = str(Path(sys.executable).with_name("penstock"))


class Shell:
    """The folder of a project, in which commands are typed."""

    def __init__(self, folder: Path, tasks: str) -> None:
        """`tasks` is what the module `tasks` holds."""
        self.folder = folder
        self._running: list[subprocess.Popen[str]] = []
        (folder / "tasks.py").write_text(tasks)
        (folder / "pyproject.toml").touch()  # the queue is kept here, wherever pytest's folders are
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK")}

    def __call__(self, *words: object, code: int = 0, typed: str = "", **environ: str) -> str:
        """What the command printed. It must end with `code`; what it wrote to standard error is in `self.error`."""
        done = subprocess.run(
            [PENSTOCK, *map(str, words)],
            cwd=self.folder,
            env=self._environ | environ,
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.error = done.stderr
        assert done.returncode == code, (done.stdout, done.stderr)
        for text in (done.stdout, done.stderr):
            assert "\x1b" not in text and "\x07" not in text, repr(text)
        return done.stdout

    def python(self, script: str) -> str:
        """What a script in the folder printed."""
        done = subprocess.run(
            [sys.executable, script], cwd=self.folder, env=self._environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def start(self, *words: object) -> "subprocess.Popen[str]":
        """A command that goes on; its output goes to a pipe."""
        process = subprocess.Popen(
            [PENSTOCK, *map(str, words)],
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def worker(self, *words: object) -> "subprocess.Popen[str]":
        return self.start("-A", "tasks", "worker", "-c", "2", *words)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
            process.communicate(timeout=20)
