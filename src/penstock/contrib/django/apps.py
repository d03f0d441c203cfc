"""What `INSTALLED_APPS` needs, so that manage.py knows the command."""

from __future__ import annotations

from django.apps import AppConfig


class PenstockConfig(AppConfig):
    name = "penstock.contrib.django"
    label = "penstock"
    verbose_name = "Penstock"
