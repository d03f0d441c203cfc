"""The sizing guide shows what the simulation says now."""

from __future__ import annotations

from tools import sizing_plots


def test_the_table_and_the_picture_are_what_the_tool_makes() -> None:
    found = sizing_plots.curves()
    page = sizing_plots.PAGE.read_text("utf-8")
    assert page == sizing_plots.with_tables(page, sizing_plots.tables(found)), "run: python -m tools.sizing_plots"
    assert sizing_plots.PICTURE.read_text("utf-8") == sizing_plots.picture(found)
