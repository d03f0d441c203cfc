"""Which app is the project's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.conf import settings

from penstock.errors import ConfigError
from penstock.importing import named

if TYPE_CHECKING:
    from penstock.app import Penstock

BACKEND = "penstock.contrib.django.PenstockBackend"
VARIABLE = "PENSTOCK_APP"
"""What names the app where no -A does; see `penstock --help`."""


def app_name(backends: Any) -> str | None:
    """What the first backend of ours calls its app."""
    ours = (one for one in backends.values() if one.get("BACKEND") == BACKEND)
    name = next((one.get("OPTIONS", {}).get("app") for one in ours), None)
    return None if name is None else str(name)


def project_app() -> Penstock:
    """The app that `TASKS` names, else the environment's `PENSTOCK_APP`. Raises `ConfigError`."""
    from penstock.app import Penstock

    name = app_name(getattr(settings, "TASKS", {})) or os.environ.get(VARIABLE)
    if name is None:
        raise ConfigError(
            f"no app is named: give a backend of TASKS, in Django's settings, {BACKEND!r} and "
            f"OPTIONS={{'app': 'shop.queue:app'}}, or set the environment variable {VARIABLE}"
        )
    found = named(name)
    if not isinstance(found, Penstock):
        raise ConfigError(f"{name} is no app of Penstock's, but {type(found).__name__}")
    return found
