"""What `penstock service` refuses, and what its dry run shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Protocol

import pytest

from penstock.cli.main import run

SECRET = "redis://worker:hush@redis:6379/0"


class Said(Protocol):
    """Runs the command; returns what it printed."""

    def __call__(self, *arguments: str, expect: int) -> str: ...


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PENSTOCK_APP", "PENSTOCK_BROKER_URL", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def ask(*arguments: str, expect: int) -> str:
        assert run(arguments) == expect
        captured = capsys.readouterr()
        return captured.out + captured.err

    return ask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["service", "install", "worker"], "a worker needs your app: penstock -A MODULE service install worker"),
        (["service", "install", "beat"], "a service is broker or worker"),
        (
            ["service", "install", "broker", "--folder", "/srv"],
            "a broker's data is elsewhere with --env PENSTOCK_BROKER_",
        ),
        (["-A", "t", "service", "install", "worker", "--socket"], "a worker has no sockets"),
        (["service", "install", "broker", "--socket", "--manager", "files"], "--socket is systemd's"),
        (["-A", "t", "service", "install", "worker", "--manager", "files", "--as", "other"], "sign in as them"),
        (["-A", "t", "service", "install", "worker", "--manager", "system"], "say with --as USER who runs your tasks"),
        (["-A", "t", "service", "install", "worker", "--as", "-x"], "is not the name of a user"),
        (["-A", "t", "service", "install", "worker", "--", "-n", "two words"], "cannot be passed on safely"),
        (["service", "install", "broker", "-e", "MISSING"], "--env MISSING: it is not set here"),
        (["service", "start", "worker"], "worker is not installed: penstock service install"),
        (["service", "status", "worker", "--manager", "user"], "worker is not installed under user"),
        (["service", "stop", "../../etc/passwd"], "a service is broker or worker"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    said: Said, home: Path, arguments: list[str], message: str
) -> None:
    assert message in said(*arguments, expect=2)
    assert list(home.rglob("*")) == []


def test_a_dry_run_writes_nothing_and_shows_no_secret(said: Said, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER_URL", SECRET)
    monkeypatch.setenv("API_KEY", "hush")
    for manager in ("files", "user"):
        shown = said(
            *("-A", "tasks", "service", "install", "worker-mail", "--manager", manager, "--dry-run", "-e", "API_KEY"),
            *("--", "-Q", "mail"),
            expect=0,
        )
        assert "hush" not in shown
        assert 'PENSTOCK_BROKER_URL="redis://worker:***@redis:6379/0"' in shown
        assert 'API_KEY="***"' in shown
        assert 'PENSTOCK_OPTIONS="-Q mail"' in shown
        assert str(home) in shown
    assert list(home.rglob("*")) == []


def test_installing_again_keeps_what_was_set_by_hand(said: Said, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said("-A", "tasks", "service", "install", "worker", "--manager", "files", "-e", "A=1", "--", "-c", "4", expect=0)
    file = home / ".local/state/penstock/worker.env"
    file.write_text(file.read_text() + "BY_HAND='x y'\n")
    monkeypatch.setenv("PENSTOCK_APP", "of_this_shell")
    said("service", "install", "worker", "--manager", "files", "-e", "A=2", expect=0)
    assert file.read_text().splitlines()[1:] == [
        'A="2"', 'BY_HAND="x y"', 'PENSTOCK_APP="tasks"', 'PENSTOCK_OPTIONS="-c 4"'
    ]  # fmt: skip
    said("-A", "other", "service", "install", "worker", "--manager", "files", "--", "-c", "1", expect=0)
    assert file.read_text().splitlines()[-2:] == ['PENSTOCK_APP="other"', 'PENSTOCK_OPTIONS="-c 1"']
    definition = json.loads((home / ".local/state/penstock/worker.json").read_text())
    assert definition == {"command": [sys.executable, "-P", "-m", "penstock.cli", "worker"], "folder": str(home)}


def test_a_service_that_is_in_two_places_must_be_told_apart(said: Said, home: Path) -> None:
    said("-A", "tasks", "service", "install", "worker", "--manager", "files", expect=0)
    unit = home / ".config/systemd/user/penstock-worker.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    assert "worker is installed under user, files: say which with --manager" in said(
        "service", "status", "worker", expect=2
    )
    assert "stopped" in said("service", "status", "worker", "--manager", "files", expect=1)


def test_a_definition_that_somebody_damaged_is_said(said: Said, home: Path) -> None:
    said("-A", "tasks", "service", "install", "worker", "--manager", "files", expect=0)
    (home / ".local/state/penstock/worker.json").write_text('{"command": "rm -rf"}')
    assert "worker.json cannot be used" in said("service", "start", "worker", expect=2)
