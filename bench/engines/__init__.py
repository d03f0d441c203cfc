"""The network engines beside raw client loops and other queues: `make bench-engines`, docs/benchmarks-engines.md."""
