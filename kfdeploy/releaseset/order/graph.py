"""What the order asks of graphs. A graph is each node's successors; nodes are numbers."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping

Graph = Mapping[int, set[int]]


def strongly_connected(graph: Graph) -> list[list[int]]:
    """The strongly connected parts of two nodes and more, sorted (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    out: list[list[int]] = []
    for start in sorted(graph):
        if start in index:
            continue
        work = [(start, iter(sorted(graph[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, after = work[-1]
            for other in after:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(graph[other]))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = []
                    while True:
                        part.append(other := stack.pop())
                        on_stack.discard(other)
                        if other == node:
                            break
                    if len(part) > 1:
                        out.append(sorted(part))
    return sorted(out)


def topological_order(graph: Graph) -> list[int]:
    """The nodes of a graph without cycles, each after those before it, else by their numbers."""
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
    """The length of the longest way to each node, on which ``light`` edges do not count."""
    weightless = set(light)
    out = dict.fromkeys(graph, 0)
    for node in topological_order(graph):
        for other in graph[node]:
            step = 0 if (node, other) in weightless else 1
            out[other] = max(out[other], out[node] + step)
    return out


def transitive_reduction(graph: Graph) -> dict[int, set[int]]:
    """The graph without the edges that follow from others."""
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
    """The shortest way from one node to another; empty where there is none.

    Args:
        without: an edge that is not to be gone.
    """
    came: dict[int, int] = {start: start}
    todo = deque([start])
    while todo:
        node = todo.popleft()
        for other in sorted(graph[node]):
            if other in came or (node, other) == without_edge:
                continue
            came[other] = node
            if other == end:
                out = [end]
                while out[-1] != start:
                    out.append(came[out[-1]])
                return out[::-1]
            todo.append(other)
    return []
