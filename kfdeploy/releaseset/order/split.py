"""Cut components into as few releases as the order of their objects allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    """Return the components' parts: component by component as in ``order``, each part in its place.

    First each component is cut wherever an edge could ask for it. Then its pieces are merged again
    as long as that makes no cycle. Which components end up whole depends on who goes first. Where
    the first try leaves more parts than webhooks ask for, each component in turn goes last, and
    the fewest parts win.

    Args:
        items: all objects of the set; an object's number is its place here.

    Raises:
        UserError: a cycle between objects, which no cut can help.
    """
    graph: dict[int, set[int]] = {item.number: set() for item in items}
    for edge in edges:
        graph[edge.first.number].add(edge.then.number)
    _refuse_cycles(graph, edges)
    merger = _PartMerger(items, edges, graph)
    best = merger.merge_parts(order)
    if len(best) > merger.min_parts:
        tries = (merger.merge_parts(_move_last(order, component)) for component in order)
        best = min((best, *tries), key=len)
    parts: dict[str, list[ComponentPart]] = {component: [] for component in order}
    for part in best:
        parts[part.component].append(part)
    for component in order:  # a component without objects is a release too
        parts[component] = parts[component] or [ComponentPart(component, frozenset())]
    return [part for component in order for part in parts[component]]


def _move_last(order: Sequence[str], component: str) -> list[str]:
    return [*(name for name in order if name != component), component]


# -- cycles ----------------------------------------------------------------------------------------


def _refuse_cycles(graph: Graph, edges: Sequence[OrderEdge]) -> None:
    """Refuse objects that need each other, unless Helm and pods allow them in one release."""
    cycle_of = {
        number: place for place, cycle in enumerate(strongly_connected(graph)) for number in cycle
    }
    for edge in edges:
        first, then = edge.first, edge.then
        is_in_cycle = first.number in cycle_of and cycle_of[first.number] == cycle_of.get(
            then.number
        )
        if is_in_cycle and not (edge.can_share_release and first.component == then.component):
            raise _cycle_error(graph, edges, edge)


def _cycle_error(graph: Graph, edges: Sequence[OrderEdge], edge: OrderEdge) -> UserError:
    by_ends = {(each.first.number, each.then.number): each for each in reversed(edges)}
    back = shortest_path(graph, edge.then.number, edge.first.number)
    steps = [edge, *(by_ends[ends] for ends in pairwise(back))]
    reasons = (
        f"{step.first.component} -> {step.then.component} because {step.to_sentence()}"
        for step in steps
    )
    return UserError(
        f"the releases need each other in a circle: {', '.join(reasons)}",
        hint="a patch can take one of these fields away, or keep a webhook from the object by"
        " its selectors",
    )


# -- pieces, and the parts that they merge into ----------------------------------------------------

_PieceKey = tuple[str, int, int]
"""A component, and the longest path to the piece: inside the component and across all."""


class _PartMerger:
    """The pieces of all components, and how few parts they merge into.

    Objects that need each other are one unit, named by its smallest number. The units of a
    component with the same longest paths to them are one piece: nothing asks to part them.

    Attributes:
        min_parts: how few parts there can be, because a component's own webhooks judge its objects.
    """

    def __init__(
        self, items: Sequence[SetObject], edges: Sequence[OrderEdge], graph: Graph
    ) -> None:
        unit_of = _find_units(graph)
        inside, across = _measure_paths(edges, unit_of)
        members: defaultdict[_PieceKey, set[int]] = defaultdict(set)
        for item in items:
            unit = unit_of[item.number]
            members[item.component, inside[unit], across[unit]].add(item.number)
        self._keys = sorted(members)
        self._members = [members[key] for key in self._keys]
        piece_of = {
            number: piece for piece, numbers in enumerate(self._members) for number in numbers
        }
        self._graph: dict[int, set[int]] = {piece: set() for piece in range(len(self._keys))}
        self._apart: set[tuple[int, int]] = set()
        for edge in edges:
            first, then = piece_of[edge.first.number], piece_of[edge.then.number]
            if first == then:
                continue
            self._graph[first].add(then)
            if not edge.can_share_release:
                self._apart |= {(first, then), (then, first)}
        self.min_parts = _count_min_parts(self._keys)

    def merge_parts(self, order: Sequence[str]) -> list[ComponentPart]:
        """Merge the components' pieces in this order; return the parts in an order to install."""
        after = {piece: set(others) for piece, others in self._graph.items()}
        groups = [group for name in order for group in self._merge_component(after, name)]
        place = {head: number for number, head in enumerate(topological_order(after))}
        groups.sort(key=lambda group: place[group[0]])
        return [self._make_part(group) for group in groups]

    def _merge_component(self, after: dict[int, set[int]], component: str) -> list[list[int]]:
        """Return the component's pieces in groups; in ``after`` each group is its first piece."""
        groups: list[list[int]] = []
        for piece, key in enumerate(self._keys):
            if key[0] != component:
                continue
            group = next((g for g in groups if self._can_merge(after, g, piece)), None)
            if group is None:
                groups.append([piece])
            else:
                _merge_nodes(after, group[0], piece)
                group.append(piece)
        return groups

    def _can_merge(self, after: Graph, group: Sequence[int], piece: int) -> bool:
        if any((member, piece) in self._apart for member in group):
            return False
        head = group[0]
        # A path through another part would become a cycle.
        return not (
            shortest_path(after, head, piece, without_edge=(head, piece))
            or shortest_path(after, piece, head, without_edge=(piece, head))
        )

    def _make_part(self, group: Iterable[int]) -> ComponentPart:
        numbers = frozenset[int]().union(*(self._members[piece] for piece in group))
        (component,) = {self._keys[piece][0] for piece in group}
        return ComponentPart(component, numbers)


def _find_units(graph: Graph) -> Mapping[int, int]:
    """Return each object's unit."""
    unit_of = {number: number for number in graph}
    for cycle in strongly_connected(graph):
        unit_of.update(dict.fromkeys(cycle, cycle[0]))
    return unit_of


def _measure_paths(
    edges: Sequence[OrderEdge], unit_of: Mapping[int, int]
) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Return the longest path to each unit: inside its component, and across all components.

    An edge counts unless the two units can share a release by all that is between them.
    """
    inside: dict[int, set[int]] = {unit: set() for unit in unit_of.values()}
    across: dict[int, set[int]] = {unit: set() for unit in unit_of.values()}
    can_share: dict[tuple[int, int], bool] = {}
    for edge in edges:
        first, then = unit_of[edge.first.number], unit_of[edge.then.number]
        if first == then:
            continue
        across[first].add(then)
        is_inside = edge.first.component == edge.then.component
        if is_inside:
            inside[first].add(then)
        can_share[first, then] = (
            can_share.get((first, then), True) and is_inside and edge.can_share_release
        )
    light = [pair for pair, is_light in can_share.items() if is_light]
    return longest_paths(inside, light), longest_paths(across, light)


def _count_min_parts(keys: Iterable[_PieceKey]) -> int:
    deepest: defaultdict[str, int] = defaultdict(int)
    for component, inside, _ in keys:
        deepest[component] = max(deepest[component], inside)
    return sum(depth + 1 for depth in deepest.values())


def _merge_nodes(after: dict[int, set[int]], head: int, node: int) -> None:
    """Merge ``node`` into ``head``."""
    after[head] |= after.pop(node)
    after[head] -= {head, node}
    for other, others in after.items():
        if other != head and node in others:
            others.discard(node)
            others.add(head)
