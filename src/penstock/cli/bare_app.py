"""An app without tasks, to look at other apps' queues, and to administer."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.app import Penstock
from penstock.engine import Engine
from penstock.queue import Queue


class BareApp(Penstock):
    """Declares no queue: to look at one must not change its bounds, nor need the right to."""

    def _opened(self, url: str, names: Sequence[str], queues: Sequence[Queue]) -> Engine:
        return super()._opened(url, names, ())
