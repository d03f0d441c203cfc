"""A small plot as lines of SVG: a frame of marks, and lines with or without dots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

WIDTH, HEIGHT = 300, 230
INNER, TOP = 10, 46

Points = Sequence[tuple[float, float]]


class Line(Struct, frozen=True):
    """`dots` are drawn in the place of a line."""

    colour: str
    points: Points
    dots: bool = False


class Panel(Struct, frozen=True):
    """`across` and `up` are the marks of the axes, by what is written there; `height` is which part of the panel's
    height a value is at."""

    left: int
    title: str
    across: Mapping[str, float]
    up: Mapping[str, float]
    height: Callable[[float], float]

    def draw(self, lines: Sequence[Line]) -> Iterator[str]:
        yield f'<text x="{self.left}" y="28" font-size="14">{self.title}</text>'
        for text, value in self.up.items():
            y = self._y(value)
            yield f'<line x1="{self.left}" x2="{self.left + 320}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            yield f'<text x="{self.left - 6}" y="{y + 4:g}" text-anchor="end">{text}</text>'
        for text, value in self.across.items():
            yield f'<text x="{self._x(value)}" y="296" text-anchor="middle">{text}</text>'
        for line in lines:
            yield from self._dots(line) if line.dots else [self._line(line)]

    def _line(self, line: Line) -> str:
        points = [f"{self._x(x)},{self._y(y)}" for x, y in line.points]
        return f'<polyline fill="none" stroke="{line.colour}" stroke-width="2" points="{" ".join(points)}"/>'

    def _dots(self, line: Line) -> Iterator[str]:
        for x, y in line.points:
            yield f'<circle cx="{self._x(x)}" cy="{self._y(y)}" r="4" fill="{line.colour}"/>'

    def _x(self, value: float) -> int:
        first, last = min(self.across.values()), max(self.across.values())
        return round(self.left + INNER + (value - first) / (last - first) * WIDTH)

    def _y(self, value: float) -> int:
        return round(TOP + HEIGHT * (1 - self.height(value)))


def percent(value: float) -> float:
    """Of goodput: a little more than 100 % is at the top."""
    return value / 1.1


def picture(width: int, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 340" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="340" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
