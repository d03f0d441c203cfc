import asyncio
import subprocess
import sys

import pytest

from penstock import BlockingCallInLoop
from penstock.blocking import refuse_in_loop, running_loop


def test_outside_a_loop_nothing_is_refused() -> None:
    assert running_loop() is None
    refuse_in_loop("x", "y")


def test_inside_a_loop_the_other_call_is_named() -> None:
    async def main() -> None:
        assert running_loop() is asyncio.get_running_loop()
        with pytest.raises(BlockingCallInLoop, match=r"get\(\) would block the running event loop; use aget\(\)"):
            refuse_in_loop("get()", "aget()")
        await asyncio.to_thread(refuse_in_loop, "x", "y")

    asyncio.run(main())


def test_who_does_not_use_asyncio_does_not_load_it() -> None:
    code = "import sys; from penstock.blocking import running_loop; running_loop(); sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
