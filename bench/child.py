"""A process of its own for one function: `python -m bench.child module function '{"argument": 1}'`."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    module, function, arguments = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    main()
