"""Every error of Penstock has its status."""

from __future__ import annotations

import pytest

from penstock import errors
from penstock.gateway.problems import HIDDEN, TABLE, refusal

OURS = {errors.PenstockError, errors.TaskError, errors.PublishError, errors.BlockingCallInLoop}
"""The roots, which nobody raises, and a mistake of ours."""


def every(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(every(one) for one in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(every(errors.PenstockError), key=lambda kind: kind.__name__))
def test_every_error_has_a_status(kind: type[BaseException]) -> None:
    if kind.__module__ != errors.__name__ or kind in OURS or issubclass(kind, errors.WorkerError):
        return
    assert any(issubclass(kind, one) for one, _, _ in TABLE), kind


def test_what_is_nearer_comes_first() -> None:
    for place, (kind, _, _) in enumerate(TABLE):
        assert not any(issubclass(kind, earlier) for earlier, _, _ in TABLE[:place]), kind


def test_texts_that_name_servers_stay_here() -> None:
    for error in (
        errors.BrokerUnavailable("redis://secret"),
        errors.AccessRefused("user admin"),
        errors.StoreFull("/srv"),
    ):
        refused = refusal(error)
        assert refused is not None
        assert refused.code in HIDDEN
        assert str(error) not in refused.detail
    full = refusal(errors.QueueFull("q", 1, 1, 0.2))
    assert full is not None
    assert full.headers == {"retry-after": "1"}
    late = refusal(errors.DeadlineUnmeetable("q", 900, 1_000, 6.4, wait=8.4, left=2.0))
    assert late is not None
    assert (late.status, late.code, late.headers) == (full.status, full.code, {"retry-after": "7"})
    assert refusal(RuntimeError("x")) is None
