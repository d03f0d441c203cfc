"""Redis and Valkey: `redis://`, `rediss://`, `unix://`, `sentinel://`."""

from penstock.engines.redis.handle import RedisEngine, open_engine

__all__ = ["RedisEngine", "open_engine"]
