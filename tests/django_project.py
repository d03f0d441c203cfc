"""The one Django project of this process: Django is set up once, whoever comes first."""

from __future__ import annotations

import django
from django.conf import settings

APPS = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "penstock.contrib.django",
)


def set_up() -> None:
    if settings.configured:
        return
    processors = [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]
    backend = "django.template.backends.django.DjangoTemplates"
    settings.configure(
        USE_TZ=True,
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=APPS,
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{"BACKEND": backend, "APP_DIRS": True, "OPTIONS": {"context_processors": processors}}],
        ROOT_URLCONF="tests.django_urls",
        STATIC_URL="static/",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )
    django.setup()
