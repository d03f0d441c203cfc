import os

from penstock import Penstock
from penstock.contrib.django import CloseConnections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Penstock("shop", running=[CloseConnections()])
app.config_from_object("django.conf:settings", namespace="PENSTOCK")
app.autodiscover_tasks()
