"""What Django's ORM keeps for Penstock: results, where `result_backend="django-db://"`; and the names of what the admin
shows."""

from __future__ import annotations

from django.db import models

ID_LENGTH = 200


class StoredResult(models.Model):
    """How a task ended, or, before that, how far it has come. Written once: see `orm_results`."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    task = models.CharField(max_length=ID_LENGTH, blank=True)
    state = models.CharField(max_length=10)
    value = models.BinaryField(blank=True)
    content_type = models.CharField(max_length=80)
    done = models.DateTimeField(null=True, blank=True)
    runtime = models.FloatField(default=0.0)
    retries = models.PositiveIntegerField(default=0)
    progress = models.JSONField(null=True, blank=True)
    expires = models.DateTimeField(null=True, blank=True, db_index=True)

    class Meta:
        verbose_name = "result"
        ordering = ("-done",)
        indexes = (models.Index(fields=("state", "-done"), name="penstock_state_done"),)
        default_permissions = ("view", "delete")

    def __str__(self) -> str:
        return str(self.id)


class Queue(models.Model):
    """No table: what gives the queues a place, and rights, in the admin. Who may change queues may retry and drop dead
    letters."""

    name = models.CharField(primary_key=True, max_length=ID_LENGTH)

    class Meta:
        managed = False
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.name)
