from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only an example"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "testserver"]
USE_TZ = True
INSTALLED_APPS = ["penstock.contrib.django", "shop"]
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
