"""The manual says what is true: what it names exists, what exists is named, its code runs, its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import pydoc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import apsw
import click
import pytest

from penstock import Penstock, Queue, State, Unique, errors
from penstock.broker import Features
from penstock.cli.main import cli
from penstock.config import Config
from penstock.engines.postgres.settings import OPTIONS as postgres_options
from penstock.engines.rabbitmq.settings import OPTIONS as rabbitmq_options
from penstock.engines.redis.settings import OPTIONS as redis_options
from penstock.engines.server.settings import OPTIONS as broker_options
from penstock.opening import ENGINES
from penstock.options import CallSettings, TaskOptions, TaskSettings
from penstock.pool import BUILT_IN, load
from tests import doc_pages
from tests.doc_pages import DOCS, REPOSITORY, Project, blocks, links, name, pages
from tools import feature_table

SETTINGS = DOCS / "reference/settings.md"
SCHEMA_PAGE = DOCS / "reference/schema.md"
LOGGERS = ("penstock.broker.access", "penstock.worker", "penstock.client", "penstock.task")
RABBITMQ = ("penstock.delay", "penstock.news", "penstock.replies")
"""Names on the server, not in Python."""


@pytest.mark.parametrize("page", pages(), ids=name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    code = [block for block in blocks(page) if block.language == "python" or block.mark]
    if not code:
        return
    if not any(block.mark.startswith("file: ") for block in code):
        doc_pages.run_in_memory(page, tmp_path)
        return
    project = Project(tmp_path)
    try:
        for block in blocks(page):
            project.follow(block)
    finally:
        project.stop()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        # The built manual holds docs/ only; a link out of it would be dead there.
        assert page.parent == REPOSITORY or target.is_relative_to(DOCS), f"{name(page)}: {link} leaves docs/"
        if anchor:
            assert anchor in doc_pages.anchors(target), f"{name(page)}: {link}"


def test_the_manual_fetches_nothing_and_names_no_machine() -> None:
    for page in pages():
        text = page.read_text("utf-8")
        assert not re.search(r"/work/|/root/|/opt/|/Users/", text), name(page)
        assert not re.search(r"!\[[^\]]*\]\(\w+:|<(img|script|link)\b", text), (
            f"{name(page)} loads something from elsewhere"
        )


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"(\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_setting_is_documented_with_its_default() -> None:
    page = DOCS / "reference/settings.md"
    documented = doc_pages.rows(page, "All settings")
    assert list(documented) == list(Config.__struct_fields__)
    for setting, default in documented.items():
        assert ast.literal_eval(default) == getattr(Config(), setting), setting


def test_every_argument_of_an_app_is_documented() -> None:
    parameters = inspect.signature(Penstock).parameters.values()
    arguments = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert {cell for row in doc_pages.first_cells(SETTINGS, "Other arguments") for cell in row} == arguments


def test_every_environment_variable_is_documented() -> None:
    source = "".join(path.read_text("utf-8") for path in (REPOSITORY / "src").rglob("*.py"))
    used = set(re.findall(r"\bPENSTOCK_[A-Z_]+", source))
    assert {cell for row in doc_pages.first_cells(SETTINGS, "Environment") for cell in row} == used


def test_every_url_scheme_is_documented() -> None:
    text = SETTINGS.read_text("utf-8").partition("## Broker URLs")[2]
    assert set(re.findall(r"([\w-]+)://", text)) == {*ENGINES}


def test_the_table_of_engines_is_what_their_features_say() -> None:
    written = feature_table.PAGE.read_text("utf-8")
    assert written == feature_table.with_table(written), "run: .venv/bin/python -m tools.feature_table"
    assert set(feature_table.ROWS) == {*Features.__struct_fields__} - {"engine"}


@pytest.mark.parametrize(
    ("page", "options"),
    [
        ("redis", redis_options),
        ("postgresql", postgres_options),
        ("rabbitmq", rabbitmq_options),
        ("penstock", broker_options),
    ],
)
def test_every_option_of_an_engines_url_is_documented(page: str, options: tuple[str, ...]) -> None:
    cells = doc_pages.first_cells(DOCS / f"engines/{page}.md", "Options of the URL")
    assert sorted(cell for row in cells for cell in row) == sorted(options)


def test_every_task_option_is_documented_with_its_default() -> None:
    documented = doc_pages.rows(DOCS / "reference/task-options.md")
    names = {"name", "base", "bind"}
    assert set(documented) == {*TaskSettings.__annotations__, "bind"}
    for option in documented.keys() - names:
        default = documented[option]
        if default == "setting":
            assert option in Config().task_defaults(), option
        else:
            assert option not in Config().task_defaults(), option
            assert ast.literal_eval(default) == getattr(TaskOptions(), option), option


def test_every_option_of_a_call_is_documented() -> None:
    cells = doc_pages.first_cells(DOCS / "guides/calling.md", "Options of a call")
    assert [cell for row in cells for cell in row] == list(CallSettings.__annotations__)


def test_every_field_of_a_queue_is_documented() -> None:
    cells = doc_pages.first_cells(DOCS / "guides/routing.md", "Queues")
    assert [cell for row in cells for cell in row] == list(Queue.__struct_fields__)


def test_every_option_of_a_unique_task_is_documented() -> None:
    cells = [cell for row in doc_pages.first_cells(DOCS / "guides/calling.md", "Once only") for cell in row]
    assert cells == list(Unique.__struct_fields__)


def commands_of(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for found in group.list_commands(context):
        command = group.get_command(context, found)
        assert command is not None
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{path}{found}", command
            yield from commands_of(command, f"{path}{found} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{path}{found}", command


def options_of(command: click.Command) -> list[set[str]]:
    return [set(one.opts + one.secondary_opts) for one in command.params if isinstance(one, click.Option)]


def test_every_command_and_option_is_documented() -> None:
    page = DOCS / "reference/cli.md"
    commands = dict(commands_of(cli))
    assert sorted(doc_pages.headings(page)[1:]) == sorted(["penstock", *commands])
    for heading, command in {"penstock": cli, **commands}.items():
        documented = [
            {cell.split()[0] for cell in row} for row in doc_pages.first_cells(page, heading) if row[0].startswith("-")
        ]
        expected = options_of(command) + ([{"-h", "--help"}] if command is cli else [])
        assert sorted(map(sorted, documented)) == sorted(map(sorted, expected)), heading


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_in_the_manual_parse(page: Path) -> None:
    for arguments in doc_pages.commands(page):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                parse(cli, [one for one in arguments if one != "…"])
        except click.ClickException as error:
            pytest.fail(f"{name(page)}: penstock {shlex.join(arguments)}: {error.format_message()}")


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse as the shell would have it, and run nothing. A group alone, as prose may name it, is enough."""
    context = command.make_context(command.name, arguments or ["--help"], parent, resilient_parsing=not arguments)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        prose_alone = not rest and any(one.required for one in found.params)
        parse(found, [] if prose_alone else rest, context)


def test_the_tree_of_errors_is_the_one_in_the_code() -> None:
    drawn = {
        line.split("──")[-1].split()[0]
        for line in (DOCS / "reference/errors.md").read_text("utf-8").splitlines()
        if "──" in line
    }
    tree = {
        one
        for one, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PenstockError)
    }
    assert drawn == tree - {"PenstockError"}


def test_bases_in_the_tree_of_errors_are_true() -> None:
    for line in (DOCS / "reference/errors.md").read_text("utf-8").splitlines():
        found = re.search(r"── (\w+) .*?(?:\(also an? (\w+)\))?$", line)
        if found:
            kind = getattr(errors, found[1])
            others = {base.__name__ for base in kind.__mro__[1:] if base.__module__ == "builtins"}
            others -= {"Exception", "BaseException", "object"}
            if found[2]:
                assert found[2] in others, line
            else:
                assert not any(base.__module__ == "builtins" and base is not Exception for base in kind.__bases__), line


@pytest.fixture(scope="module")
def database() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    for migration in sorted((REPOSITORY / "src/penstock/engines/sqlite/migrations").glob("*.sql")):
        connection.execute(migration.read_text("utf-8"))
    yield connection
    connection.close()


def test_every_table_is_documented(database: apsw.Connection) -> None:
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    cells = {cell for row in doc_pages.first_cells(SCHEMA_PAGE, "Tables") for cell in row}
    assert cells == {table for table in tables if not table.startswith("sqlite_")}


def test_every_view_and_column_is_documented(database: apsw.Connection) -> None:
    views = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
    headings = doc_pages.headings(SCHEMA_PAGE)
    assert sorted(headings[headings.index("Views") + 1 : headings.index("Questions")]) == sorted(views)
    for view in views:
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({view})")}
        cells = {cell for row in doc_pages.first_cells(SCHEMA_PAGE, view) for cell in row}
        assert cells == columns, view


def test_the_questions_to_the_database_have_answers(tmp_path: Path) -> None:
    app = Penstock("tasks", broker=f"sqlite:///{tmp_path}/queue.db")
    task = app.task(name="tasks.add")(lambda x: x)
    task.delay(1)
    task.apply_async((2,), countdown=60, task_id="chosen")
    (sql,) = [block.code for block in blocks(SCHEMA_PAGE) if block.language == "sql"]
    connection = apsw.Connection(
        f"file:{tmp_path}/queue.db?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    answers = [connection.execute(question).fetchall() for question in sql.split(";") if question.strip()]
    connection.close()
    app.close()
    assert answers[0] == [("default", 2, 1_000_000, 0.0)]
    assert sorted(answers[1]) == [("tasks.add", "delayed", 1), ("tasks.add", "ready", 1)]
    assert [row[:2] for row in answers[2]] == [("tasks.add", "chosen")]


def test_every_state_is_documented() -> None:
    cells = [cell for row in doc_pages.first_cells(DOCS / "states.md") for cell in row]
    drawing = (DOCS / "images/states.svg").read_text("utf-8")
    assert cells == list(State)
    assert set(re.findall(r'class="name"[^>]*>(\w+)<', drawing)) == set(State)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_files_named_by_the_manual_exist(page: Path) -> None:
    """`worker/run.py` and the like, below the package or the repository; modules of the package as `penstock.x`."""
    source = REPOSITORY / "src/penstock"
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|sql|md))`", doc_pages.prose(page)):
        assert (source / path).exists() or (REPOSITORY / path).exists(), f"{name(page)}: {path}"
    for dotted in re.findall(r"`(penstock(?:\.\w+)+)`", doc_pages.prose(page)):
        if dotted in ("penstock.engines",) or dotted.startswith((*LOGGERS, *RABBITMQ)):
            continue
        assert pydoc.locate(dotted) is not None, f"{name(page)}: {dotted}"


def test_every_pool_is_documented() -> None:
    cells = [cell for row in doc_pages.first_cells(DOCS / "guides/workers.md", "Pools") for cell in row]
    assert set(cells) == set(BUILT_IN)


def test_the_table_of_time_limits_is_what_pools_declare() -> None:
    rows = doc_pages.table(DOCS / "guides/workers.md", "Time limits")
    for pool, soft, hard, *coroutine in rows:
        traits = load(pool.strip("`"))[1]
        assert ("refused" not in soft, "refused" not in hard) == (traits.soft_limit, traits.hard_limit), pool
        assert all("refused" not in cell for cell in coroutine) is traits.coroutine_limit, pool
    assert len(rows) == len(BUILT_IN)
