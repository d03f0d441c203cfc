"""The app under load. Each task notes when it began and ended in a file that all workers append to."""

from __future__ import annotations

import os
import time

import msgspec

from bench.place import URL
from bench.pressure.pressed import NOTE, PRESSED, QUEUE, Pressed
from penstock import Penstock, Queue

pressed = msgspec.json.decode(os.environ[PRESSED], type=Pressed)
app = Penstock(
    "pressure",
    broker=os.environ[URL],
    result_backend=pressed.results,
    **({} if pressed.kept is None else {"result_expires": pressed.kept}),
    task_queues=[Queue(QUEUE, pressed.length, 1 << 50, max_latency=pressed.latency)],
)
_notes = os.open(pressed.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@app.task(queue=QUEUE)
def work(number: int) -> None:
    began = time.monotonic()
    if pressed.cpu:
        until = time.thread_time() + pressed.seconds
        while time.thread_time() < until:
            pass
    else:
        time.sleep(pressed.seconds)
    # One short write to the end, so that those of several processes do not mix.
    os.write(_notes, NOTE.pack(number, began, time.monotonic()))
