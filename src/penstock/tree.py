"""Results as a tree: what is before one, and what follows it, as far as whoever published the canvas knows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


class Node:
    """A result that may be part of a canvas."""

    __slots__ = ()

    @property
    def parent(self) -> Any:
        """The result of what this was given: an `AsyncResult` or `GroupResult`; else `None`."""
        raise NotImplementedError

    @property
    def children(self) -> list[Any]:
        """The results of what is given this one's value; of a group its members."""
        raise NotImplementedError

    @property
    def root(self) -> Any:
        """The first of those before it; itself where nothing is."""
        return next(iter(self._line()))

    def iterdeps(self) -> Iterator[tuple[Any, Any]]:
        """Pairs of a result and one of its children, each result once, from `(None, self)` on."""
        seen: set[Any] = {self}
        left: deque[tuple[Any, Any]] = deque([(None, self)])
        while left:
            parent, node = left.popleft()
            yield parent, node
            for child in node.children:
                if child not in seen:
                    seen.add(child)
                    left.append((node, child))

    def collect(self, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """This result and all that follow it, each with its value. Raises as `get`, whose `timeout` is for each."""
        for _, node in self.iterdeps():
            yield node, node.get(timeout=timeout)

    def get_leaf(self, timeout: float | None = None) -> Any:
        """The value of the last of those that follow it."""
        return deque(self.collect(timeout), maxlen=1)[0][1]

    @property
    def graph(self) -> dict[Any, list[Any]]:
        """This result and all that follow it, each with its children."""
        return {node: node.children for _, node in self.iterdeps()}

    def as_tuple(self) -> tuple[Any, Any]:
        """Plain data, from which `result_from_tuple` makes it again, with those before it: `((id, parent), members)`,
        and after the parent `[graph, node]` where the id does not tell."""
        data: Any = None
        for node in self._line():
            data = node._entry(data)
        made: tuple[Any, Any] = data
        return made

    def as_list(self) -> list[str]:
        """The ids of this result and all before it."""
        return [node.id for node in reversed(self._line())]

    def _line(self) -> list[Any]:
        line: list[Any] = []
        node: Any = self
        while node is not None:
            line.append(node)
            node = node.parent
        return line[::-1]

    def _entry(self, parent: Any) -> tuple[Any, Any]:
        raise NotImplementedError
