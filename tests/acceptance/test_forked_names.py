"""A forked process mints ids of its own from the first, also where results are all that the engine keeps."""

import os

from penstock.engines.redis import open_engine


def test_no_id_is_minted_twice_by_parent_and_child(redis_url: str) -> None:
    engine = open_engine(redis_url)
    first = engine.backend.mint()
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(there, str(engine.backend.mint()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    minted = os.read(here, 100).decode()
    assert len(minted) == 31
    assert minted not in (first, engine.backend.mint())
    engine.close()
