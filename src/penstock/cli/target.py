"""What a command works on: the app that `-A` names, or only a broker."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock

APP_VARIABLE = "PENSTOCK_APP"
OURS = str(Path(__file__))


class ImportFailed(ConfigError):
    """The app's module was found, and raised while it was imported; `traceback` is the user's part of it."""

    def __init__(self, message: str, traceback: str) -> None:
        self.traceback = traceback
        super().__init__(message)


class Target:
    """Finds the app when it is first asked for."""

    def __init__(
        self, app: str | None, broker: str | None, namespace: str, environ: Mapping[str, str], folder: str
    ) -> None:
        """`app` and `broker` as on the command line; `folder` is where the command was typed."""
        self._name = app
        self._broker = broker
        self._namespace = namespace
        self._environ = environ
        self._folder = folder
        self._app: Penstock | None = None

    @property
    def name(self) -> str | None:
        """What names the app, by option or environment."""
        return self._name or (None if self._broker else self._environ.get(APP_VARIABLE)) or None

    def app(self) -> Penstock:
        """The app with its tasks. Raises `ConfigError` when none is named, or it cannot be found."""
        if self._name and self._broker:
            raise ConfigError("-A and --broker contradict each other: an app brings its own broker; give one of them")
        if self._app is None:
            if self.name is None:
                raise ConfigError(
                    f"this command needs your app: penstock -A MODULE …, or the environment variable {APP_VARIABLE}; "
                    "MODULE is the one with app = Penstock(…)"
                )
            self._app = load_app(self.name, self._folder)
        return self._app

    def queues(self) -> Penstock:
        """An app to reach the queues with: the user's, or an empty one on `--broker`. Raises `ConfigError`."""
        if self._name or (self.name and not self._broker):
            return self.app()
        if self._app is None:
            self._app = self._bare()
        return self._app

    @property
    def given(self) -> bool:
        """Somebody said where to publish; a queue that was only found is good for looking into it."""
        return bool(self.name or self._broker)

    @property
    def named(self) -> bool:
        """A broker is named, by option, app or environment, and not only found in the folder."""
        from penstock.locate import VARIABLE

        return self.given or bool(self._environ.get(VARIABLE))

    @property
    def namespace(self) -> str | None:
        """The namespace to list queues of; `None`: all of them."""
        return None if self.name is None and not self._namespace else self.queues().conf.namespace

    def close(self) -> None:
        if self._app is not None:
            self._app.close()

    def _bare(self) -> Penstock:
        from penstock.cli.bare_app import BareApp
        from penstock.locate import VARIABLE, broker_url

        # Resolved here: from inside the console script, "the caller's project" would be the virtual environment's.
        url = broker_url(self._broker or self._environ.get(VARIABLE), Path(self._folder))
        if url.startswith("sqlite:///"):
            file = Path(url.removeprefix("sqlite:///").partition("?")[0])
            if not file.exists():
                raise ConfigError(
                    f"there is no queue at {file}: name your app with -A, or the queue with --broker URL"
                    if self._broker is None
                    else f"there is no queue at {file}: check --broker (nothing was ever published there)"
                )
        return BareApp("penstock", broker=url, namespace=self._namespace)


def load_app(name: str, folder: str) -> Penstock:
    """The app that `name` ("module", or "module:attribute") names, with its `task_modules` imported; `folder` is put on
    `sys.path`. Raises `ConfigError`, `ImportFailed`."""
    module_name, colon, attribute = name.partition(":")
    _check_spelling(name, module_name)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(name, module_name, folder)
    app = _named(module, attribute) if colon else _only(module)
    for extra in app.task_modules():
        _import(f"{extra!r} of {name}", extra, folder)
    return app


def _check_spelling(name: str, module: str) -> None:
    if "/" in module or module.endswith(".py"):
        dotted = module.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise ConfigError(f"-A takes a module's name, not a file's: -A {dotted}")
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"-A {name!r} is not a module's name; write -A package.module, or package.module:app")


def _import(name: str, module: str, folder: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise ConfigError(_missing(name, error.name, folder)) from error
        raise _failed(name, error, f"; is {error.name} installed for {sys.executable}?") from error
    except (Exception, SystemExit) as error:
        # A script without `if __name__ == "__main__":` may well end the process.
        remedy = '; put what runs it under `if __name__ == "__main__":`' if isinstance(error, SystemExit) else ""
        raise _failed(name, error, remedy) from error


def _missing(name: str, module: str, folder: str) -> str:
    parent, _, last = module.rpartition(".")
    place = Path(folder, *parent.split(".")) if parent else Path(folder)
    known = [path.stem for path in place.glob("*.py")] + [path.parent.name for path in place.glob("*/__init__.py")]
    guess = hint(last, known)
    where = f"package {parent!r}" if parent else f"{folder}, nor among what is installed"
    remedy = guess or "; go to the folder it is in, or set PYTHONPATH"
    return f"-A {name}: there is no module {module!r} in {where}{remedy}"


def _failed(name: str, error: BaseException, remedy: str) -> ImportFailed:
    found = traceback.TracebackException.from_exception(error)
    # Without our own frames and the import system's, which come before the user's.
    frames = [
        frame for frame in found.stack if frame.filename != OURS and not frame.filename.startswith("<frozen importlib")
    ]
    users = [frame for frame in frames if not frame.filename.endswith("importlib/__init__.py")]
    found.stack = traceback.StackSummary.from_list(users)
    last = users[-1] if users else None
    place = f" at {last.filename}:{last.lineno}" if last else ""
    text = " ".join(str(error).split())
    return ImportFailed(
        f"-A {name} was found, but raised {type(error).__name__} while it was imported{place}"
        f"{': ' + text if text else ''}{remedy}",
        "".join(found.format()),
    )


def _named(module: ModuleType, attribute: str) -> Penstock:
    from penstock.app import Penstock

    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Penstock):
        return found
    apps = [name for name, value in vars(module).items() if isinstance(value, Penstock)]
    if found is None:
        raise ConfigError(f"module {module.__name__!r} has no {attribute!r}{hint(attribute, apps)}")
    raise ConfigError(
        f"{module.__name__}:{attribute} is no Penstock app but {type(found).__name__}{hint(attribute, apps)}"
    )


def _only(module: ModuleType) -> Penstock:
    from penstock.app import Penstock

    apps: dict[int, tuple[str, Penstock]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Penstock):
            apps.setdefault(id(value), (name, value))
    if len(apps) == 1:
        return next(iter(apps.values()))[1]
    if apps:
        choices = ", ".join(f"-A {module.__name__}:{name}" for name, _ in apps.values())
        raise ConfigError(f"module {module.__name__!r} has {len(apps)} apps; choose one: {choices}")
    what = "package" if hasattr(module, "__path__") else "module"
    raise ConfigError(
        f"{what} {module.__name__!r} ({module.__file__}) has no Penstock app: name the module with app = Penstock(…)"
    )
