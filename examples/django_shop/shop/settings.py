from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only an example"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "testserver"]
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "penstock.contrib.django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "penstock.contrib.django.BackPressure",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.sqlite3"}}

TASKS = {
    "default": {
        "BACKEND": "penstock.contrib.django.PenstockBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"app": "shop.queue:app"},
    }
}
PENSTOCK_TASK_QUEUES = ["mail"]
PENSTOCK_TASK_ANNOTATIONS = {"shop.tasks.send_receipt": {"autoretry_for": (ConnectionError,), "retry_backoff": 1.0}}
