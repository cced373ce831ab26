"""Write the text of generated patches: names of files, operations with guards, annotations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import ObjectKey, Path, get_field
from kfdeploy.patchfile.patch_file import format_operation, target_yaml
from kfdeploy.patchfile.quoting import escape_comment, quote_literal


@dataclass(frozen=True, slots=True)
class ObjectPatch:
    """A generated patch of one object; its purpose is part of its file's name."""

    object: ObjectKey
    purpose: str
    body: str


class JsonPatchText:
    """The text of a JSON patch, written operation by operation.

    Values are YAML on one line, and may hold a template.
    """

    def __init__(self, key: ObjectKey, summary: str) -> None:
        """Begin the patch of an object.

        Args:
            summary: what the patch does, for the comment in the first line.
        """
        self._parts = [
            f"# {describe_object(key)}: {escape_comment(summary)}\n",
            target_yaml(key),
            "patch:\n",
        ]

    def test(self, path: Path, value: str) -> None:
        """Write a guard: the patch fails where the field has another value."""
        self._parts.append(format_operation("test", path, value))

    def test_text(self, path: Path, text: str) -> None:
        """Write a guard for a field that is a plain string."""
        self.test(path, quote_literal(text))

    def add(self, path: Path, value: str) -> None:
        """Write an operation that sets a field, or inserts an item into a list."""
        self._parts.append(format_operation("add", path, value))

    def replace(self, path: Path, value: str) -> None:
        """Write an operation that changes a field, which must be there."""
        self._parts.append(format_operation("replace", path, value))

    def remove(self, path: Path) -> None:
        """Write an operation that removes a field, which must be there."""
        self._parts.append(format_operation("remove", path))

    def append_items(
        self, parent: Mapping[str, Any], path: Path, field: str, items: Sequence[str]
    ) -> None:
        """Write operations that add items to the list in ``field``, or make the list.

        Args:
            parent: what is at ``path`` now.
        """
        if not items:
            return
        if parent.get(field):
            for item in items:
                self.add((*path, field, "-"), item)
        else:
            self.add((*path, field), "[" + ", ".join(items) + "]")

    def extend(self, operations: Iterable[str]) -> None:
        """Write operations that were made elsewhere."""
        self._parts += operations

    @contextmanager
    def only_if(self, value: str) -> Iterator[None]:
        """Put what is written inside the block under a condition of the template."""
        self._parts.append(f"{{{{- if {value} }}}}\n")
        yield
        self._parts.append("{{- end }}\n")

    @contextmanager
    def for_each(self, values: str) -> Iterator[None]:
        """Repeat what is written inside the block for each value; the dot is the value."""
        self._parts.append(f"{{{{- range {values} }}}}\n")
        yield
        self._parts.append("{{- end }}\n")

    def __str__(self) -> str:
        return "".join(self._parts)


def describe_object(key: ObjectKey) -> str:
    """Return an object's name for people, without the hash of its content."""
    return escape_comment(str(replace(key, name=strip_name_hash(key))))


def name_files(keys: Sequence[ObjectKey]) -> dict[ObjectKey, str]:
    """Return a file name for each object: KIND-NAME, with the namespace or group where needed."""

    def base_name(key: ObjectKey) -> str:
        return f"{key.kind.lower()}-{strip_name_hash(key)}".replace(":", "-")

    count: dict[str, int] = {}
    for key in keys:
        count[base_name(key)] = count.get(base_name(key), 0) + 1
    return {
        key: base_name(key)
        if count[base_name(key)] == 1
        else f"{base_name(key)}.{key.namespace or key.group}"
        for key in keys
    }


def path_sort_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts indexes as numbers, and before names."""
    return tuple((0, step, "") if isinstance(step, int) else (1, 0, step) for step in path)


def find_item_names(body: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield path and name of each list item on the way to a field.

    A guard on the name fails where another item has taken the index.
    """
    for depth in range(1, len(path)):
        if isinstance(path[depth - 1], int):
            item = get_field(body, path[:depth])
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str):
                yield (*path[:depth], "name"), name


def format_annotation_patch(key: ObjectKey, path: Path, annotations: Mapping[str, str]) -> str:
    """Return a strategic merge patch that sets annotations.

    Args:
        path: of what has the metadata: a pod template, or empty for the object itself.
        annotations: name to YAML on one line.
    """
    lines = [f"apiVersion: {key.api_version}", f"kind: {key.kind}", "metadata:"]
    lines.append(f"  name: {quote_literal(key.name)}")
    if key.namespace:
        lines.append(f"  namespace: {quote_literal(key.namespace)}")
    indent = "  "
    for depth, step in enumerate(path):
        lines.append(f"{'  ' * depth}{step}:")
        indent = "  " * (depth + 2)
    if path:
        lines.append(f"{'  ' * len(path)}metadata:")
    lines.append(f"{indent}annotations:")
    lines += [f"{indent}  {name}: {value}" for name, value in annotations.items()]
    return "\n".join(lines) + "\n"
