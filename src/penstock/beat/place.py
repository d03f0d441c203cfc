"""Where a beat's state is: which engine may keep it, and under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.broker import Features
from penstock.errors import Unsupported

if TYPE_CHECKING:
    from penstock.app import Penstock

NEEDED = ("Fence", "Dedup")
"""Guards without which two beats could publish the same tick."""


def prefix_of(app: Penstock) -> str:
    """What the names of an app's beat begin with: its lease is named so itself."""
    return f"beat:{app.conf.namespace}:{app.name}"


def check_engine(features: Features) -> None:
    """Raise `Unsupported` for an engine on which a tick might be published twice."""
    lacks = [f"{guard} guards" for guard in NEEDED if guard not in features.guards]
    if not features.coordination:
        lacks.append("elections")
    if lacks:
        raise Unsupported(
            f"the {features.engine} engine has no {' and no '.join(lacks)}: with it, a tick might be published twice. "
            "Run beat on a broker that checks them (sqlite, redis, postgresql, penstock), whose tasks may publish here"
        )
