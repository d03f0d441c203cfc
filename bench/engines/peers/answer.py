# mypy: ignore-errors
"""A contender's client: `python answer.py MODULE` answers one JSON request a line with one JSON line.

The module has functions of plain arguments: `one_by_one(count) -> seconds`, `fill(count) -> seconds`, and where the
contender has results `latency(count) -> milliseconds of each`. It runs in the contender's own environment: standard
library only.
"""

import importlib
import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(module, request.pop("do"))(**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
