"""Benchmarks: `make bench`, or `python -m bench --help`. What they measure, and how: docs/benchmarks.md."""
