"""Django: a backend of its tasks, `manage.py penstock …`, and database connections that are closed around tasks.

Django has had tasks since 6.0. With an older one there is no `PenstockBackend`; all else is the same.
"""

import django

from penstock.contrib.django.connections import CloseConnections

__all__ = ["CloseConnections"]

if django.VERSION >= (6, 0):
    from penstock.contrib.django.backend import PenstockBackend as PenstockBackend

    __all__ += ["PenstockBackend"]
