"""Releases from edges between objects: parts of components, what each needs, and waves.

A component is one release unless the order needs it in parts: `NAME`, `NAME-after`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.order import references, webhooks
from kfdeploy.releaseset.order.contents import BodyReader, SetContents, SetObject, read_bodies
from kfdeploy.releaseset.order.edges import OrderEdge
from kfdeploy.releaseset.order.graph import longest_paths, topological_order, transitive_reduction
from kfdeploy.releaseset.order.split import split_components


@dataclass(frozen=True)
class PlannedRelease:
    """One release: a component, or a part of one.

    Attributes:
        needs: names of releases; what follows from others is left out.
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
    """One release before another, and the reasons."""

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
    """A set's releases in an order that can be kept, and why."""

    releases: tuple[PlannedRelease, ...]
    dependencies: tuple[ReleaseDependency, ...]

    @property
    def waves(self) -> list[list[str]]:
        """Names of releases; each needs only what is in earlier waves."""
        out: list[list[str]] = []
        for part in self.releases:
            out += [[] for _ in range(part.wave + 1 - len(out))]
            out[part.wave].append(part.name)
        return out

    def to_json(self) -> dict[str, Any]:
        return {"waves": self.waves, "edges": self.dependencies}


def plan_releases(
    components: Iterable[tuple[str, Sequence[Object]]], body_reader: BodyReader = read_bodies
) -> ReleasePlan:
    """The order of a set.

    Args:
        components: name and final objects of each, in upstream's order, which stays where nothing
            says otherwise.
        reading: `read`, or what remembers its answers.

    Raises:
        UserError: broken YAML; a cycle, which it names with its reasons.
    """
    listed = list(components)
    contents = SetContents(listed, body_reader)
    return plan_from_edges([name for name, _ in listed], contents.items, collect_edges(contents))


def collect_edges(contents: SetContents) -> list[OrderEdge]:
    """What the objects of a set say of their order."""
    edges = list(references.reference_edges(contents))
    edges += webhooks.admission_edges(contents, edges)
    return [edge for edge in edges if edge.first is not edge.then]


def plan_from_edges(
    order: Sequence[str], items: Sequence[SetObject], edges: Sequence[OrderEdge]
) -> ReleasePlan:
    """The releases of components, in this order where the edges do not say otherwise.

    Raises:
        UserError: a cycle.
    """
    pieces = split_components(order, items, edges)
    of = {number: place for place, piece in enumerate(pieces) for number in piece.numbers}
    reasons: defaultdict[tuple[int, int], list[OrderEdge]] = defaultdict(list)
    for edge in edges:
        one, other = of[edge.first.number], of[edge.then.number]
        if one != other:
            reasons[one, other].append(edge)
    for place in range(1, len(pieces)):
        if pieces[place].component == pieces[place - 1].component:
            reasons[place - 1, place] += []
    graph: dict[int, set[int]] = {place: set() for place in range(len(pieces))}
    for one, other in reasons:
        graph[one].add(other)
    wave, needed, ordered = (
        longest_paths(graph),
        transitive_reduction(graph),
        topological_order(graph),
    )
    called = _name_releases(order, [piece.component for piece in pieces])
    parts = tuple(
        PlannedRelease(
            called[place],
            pieces[place].component,
            tuple(items[number].object for number in sorted(pieces[place].numbers)),
            tuple(called[other] for other in ordered if place in needed[other]),
            any(edge.needs_ready for to in graph[place] for edge in reasons[place, to]),
            wave[place],
            tuple(
                sorted(
                    _webhooks_without_ca(
                        edge for one in graph for edge in reasons.get((one, place), ())
                    )
                )
            ),
        )
        for place in ordered
    )
    between = tuple(
        ReleaseDependency(called[one], called[other], tuple(reasons[one, other]))
        for other in ordered
        for one in ordered
        if (one, other) in reasons
    )
    return ReleasePlan(parts, between)


def _webhooks_without_ca(edges: Iterable[OrderEdge]) -> set[ObjectKey]:
    """A webhook is up a moment before the API server knows the CA to trust it by."""
    return {
        edge.first.key
        for edge in edges
        if edge.first.key.kind.endswith("WebhookConfiguration")
        and any(
            not (webhook.get("clientConfig") or {}).get("caBundle")
            for webhook in edge.first.body.get("webhooks") or ()
        )
    }


def _name_releases(order: Sequence[str], components: Sequence[str]) -> list[str]:
    """The releases' names: that of the component, and of its later parts one that is free."""
    taken = set(order)
    out: list[str] = []
    for place, component in enumerate(components):
        name, number = component, 1
        if place and components[place - 1] == component:
            name = f"{component}-after"
            while name in taken:
                number += 1
                name = f"{component}-after-{number}"
        taken.add(name)
        out.append(name)
    return out
