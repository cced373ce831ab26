"""Who owns a field of a live object, by its ``managedFields``.

The format: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kfdeploy.kubernetes.diff.lists import Step


@dataclass(frozen=True, slots=True)
class FieldManager:
    """One of an object's writers.

    Attributes:
        subresource: that it wrote through: ``scale``, ``status``; empty for the object itself.
    """

    name: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.subresource}" if self.subresource else self.name


def find_managers(body: Mapping[str, Any], path: Iterable[Step]) -> tuple[FieldManager, ...]:
    """The managers of the field at ``path``, sorted by name; none for a field that is not there."""
    steps = tuple(path)
    found = {
        FieldManager(str(entry.get("manager", "")), str(entry.get("subresource", "")))
        for entry in (body.get("metadata") or {}).get("managedFields") or ()
        if _owns_field(entry.get("fieldsV1") or {}, steps)
    }
    return tuple(sorted(found, key=lambda one: (one.name, one.subresource)))


def _owns_field(tree: Mapping[str, Any], steps: tuple[Step, ...]) -> bool:
    node: Mapping[str, Any] = tree
    for number, step in enumerate(steps):
        below = _get_child(node, step)
        if below is None:
            # A value that is owned as a whole has nothing below it.
            return number > 0 and not node
        node = below
    return True


def _get_child(node: Mapping[str, Any], step: Step) -> Mapping[str, Any] | None:
    if isinstance(step, str):
        found = node.get(f"f:{step}")
        return found if isinstance(found, Mapping) else None
    if isinstance(step, int):
        return None
    wanted = dict(step)
    for name, below in node.items():
        if name.startswith("k:") and wanted.items() <= json.loads(name[2:]).items():
            return below if isinstance(below, Mapping) else None
    return None
