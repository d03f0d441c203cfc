"""`penstock broker` beside the embedded engine, and beside Redis: `python -m bench.broker`."""
