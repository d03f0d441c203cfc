"""Who may do what, at a real broker, by the commands and the app that people use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import AccessRefused, BrokerError, OutcomeUnknown, Penstock, Queue
from penstock.server.access.book import Book
from penstock.server.access.rights import Permission
from tests.acceptance.processes import wait_until
from tests.servers import Server
from tests.servers.broker_node import PASSWORD, broker_server, permit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker")


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Server]:
    with broker_server(folder, durability="process") as server:
        permit(folder / "data", "web", PASSWORD, Permission("/", "", "mail|default", ""))
        permit(folder / "data", "admin", PASSWORD, tags=["administrator"])
        permit(folder / "data", "watcher", PASSWORD, tags=["monitoring"])
        yield server


@pytest.fixture
def book(folder: Path) -> Iterator[Book]:
    found = Book(folder / "data")
    yield found
    found.close()


def url_of(broker: Server, user: str, secret: str = PASSWORD) -> str:
    return f"penstock://{user}:{secret.replace(' ', '%20')}@127.0.0.1:{broker.port}/"


def app_of(url: str, *queues: Queue) -> Penstock:
    app = Penstock("tasks", broker=url, task_queues=queues, publish_timeout=1.0)
    app.task(name="tasks.send", queue="mail")(lambda: None)
    return app


def send(app: Penstock, **options: object) -> str:
    return app.tasks["tasks.send"].apply_async((), **options).id  # type: ignore[arg-type]  # options of a call


def penstock(*words: str, code: int = 0, typed: str = "") -> str:
    command = [sys.executable, "-m", "penstock.cli", *words]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_who_may_only_publish_does_that_and_nothing_else(broker: Server) -> None:
    worker = app_of(broker.url, Queue("default"), Queue("mail", max_length=1_000))
    send(worker)
    worker.engine.run(worker.engine.inspect.declare([Queue("hidden")]))
    web = app_of(url_of(broker, "web"), Queue("default"), Queue("mail", max_length=1_000))
    task_id = send(web)
    assert web.AsyncResult(task_id).state == "PENDING"
    for call in (
        web.engine.inspect.peek("mail", 1),
        web.engine.inspect.purge("mail"),
        web.engine.inspect.declare([Queue("mail", max_length=1_001)]),
        web.engine.inspect.declare([Queue("another")]),
        web.engine.inspect.declare([Queue("hidden")]),  # as it is: that it is there is not told
    ):
        with pytest.raises(AccessRefused, match=r"has no (read|configure) right on queue"):
            web.engine.run(call)
    with pytest.raises(AccessRefused, match="has no write right on queue 'secret'"):
        send(web, queue="secret")
    with pytest.raises(AccessRefused, match="has no configure right on queue 'mail'"):
        app_of(url_of(broker, "web"), Queue("default"), Queue("mail", max_length=1_001)).engine  # noqa: B018
    worker.close()
    web.close()


def test_a_right_that_is_taken_and_a_user_who_is_deleted_count_for_who_is_connected(broker: Server, book: Book) -> None:
    permit(Path(book.path).parent, "guest", PASSWORD, Permission("/", ".*", ".*", ".*"))
    guest = app_of(url_of(broker, "guest"))
    send(guest)
    book.refresh()
    book.permit("guest", Permission("/", ".*", "", ".*"))
    wait_until(lambda: refused(guest, "no write right"), 10, "the right is taken")
    book.delete_user("guest")
    wait_until(lambda: refused(guest, "access refused", "too many failed"), 10, "the user is signed out")
    guest.close()


def refused(app: Penstock, *why: str) -> bool:
    try:
        send(app)
    except BrokerError as error:  # of what was on its way when the connection was cut, the outcome is unknown
        return any(part in str(error) for part in why) and not isinstance(error, OutcomeUnknown)
    return False


def test_an_administrator_needs_no_queue(broker: Server, book: Book) -> None:
    admin = url_of(broker, "admin")
    said = penstock("-b", admin, "users", "add", "ada", "--password-stdin", typed="another horse\n")
    assert "added user 'ada'" in said
    penstock("-b", admin, "namespaces", "add", "shop")
    penstock("-b", admin, "users", "permit", "ada", ".*", ".*", ".*", "--namespace", "shop")
    book.refresh()
    assert book.snapshot.users["ada"].rights.permissions == (Permission("shop", ".*", ".*", ".*"),)
    assert "administrator" in penstock("-b", admin, "users", "list")
    ada = url_of(broker, "ada", "another horse")
    assert "access refused" in penstock("-b", ada, "tokens", "create", code=2)  # she is of another namespace
    token = penstock("-b", f"{ada}shop", "tokens", "create", "--expires", "1h").splitlines()[0]
    by_token = f"{url_of(broker, 'ada', token)}shop"
    assert len(json.loads(penstock("-b", by_token, "tokens", "list", "--json"))) == 1
    assert "needs the tag administrator" in penstock("-b", by_token, "users", "list", code=2)
    penstock("-b", admin, "tokens", "revoke", token.split("_")[1])
    assert "access refused" in penstock("-b", by_token, "tokens", "list", code=2)


def test_who_watches_sees_everything_and_touches_nothing(broker: Server) -> None:
    watcher = url_of(broker, "watcher")
    assert "mail" in penstock("-b", watcher, "queues", "--sample", "0")
    assert "clients" in penstock("-b", watcher, "broker", "status")
    assert "no read right on queue 'mail'" in penstock("-b", watcher, "peek", "mail", code=2)
    assert "needs the tag administrator" in penstock("-b", watcher, "users", "list", code=2)


def test_the_log_says_who_was_refused_what_and_no_secret(broker: Server) -> None:
    assert "access refused" in penstock("-b", url_of(broker, "nobody", "secret-word"), "queues", code=2)
    log = broker.log.read_text()
    assert "penstock.broker.access: refused 127.0.0.1: user 'nobody', namespace '/': there is no such user" in log
    assert "secret-word" not in log and PASSWORD not in log
