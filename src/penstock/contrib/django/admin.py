"""Pages in Django's admin: results that its database keeps, and queues with their dead letters, on whatever engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from penstock import apart
from penstock.broker import DeadLetter
from penstock.codec.failures import read_failure
from penstock.codec.readable import arguments, as_json
from penstock.contrib.django.models import Queue, StoredResult
from penstock.contrib.django.orm_results import moment
from penstock.contrib.django.project import project_app
from penstock.errors import DecodeError, PenstockError
from penstock.outcome import State

if TYPE_CHECKING:
    from penstock.app import Penstock

SHOWN = 200
"""Dead letters on the page, the newest first."""
TEXT = 20_000
"""Characters of a value that are shown."""


@admin.register(StoredResult)
class StoredResultAdmin(admin.ModelAdmin):
    """Read, searched by id, and deleted; never made or changed by hand."""

    list_display = ("id", "task", "state", "done", "runtime", "retries")
    list_filter = ("state", "done")
    search_fields = ("=id", "task__startswith")
    fields = ("id", "task", "state", "shown", "done", "runtime", "retries", "progress", "expires")
    readonly_fields = fields
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: StoredResult | None = None) -> bool:
        return False

    @admin.display(description="value")  # type: ignore[untyped-decorator]  # Django has no types
    def shown(self, row: StoredResult) -> str:
        return format_html("<pre>{}</pre>", shown(row))  # type: ignore[no-any-return]  # Django has no types


def shown(row: StoredResult) -> str:
    """The value as text: JSON, or the error with its traceback. Nothing is believed, or made an object."""
    value = bytes(row.value)
    if row.state in (State.FAILURE, State.REVOKED):
        try:
            stored = read_failure(value)
        except DecodeError:
            return f"({len(value):,} bytes that cannot be read)"
        return (stored.traceback or f"{stored.type}: {stored.message}")[:TEXT]
    found = as_json(value, row.content_type)
    if found is None:
        return f"({len(value):,} bytes of {row.content_type})" if value else ""
    return found[: 4 * TEXT].decode("utf-8", "replace")[:TEXT]


class Letter:
    """A dead letter as the page shows it."""

    def __init__(self, letter: DeadLetter) -> None:
        self.id, self.queue, self.reason = letter.id, letter.queue, letter.reason
        self.died = moment(letter.died)
        self.task = letter.message.task if letter.message else "(cannot be read)"
        self.arguments = arguments(letter.message)[:TEXT] if letter.message else ""


@admin.register(Queue)
class QueueAdmin(admin.ModelAdmin):
    """One page. Who may change queues may put dead letters back, or drop them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        return False

    def change_view(self, request: HttpRequest, object_id: str, *_: Any, **__: Any) -> HttpResponse:
        """There is nothing about one queue that the list has not."""
        return HttpResponseRedirect("../../")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_change_permission(request):
                raise PermissionDenied
            self._change(request)
            return HttpResponseRedirect(request.get_full_path())
        return TemplateResponse(request, "admin/penstock/queues.html", self._context(request) | (extra_context or {}))

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        chosen = request.GET.get("queue") or None
        found: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Queues"),
            "opts": self.model._meta,
            "chosen": chosen,
            "may_change": self.has_change_permission(request),
            "most": SHOWN,
        }
        try:
            app = project_app()
            inspect, namespace = app.engine.inspect, app.conf.namespace
            found["engine"] = app.engine.url
            found["queues"] = app.engine.run(inspect.queues(namespace))
            letters = app.engine.run(inspect.dead_letters(chosen, SHOWN, namespace))
            found["letters"] = [Letter(letter) for letter in letters]
        except PenstockError as error:
            found["trouble"] = str(error)
        return found

    def _change(self, request: HttpRequest) -> None:
        ids = request.POST.getlist("id")[:SHOWN]
        verb = request.POST.get("verb")
        if not ids or verb not in ("retry", "drop"):
            self.message_user(request, _("Nothing was chosen."), messages.WARNING)
            return
        try:
            app = project_app()
            done = retried(app, ids) if verb == "retry" else app.engine.run(app.engine.inspect.drop_dead(ids))
        except PenstockError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        what = _("put back") if verb == "retry" else _("dropped")
        self._note(request, verb, ids)
        level = messages.SUCCESS if done == len(ids) else messages.WARNING
        self.message_user(request, f"{done:,} of {len(ids):,} {what}", level)

    def _note(self, request: HttpRequest, verb: str, ids: Sequence[str]) -> None:
        """In the admin's own log: who did what."""
        self.log_change(
            request, Queue(name="dead letters"), f"{verb}: {', '.join(ids[:20])}{' …' if len(ids) > 20 else ''}"
        )


def retried(app: Penstock, ids: Sequence[str]) -> int:
    done: int = app.engine.run(apart.retry_dead(app.engine, app.results, ids))
    return done
