"""How a function becomes a task: `@app.task`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.definition import name_of, place_of, same_definition
from penstock.errors import ConfigError
from penstock.generator_task import AsyncGeneratorTask, GeneratorTask
from penstock.options import TaskOptions, said
from penstock.queue import check_name
from penstock.task import CoroutineTask, Task, class_options

if TYPE_CHECKING:
    from penstock.app import Penstock


def made_task(app: Penstock, function: Callable[..., Any], bind: bool, options: Mapping[str, Any]) -> Task[..., Any]:
    """The task of `app` that `function` is to be. `options`: those of tasks, `name` and `base`. Raises `ConfigError`
    for an unknown or bad option, and for a name that another task of the app has."""
    if isinstance(function, Task) or not callable(function):
        raise ConfigError(f"{function!r} cannot be made a task: @app.task goes on a function")
    given = dict(options)
    name = given.pop("name", None) or name_of(function, app.name)
    check_name("task", name)
    base = given.pop("base", None) or Task
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigError(f"task {name!r}: base must be a subclass of penstock.Task, not {base!r}")
    for option in given:
        if option not in TaskOptions.__struct_fields__:
            known = (*TaskOptions.__struct_fields__, "name", "base", "bind")
            from penstock.celery_options import unknown_task_option  # only on the way to an error

            raise ConfigError(f"task {name!r}: {unknown_task_option(option, known)}")
    other = app.tasks.get(name)
    if other is not None and not same_definition(other.function, function):
        raise ConfigError(
            f"two tasks are named {name!r}: {place_of(other.function)} and {place_of(function)}; "
            "give one of them name='…'"
        )
    task: Task[..., Any] = base()
    task.attach(app, function, name, bind, said({**class_options(base), **given}))
    if base is Task and task.is_generator:
        task.__class__ = AsyncGeneratorTask if task.is_coroutine else GeneratorTask
    elif base is Task and task.is_coroutine:
        task.__class__ = CoroutineTask
    return task
