"""`manage.py penstock worker`, `… queues`, and all other commands: Penstock's own, for the app in TASKS."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import REMAINDER
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from penstock.contrib.django.project import VARIABLE, app_name


class Command(BaseCommand):
    help = "Run a command of penstock, e.g. manage.py penstock worker; see manage.py penstock --help."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("words", nargs=REMAINDER, help="As on the command line of penstock.")

    def run_from_argv(self, argv: list[str]) -> None:
        """Become penstock: its options are not Django's, and signals are to reach the worker itself."""
        sys.stdout.flush()
        os.execve(sys.executable, command(argv[2:]), environment(os.environ, Path(argv[0])))

    def handle(self, *_: Any, words: Sequence[str] = (), **__: Any) -> None:
        """For `call_command`. Raises `CommandError` for what did not end with 0."""
        code = subprocess.run(command(words), env=environment(os.environ, Path(sys.argv[0]))).returncode
        if code:
            raise CommandError(f"penstock {' '.join(words)} ended with {code}", returncode=code)


def command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "penstock.cli", *words]


def environment(variables: Any, script: Path) -> dict[str, str]:
    """The caller's, with the app, and the folder of manage.py on the path, as Django has it."""
    path = [str(script.resolve().parent), variables.get("PYTHONPATH", "")]
    found = {**variables, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    app = app_name(getattr(settings, "TASKS", {}))
    return found if app is None else {VARIABLE: app, **found}
