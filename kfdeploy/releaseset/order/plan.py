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
from kfdeploy.releaseset.order.contents import Contents, Item, Reading, read
from kfdeploy.releaseset.order.edges import Edge
from kfdeploy.releaseset.order.graph import levels, reduced, steady
from kfdeploy.releaseset.order.split import cut


@dataclass(frozen=True)
class Part:
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
class Between:
    """One release before another, and the reasons."""

    first: str
    then: str
    reasons: tuple[Edge, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.first,
            "to": self.then,
            "reasons": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True)
class Plan:
    """A set's releases in an order that can be kept, and why."""

    parts: tuple[Part, ...]
    between: tuple[Between, ...]

    @property
    def waves(self) -> list[list[str]]:
        """Names of releases; each needs only what is in earlier waves."""
        out: list[list[str]] = []
        for part in self.parts:
            out += [[] for _ in range(part.wave + 1 - len(out))]
            out[part.wave].append(part.name)
        return out

    def to_json(self) -> dict[str, Any]:
        return {"waves": self.waves, "edges": [edge.to_json() for edge in self.between]}


def derive(components: Iterable[tuple[str, Sequence[Object]]], reading: Reading = read) -> Plan:
    """The order of a set.

    Args:
        components: name and final objects of each, in upstream's order, which stays where nothing
            says otherwise.
        reading: `read`, or what remembers its answers.

    Raises:
        UserError: broken YAML; a cycle, which it names with its reasons.
    """
    listed = list(components)
    contents = Contents(listed, reading)
    return plan([name for name, _ in listed], contents.items, all_edges(contents))


def all_edges(contents: Contents) -> list[Edge]:
    """What the objects of a set say of their order."""
    edges = list(references.edges(contents))
    edges += webhooks.edges(contents, edges)
    return [edge for edge in edges if edge.first is not edge.then]


def plan(order: Sequence[str], items: Sequence[Item], edges: Sequence[Edge]) -> Plan:
    """The releases of components, in this order where the edges do not say otherwise.

    Raises:
        UserError: a cycle.
    """
    pieces = cut(order, items, edges)
    of = {number: place for place, piece in enumerate(pieces) for number in piece.numbers}
    reasons: defaultdict[tuple[int, int], list[Edge]] = defaultdict(list)
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
    wave, needed, ordered = levels(graph), reduced(graph), steady(graph)
    called = _names(order, [piece.component for piece in pieces])
    parts = tuple(
        Part(
            called[place],
            pieces[place].component,
            tuple(items[number].object for number in sorted(pieces[place].numbers)),
            tuple(called[other] for other in ordered if place in needed[other]),
            any(edge.ready for to in graph[place] for edge in reasons[place, to]),
            wave[place],
            tuple(
                sorted(_trusted(edge for one in graph for edge in reasons.get((one, place), ())))
            ),
        )
        for place in ordered
    )
    between = tuple(
        Between(called[one], called[other], tuple(reasons[one, other]))
        for other in ordered
        for one in ordered
        if (one, other) in reasons
    )
    return Plan(parts, between)


def _trusted(edges: Iterable[Edge]) -> set[ObjectKey]:
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


def _names(order: Sequence[str], components: Sequence[str]) -> list[str]:
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
