"""Prometheus's text format 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isinf, isnan
from typing import Literal

from msgspec import Struct

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(Struct, frozen=True):
    """`suffix` is "_bucket", "_sum" or "_count" in a histogram."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Family(Struct, frozen=True):
    """A metric with all its labels. `name` ends with its unit, and with "_total" where it only grows."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


def render(families: Iterable[Family]) -> bytes:
    """Those without samples are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help, quotes=False)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += (f"{family.name}{one.suffix}{_labels(one.labels)} {number(one.value)}" for one in family.samples)
    return ("\n".join(lines) + "\n").encode() if lines else b""


def histogram(labels: Mapping[str, str], bounds: Sequence[float], counts: Sequence[int], total: float) -> list[Sample]:
    """`counts` of what is up to each bound and above the one before; one more for what is above all. `total` is the sum
    of what was counted."""
    found, below = [], 0
    for bound, count in zip((*bounds, inf), counts, strict=True):
        below += count
        found.append(Sample({**labels, "le": number(bound)}, below, "_bucket"))
    return [*found, Sample(labels, total, "_sum"), Sample(labels, below, "_count")]


def number(value: float) -> str:
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    # A lone surrogate cannot be encoded.
    return (escaped.replace('"', '\\"') if quotes else escaped).encode("utf-8", "replace").decode()
