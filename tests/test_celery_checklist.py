"""The checklist of Celery's features is complete, its proofs exist, its words are true, and the page is made of it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import click
import pytest

import penstock
from penstock import Exchange, GroupResult, Penstock, Queue, ResultSet, Signature, State, Task, Unique, chord, errors
from penstock.beat.timetable import Timetable
from penstock.beat.written import Written
from penstock.cli.main import cli
from penstock.codec.compression import NAMES as COMPRESSIONS
from penstock.codec.formats import NAMES as SERIALIZERS
from penstock.config import Config
from penstock.contrib import pytest as plugin
from penstock.contrib.live import live_worker
from penstock.coordinator import Revoked
from penstock.engines.rabbitmq.settings import OPTIONS as RABBITMQ
from penstock.options import CallSettings, TaskSettings
from penstock.request import Request
from penstock.result import AsyncResult
from penstock.schedules import Schedule
from tests import doc_pages
from tests.doc_pages import DOCS, REPOSITORY
from tools import celery_tables
from tools.celery_tables import CODE, WORDS, Group, Row

CHECKLIST = celery_tables.read()
ROWS = [(group, row) for group in CHECKLIST.groups for row in group.rows]
IDS = [f"{group.title}: {row.of[0]}" for group, row in ROWS]
PAINS = 20
OBJECTS = MappingProxyType(
    {
        "app": (Penstock,),
        "app.conf": (Config,),
        "app.timetable": (Timetable,),
        "task": (Task,),
        "self": (Task,),
        "self.request": (Request,),
        "result": (AsyncResult, GroupResult),
        "results": (ResultSet,),
        "canvas": (Signature,),
        "signature": (Signature,),
        "chord": (chord,),
        "State": (State,),
        "GroupResult": (GroupResult,),
    }
)
"""What stands before a dot → whose attributes may stand behind it."""

WHERE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Task options": frozenset(TaskSettings.__annotations__),
        "Tasks: methods, hooks, request": frozenset(dir(Task)) | {f"request.{name}" for name in dir(Request)},
        "Calling": frozenset(CallSettings.__annotations__),
        "The app and its configuration": frozenset(f"app.{name}" for name in dir(Penstock)),
        "Settings": frozenset(Config.__struct_fields__),
    }
)
"""Group → the names that Penstock has of its kind."""


def attributes(kinds: Iterable[type]) -> set[str]:
    """Also those that only instances have."""
    found: set[str] = set()
    for kind in kinds:
        for base in kind.__mro__:
            found.update(vars(base))
            found.update(vars(base).get("__annotations__", {}))
            if base.__module__.startswith("penstock"):
                found.update(re.findall(r"self\.(\w+)\b[^=\n]* = ", inspect.getsource(base)))
    return found


def options(command: click.Command) -> Iterator[str]:
    for one in command.params:
        yield from one.opts
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from options(found)


@cache
def words() -> frozenset[str]:
    """Names that may stand alone."""
    fixtures = re.findall(r"def (penstock_\w+)", inspect.getsource(plugin))
    environment = re.findall(r"\bPENSTOCK_[A-Z_]+", (DOCS / "reference/settings.md").read_text("utf-8"))
    return frozenset(
        {
            *penstock.__all__,
            *Config.__struct_fields__,
            *TaskSettings.__annotations__,
            *CallSettings.__annotations__,
            *Queue.__struct_fields__,
            *Exchange.__struct_fields__,
            *Unique.__struct_fields__,
            *Written.__struct_fields__,
            *inspect.signature(Penstock).parameters,
            *inspect.signature(Task.apply_async).parameters,
            *inspect.signature(AsyncResult.get).parameters,
            *inspect.signature(AsyncResult.revoke).parameters,
            *inspect.signature(live_worker).parameters,
            *attributes((AsyncResult, ResultSet, GroupResult, Signature)),
            *dir(Schedule),
            *State,
            *Revoked,
            *vars(errors),
            *SERIALIZERS,
            *COMPRESSIONS,
            *RABBITMQ,
            *fixtures,
            *environment,
            *options(cli),
            "bind",
            "on_commit",
        }
    )


def unknown(how: str) -> list[str]:
    """What is in `code` in a text, and is no name of Penstock. What begins with `penstock ` is parsed as a command by
    the tests of the manual; values and dictionaries are not looked at."""
    wrong = []
    for code in re.findall(r"`([^`]+)`", how):
        name = re.match(r"(?:await |raise )?(-*[A-Za-z_][\w.-]*)", code)
        if name is None or code.startswith("penstock ") or code in ("True", "False") or "://" in code:
            continue
        owner, _, last = name[1].rpartition(".")
        if owner == "penstock" or owner.startswith("penstock."):
            known = _located(name[1])
        elif owner == "pytest.mark":
            known = last == plugin.MARK
        elif owner:
            known = owner in OBJECTS and last in attributes(OBJECTS[owner])
        else:
            known = name[1] in words()
        if not known:
            wrong.append(code)
    return wrong


def _located(name: str) -> bool:
    import pydoc

    return pydoc.locate(name) is not None


@cache
def functions_of(path: str) -> frozenset[str]:
    file = REPOSITORY / path
    if not file.exists():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def identifier(name: str) -> str:
    """What a test that shows `name` mentions: `countdown` of "retry(countdown=)", `-Q` of "celery worker -Q"."""
    found: str = re.findall(r"-*\w+|\|", name)[-1]
    return found


def is_there(proof: str) -> bool:
    path, _, name = proof.partition("::")
    return name.startswith(("test_", "check_")) and name in functions_of(path)


def test_the_page_is_made_of_the_checklist() -> None:
    written = celery_tables.PAGE.read_text("utf-8")
    assert written == celery_tables.with_tables(written), "run: .venv/bin/python -m tools.celery_tables"


@pytest.mark.parametrize("group", CHECKLIST.groups, ids=lambda group: group.title)
def test_each_name_of_celery_is_in_one_row(group: Group) -> None:
    listed = [name for row in group.rows for name in row.of]
    assert sorted(listed) == sorted(set(group.names))


def test_settings_that_are_the_same_are_settings() -> None:
    [settings] = [group for group in CHECKLIST.groups if group.title == celery_tables.SETTINGS]
    same = {name for row in settings.rows if row.word == "same" for name in row.of}
    assert same == set(settings.names) & set(Config.__struct_fields__)


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=IDS)
def test_a_row_says_what_it_must(row: Row) -> None:
    assert row.word in WORDS
    assert row.how or row.word == "same", "what to write instead?"
    assert row.proof or row.see or row.word in ("later", "no"), "what shows it?"
    if row.word in ("same", "better"):
        assert row.proof, "what runs is shown by a test"
    if row.word == "same":
        text = (REPOSITORY / row.proof.partition("::")[0]).read_text("utf-8")
        assert [name for name in row.of if identifier(name) not in text and CODE.fullmatch(name)] == [], (
            "the test knows nothing of it"
        )
    if row.proof:
        assert is_there(row.proof), f"{row.proof}: there is no such test"
    if row.see:
        path, _, anchor = row.see.partition("#")
        assert anchor in doc_pages.anchors(DOCS / path), row.see


@pytest.mark.parametrize("group", CHECKLIST.groups, ids=lambda group: group.title)
def test_names_in_code_exist(group: Group) -> None:
    assert {row.of[0]: wrong for row in group.rows if (wrong := unknown(row.how))} == {}


def test_what_is_not_there_is_not_there() -> None:
    """A row that says so is to be changed when it comes."""
    owners = {"Results and states": (AsyncResult, ResultSet, GroupResult), "Canvas": (Signature, chord)}
    there = [
        name
        for group, row in ROWS
        if row.word in ("later", "no")
        for name in row.of
        if name in WHERE.get(group.title, ()) or name in attributes(owners.get(group.title, ()))
    ]
    assert there == []


def test_all_pains_are_there_and_shown() -> None:
    assert [pain.number for pain in CHECKLIST.pains] == list(range(1, PAINS + 1))
    for pain in CHECKLIST.pains:
        assert pain.word in ("better", "later") and pain.proofs, pain.what
        assert [proof for proof in pain.proofs if not is_there(proof)] == []
        assert unknown(pain.how) == []


@pytest.mark.parametrize(
    ("how", "wrong"),
    [
        ("`app.conf` and `app.configure(…)`, `self.request.parent_id`", []),
        ("`app.config` and `task_time_limits=5`", ["app.config", "task_time_limits=5"]),
        ("`penstock.nothing`, `other.id`, `--nothing`", ["penstock.nothing", "other.id", "--nothing"]),
    ],
)
def test_what_does_not_exist_is_found(how: str, wrong: list[Any]) -> None:
    assert unknown(how) == wrong
