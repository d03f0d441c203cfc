"""Results in a table of Django's: each of these functions is one short transaction of the calling thread's connection.

The first end of a task stays. What has expired is not there, whether or not it was deleted yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from penstock.contrib.django.models import StoredResult
from penstock.outcome import TERMINAL, Outcome, Progress, Report, State

CHUNK = 400
"""Ids in one statement: SQLite takes 999 parameters at most."""
DROPPED = 1_000
"""Expired results that one look deletes."""
ENDED = Q(state__in=[str(state) for state in TERMINAL])


class OrmResults:
    """`expires`: seconds for which results are kept."""

    def __init__(self, alias: str, expires: float) -> None:
        self._alias = alias
        self._expires = expires
        self._rows = StoredResult._default_manager.using(alias)

    def store(self, outcomes: Sequence[tuple[str, Outcome]], now: float) -> list[bool]:
        """`False` for those that had ended before."""
        first: list[bool] = []
        for chunk in _chunks(outcomes):
            with transaction.atomic(using=self._alias):
                first += self._store(chunk, now)
        return first

    def _store(self, outcomes: Sequence[tuple[str, Outcome]], now: float) -> list[bool]:
        ids = [key for key, _ in outcomes]
        self._rows.filter(id__in=ids, expires__lte=moment(now)).delete()
        there = dict(self._rows.filter(id__in=ids).values_list("id", "state"))
        new = {key: outcome for key, outcome in reversed(outcomes) if key not in there}
        try:
            with transaction.atomic(using=self._alias):
                self._rows.bulk_create([self._row(key, outcome, now) for key, outcome in new.items()])
        except IntegrityError:  # another process was quicker with one of them
            return [self._insert(key, outcome, now) or self._replace(key, outcome, now) for key, outcome in outcomes]
        return [
            new.get(key) is outcome or (key in there and self._replace(key, outcome, now)) for key, outcome in outcomes
        ]

    def _insert(self, key: str, outcome: Outcome, now: float) -> bool:
        try:
            with transaction.atomic(using=self._alias):
                self._row(key, outcome, now).save(using=self._alias, force_insert=True)
        except IntegrityError:
            return False
        return True

    def _replace(self, key: str, outcome: Outcome, now: float) -> bool:
        """Of a task that has not ended; one statement, so that one of two wins."""
        changed = self._rows.filter(id=key).exclude(ENDED).update(**self._fields(outcome, now), progress=None)
        return bool(changed)

    def _row(self, key: str, outcome: Outcome, now: float) -> StoredResult:
        return StoredResult(id=key, **self._fields(outcome, now))

    def _fields(self, outcome: Outcome, now: float) -> dict[str, Any]:
        return {
            "task": outcome.task,
            "state": str(outcome.state),
            "value": outcome.value,
            "content_type": outcome.content_type,
            "done": moment(outcome.done),
            "runtime": outcome.runtime,
            "retries": outcome.retries,
            "expires": self._until(now),
        }

    def fetch(self, ids: Sequence[str], now: float) -> list[Report]:
        found: dict[str, StoredResult] = {}
        for chunk in _chunks(list(dict.fromkeys(ids))):
            rows = self._rows.filter(id__in=chunk).exclude(expires__lte=moment(now))
            found |= {row.id: row for row in rows}
        return [report(one, found.get(one)) for one in ids]

    def forget(self, ids: Sequence[str]) -> None:
        for chunk in _chunks(ids):
            self._rows.filter(id__in=chunk).delete()

    def note(self, key: str, progress: Progress, now: float) -> None:
        told = [progress.done, progress.total, progress.note]
        changed = self._rows.filter(id=key).exclude(ENDED).update(progress=told, expires=self._until(now))
        if not changed:
            begun = {"state": str(State.STARTED), "progress": told, "expires": self._until(now)}
            self._rows.get_or_create(id=key, defaults=begun)

    def drop_expired(self, now: float) -> None:
        ids = list(
            self._rows.filter(expires__lte=moment(now)).order_by("expires").values_list("id", flat=True)[:DROPPED]
        )
        for chunk in _chunks(ids):
            self._rows.filter(id__in=chunk, expires__lte=moment(now)).delete()

    def _until(self, now: float) -> datetime | None:
        until = now + self._expires
        return moment(until) if isfinite(until) and until < datetime.max.timestamp() - 2 * 86_400 else None


def moment(seconds: float) -> datetime:
    """A Unix time as the settings have times: with a zone, or local without one."""
    return datetime.fromtimestamp(seconds, UTC if settings.USE_TZ else None)


def report(key: str, row: StoredResult | None) -> Report:
    if row is None:
        return Report(key, State.UNKNOWN)
    state = State(row.state)
    if not state.terminal:
        progress = Progress(*row.progress) if row.progress else None
        return Report(key, state, None, None, None, row.retries, None, progress)
    outcome = Outcome(state, bytes(row.value), row.done.timestamp(), row.runtime, row.retries, row.content_type)
    return Report(key, state, outcome, row.task or None, None, outcome.retries)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
