"""Which modules define tasks: those that an app names, and those that are found in packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from penstock.errors import ConfigError
from penstock.importing import exists, named

Packages = Iterable[str] | Callable[[], Iterable[str]] | None
"""Names of packages, or a function that tells them when they are needed; `None`: the applications of Django."""


def found_in(packages: Packages, related_name: str | None) -> Iterator[str]:
    """The module `related_name` of each package that has one; `None`: the packages themselves. Raises `ConfigError` for
    a package that is not there."""
    names = django_applications() if packages is None else packages() if callable(packages) else packages
    for package in names:
        name = f"{package}.{related_name}" if related_name else package
        if exists(name):
            yield name
        elif not related_name:
            raise ConfigError(f"autodiscover_tasks: there is no module {package!r} on sys.path")


def django_applications() -> list[str]:
    """The packages in Django's INSTALLED_APPS; sets Django up if nobody did."""
    if not exists("django"):
        raise ConfigError(
            "autodiscover_tasks() without packages looks through Django's applications, and Django is not installed: "
            "name the packages, autodiscover_tasks(['shop', 'mail'])"
        )
    apps = named("django.apps:apps")
    if not apps.ready:
        named("django:setup")()
    return [config.name for config in apps.get_app_configs()]
