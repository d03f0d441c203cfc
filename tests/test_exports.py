"""The public names: exported once, there, and cheap."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import penstock
from penstock import errors


def test_all_names_are_there_and_sorted() -> None:
    assert sorted(penstock.__all__) == penstock.__all__
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None


def test_nothing_else_is_public() -> None:
    modules = {name.removeprefix("penstock.") for name in sys.modules if name.startswith("penstock.")}
    # pytest rewrites the modules of a package that has a plugin for it, and leaves names that begin with @.
    public = {name for name in vars(penstock) if not name.startswith(("_", "@"))} - modules - {"annotations"}
    assert public == set(penstock.__all__)


def test_the_whole_error_tree_is_exported() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }
    assert tree <= set(penstock.__all__)


def test_the_version_is_the_package_s() -> None:
    assert penstock.__version__ == version("penstock")
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'nothing'"):
        penstock.nothing  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"asyncio", "apsw", "multiprocessing", "ssl", "email", "hashlib", "importlib.metadata", "sqlite3"}
    code = f"import sys, penstock; print(*({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
