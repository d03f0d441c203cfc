import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.target import ImportFailed, Target, load_app
from penstock.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the command is typed; what is imported from it is forgotten again."""
    (tmp_path / "pyproject.toml").touch()
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refused(name: str, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(name, str(folder))
    return str(caught.value)


ONE = "from penstock import Penstock\nmine = Penstock('one')\n"


def test_the_only_app_of_a_module_is_found_under_any_name(folder: Path) -> None:
    write(folder, "t_only.py", ONE + "same = mine\n")
    assert load_app("t_only", str(folder)).name == "one"


def test_an_app_in_a_package_is_found_by_its_attribute(folder: Path) -> None:
    write(folder, "t_pkg/__init__.py", "")
    write(folder, "t_pkg/mod.py", ONE + "other = Penstock('two')\n")
    assert load_app("t_pkg.mod:other", str(folder)).name == "two"


def test_several_apps_are_named(folder: Path) -> None:
    write(folder, "t_two.py", ONE + "other = Penstock('two')\n")
    message = refused("t_two", folder)
    assert "2 apps" in message and "-A t_two:mine" in message and "-A t_two:other" in message


def test_a_missing_module_has_no_traceback_and_a_guess(folder: Path) -> None:
    write(folder, "t_tasks.py", ONE)
    with pytest.raises(ConfigError, match=r"no module 't_task'.*did you mean 't_tasks'") as caught:
        load_app("t_task", str(folder))
    assert not isinstance(caught.value, ImportFailed)


def test_a_missing_module_in_a_package_names_the_package(folder: Path) -> None:
    write(folder, "t_here/__init__.py", "")
    write(folder, "t_here/tasks.py", ONE)
    assert "package 't_here'" in refused("t_here.task", folder)


def test_an_import_error_inside_the_module_is_told_apart(folder: Path) -> None:
    write(folder, "t_inside.py", "def f():\n    import surely_not_there\nf()\n")
    with pytest.raises(ImportFailed, match=r"t_inside\.py:2.*is surely_not_there installed") as caught:
        load_app("t_inside", str(folder))
    assert "t_inside.py" in caught.value.traceback
    # Only what is the user's: neither our frames nor the import system's.
    assert "importlib" not in caught.value.traceback and "target.py" not in caught.value.traceback


def test_a_script_that_ends_the_process_does_not_end_ours(folder: Path) -> None:
    write(folder, "t_exits.py", "raise SystemExit(0)\n")
    assert "__main__" in refused("t_exits", folder)


def test_a_syntax_error_is_shown_with_its_line(folder: Path) -> None:
    write(folder, "t_syntax.py", "def f(:\n")
    with pytest.raises(ImportFailed) as caught:
        load_app("t_syntax", str(folder))
    assert "def f(:" in caught.value.traceback


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("t_only.py", "-A t_only"),
        ("./pkg/t_only.py", "-A pkg.t_only"),
        ("t-only", "not a module's name"),
        (":app", "not a module's name"),
        ("json", "no Penstock app"),
    ],
)
def test_what_is_no_module_is_refused_with_a_remedy(folder: Path, name: str, says: str) -> None:
    assert says in refused(name, folder)


def test_a_wrong_attribute_is_named(folder: Path) -> None:
    write(folder, "t_attr.py", ONE + "number = 1\n")
    assert "no 'apps'" in refused("t_attr:apps", folder)
    assert "no Penstock app but int" in refused("t_attr:number", folder)


def test_the_modules_in_imports_are_imported(folder: Path) -> None:
    write(folder, "t_app.py", "from penstock import Penstock\napp = Penstock('a', imports=['t_more'])\n")
    write(folder, "t_more.py", "from t_app import app\n@app.task\ndef f(): ...\n")
    assert list(load_app("t_app", str(folder)).tasks) == ["t_more.f"]


def test_the_environment_names_the_app_and_an_option_goes_before_it(folder: Path) -> None:
    write(folder, "t_env.py", ONE)
    assert Target(None, None, "", {"PENSTOCK_APP": "t_env"}, str(folder)).app().name == "one"
    assert Target("t_env:mine", None, "", {"PENSTOCK_APP": "nothing"}, str(folder)).app().name == "one"


def test_a_broker_is_enough_for_queues_and_not_for_tasks(folder: Path) -> None:
    (folder / "q.db").touch()
    target = Target(None, "sqlite:///q.db", "", {"PENSTOCK_APP": "nothing"}, str(folder))
    assert target.queues().broker_url == f"sqlite:///{folder / 'q.db'}"
    with pytest.raises(ConfigError, match="needs your app"):
        Target(None, "sqlite:///q.db", "", {}, str(folder)).app()


def test_an_app_and_a_broker_contradict_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        Target("t_env", "sqlite:///q.db", "", {}, str(folder)).queues()


def test_looking_into_a_queue_does_not_make_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no queue at .*typo\.db"):
        Target(None, "sqlite:///typo.db", "", {}, str(folder)).queues()
    assert not list(folder.glob("typo*"))
