"""The disk is full: publishing is refused clearly, reading goes on, and all is well once there is space."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from penstock.testing.checkers import Ledger, no_loss, nothing_invented, single_commit
from penstock.testing.history import read_history
from tests.acceptance.audit import read_remains
from tests.acceptance.processes import Stage

ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
Tell = Callable[[str], None]


def test_a_full_disk(stage: Stage, measured: Tell) -> None:
    point = stage.folder / "small"
    point.mkdir()
    scene = stage.start("full_disk", point, stage.history, prefix=("unshare", *ROOT, "--mount"))
    output = scene.output()
    assert scene.wait() == 0
    seen = json.loads(output)
    assert seen["free"] == 0
    assert seen["publish"] == seen["publish again"] == "StoreFull"
    assert seen["read"] == seen["another process"] == "ok"
    assert seen["join"] == "StoreFull", "not a bus error at the first start of a task"
    assert (seen["settle"], seen["drain"], seen["left"]) == ("ok", "ok", 0), "the spare space is for ending work"
    assert seen["publish after draining"] == "StoreFull", "and not for more of it"
    assert seen["publish with space"] == "ok"
    ledger, remains = Ledger(read_history(stage.history)), read_remains(stage.path)
    for finding in (no_loss(ledger, remains), nothing_invented(ledger, remains), single_commit(ledger)):
        assert finding.ok, str(finding)
    assert remains.ended == ledger.accepted, "what was refused for want of space is not there"
    measured(f"{len(ledger.accepted):,} accepted, 0 lost; all settled on the full disk")
