"""Where the queue's file lives."""

import subprocess
import sys
from pathlib import Path

import pytest

from penstock import ConfigError, Penstock
from penstock.locate import VARIABLE, broker_url, caller_folder, prepare_folder, project_root


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize("mark", ["pyproject.toml", "setup.cfg", "manage.py", ".git"])
def test_the_root_is_the_nearest_marked_folder(tmp_path: Path, mark: str) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert project_root(deep) == deep
    (tmp_path / mark).touch()
    assert project_root(deep) == tmp_path
    (tmp_path / "a" / mark).touch()
    assert project_root(deep) == tmp_path / "a"


def test_where_the_url_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert broker_url(None, tmp_path / "src") == f"sqlite:///{tmp_path}/.penstock/queue.db"
    monkeypatch.setenv(VARIABLE, "memory://")
    assert broker_url(None, tmp_path) == "memory://"
    assert broker_url("sqlite:///q.db", tmp_path / "src") == f"sqlite:///{tmp_path}/q.db"
    assert broker_url("sqlite:///data/q.db?x=1", tmp_path) == f"sqlite:///{tmp_path}/data/q.db?x=1"
    assert broker_url("sqlite:////var/q.db", tmp_path) == "sqlite:////var/q.db"
    monkeypatch.setenv(VARIABLE, "")
    assert broker_url(None, tmp_path) == f"sqlite:///{tmp_path}/.penstock/queue.db"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("q.db", "is not a URL; for a file write sqlite:///q.db"),
        ("sqlite://q.db", "three slashes"),
        ("sqlite:///", "no file"),
    ],
)
def test_urls_that_are_none(tmp_path: Path, url: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        broker_url(url, tmp_path)


def test_the_default_folder_is_kept_out_of_version_control(tmp_path: Path) -> None:
    url = broker_url(None, tmp_path)
    prepare_folder(url)
    assert (tmp_path / ".penstock" / ".gitignore").read_text() == "*\n"
    (tmp_path / ".penstock" / ".gitignore").write_text("mine\n")
    prepare_folder(url)
    assert (tmp_path / ".penstock" / ".gitignore").read_text() == "mine\n"


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    prepare_folder(f"sqlite:///{tmp_path}/data/q.db")
    prepare_folder("memory://")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".penstock").touch()
    with pytest.raises(ConfigError, match=f"cannot be made .*File exists.*{VARIABLE}"):
        prepare_folder(broker_url(None, tmp_path))


def test_the_caller_is_the_module_that_makes_the_app() -> None:
    assert caller_folder() == Path(__file__).parent
    root = project_root(Path(__file__).parent)
    assert Penstock("t").broker_url == f"sqlite:///{root}/.penstock/queue.db"


def test_producer_and_worker_agree_whatever_their_working_directory_is(tmp_path: Path) -> None:
    package = tmp_path / "project" / "pkg"
    package.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    (package / "jobs.py").write_text("from penstock import Penstock\napp = Penstock('t')\nprint(app.broker_url)\n")
    urls = set()
    for folder in (tmp_path, package, Path("/")):
        run = subprocess.run(
            [sys.executable, str(package / "jobs.py")], cwd=folder, capture_output=True, text=True, check=True
        )
        urls.add(run.stdout.strip())
    assert urls == {f"sqlite:///{tmp_path}/project/.penstock/queue.db"}
