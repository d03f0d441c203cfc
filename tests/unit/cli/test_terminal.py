import click
import pytest

from penstock.cli.terminal import bar, clean, count, duration, fields, short, size, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünïcode 漢", "plain – ünïcode 漢"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("\x1b]0;title\x07", "�]0;title�"),
        ("a\nb\tc\r", "a b c "),
        ("\x9b31m", "�31m"),
        ("right\u202eto left", "right�to left"),
        ("hid\u200bden", "hid�den"),
        ("lone\ud800", "lone�"),
        ("no\xa0break", "no break"),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_printed(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean(text).isprintable()


def test_newlines_are_kept_where_asked_for() -> None:
    assert clean("a\nb\x1b", keep="\n") == "a\nb�"


def test_short_cuts_after_cleaning() -> None:
    assert short("abcdef", 4) == "abc…"
    assert short("ab\n", 4) == "ab "


def test_unknown_is_not_zero() -> None:
    assert (count(None), size(None), duration(None)) == ("?", "?", "–")
    assert (count(0), size(0), duration(0)) == ("0", "0 B", "0.0 ms")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0012, "1.2 ms"),
        (0.25, "250 ms"),
        (2.345, "2.3 s"),
        (59.6, "60 s"),
        (600, "10 min"),
        (7200, "2 h"),
        (1e6, "12 days"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_sizes() -> None:
    assert [size(number) for number in (999, 1536, 5 << 20, 1 << 30, 3 << 40)] == [
        "999 B",
        "1.5 KiB",
        "5.0 MiB",
        "1.0 GiB",
        "3.0 TiB",
    ]


def test_a_bar_shows_a_little_as_something_and_more_than_all_as_all() -> None:
    def full(part: float) -> int:
        return len(click.unstyle(bar(part, 10).split("\x1b[2m")[0]))

    assert [full(part) for part in (0.0, 0.001, 0.5, 1.0, 7.0)] == [0, 1, 5, 10, 10]


def test_a_table_lines_up_styled_cells() -> None:
    lines = click.unstyle(
        table(("name", "n"), [("a", "1"), (click.style("long name", bold=True), "1,000")], right=(1,))
    )
    assert lines.splitlines() == ["name           n", "a              1", "long name  1,000"]


def test_further_lines_of_a_field_are_indented() -> None:
    assert click.unstyle(fields([("id", "1"), ("trace", "a\nb")])) == "id     1\ntrace  a\n       b"
