from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.services.environment_file import parse, read, render, write_file
from penstock.errors import ConfigError

printable = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])).filter(str.isprintable)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)


@given(st.dictionaries(names, printable))
def test_what_is_written_is_read(environment: dict[str, str]) -> None:
    assert parse(render(environment), "file") == environment


def test_the_forms_of_people_are_read() -> None:
    text = '# a comment\n; another\n\nA=bare\n B=\'sin"gle $X \\\'\nC="dou\\"ble \\$ \\\\ \\n"\nD=\nE=a=b\n'
    expected = {"A": "bare", "B": 'sin"gle $X \\', "C": 'dou"ble $ \\ \\n', "D": "", "E": "a=b"}
    assert parse(text, "file") == expected


@pytest.mark.parametrize(
    "line", ["novalue", 'A="open', "A='open", "A=two words", "A=\\", "1A=x", "A-B=x", "=x", 'A="a"b']
)
def test_other_forms_are_refused_without_showing_them(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"OK=1\n{line}\n", "worker.env")
    assert "two words" not in str(caught.value)


def test_a_wrong_line_is_named_by_its_number() -> None:
    with pytest.raises(ConfigError, match=r'worker\.env, line 2: write NAME="value"'):
        parse('OK=1\nSECRET="half', "worker.env")


def test_reading_what_is_no_environment_file(tmp_path: Path) -> None:
    assert read(tmp_path / "missing") == {}
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes"):
        read(tmp_path / "large")
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)


def test_a_file_is_replaced_as_a_whole_with_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    before = os.umask(0)
    try:
        write_file(path, "one", 0o600)
        os.chmod(path, 0o644)
        write_file(path, "two", 0o600)
    finally:
        os.umask(before)
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_file(tmp_path / "folder", "text", 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
