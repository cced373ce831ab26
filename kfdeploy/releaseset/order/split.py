"""Components cut into as few parts as the order allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kfdeploy.errors import UserError
from kfdeploy.releaseset.order.contents import SetObject
from kfdeploy.releaseset.order.edges import OrderEdge
from kfdeploy.releaseset.order.graph import (
    Graph,
    longest_paths,
    shortest_path,
    strongly_connected,
    topological_order,
)


@dataclass(frozen=True, slots=True)
class ComponentPart:
    """One release of a component: the numbers of its objects."""

    component: str
    numbers: frozenset[int]


def split_components(
    order: Sequence[str], items: Sequence[SetObject], edges: Sequence[OrderEdge]
) -> list[ComponentPart]:
    """The components' parts, those of one component one after the other, in ``order``.

    First each component is cut wherever an edge could ask for it, then its parts are put together
    again as long as that makes no cycle. Which components are whole in the end depends on who goes
    first; where the first try leaves more parts than webhooks ask for, each component in turn goes
    last, and the fewest parts win.

    Raises:
        UserError: a cycle between objects, which no cut can help.
    """
    graph: dict[int, set[int]] = {item.number: set() for item in items}
    for edge in edges:
        graph[edge.first.number].add(edge.then.number)
    _refuse_cycles(graph, edges)
    units = _PartMerger(items, edges, graph)
    best = units.merge_parts(order)
    if len(best) > units.min_parts:
        for last in order:
            found = units.merge_parts([*(name for name in order if name != last), last])
            if len(found) < len(best):
                best = found
    whole: dict[str, list[ComponentPart]] = {component: [] for component in order}
    for piece in best:
        whole[piece.component].append(piece)
    return [
        piece
        for component in order
        for piece in (whole[component] or [ComponentPart(component, frozenset())])
    ]


def _refuse_cycles(graph: Graph, edges: Sequence[OrderEdge]) -> None:
    """Objects of one release may need each other, as far as Helm and pods do not mind."""
    bound = {number: n for n, knot in enumerate(strongly_connected(graph)) for number in knot}
    for edge in edges:
        first, then = edge.first, edge.then
        knot = bound.get(first.number)
        if knot is None or knot != bound.get(then.number):
            continue
        if edge.can_share_release and first.component == then.component:
            continue
        back = shortest_path(graph, then.number, first.number)
        steps = [edge, *(_find_edge(edges, *pair) for pair in pairwise(back))]
        raise UserError(
            "the releases need each other in a circle: "
            + ", ".join(
                f"{step.first.component} -> {step.then.component} because {step.to_sentence()}"
                for step in steps
            ),
            hint="a patch can take one of these fields away, or keep a webhook from the object by"
            " its selectors",
        )


def _find_edge(edges: Sequence[OrderEdge], first: int, then: int) -> OrderEdge:
    return next(e for e in edges if (e.first.number, e.then.number) == (first, then))


class _PartMerger:
    """Objects of a component that nothing yet asks to part."""

    def __init__(
        self, items: Sequence[SetObject], edges: Sequence[OrderEdge], graph: Graph
    ) -> None:
        component = [item.component for item in items]
        # Objects that need each other stay together: they are of one component.
        unit = list(range(len(items)))
        for knot in strongly_connected(graph):
            for number in knot:
                unit[number] = knot[0]
        inner: dict[int, set[int]] = {number: set() for number in unit}
        outer: dict[int, set[int]] = {number: set() for number in unit}
        soft: dict[tuple[int, int], bool] = {}
        for edge in edges:
            pair = unit[edge.first.number], unit[edge.then.number]
            if pair[0] == pair[1]:
                continue
            outer[pair[0]].add(pair[1])
            same = edge.first.component == edge.then.component
            if same:
                inner[pair[0]].add(pair[1])
            soft[pair] = soft.get(pair, True) and same and edge.can_share_release
        light = [pair for pair, is_soft in soft.items() if is_soft]
        own, across = longest_paths(inner, light), longest_paths(outer, light)
        members: defaultdict[tuple[str, int, int], set[int]] = defaultdict(set)
        for number in range(len(items)):
            at = unit[number]
            members[component[number], own[at], across[at]].add(number)
        self._keys = sorted(members)
        self._members = [members[key] for key in self._keys]
        of = {number: n for n, numbers in enumerate(self._members) for number in numbers}
        self._graph: dict[int, set[int]] = {n: set() for n in range(len(self._keys))}
        self._apart: set[tuple[int, int]] = set()
        for edge in edges:
            one, other = of[edge.first.number], of[edge.then.number]
            if one != other:
                self._graph[one].add(other)
                if not edge.can_share_release:
                    self._apart |= {(one, other), (other, one)}
        most: dict[str, int] = {}
        for name, level, _ in self._keys:
            most[name] = max(most.get(name, 0), level)
        self.min_parts = sum(level + 1 for level in most.values())
        """Parts that there are at least: where a component's own webhooks judge its objects."""

    def merge_parts(self, order: Sequence[str]) -> list[ComponentPart]:
        """As few parts as there are when the components are put together in this order."""
        after = {node: set(others) for node, others in self._graph.items()}
        heads: list[list[int]] = []
        for component in order:
            kept: list[list[int]] = []
            for node in (n for n, key in enumerate(self._keys) if key[0] == component):
                for group in kept:
                    if self._can_merge(after, group, node):
                        _merge_nodes(after, group[0], node)
                        group.append(node)
                        break
                else:
                    kept.append([node])
            heads += kept
        place = {node: n for n, node in enumerate(topological_order(after))}
        heads.sort(key=lambda group: place[group[0]])
        return [
            ComponentPart(
                self._keys[group[0]][0],
                frozenset(number for node in group for number in self._members[node]),
            )
            for group in heads
        ]

    def _can_merge(self, after: Graph, group: Sequence[int], node: int) -> bool:
        if any((member, node) in self._apart for member in group):
            return False
        head = group[0]
        return not (
            shortest_path(after, head, node, without_edge=(head, node))
            or shortest_path(after, node, head, without_edge=(node, head))
        )


def _merge_nodes(after: dict[int, set[int]], head: int, node: int) -> None:
    after[head] |= after.pop(node)
    after[head] -= {head, node}
    for other, others in after.items():
        if other != head and node in others:
            others.discard(node)
            others.add(head)
