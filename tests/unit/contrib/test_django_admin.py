"""Django's admin: results that its database keeps, queues, and dead letters that are put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import Penstock
from tests import django_project
from tests.transactions.callers import django_default

django_project.set_up()

QUEUES, RESULTS = "/admin/penstock/queue/", "/admin/penstock/storedresult/"


class Site:
    """An admin with the users ada, who may do all, and bob, who may look; `app` is the project's."""

    def __init__(self, app: Penstock) -> None:
        from django.contrib.auth.models import Permission, User

        self.app = app
        User.objects.create_superuser("ada", password="x")
        self._bob = User.objects.create_user("bob", password="x", is_staff=True)
        names = ("view_queue", "view_storedresult")
        self._bob.user_permissions.set(Permission.objects.filter(codename__in=names))
        User.objects.create_user("eve", password="x", is_staff=True)

    def client(self, user: str | None) -> Any:
        from django.test import Client

        client = Client()
        if user is not None:
            assert client.login(username=user, password="x")
        return client

    def dead(self) -> list[str]:
        return [one.id for one in self.app.engine.run(self.app.engine.inspect.dead_letters())]

    def get(self, user: str | None, path: str) -> Any:
        return self.client(user).get(path)

    def post(self, user: str | None, verb: str, *ids: str) -> Any:
        return self.client(user).post(QUEUES, {"verb": verb, "id": list(ids)}, follow=True)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    from django.core.management import call_command

    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}
    with django_default(place) as connection:
        call_command("migrate", verbosity=0)
        yield connection


@pytest.fixture
def app(database: Any, tmp_path: Path) -> Iterator[Penstock]:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path}/queue.db?durability=process", result_backend="django-db://")

    @app.task(name="mail", max_retries=0)
    def mail(word: str) -> str:
        if word.startswith("<"):
            raise ValueError(f"no mail for {word}")
        return f"sent {word}"

    yield app
    app.close()


@pytest.fixture
def site(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    from django.test import override_settings

    monkeypatch.setitem(sys.modules, "shop_of_the_admin", SimpleNamespace(app=app))
    backend = {"BACKEND": "penstock.contrib.django.PenstockBackend", "OPTIONS": {"app": "shop_of_the_admin:app"}}
    with override_settings(TASKS={"default": backend}):
        yield Site(app)


def run(app: Penstock) -> None:
    from penstock.worker import Worker, WorkerOptions

    assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run() == 0


def published(app: Penstock, *words: str) -> list[str]:
    ids = [app.tasks["mail"].delay(word).id for word in words]
    run(app)
    return ids


def test_results_are_listed_and_shown(site: Site) -> None:
    sent, failed = published(site.app, "hello", "<script>")
    listed = site.get("bob", RESULTS).content.decode()
    assert sent in listed and failed in listed and "FAILURE" in listed and "mail" in listed
    assert "sent hello" in site.get("bob", f"{RESULTS}{sent}/change/").content.decode()
    error = site.get("bob", f"{RESULTS}{failed}/change/").content.decode()
    assert "ValueError: no mail for &lt;script&gt;" in error and "<script>" not in error.split("no mail")[1][:20]
    assert sent in site.get("bob", f"{RESULTS}?q={sent}").content.decode()
    assert site.get("ada", f"{RESULTS}add/").status_code == 403


def test_dead_letters_are_put_back_or_dropped(site: Site) -> None:
    first, second = published(site.app, "<a>", "<b>")
    page = site.get("ada", QUEUES).content.decode()
    assert first in page and "no mail for &lt;a&gt;" in page and "(&quot;&lt;a&gt;&quot;)" in page
    assert "default" in page and "sqlite://" in page
    answer = site.post("ada", "retry", first).content.decode()
    assert "1 of 1 put back" in answer and site.dead() == [second]
    assert site.app.AsyncResult(first).state == "PENDING"
    run(site.app)
    assert site.app.AsyncResult(first).state == "FAILURE"
    assert "2 of 3 dropped" in site.post("ada", "drop", first, second, "strange").content.decode()
    assert site.dead() == []
    assert "Nothing was chosen" in site.post("ada", "drop").content.decode()
    assert "Nothing was chosen" in site.post("ada", "explode", first).content.decode()
    from django.contrib.admin.models import LogEntry

    assert [entry.get_change_message().split(":")[0] for entry in LogEntry.objects.order_by("id")] == ["retry", "drop"]


def test_only_of_one_queue(site: Site) -> None:
    published(site.app, "<a>")
    assert "no mail" not in site.get("bob", f"{QUEUES}?queue=other").content.decode()
    assert "no mail" in site.get("bob", f"{QUEUES}?queue=default").content.decode()


def test_who_may_only_look_changes_nothing(site: Site) -> None:
    [letter] = published(site.app, "<a>")
    page = site.get("bob", QUEUES).content.decode()
    assert letter in page and "Put back" not in page
    assert site.post("bob", "retry", letter).status_code == 403
    assert site.post("eve", "retry", letter).status_code == 403 and site.get("eve", QUEUES).status_code == 403
    assert site.get(None, QUEUES).status_code == 302
    assert site.dead() == [letter]


def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    from django.test import Client

    [letter] = published(site.app, "<a>")
    client = Client(enforce_csrf_checks=True)
    assert client.login(username="ada", password="x")
    assert client.post(QUEUES, {"verb": "drop", "id": [letter]}).status_code == 403
    assert site.dead() == [letter]


def test_a_broker_that_is_away_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.test import override_settings

    with override_settings(TASKS={}):
        monkeypatch.delenv("PENSTOCK_APP", raising=False)
        assert "no app is named" in site.get("ada", QUEUES).content.decode()
    away = Penstock("shop", broker="redis://127.0.0.1:1/0")
    monkeypatch.setitem(sys.modules, "shop_of_the_admin", SimpleNamespace(app=away))
    answer = site.get("ada", QUEUES)
    assert answer.status_code == 200 and "127.0.0.1:1" in answer.content.decode()
    away.close()
