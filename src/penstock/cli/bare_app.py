"""An app without tasks, to look at other apps' queues, and to administer."""

from __future__ import annotations

from typing import Any

from penstock.app import Penstock


class BareApp(Penstock):
    """Declares no queue: to look at one must not change its bounds, nor need the right to."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self._declares = False
