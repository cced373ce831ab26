"""Find the managers of a field of a live object, by its ``managedFields``.

The format: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kfdeploy.kubernetes.accessors import Body, get_mapping, get_text, list_managed_fields
from kfdeploy.kubernetes.diff.lists import Step


@dataclass(frozen=True, slots=True)
class FieldManager:
    """A program that has written fields of an object.

    Attributes:
        subresource: ``scale`` or ``status`` if it wrote through that; empty for the object itself.
    """

    name: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.subresource}" if self.subresource else self.name


def find_managers(body: Body, path: Iterable[Step]) -> tuple[FieldManager, ...]:
    """Return the managers of the field at ``path``, sorted; none for a field that is absent."""
    steps = tuple(path)
    found = {
        FieldManager(get_text(entry, "manager"), get_text(entry, "subresource"))
        for entry in list_managed_fields(body)
        if _owns_field(get_mapping(entry, "fieldsV1"), steps)
    }
    return tuple(sorted(found, key=lambda manager: (manager.name, manager.subresource)))


def _owns_field(tree: Body, steps: tuple[Step, ...]) -> bool:
    node = tree
    for number, step in enumerate(steps):
        below = _get_child(node, step)
        if below is None:
            # A value that is owned as a whole has no entries below it.
            return number > 0 and not node
        node = below
    return True


def _get_child(node: Body, step: Step) -> Body | None:
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
