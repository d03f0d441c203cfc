"""Start marks, shared with a child."""

from __future__ import annotations

import os

from penstock.delivery import Delivery
from penstock.worker.marks import SIZE, Mark, Started


def test_a_mark_made_in_a_child_is_seen_by_the_parent() -> None:
    mark = Mark()
    pid = os.fork()
    if not pid:
        mark.set(1.5, 30.0, Delivery((7, b"x", "y"), 1, None))
        os._exit(0)
    os.waitpid(pid, 0)
    assert mark.get() == Started(1.5, 30.0, (7, b"x", "y"), 1)
    mark.clear()
    assert mark.get() is None


def test_a_receipt_that_cannot_be_noted_leaves_the_times() -> None:
    mark = Mark()
    for receipt in (("x" * SIZE,), (object(),)):
        mark.set(1.0, 2.0, Delivery(receipt, 1, None))
        assert mark.get() == Started(1.0, 2.0, None)
