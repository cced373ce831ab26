"""Find patches that no longer fit the objects for which they were written.

Kustomize says nothing where a JSON patch has no target, where a strategic merge adds a container
that was renamed, and where it replaces a whole list in a custom resource. So each patch is tried on
the objects first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.accessors import get_metadata
from kfdeploy.kubernetes.objects import Object, ObjectKey, parse_pointer
from kfdeploy.kubernetes.workload import CONTAINERS, WORKLOADS
from kfdeploy.patchfile.patch_file import Patch

_MOVED: Final = (
    "`kfdeploy patch` writes generated patches anew; a patch of your own has to be adapted"
)
_SELECTORS: Final = {"labelSelector": "labels", "annotationSelector": "annotations"}
_TERM: Final = re.compile(r"\s*(?P<name>[\w./-]+)\s*(?P<op>==?|!=)\s*(?P<value>[\w.-]*)\s*")


@dataclass(frozen=True, slots=True)
class PatchConflict:
    """One thing that a patch no longer finds.

    Attributes:
        file: the patch.
        object: the object that it is for; None where there is no such object.
        field: a JSON pointer, or the names down to a merge's field; empty for the whole object.
        reason: a sentence, with the field in it.
    """

    file: str
    object: ObjectKey | None
    field: str
    reason: str

    def to_error(self) -> UserError:
        """Return the error that is reported where patches are applied."""
        about = f"{self.object}: " if self.object else ""
        return UserError(f"{self.file}: {about}{self.reason}", hint=_MOVED)


class _PatchMismatch(Exception):
    def __init__(self, reason: str, field: str) -> None:
        super().__init__(reason)
        self.field = field


def find_patch_errors(patches: Sequence[Patch], objects: Sequence[Object]) -> Iterator[UserError]:
    """Return the conflicts of patches as errors (see `find_conflicts`)."""
    return (conflict.to_error() for conflict in find_conflicts(patches, objects))


def find_conflicts(patches: Sequence[Patch], objects: Sequence[Object]) -> Iterator[PatchConflict]:
    """Yield a conflict for each object that a patch does not fit.

    Patches of one object are tried in their order, each on the result of those before it.
    """
    bodies: dict[ObjectKey, Any] = {}
    for patch in patches:
        if patch.form == "transformer":
            continue
        targets = list(select_targets(patch, objects))
        if not targets:
            name = _describe_target(patch.target)
            yield PatchConflict(patch.file, None, "", f"there is no {name} for it to change")
        for item in targets:
            body = bodies.setdefault(item.key, copy.deepcopy(item.body))
            try:
                if patch.form == "json":
                    _apply_operations(body, patch.operations)
                else:
                    _check_merge(body, patch.data, item.key, ())
            except _PatchMismatch as error:
                yield PatchConflict(patch.file, item.key, error.field, str(error))


def select_targets(patch: Patch, objects: Sequence[Object]) -> Iterator[Object]:
    """Yield the objects that a patch's target names."""
    selectors = {name: patch.target[name] for name in _SELECTORS if name in patch.target}
    if selectors:
        target = {name: value for name, value in patch.target.items() if name not in selectors}
        patch = replace(patch, data={**patch.data, "target": target})
    for item in objects:
        if patch.selects_object(item.key):
            meta = get_metadata(item.body) if selectors else {}
            if all(
                _matches_selector(text, meta.get(_SELECTORS[name]))
                for name, text in selectors.items()
            ):
                yield item


def _matches_selector(selector: str, labels: Mapping[str, str] | None) -> bool:
    """Return whether labels fit a selector; terms other than ``a=b`` and ``a!=b`` fit all."""
    for term in selector.split(","):
        match = _TERM.fullmatch(term)
        if match and ((labels or {}).get(match["name"]) == match["value"]) != (match["op"] != "!="):
            return False
    return True


def _describe_target(target: Mapping[str, str]) -> str:
    where = f"{target['namespace']}/" if target.get("namespace") else ""
    name = f"{target.get('kind', 'object')} {where}{target.get('name', '')}".rstrip()
    words = [f"{_SELECTORS[name]} {target[name]}" for name in _SELECTORS if name in target]
    return " with ".join([name, *words])


# -- JSON patches ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that an operation names; its methods raise `_PatchMismatch` where it is missing."""

    pointer: str
    steps: Sequence[str]

    @classmethod
    def parse(cls, pointer: str) -> _Field:
        return cls(pointer, parse_pointer(pointer))

    def read(self, body: Any) -> Any:
        return _read_steps(body, self.steps, self.pointer)

    def read_parent(self, body: Any) -> Any:
        return _read_steps(body, self.steps[:-1], self.pointer)

    def remove(self, body: Any) -> None:
        self.read(body)
        parent = self.read_parent(body)
        del parent[int(self.steps[-1]) if isinstance(parent, list) else self.steps[-1]]

    def overwrite(self, body: Any, value: Any) -> None:
        self.read(body)
        parent = self.read_parent(body)
        parent[int(self.steps[-1]) if isinstance(parent, list) else self.steps[-1]] = value

    def add(self, body: Any, value: Any) -> None:
        """Set the field, or insert into a list; RFC 6902, but content is not replaced unseen."""
        parent, last = self.read_parent(body), self.steps[-1]
        if isinstance(parent, list):
            parent.insert(self._parse_index(parent), value)
        elif isinstance(parent, dict):
            if isinstance(parent.get(last), dict | list) and parent[last]:
                raise _PatchMismatch(
                    f"{self.pointer} is there already, and would be replaced as a whole",
                    self.pointer,
                )
            parent[last] = value
        else:
            raise _PatchMismatch(f"there is nothing at {self.pointer}", self.pointer)

    def _parse_index(self, items: list[Any]) -> int:
        last = self.steps[-1]
        if last == "-":
            return len(items)
        try:
            index = int(last)
        except ValueError as error:
            raise _PatchMismatch(f"{self.pointer}: {last} is no index", self.pointer) from error
        if index > len(items):
            raise _PatchMismatch(
                f"there is nothing at {self.pointer} (the list has {len(items)} items)",
                self.pointer,
            )
        return index


def _read_steps(body: Any, steps: Sequence[str], pointer: str) -> Any:
    node = body
    for step in steps:
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (LookupError, TypeError, ValueError) as error:
            raise _PatchMismatch(f"there is nothing at {pointer} (no {step})", pointer) from error
    return node


def _run_test(body: Any, field: _Field, operation: Mapping[str, Any]) -> None:
    found, expected = field.read(body), operation.get("value")
    if found != expected:
        raise _PatchMismatch(
            f"{field.pointer} is {_shorten_value(found)}, not {_shorten_value(expected)}",
            field.pointer,
        )


def _run_copy(body: Any, field: _Field, operation: Mapping[str, Any]) -> None:
    source = _Field.parse(str(operation.get("from")))
    field.add(body, copy.deepcopy(source.read(body)))


def _run_move(body: Any, field: _Field, operation: Mapping[str, Any]) -> None:
    source = _Field.parse(str(operation.get("from")))
    value = source.read(body)
    source.remove(body)
    field.add(body, value)


_OPERATIONS: Final[Mapping[str, Callable[[Any, _Field, Mapping[str, Any]], None]]] = {
    "test": _run_test,
    "add": lambda body, field, operation: field.add(body, operation.get("value")),
    "replace": lambda body, field, operation: field.overwrite(body, operation.get("value")),
    "remove": lambda body, field, operation: field.remove(body),
    "copy": _run_copy,
    "move": _run_move,
}


def _apply_operations(body: Any, operations: Sequence[Mapping[str, Any]]) -> None:
    """Change an object as RFC 6902 says, as far as that shows that each operation fits."""
    for number, operation in enumerate(operations):
        name, pointer = operation.get("op"), str(operation.get("path", ""))
        run = _OPERATIONS.get(str(name))
        if run is None:
            raise _PatchMismatch(
                f"patch[{number}].op: {name!r} is no JSON patch operation", pointer
            )
        field = _Field.parse(pointer)
        if not field.steps:
            raise _PatchMismatch(f"patch[{number}].path: the whole object can't be the target", "")
        run(body, field, operation)


# -- strategic merges ------------------------------------------------------------------------------


def _check_merge(body: Any, change: Any, key: ObjectKey, path: tuple[str, ...]) -> None:
    """Raise `_PatchMismatch` where a merge would add a container or replace a list unseen."""
    if not isinstance(change, dict):
        return
    for name, value in change.items():
        existing = body.get(name) if isinstance(body, dict) else None
        field = (*path, str(name))
        if isinstance(value, dict):
            _check_merge(existing or {}, value, key, field)
        elif isinstance(value, list) and isinstance(existing, list) and existing:
            _check_list(existing, value, key, field)


def _check_list(
    existing: list[Any], change: list[Any], key: ObjectKey, path: tuple[str, ...]
) -> None:
    if key.kind in WORKLOADS and path[-1] in CONTAINERS:
        _check_containers(existing, change, key, path)
    elif _is_custom(key) and any(isinstance(item, dict) for item in existing):
        field = ".".join(path)
        raise _PatchMismatch(
            f"{field}: a strategic merge replaces the whole list in a custom resource; write a"
            " JSON patch",
            field,
        )


def _is_custom(key: ObjectKey) -> bool:
    return "." in key.group and not key.group.endswith(".k8s.io")


def _check_containers(
    existing: list[Any], change: list[Any], key: ObjectKey, path: tuple[str, ...]
) -> None:
    by_name = {container.get("name"): container for container in reversed(existing)}
    for container in change:
        if not isinstance(container, dict) or container.get("$patch") == "delete":
            continue
        name = container.get("name")
        if name in by_name:
            _check_merge(by_name[name], container, key, (*path, str(name)))
        elif "image" not in container:
            field = ".".join(path)
            raise _PatchMismatch(f"{field}: there is no container {name}; it would be added", field)


def _shorten_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 120 else f"{text[:110]}..."
