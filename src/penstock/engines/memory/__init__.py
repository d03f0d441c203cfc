"""The `memory://` engine: all in this process's memory, for tests, and as the model for the other engines."""

from penstock.engines.memory.handle import MemoryEngine, open_engine

__all__ = ["MemoryEngine", "open_engine"]
