"""Components cut into as few parts as the order allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kfdeploy.errors import UserError
from kfdeploy.releaseset.order.contents import Item
from kfdeploy.releaseset.order.edges import Edge
from kfdeploy.releaseset.order.graph import Graph, knots, levels, steady, way


@dataclass(frozen=True, slots=True)
class Piece:
    """One release of a component: the numbers of its objects."""

    component: str
    numbers: frozenset[int]


def cut(order: Sequence[str], items: Sequence[Item], edges: Sequence[Edge]) -> list[Piece]:
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
    units = _Units(items, edges, graph)
    best = units.together(order)
    if len(best) > units.least:
        for last in order:
            found = units.together([*(name for name in order if name != last), last])
            if len(found) < len(best):
                best = found
    whole: dict[str, list[Piece]] = {component: [] for component in order}
    for piece in best:
        whole[piece.component].append(piece)
    return [
        piece
        for component in order
        for piece in (whole[component] or [Piece(component, frozenset())])
    ]


def _refuse_cycles(graph: Graph, edges: Sequence[Edge]) -> None:
    """Objects of one release may need each other, as far as Helm and pods do not mind."""
    bound = {number: n for n, knot in enumerate(knots(graph)) for number in knot}
    for edge in edges:
        first, then = edge.first, edge.then
        knot = bound.get(first.number)
        if knot is None or knot != bound.get(then.number):
            continue
        if edge.together and first.component == then.component:
            continue
        back = way(graph, then.number, first.number)
        steps = [edge, *(_step(edges, *pair) for pair in pairwise(back))]
        raise UserError(
            "the releases need each other in a circle: "
            + ", ".join(
                f"{step.first.component} -> {step.then.component} because {step.words()}"
                for step in steps
            ),
            hint="a patch can take one of these fields away, or keep a webhook from the object by"
            " its selectors",
        )


def _step(edges: Sequence[Edge], first: int, then: int) -> Edge:
    return next(e for e in edges if (e.first.number, e.then.number) == (first, then))


class _Units:
    """Objects of a component that nothing yet asks to part."""

    def __init__(self, items: Sequence[Item], edges: Sequence[Edge], graph: Graph) -> None:
        component = [item.component for item in items]
        # Objects that need each other stay together: they are of one component.
        unit = list(range(len(items)))
        for knot in knots(graph):
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
            soft[pair] = soft.get(pair, True) and same and edge.together
        light = [pair for pair, is_soft in soft.items() if is_soft]
        own, across = levels(inner, light), levels(outer, light)
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
                if not edge.together:
                    self._apart |= {(one, other), (other, one)}
        most: dict[str, int] = {}
        for name, level, _ in self._keys:
            most[name] = max(most.get(name, 0), level)
        self.least = sum(level + 1 for level in most.values())
        """Parts that there are at least: where a component's own webhooks judge its objects."""

    def together(self, order: Sequence[str]) -> list[Piece]:
        """As few parts as there are when the components are put together in this order."""
        after = {node: set(others) for node, others in self._graph.items()}
        heads: list[list[int]] = []
        for component in order:
            kept: list[list[int]] = []
            for node in (n for n, key in enumerate(self._keys) if key[0] == component):
                for group in kept:
                    if self._fits(after, group, node):
                        _merge(after, group[0], node)
                        group.append(node)
                        break
                else:
                    kept.append([node])
            heads += kept
        place = {node: n for n, node in enumerate(steady(after))}
        heads.sort(key=lambda group: place[group[0]])
        return [
            Piece(
                self._keys[group[0]][0],
                frozenset(number for node in group for number in self._members[node]),
            )
            for group in heads
        ]

    def _fits(self, after: Graph, group: Sequence[int], node: int) -> bool:
        if any((member, node) in self._apart for member in group):
            return False
        head = group[0]
        return not (
            way(after, head, node, without=(head, node))
            or way(after, node, head, without=(node, head))
        )


def _merge(after: dict[int, set[int]], head: int, node: int) -> None:
    after[head] |= after.pop(node)
    after[head] -= {head, node}
    for other, others in after.items():
        if other != head and node in others:
            others.discard(node)
            others.add(head)
