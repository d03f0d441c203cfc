"""Reports over HTTP, for clients in any language.

    penstock -A reports worker                                        makes them
    penstock gateway token add shop --scope 'call:reports.*' --scope read --tokens tokens.json
    penstock -A reports gateway --tokens tokens.json                  takes orders, on port 8000

    curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
         -d '{"kwargs": {"order": {"customer": "ada", "months": [1, 2, 3]}}}' localhost:8000/v1/tasks/reports.render
    curl -N -H "Authorization: Bearer $TOKEN" localhost:8000/v1/tasks/ID/events

The events tell of each month as it is done, and end with the whole report. An order that does not fit is refused with
the field that is wrong; `audit` has no scope here, and cannot be called.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from penstock import Penstock

app = Penstock("reports")


class Order(Struct):
    """What a client may ask for, and what it may not."""

    customer: Annotated[str, Meta(min_length=1, max_length=50)]
    months: Annotated[list[Annotated[int, Meta(ge=1, le=12)]], Meta(min_length=1, max_length=12)]


@app.task
def render(order: Order) -> Iterator[str]:
    """A report of some months for one customer, a line for each."""
    lines = []
    for month in order.months:
        time.sleep(0.2)  # the database thinks
        lines.append(f"{month:02}: {len(order.customer) * month} orders")
        yield lines[-1]
    return "\n".join(lines)


@app.task(name="internal.audit")
def audit() -> None:
    """Not for clients."""
