"""What the worker runs."""

from penstock import Penstock

app = Penstock("tasks")


@app.task
def greet(name: str) -> str:
    return f"Hello, {name}!"
