from pathlib import Path

import pytest

from penstock.cli.demo.command import find_sources, prepare, spread
from penstock.cli.demo.pages import Page, highlighted, index
from penstock.cli.demo.render import Hiccup, make_app, read_source
from penstock.errors import ConfigError


def page(source: str, retries: int = 0, attempts: int = 0) -> Page:
    return Page(source, f"lib/{source}.html", 10, 100, "", 0.5, retries, attempts, 1)


def test_what_was_installed_is_no_standard_library(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "site-packages/no.py", "a/__pycache__/no.py", "text.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_sources(tmp_path) == ["a/c.py", "b.py"]


def test_a_few_are_taken_from_all_over() -> None:
    names = [str(number) for number in range(100)]
    assert spread(names, 4) == ["0", "25", "50", "75"]
    assert spread(names, 1000) == names


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    assert prepare(tmp_path / "new").is_dir()
    (tmp_path / "queue.db").touch()
    with pytest.raises(ConfigError, match="earlier run"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("ä\n".encode(), "ä\n"),
        ("# coding: latin-1\nä\n".encode("latin-1"), "# coding: latin-1\nä\n"),
        (b"# coding: nonsense\n", "# coding: nonsense\n"),
        (b"\xff\r\n", "�\n"),
    ],
)
def test_every_file_can_be_read(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    assert read_source(path) == text


def test_code_is_text_in_the_page_and_never_markup() -> None:
    shown = highlighted("pkg/a<b>.py", "x = '<script>'\n")
    assert "<script>" not in shown and "a&lt;b&gt;.py" in shown
    assert 'href="../../style.css"' in shown


def test_the_index_lists_all_and_names_what_went_wrong() -> None:
    shown = index([page("a.py"), page("json/b.py", retries=1), page("json/c.py", attempts=1)], "3.x")
    assert all(f'href="lib/{name}.html"' in shown for name in ("a.py", "json/b.py", "json/c.py"))
    assert shown.count("failed once, was retried:") == 1 and shown.count("its process was killed,") == 1


def test_the_unlucky_file_fails_once_and_is_rendered_then(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    app = make_app("memory://")
    done = app.tasks["demo.render"].apply((str(tmp_path), "a.py", str(tmp_path), True)).get()
    assert (done.retries, done.lines) == (1, 1)
    assert (tmp_path / done.target).stat().st_size == done.size
    assert issubclass(Hiccup, Exception)
