"""Graph algorithms for the order. A graph maps each node to its successors; nodes are numbers."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

Graph = Mapping[int, set[int]]


def strongly_connected(graph: Graph) -> list[list[int]]:
    """Return the cycles: strongly connected components of two nodes and more, sorted.

    Tarjan's algorithm without recursion: a set has more objects than Python allows calls.
    """
    search = _CycleSearch(graph)
    for node in sorted(graph):
        search.visit(node)
    return sorted(search.cycles)


class _CycleSearch:
    """The state of Tarjan's algorithm."""

    def __init__(self, graph: Graph) -> None:
        self.cycles: list[list[int]] = []
        self._graph = graph
        self._index: dict[int, int] = {}
        self._low: dict[int, int] = {}
        self._stack: dict[int, None] = {}
        """Nodes whose component is not known yet, in the order in which they were found."""

    def visit(self, start: int) -> None:
        if start in self._index:
            return
        work = [self._enter(start)]
        while work:
            node, successors = work[-1]
            unseen = self._next_unseen(node, successors)
            if unseen is not None:
                work.append(self._enter(unseen))
                continue
            work.pop()
            if work:
                above = work[-1][0]
                self._low[above] = min(self._low[above], self._low[node])
            if self._low[node] == self._index[node]:
                self._close_component(node)

    def _enter(self, node: int) -> tuple[int, Iterator[int]]:
        self._index[node] = self._low[node] = len(self._index)
        self._stack[node] = None
        return node, iter(sorted(self._graph[node]))

    def _next_unseen(self, node: int, successors: Iterator[int]) -> int | None:
        for other in successors:
            if other not in self._index:
                return other
            if other in self._stack:
                self._low[node] = min(self._low[node], self._index[other])
        return None

    def _close_component(self, node: int) -> None:
        component = []
        while node in self._stack:
            component.append(self._stack.popitem()[0])
        if len(component) > 1:
            self.cycles.append(sorted(component))


def topological_order(graph: Graph) -> list[int]:
    """Return the nodes of a graph without cycles, each after its predecessors, else by number."""
    left = dict.fromkeys(graph, 0)
    for after in graph.values():
        for other in after:
            left[other] += 1
    ready = [node for node, count in left.items() if not count]
    heapq.heapify(ready)
    out: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        out.append(node)
        for other in graph[node]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(ready, other)
    return out


def longest_paths(graph: Graph, light: Iterable[tuple[int, int]] = ()) -> dict[int, int]:
    """Return the length of the longest path to each node; ``light`` edges do not count."""
    weightless = set(light)
    out = dict.fromkeys(graph, 0)
    for node in topological_order(graph):
        for other in graph[node]:
            step = 0 if (node, other) in weightless else 1
            out[other] = max(out[other], out[node] + step)
    return out


def transitive_reduction(graph: Graph) -> dict[int, set[int]]:
    """Return the graph without the edges that follow from others."""
    beyond: dict[int, set[int]] = {}
    out: dict[int, set[int]] = {}
    for node in reversed(topological_order(graph)):
        indirect = set().union(*(beyond[other] for other in graph[node]))
        out[node] = graph[node] - indirect
        beyond[node] = indirect | graph[node]
    return out


def shortest_path(
    graph: Graph, start: int, end: int, without_edge: tuple[int, int] | None = None
) -> list[int]:
    """Return the nodes of the shortest path; empty where there is none.

    Args:
        without_edge: an edge that the path may not take.
    """
    came_from: dict[int, int] = {start: start}
    todo = deque([start])
    while todo:
        node = todo.popleft()
        for other in sorted(graph[node]):
            if other in came_from or (node, other) == without_edge:
                continue
            came_from[other] = node
            if other == end:
                return _trace_path(came_from, end)
            todo.append(other)
    return []


def _trace_path(came_from: Mapping[int, int], end: int) -> list[int]:
    path = [end]
    while (node := came_from[path[-1]]) != path[-1]:
        path.append(node)
    return path[::-1]
