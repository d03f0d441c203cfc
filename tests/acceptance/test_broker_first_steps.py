"""From an empty folder to a queue that is served, as the broker itself says it: by the commands that it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Penstock, Queue
from penstock.errors import AccessRefused
from tests.servers import Server
from tests.servers.broker_node import broker
from tests.servers.process import running

PATIENCE = 60.0


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A broker that knows nobody."""
    server = broker(tmp_path)
    for file in (tmp_path / "data").glob("access.db*"):
        file.unlink()
    yield from running(server)


def penstock(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def done(*arguments: str, given: str = "") -> str:
    ended = penstock(*arguments, given=given)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_first_administrator_and_the_first_user(fresh: Server) -> None:
    (printed,) = re.findall(r"^ +penstock (-b 'penstock://bootstrap:.*)$", fresh.log.read_text(), re.MULTILINE)
    done(*shlex.split(printed), "--password-stdin", given="correct horse battery\n")
    bootstrap = shlex.split(printed)[:2]
    done(*bootstrap, "users", "tag", "admin", "administrator")
    assert penstock(*bootstrap, "users", "list").returncode == 2, "it counts once"

    admin = ["-b", f"penstock://admin:correct%20horse%20battery@127.0.0.1:{fresh.port}/"]
    password = done(*admin, "users", "add", "shop", "--generate").strip()
    done(*admin, "users", "permit", "shop", "mail", "mail", "")
    url = f"penstock://shop:{password}@127.0.0.1:{fresh.port}/"
    with_queue = Penstock("shop", broker=url, task_default_queue="mail", task_queues=[Queue("mail", max_length=2)])
    with_queue.send_task("shop.mail")
    with_queue.close()

    # Who may not configure can still publish to what is there, as it is.
    done(*admin, "users", "permit", "shop", "", "mail", "")
    same = Queue("mail", max_length=2, alias="letters")
    app = Penstock("shop", broker=url, task_default_queue="mail", task_queues=[same])
    app.send_task("shop.mail")
    (info,) = app.engine.run(app.engine.inspect.queues())
    assert (info.name, info.depth, info.max_length) == ("mail", 2, 2)
    with pytest.raises(AccessRefused, match="no write right on queue 'other'"):
        app.send_task("shop.other", queue="other")
    app.close()
    wider = Penstock("shop", broker=url, task_default_queue="mail", task_queues=[Queue("mail", max_length=3)])
    with pytest.raises(AccessRefused, match="no configure right on queue 'mail'"):
        wider.send_task("shop.mail")
    wider.close()


def test_an_administrator_looks_and_changes_and_backs_up(fresh: Server, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    done("users", "add", "admin", "--password-stdin", "--data", data, given="correct horse battery\n")
    done("users", "tag", "admin", "administrator", "--data", data)
    url = f"penstock://admin:correct%20horse%20battery@127.0.0.1:{fresh.port}/"
    assert "namespace /" in done("broker", "status", "-b", url)
    assert "slow = 0.5" in done("broker", "set", "slow=0.5", "-b", url)
    assert " serves: " in done("broker", "check", "-b", url)
    done("broker", "backup", "monday", "-b", url)
    done("broker", "restore", f"{data}/backups/monday", "--data", str(tmp_path / "other"))
    assert done("broker", "check", "--data", str(tmp_path / "other")) == "access.db: whole\nqueue.db: whole\n"
