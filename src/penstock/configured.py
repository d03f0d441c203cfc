"""What an app has to do with settings: where they come from, and when they are complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, cast

from penstock.clock import Clock
from penstock.codec import Pipeline
from penstock.config import Config, Settings, read_config
from penstock.errors import ConfigError
from penstock.locate import broker_url, caller_folder, project_root
from penstock.result_url import result_url
from penstock.security import pipeline_of
from penstock.sources import BUILT_IN, CODE, Layer, checked, layer_of, merged, variable
from penstock.spelling import without_password
from penstock.task import Task

if TYPE_CHECKING:
    from penstock.discovery import Packages

KNOWN = Config.__struct_fields__


class Configured:
    """The settings of an app, and its tasks, whose options depend on them.

    Settings may be given until the engine is opened, which the first call does. They are checked at once, but for those
    in modules that are named by a string: these are read when settings are first needed.
    """

    clock: Clock

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._folder: Path = caller_folder()
        self._tasks: dict[str, Task[..., Any]] = {}
        self.tasks: Mapping[str, Task[..., Any]] = MappingProxyType(self._tasks)
        self._discoveries: list[Callable[[], Iterable[str]]] = []
        self._layers: tuple[Layer, ...] = ()
        self._conf: Config | None = None
        self._broker_url = ""
        self._result_url: str | None = None
        self._pipeline: Pipeline | None = None
        self._add(Layer(CODE, lambda: settings))

    @property
    def conf(self) -> Config:
        """The settings as they are now, frozen; `configure` changes them. Raises `ConfigError` for what is wrong in a
        module that was named by a string."""
        return self._conf if self._conf is not None else self._read(self._layers)

    @property
    def broker_url(self) -> str:
        """The URL of the broker, files as absolute paths."""
        if self._conf is None:
            self._read(self._layers)
        return self._broker_url

    @property
    def result_url(self) -> str | None:
        """The URL of the engine that keeps results; `None`: the broker's."""
        if self._conf is None:
            self._read(self._layers)
        return self._result_url

    @property
    def pipeline(self) -> Pipeline:
        """The way of arguments and results: what is read, compressed, signed and believed."""
        if self._conf is None:
            self._read(self._layers)
        return cast(Pipeline, self._pipeline)

    def configure(self, **settings: Unpack[Settings]) -> None:
        """Change settings: they win over those of modules, and over earlier ones. Raises `ConfigError` for a bad one,
        and when the engine is open."""
        given = checked(settings, "", KNOWN, "app.configure")
        self._add(Layer(CODE, lambda: given))

    def add_defaults(self, settings: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Settings that everything else wins over, or a function that tells them when they are needed. Raises
        `ConfigError` as `configure` does."""
        if callable(settings):
            late = settings
            self._add(Layer(BUILT_IN, lambda: checked(late(), "", KNOWN, "app.add_defaults"), late=True))
        else:
            given = checked(settings, "", KNOWN, "app.add_defaults")
            self._add(Layer(BUILT_IN, lambda: given))

    def config_from_object(self, source: object, *, namespace: str = "") -> None:
        """Read settings from a mapping, from the attributes of an object, or from what a string names: a module, an
        object in one (`django.conf:settings`), or a TOML file below the project's root. A string is followed when
        settings are first needed.

        With a namespace, "SHOP", names begin with it in upper case, `SHOP_TASK_TIME_LIMIT`, and others are not looked
        at. Of several sources the later wins; arguments of the app and `configure` win over all. Raises
        `ConfigError` for a name that is no setting's, and when the engine is open.
        """
        self._add(layer_of(source, namespace, KNOWN, project_root(self._folder)))

    def config_from_envvar(self, name: str, *, namespace: str = "") -> None:
        """`config_from_object` with the string that the environment variable `name` holds. Raises `ConfigError` when it
        is not set."""
        self.config_from_object(variable(name), namespace=namespace)

    def autodiscover_tasks(self, packages: Packages = None, related_name: str | None = "tasks") -> None:
        """Let workers and commands import the module `tasks` of each of these packages that has one; `None`: of all
        applications of Django. Nothing is imported now."""
        from penstock.discovery import found_in  # few need it

        self._discoveries.append(lambda: found_in(packages, related_name))

    def task_modules(self) -> tuple[str, ...]:
        """The modules that define tasks besides the app's own: the setting `imports`, and what `autodiscover_tasks`
        finds. Imports the packages that it looks into. Raises `ConfigError` for one that is not there."""
        found = [name for discover in self._discoveries for name in discover()]
        return tuple(dict.fromkeys((*self.conf.imports, *found)))

    def import_tasks(self) -> None:
        """Import them, so that their tasks are known."""
        for name in self.task_modules():
            import_module(name)

    def _add(self, layer: Layer) -> None:
        if self._at_work():
            raise ConfigError(
                f"app {self.name!r} is at work on {without_password(self.broker_url)}: settings are given before its "
                "first call, or after app.close()"
            )
        self._use((*self._layers, layer))

    def _use(self, layers: tuple[Layer, ...]) -> None:
        if any(one.late for one in layers):
            self._conf = None
        else:
            self._read(layers)
        self._layers = layers

    def _at_work(self) -> bool:
        """An engine is open, with the settings as they were."""
        raise NotImplementedError

    def _read(self, layers: tuple[Layer, ...]) -> Config:
        """Nothing is changed when something is wrong."""
        conf = read_config(merged(layers))
        broker = broker_url(conf.broker_url, self._folder)
        results = result_url(conf.result_backend, broker, self._folder)
        pipeline = pipeline_of(conf, project_root(self._folder), self.clock.time)
        options = [(task, conf.task_options(task.name, task.declared)) for task in self._tasks.values()]
        self._conf, self._broker_url, self._result_url, self._pipeline = conf, broker, results, pipeline
        for task, chosen in options:
            task.settle(chosen)
        return conf
