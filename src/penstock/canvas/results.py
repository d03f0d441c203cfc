"""Results of many tasks as one: waited for together, in their order or as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Union

import msgspec

from penstock import apart, replaced
from penstock.blocking import refuse_in_loop
from penstock.codec import ROOM
from penstock.completed import as_completed
from penstock.coordinator import Revoked
from penstock.errors import ConfigError, DecodeError, MessageTooLarge, ResultUnavailable, Unsupported
from penstock.message import Place, graph_of
from penstock.outcome import State
from penstock.queue import check_name
from penstock.result import AsyncResult
from penstock.tree import Node

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.engine import Engine

Part = Union[AsyncResult[Any], "ResultSet"]

MAX_SAVED = (4 << 20) - ROOM
"""Bytes of a saved group, about 100,000 results: with a signature it is what every engine takes as one value of the
shared state."""
_KIND = "group"


class ResultSet:
    """Some results, in an order. Those of groups may be among them; their values are lists."""

    def __init__(self, results: Iterable[Part] = (), *, app: Penstock | None = None) -> None:
        """`app` may be left out where there are results, which know theirs."""
        self.results: list[Any] = list(results)
        self._given = app

    @property
    def _app(self) -> Penstock:
        app: Penstock | None = (
            self._given if self._given is not None else self.results[0]._app if self.results else None
        )
        if app is None:
            raise ConfigError("no results, and so no app: ResultSet(app=app)")
        return app

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, place: int) -> Any:
        return self.results[place]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.results):,}>"

    def add(self, result: Part) -> None:
        """At the end, if it is not there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Part) -> None:
        """Raises `ValueError` when it is not there."""
        self.results.remove(result)

    def discard(self, result: Part) -> None:
        """`remove`, if it is there."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Part]) -> None:
        """`add` each."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        self.results.clear()

    def leaves(self) -> list[AsyncResult[Any]]:
        """The results of single tasks, also those of inner groups."""
        found: list[AsyncResult[Any]] = []
        for result in self.results:
            found.extend(result.leaves() if isinstance(result, ResultSet) else (result,))
        return found

    # -- what is known now

    def states(self) -> list[State]:
        """The state of each single task, asked in one look."""
        return apart.drive(self._states())

    async def astates(self) -> list[State]:
        """`states` without blocking the running loop."""
        return await apart.adrive(self._states())

    def _states(self) -> apart.Plan[list[State]]:
        leaves = self.leaves()
        unseen = [leaf for leaf in leaves if leaf._seen is None]
        if unseen:
            app = self._app
            reports = yield from replaced.reports(app, unseen)
            latest = {id(leaf): leaf._noted(report) for leaf, report in zip(unseen, reports, strict=True)}
            return [(leaf._seen or latest[id(leaf)]).state for leaf in leaves]
        return [leaf._seen.state for leaf in leaves if leaf._seen is not None]

    def ready(self) -> bool:
        """All have ended."""
        return all(state.terminal for state in self.states())

    def successful(self) -> bool:
        return all(state is State.SUCCESS for state in self.states())

    def failed(self) -> bool:
        """One of them has failed."""
        return any(state is State.FAILURE for state in self.states())

    def waiting(self) -> bool:
        """One of them has not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have succeeded."""
        return sum(state is State.SUCCESS for state in self.states())

    # -- waiting

    def iter(self, timeout: float | None = None) -> as_completed[Any]:
        """The single results as they finish: `for` and `async for`. See `as_completed`."""
        return as_completed(self.leaves(), timeout)

    def join(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """All values, in order. Raises the error of the first that fails as soon as it has; with `propagate=False`
        errors are returned in the place of values. See `AsyncResult.get`."""
        refuse_in_loop("join()", "await r.ajoin()")
        for result in self.iter(timeout):
            if propagate:
                result.get()
        return self._values(propagate)

    async def ajoin(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:
        """`join` without blocking the running loop."""
        async for result in self.iter(timeout):
            if propagate:
                await result.aget()
        return await self._avalues(propagate)

    get = join
    aget = ajoin

    def _values(self, propagate: bool) -> list[Any]:
        return [
            result._values(propagate) if isinstance(result, ResultSet) else result.get(0.0, propagate)
            for result in self.results
        ]

    async def _avalues(self, propagate: bool) -> list[Any]:
        return [
            await (result._avalues(propagate) if isinstance(result, ResultSet) else result.aget(0.0, propagate))
            for result in self.results
        ]

    # -- ending

    def revoke(self, terminate: bool = False) -> list[Revoked]:
        """Revoke each single task. See `AsyncResult.revoke`."""
        return [leaf.revoke(terminate) for leaf in self.leaves()]

    async def arevoke(self, terminate: bool = False) -> list[Revoked]:
        """`revoke` without blocking the running loop."""
        return [await leaf.arevoke(terminate) for leaf in self.leaves()]

    def forget(self) -> None:
        """Drop the results."""
        for leaf in self.leaves():
            leaf.forget()

    async def aforget(self) -> None:
        """`forget` without blocking the running loop."""
        for leaf in self.leaves():
            await leaf.aforget()


class GroupResult(ResultSet, Node):
    """The results of a group's members, in their order. With `save` another process can have them, by `id`."""

    def __init__(
        self,
        results: Iterable[Part] = (),
        *,
        app: Penstock | None = None,
        id: str | None = None,
        parent: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(results, app=app)
        self.id = id or os.urandom(16).hex()
        self._parent = parent

    @property
    def parent(self) -> Any:
        return None if self._parent is None else self._parent()

    @property
    def children(self) -> list[Any]:
        return self.results

    def _entry(self, parent: Any) -> tuple[Any, Any]:
        return (self.id, parent), [member.as_tuple() for member in self.results]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroupResult) and self.id == other.id and self.results == other.results

    def __hash__(self) -> int:
        return hash(self.id)

    def save(self) -> None:
        """Keep the ids in the broker's shared state (about 40 bytes each) until `delete`."""
        apart.drive(self._save())

    async def asave(self) -> None:
        """`save` without blocking the running loop."""
        await apart.adrive(self._save())

    def _save(self) -> apart.Plan[None]:
        data = msgspec.json.encode(_tree(self))
        if len(data) > MAX_SAVED:
            raise MessageTooLarge(f"the ids of {len(self):,} results take {len(data):,} bytes; {MAX_SAVED:,} are kept")
        holder = _holder(self._app)
        yield holder, holder.coordinator.put(_key(self.id), self._app.pipeline.state_out(_KIND, self.id, data))

    @classmethod
    def restore(cls, id: str, *, app: Penstock) -> GroupResult:
        """A saved group. Raises `ResultUnavailable` when there is none of this id."""
        return apart.drive(_restored(app, id))

    @classmethod
    async def arestore(cls, id: str, *, app: Penstock) -> GroupResult:
        """`restore` without blocking the running loop."""
        return await apart.adrive(_restored(app, id))

    def delete(self) -> None:
        """Forget what `save` kept; the results stay."""
        apart.drive(self._delete())

    async def adelete(self) -> None:
        """`delete` without blocking the running loop."""
        await apart.adrive(self._delete())

    def _delete(self) -> apart.Plan[None]:
        holder = _holder(self._app)
        yield holder, holder.coordinator.put(_key(self.id), None)


def result_from_tuple(data: Any, *, app: Penstock) -> Any:
    """The result of which `data` is the `as_tuple`, or that after a trip as JSON. Raises `DecodeError` for other
    data."""
    line: list[Any] = []
    while data is not None:
        match data:
            case [[str(), parent, *_], _]:
                line.append(data)
                data = parent
            case _:
                raise DecodeError(f"{str(data)[:100]} is no result as a tuple: ((id, parent), members)")
    result: Any = None
    for entry in reversed(line):
        result = _from_entry(entry, result, app)
    return result


def _from_entry(entry: Any, before: Any, app: Penstock) -> Any:
    parent = None if before is None else lambda: before
    match entry:
        case [[str(id), _], None]:
            check_name("task id", id)
            return AsyncResult(id, app=app, parent=parent)
        case [[str(id), _, [str(graph), int(node)]], None]:
            check_name("task id", id)
            return AsyncResult(id, app=app, parent=parent, place=Place(graph, node))
        case [[str(id), _], [*members]]:
            try:
                results = [result_from_tuple(member, app=app) for member in members]
            except RecursionError:
                raise DecodeError("a result as a tuple with groups in groups without end") from None
            return GroupResult(results, app=app, id=id, parent=parent)
    raise DecodeError(f"{str(entry)[:100]} is no result as a tuple: ((id, parent), members)")


def _key(group: str) -> str:
    return f"group/{group}"


def _holder(app: Penstock) -> Engine:
    holder = apart.coordinating(app.engine, app.results)
    if holder is None:
        raise Unsupported(f"{app.engine.broker.features.engine} keeps no shared state: a group cannot be saved")
    return holder


def _tree(results: ResultSet) -> list[Any]:
    """`[graph, members]`: a member is an id, an id with its node in that graph, or such a list."""
    places = [result._place for result in results if isinstance(result, AsyncResult)]
    graph = next((place.graph for place in places if place is not None), "")
    return [graph, [_entry(result, graph) for result in results]]


def _entry(result: Part, graph: str) -> Any:
    if isinstance(result, ResultSet):
        return _tree(result)
    place = result._place
    if place is None or place.graph != graph or graph_of(result.id) is not None:
        return result.id
    return [result.id, place.node]


def _restored(app: Penstock, id: str) -> apart.Plan[GroupResult]:
    holder = _holder(app)
    found = yield holder, holder.coordinator.get(_key(id))
    if found is None:
        raise ResultUnavailable(f"no group {id!r} is saved in {holder.url}")
    data = app.pipeline.state_in(_KIND, id, found[0])
    try:
        return GroupResult(_read(app, msgspec.json.decode(data)), app=app, id=id)
    except (msgspec.MsgspecError, ConfigError, TypeError, ValueError, RecursionError) as error:
        raise DecodeError(f"the saved group {id!r} cannot be read: {error}") from error


def _read(app: Penstock, tree: Sequence[Any]) -> list[Any]:
    graph, members = tree
    results: list[Any] = []
    for entry in members:
        match entry:
            case str(id):
                results.append(AsyncResult(id, app=app))
            case [str(id), int(node)]:
                results.append(AsyncResult(id, app=app, place=Place(str(graph), node)))
            case [str(), list()]:
                results.append(GroupResult(_read(app, entry), app=app))
            case _:
                raise ValueError(f"{entry!r} is no result")
    return results
