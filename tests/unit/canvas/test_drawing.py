"""A canvas as a drawing."""

from __future__ import annotations

import pytest

from penstock import ConfigError, chain, chord, group
from penstock.canvas import drawing
from tests.unit.canvas.workshop import Workshop


@pytest.fixture
def shop() -> Workshop:
    return Workshop("memory://")


def test_nodes_edges_and_error_calls(shop: Workshop) -> None:
    canvas = chain(shop.add.s(1, 2), group(shop.add.s(3), shop.add.s(4)), shop.total.s()).on_error(shop.tell.s())
    assert shop.app.draw(canvas).splitlines() == [
        "flowchart LR",
        '  n0["tell()"]',
        '  n1["add(1, 2)"]',
        '  n2["add(3)"]',
        '  n3["add(4)"]',
        '  n4["total()"]',
        '  g0{{"all 2"}}',
        "  g0 --> n4",
        "  n1 --> n2",
        "  n1 --> n3",
        "  n1 -. fails .-> n0",
        "  n2 --> g0",
        "  n2 -. fails .-> n0",
        "  n3 --> g0",
        "  n3 -. fails .-> n0",
        "  n4 -. fails .-> n0",
    ]


def test_lists_and_empty_groups(shop: Workshop) -> None:
    drawn = shop.app.draw(chain(group(shop.give.s(1), shop.give.s(2)), group(shop.give.s(), shop.give.s())))
    assert '(("list"))' in drawn
    assert '(("[]"))' in shop.app.draw(chord([], shop.give.s()))


def test_texts_stay_inside_their_boxes(shop: Workshop) -> None:
    drawn = shop.app.draw(chain(shop.give.s('"]; x["<b>&'), shop.give.s("x" * 1_000)))
    assert drawn.splitlines()[1] == '  n0["give(&#39;&quot;]; x[&quot;&lt;b>&amp;&#39;)"]'.replace("&#39;", "'")
    assert max(map(len, drawn.splitlines())) < 100


def test_a_large_one_is_cut(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "LARGEST", 3)
    assert shop.app.draw(group(shop.give.s(n) for n in range(10))).splitlines()[-1] == '  more["7 more"]'


def test_what_contains_itself_has_no_drawing(shop: Workshop) -> None:
    loop = shop.give.s(1)
    loop.link(loop)
    with pytest.raises(ConfigError, match="contains itself"):
        shop.app.draw(loop)
