"""Back pressure under an open load, with real workers: `python -m bench.pressure`."""
