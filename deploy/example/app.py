"""Calls a task every few seconds, as a web application would for each visitor."""

import itertools
import time

from tasks import greet

for number in itertools.count(1):
    print(greet.delay(f"visitor {number}").get(timeout=30), flush=True)
    time.sleep(5)
