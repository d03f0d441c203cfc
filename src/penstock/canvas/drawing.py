"""A canvas as a drawing: the text of a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.canvas.calls import NOTHING, Canvas
from penstock.canvas.compile import Compiler, Node
from penstock.canvas.graph import Into
from penstock.canvas.nesting import measure

LARGEST = 500
"""Nodes of a drawing; Mermaid itself gives up soon after."""


def mermaid(canvas: Canvas[Any]) -> str:
    """Raises `ConfigError` for a canvas that contains itself, is nested too deeply, or too large; checks no more."""
    measure(canvas)
    compiler = Compiler()
    compiler.build(canvas, NOTHING, ())
    return "\n".join(["flowchart LR", *_lines(compiler)]) + "\n"


def _lines(compiler: Compiler) -> Iterator[str]:
    shown = compiler.nodes[:LARGEST]
    for number, node in enumerate(shown):
        yield f"  n{number}{_label(node)}"
    for number, (size, then, _) in enumerate(compiler.gatherings):
        yield f'  g{number}{{{{"all {size:,}"}}}}'
        yield f"  g{number} --> n{then}"
    for number, node in enumerate(shown):
        for edge in node.next:
            yield f"  n{number} --> " + (f"g{edge.gathering}" if isinstance(edge, Into) else f"n{edge.node}")
        for error in node.errors:
            yield f"  n{number} -. fails .-> n{error}"
    if len(compiler.nodes) > LARGEST:
        yield f'  more["{len(compiler.nodes) - LARGEST:,} more"]'


def _label(node: Node) -> str:
    if node.call is None:
        return '(("[]"))' if node.constant is not None else '(("list"))'
    # The quote is the one sign that could end it.
    text = repr(node.call)[:60].replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'["{text}"]'
