"""Results of many as one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import GroupResult, ResultSet, ResultTimeout, ResultUnavailable, State, chain, group
from penstock.errors import BlockingCallInLoop, DecodeError
from tests.unit.canvas.workshop import Workshop


def test_what_is_known_of_many(shop: Workshop) -> None:
    result = group(shop.give.s(1), shop.fail.s(2), shop.give.s(3)).delay()
    assert (result.ready(), result.waiting(), result.completed_count()) == (False, True, 0)
    assert result.states() == [State.PENDING] * 3
    shop.run()
    assert result.states() == [State.SUCCESS, State.FAILURE, State.SUCCESS]
    assert (result.ready(), result.failed(), result.successful(), result.completed_count()) == (True, True, False, 2)
    assert result.states() == [State.SUCCESS, State.FAILURE, State.SUCCESS]
    assert (len(result), list(result), result[0]) == (3, result.results, result.children[0])


def test_errors_are_raised_or_returned(shop: Workshop) -> None:
    result = group(shop.give.s(1), shop.fail.s(2)).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 2"):
        result.join(timeout=5)
    one, error = result.join(timeout=5, propagate=False)
    assert (one, str(error)) == (1, "no 2")


def test_results_come_as_they_finish(shop: Workshop) -> None:
    result = group(shop.give.s(n) for n in range(4)).delay()
    shop.run()
    assert sorted(one.get() for one in result.iter(timeout=5)) == [0, 1, 2, 3]


def test_waiting_has_an_end(shop: Workshop) -> None:
    result = group(shop.give.s(1), shop.give.s(2)).delay()
    with pytest.raises(ResultTimeout, match="2 of the results"):
        result.get(timeout=0.05)


def test_saved_and_restored(shop: Workshop) -> None:
    inner = group(chain(shop.give.s(2), shop.add.s(1)), shop.give.s(4))
    result = group(shop.give.s(1), inner).delay()
    result.save()
    again = GroupResult.restore(result.id, app=shop.app)
    assert again.states() == [State.PENDING] * 3
    assert again.leaves()[1]._place == result.leaves()[1]._place
    shop.run()
    assert again.join(timeout=5) == result.join(timeout=5) == [1, [3, 4]]
    assert again == result or [leaf.id for leaf in again.leaves()] == [leaf.id for leaf in result.leaves()]
    result.delete()
    with pytest.raises(ResultUnavailable, match="no group"):
        GroupResult.restore(result.id, app=shop.app)


@pytest.mark.parametrize("data", [b"{", b"[[1]]", b'[["id","t",[1]]]', b'"x"', b"[3]"])
def test_a_saved_group_that_is_damaged(shop: Workshop, data: bytes) -> None:
    shop.app.engine.run(shop.app.engine.coordinator.put("group/bad", data))
    with pytest.raises(DecodeError, match="'bad' cannot be read"):
        GroupResult.restore("bad", app=shop.app)


def test_a_set_of_ones_own(shop: Workshop) -> None:
    one, two = shop.give.delay(1), shop.give.delay(2)
    results = ResultSet([one], app=shop.app)
    results.add(two)
    results.add(two)
    assert len(results) == 2
    shop.run()
    assert results.get(timeout=5) == [1, 2]
    results.forget()
    assert results.states() == [State.UNKNOWN] * 2
    results.remove(one)
    results.clear()
    assert results.join(timeout=1) == []


def test_awaited(shop: Workshop) -> None:
    async def main() -> Any:
        result = await group(shop.give.s(1), shop.fail.s(2)).adelay()
        with pytest.raises(BlockingCallInLoop, match="ajoin"):
            result.join()
        await result.asave()
        again = await GroupResult.arestore(result.id, app=shop.app)
        await again.adelete()
        await asyncio.to_thread(shop.run)
        assert await again.astates() == [State.SUCCESS, State.FAILURE]
        with pytest.raises(ValueError, match="no 2"):
            await result.ajoin(timeout=5)
        values = await again.aget(timeout=5, propagate=False)
        await again.aforget()
        waiting = await group(shop.give.s(1)).adelay()
        revoked = await waiting.arevoke()
        return [str(value) for value in values], revoked

    assert asyncio.run(main()) == (["1", "no 2"], ["removed"])
