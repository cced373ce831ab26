"""The order of a set's releases as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfdeploy.releaseset.order.edges import OrderEdge
    from kfdeploy.releaseset.order.plan import ReleasePlan


def format_order(plan: ReleasePlan) -> Iterator[str]:
    """Yield each release wave by wave, with the releases before it, and why.

    Objects that come after the same object for the same reason share a line.
    """
    waits = {part.name for part in plan.releases if part.waits}
    for number, names in enumerate(plan.waves, 1):
        yield f"wave {number}"
        for name in names:
            yield f"  {name}" + (" (the next wait until it is ready)" if name in waits else "")
            for between in plan.dependencies:
                if between.then == name:
                    yield f"    after {between.first}"
                    yield from (f"      {text}" for text in _format_reasons(between.reasons))


def _format_reasons(edges: tuple[OrderEdge, ...]) -> Iterator[str]:
    if not edges:
        yield "the rest of the component"
    alike: dict[tuple[int, str, str], list[OrderEdge]] = {}
    for edge in edges:
        # Each object names the other one in a field of its own.
        where = "" if edge.why == "name" else edge.where
        alike.setdefault((edge.first.number, edge.why, where), []).append(edge)
    for found in alike.values():
        yield found[0].to_sentence(len(found) - 1)
