"""Serializers and compressions by their names, from a call to its result."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from penstock import Penstock
from penstock.worker import Worker, WorkerOptions

TEXT = "the same again, " * 500


@pytest.mark.parametrize(
    ("serializer", "compression"),
    [
        *(("json", None), ("msgpack", None), ("yaml", None)),
        *(("json", name) for name in ("gzip", "bzip2", "zlib", "lzma", "brotli", "zstd")),
    ],
)
def test_settings_of_serializers_and_compressions(serializer: str, compression: str | None, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "accept_content": ["json", "msgpack", "yaml"],
        "task_serializer": serializer,
        "result_serializer": serializer,
        "task_compression": compression,
        "result_compression": compression,
    }
    app = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", durability="process", **settings)

    @app.task(name="t")
    def task(day: date, text: str) -> list[Any]:
        return [day.year, text]

    result = task.delay(date(2026, 11, 28), TEXT)
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL")).run()
    assert result.get(timeout=5) == [2026, TEXT]
    outcome = result.report().outcome
    assert outcome is not None
    assert outcome.content_type == (f"{serializer}+{compression}" if compression else serializer)
    app.close()
