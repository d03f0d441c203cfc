"""A shop that sends receipts in the background: Django's own tasks, run by Penstock. Needs Django 6, and
Python 3.12 for it.

python manage.py migrate
python manage.py runserver                        curl -d customer=ada localhost:8000/orders
python manage.py penstock worker                  in another terminal; then curl localhost:8000/receipts/ID
"""

import os

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line()
