"""The text format, read back by Prometheus's own parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.metrics.text import Family, Sample, histogram, number, render
from tests.exposition import Exposed


def gauge(value: float, **labels: str) -> Family:
    return Family("penstock_x", "gauge", "What it is.", [Sample(labels, value)])


@given(st.text(st.characters(exclude_categories=("Cs",))), st.floats(allow_nan=False))
def test_each_label_and_value_comes_back(label: str, value: float) -> None:
    found = Exposed(render([gauge(value, queue=label)]))
    assert found.get("penstock_x", queue=label) == value


def test_a_name_cannot_make_lines_of_its_own() -> None:
    body = render([gauge(1, queue='a"} 1\npenstock_y{z="')])
    assert len(body.splitlines()) == 3
    assert set(Exposed(body).families) == {"penstock_x"}


def test_what_cannot_be_encoded_is_replaced() -> None:
    assert Exposed(render([gauge(1, queue="\ud800")])).get("penstock_x", queue="?") == 1


def test_help_is_one_line() -> None:
    family = Family("penstock_x", "gauge", 'a\\b\n"c"', [Sample({}, 1)])
    assert Exposed(render([family])).families["penstock_x"].documentation == 'a\\b\n"c"'


def test_a_histogram_adds_up() -> None:
    family = Family("penstock_s", "histogram", "h", histogram({"task": "t"}, (0.1, 2.5), (3, 2, 1), 12.5))
    found = Exposed(render([family]))
    buckets = [found.get("penstock_s_bucket", task="t", le=le) for le in ("0.1", "2.5", "+Inf")]
    assert buckets == [3, 5, 6]
    assert (found.get("penstock_s_count", task="t"), found.get("penstock_s_sum", task="t")) == (6, 12.5)


def test_what_has_no_samples_is_left_out() -> None:
    assert render([Family("penstock_x", "counter", "h", [])]) == b""


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (0.25, "0.25"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (1e300, "1e+300")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
    assert number(math.nan) == "NaN"
