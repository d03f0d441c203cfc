"""Django: a backend of its tasks, results in its database, `manage.py penstock …`, pages in its admin, and database
connections that are closed around tasks.

Django has had tasks since 6.0. With an older one there is no `PenstockBackend`; all else is the same.
"""

import django

from penstock.contrib.django.connections import CloseConnections
from penstock.contrib.django.pressure import BackPressure
from penstock.contrib.django.result_store import open_engine

__all__ = ["BackPressure", "CloseConnections", "open_engine"]

if django.VERSION >= (6, 0):
    from penstock.contrib.django.backend import PenstockBackend as PenstockBackend

    __all__ += ["PenstockBackend"]
