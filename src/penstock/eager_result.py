"""The result of a call that ran here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from penstock.coordinator import Revoked
from penstock.errors import ResultUnavailable
from penstock.outcome import Outcome, Part, Report
from penstock.result import AsyncResult

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.task import Task

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a call that ran here: it is there, and nothing needs an engine."""

    __slots__ = ("_parts",)

    def __init__(
        self, report: Report | None, *, app: Penstock, task: Task[..., R] | None, parts: Sequence[Part] = ()
    ) -> None:
        """`report=None`: it will run after a commit."""
        super().__init__(None, app=app, task=task)
        self._parts = parts
        if report is not None:
            self._key, self._seen = report.id, report

    def ended_as(self, other: EagerResult[R]) -> None:
        """What it was to run after has happened."""
        report, self._parts = other.report(), other._parts
        self._key, self._seen = report.id, report

    @property
    def _held(self) -> Sequence[Part]:
        self.report()  # it has run, or says that it has not
        return self._parts

    def __repr__(self) -> str:
        return f"<EagerResult {self._key or 'not run yet'}>"

    @property
    def id(self) -> str:
        return str(self.key)

    def report(self) -> Report:
        if self._seen is None:
            raise ResultUnavailable(
                "this call runs when the transaction commits that it waits for: there is no end yet"
            )
        return self._seen

    async def areport(self) -> Report:
        return self.report()

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        return self._settled(self.report(), propagate)

    def _trusted(self, report: Report, outcome: Outcome) -> tuple[bytes, str]:
        # It was made here.
        return outcome.value, outcome.content_type

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        return self.get(timeout, propagate)

    def forget(self) -> None:
        """It is nowhere but here."""

    async def aforget(self) -> None:
        """It is nowhere but here."""

    def revoke(self, terminate: bool = False) -> Revoked:
        return Revoked.ENDED

    async def arevoke(self, terminate: bool = False) -> Revoked:
        return Revoked.ENDED
