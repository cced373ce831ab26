"""Plan releases from the edges between objects: parts of components, needs, and waves.

A component is one release unless the order needs it in parts: `NAME`, `NAME-after`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.kubernetes.accessors import get_text, list_mappings
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.order import references, webhooks
from kfdeploy.releaseset.order.contents import BodyReader, SetContents, SetObject, read_bodies
from kfdeploy.releaseset.order.edges import OrderEdge
from kfdeploy.releaseset.order.graph import longest_paths, topological_order, transitive_reduction
from kfdeploy.releaseset.order.split import ComponentPart, split_components


@dataclass(frozen=True)
class PlannedRelease:
    """One release: a component, or a part of one.

    Attributes:
        needs: names of releases that come before it, without those that follow from others.
        waits: whether another release needs something of it to be ready.
        wave: 0 for what needs nothing.
        trusts: webhook configurations that judge its objects and get their CA in the cluster.
    """

    name: str
    component: str
    objects: tuple[Object, ...]
    needs: tuple[str, ...]
    waits: bool
    wave: int
    trusts: tuple[ObjectKey, ...] = ()


@dataclass(frozen=True)
class ReleaseDependency:
    """One release that comes before another, and the reasons."""

    first: str
    then: str
    reasons: tuple[OrderEdge, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.first,
            "to": self.then,
            "reasons": self.reasons,
        }


@dataclass(frozen=True)
class ReleasePlan:
    """A set's releases in an order in which they can be installed, and why."""

    releases: tuple[PlannedRelease, ...]
    dependencies: tuple[ReleaseDependency, ...]

    @property
    def waves(self) -> list[list[str]]:
        """Names of releases; each needs only what is in earlier waves."""
        waves: defaultdict[int, list[str]] = defaultdict(list)
        for release in self.releases:
            waves[release.wave].append(release.name)
        return [waves[wave] for wave in sorted(waves)]

    def to_json(self) -> dict[str, Any]:
        return {"waves": self.waves, "edges": self.dependencies}


def plan_releases(
    components: Iterable[tuple[str, Sequence[Object]]], body_reader: BodyReader = read_bodies
) -> ReleasePlan:
    """Derive the releases of a set and their order from its objects.

    Args:
        components: name and final objects of each, in upstream's order. That order stays where
            nothing says otherwise.
        body_reader: `read_bodies`, or a reader that caches its answers.

    Raises:
        UserError: broken YAML, or a cycle, which is named with its reasons.
    """
    listed = list(components)
    contents = SetContents(listed, body_reader)
    return plan_from_edges([name for name, _ in listed], contents.items, collect_edges(contents))


def collect_edges(contents: SetContents) -> list[OrderEdge]:
    """Return what the objects of a set say of their order."""
    edges = list(references.reference_edges(contents))
    edges += webhooks.admission_edges(contents, edges)
    return [edge for edge in edges if edge.first is not edge.then]


def plan_from_edges(
    order: Sequence[str], items: Sequence[SetObject], edges: Sequence[OrderEdge]
) -> ReleasePlan:
    """Cut components into releases, in the given order where the edges do not say otherwise.

    Raises:
        UserError: a cycle.
    """
    parts = split_components(order, items, edges)
    reasons = _group_edges(parts, edges)
    graph: dict[int, set[int]] = {place: set() for place in range(len(parts))}
    for first, then in reasons:
        graph[first].add(then)
    waves, ordered = longest_paths(graph), topological_order(graph)
    direct = transitive_reduction(graph)
    names = _name_releases(order, [part.component for part in parts])

    def plan_release(place: int) -> PlannedRelease:
        into = [edge for first in graph for edge in reasons.get((first, place), ())]
        out_of = [edge for then in graph[place] for edge in reasons[place, then]]
        return PlannedRelease(
            name=names[place],
            component=parts[place].component,
            objects=tuple(items[number].object for number in sorted(parts[place].numbers)),
            needs=tuple(names[other] for other in ordered if place in direct[other]),
            waits=any(edge.needs_ready for edge in out_of),
            wave=waves[place],
            trusts=tuple(sorted(_webhooks_without_ca(into))),
        )

    dependencies = (
        ReleaseDependency(names[first], names[then], tuple(reasons[first, then]))
        for then in ordered
        for first in ordered
        if (first, then) in reasons
    )
    return ReleasePlan(tuple(map(plan_release, ordered)), tuple(dependencies))


def _group_edges(
    parts: Sequence[ComponentPart], edges: Iterable[OrderEdge]
) -> dict[tuple[int, int], list[OrderEdge]]:
    """Return the edges between two parts, by the places of the parts.

    The parts of one component follow each other, also where no edge says so.
    """
    place_of = {number: place for place, part in enumerate(parts) for number in part.numbers}
    grouped: defaultdict[tuple[int, int], list[OrderEdge]] = defaultdict(list)
    for edge in edges:
        first, then = place_of[edge.first.number], place_of[edge.then.number]
        if first != then:
            grouped[first, then].append(edge)
    for then in range(1, len(parts)):
        if parts[then].component == parts[then - 1].component:
            grouped.setdefault((then - 1, then), [])
    return dict(grouped)


def _webhooks_without_ca(edges: Iterable[OrderEdge]) -> set[ObjectKey]:
    """Return the webhook configurations whose CA something fills in later.

    Their webhooks are up a moment before the API server knows the CA to trust them by.
    """
    return {
        edge.first.key
        for edge in edges
        if edge.first.key.kind.endswith("WebhookConfiguration") and _lacks_ca(edge.first)
    }


def _lacks_ca(configuration: SetObject) -> bool:
    return any(
        not get_text(webhook, "clientConfig", "caBundle")
        for webhook in list_mappings(configuration.body, "webhooks")
    )


def _name_releases(order: Sequence[str], components: Sequence[str]) -> list[str]:
    """Return a name for each part: the component's, and for its later parts one that is free."""
    taken = set(order)
    names: list[str] = []
    for place, component in enumerate(components):
        name, number = component, 1
        if place and components[place - 1] == component:
            name = f"{component}-after"
            while name in taken:
                number += 1
                name = f"{component}-after-{number}"
        taken.add(name)
        names.append(name)
    return names
