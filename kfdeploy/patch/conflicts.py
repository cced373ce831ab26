"""Whether a patch still fits the objects it was written for.

Kustomize says nothing where a JSON patch has no target, where a strategic merge adds a container
that was renamed, and where it replaces a whole list in a custom resource; so each patch is tried
on the objects first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.accessors import get_metadata
from kfdeploy.kubernetes.objects import Object, ObjectKey, parse_pointer
from kfdeploy.kubernetes.workload import CONTAINERS, WORKLOADS
from kfdeploy.patchfile.patch_file import Patch

_MOVED = "`kfdeploy patch` writes generated patches anew; a patch of your own has to be adapted"


_SELECTORS = {"labelSelector": "labels", "annotationSelector": "annotations"}
_TERM = re.compile(r"\s*(?P<name>[\w./-]+)\s*(?P<op>==?|!=)\s*(?P<value>[\w.-]*)\s*")


@dataclass(frozen=True, slots=True)
class PatchConflict:
    """One thing that a patch no longer finds.

    Attributes:
        file: the patch.
        object: what it is for; None where there is no such object.
        field: a JSON pointer, or the names down to a merge's field; empty where it is the object.
        reason: a sentence, with the field in it.
    """

    file: str
    object: ObjectKey | None
    field: str
    reason: str

    def to_error(self) -> UserError:
        """As it is reported where patches are applied."""
        about = f"{self.object}: " if self.object else ""
        return UserError(f"{self.file}: {about}{self.reason}", hint=_MOVED)


class _PatchMismatch(Exception):
    def __init__(self, reason: str, field: str) -> None:
        super().__init__(reason)
        self.field = field


def find_patch_errors(patches: Sequence[Patch], objects: Sequence[Object]) -> Iterator[UserError]:
    """`misfits` as errors."""
    return (misfit.to_error() for misfit in find_conflicts(patches, objects))


def find_conflicts(patches: Sequence[Patch], objects: Sequence[Object]) -> Iterator[PatchConflict]:
    """Every patch that does not fit, with file, object and field.

    Patches of one object are tried in their order, each on what the ones before it left.
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
                    bodies[item.key] = _apply_operations(body, patch.operations)
                else:
                    _check_merge(body, patch.data, item.key, ())
            except _PatchMismatch as error:
                yield PatchConflict(patch.file, item.key, error.field, str(error))


def select_targets(patch: Patch, objects: Sequence[Object]) -> Iterator[Object]:
    """The objects that a patch's target names."""
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
    """Whether labels fit a selector; terms that Kubernetes knows besides ``a=b`` fit all."""
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


def _apply_operations(body: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902, as far as is needed to see that each operation finds what it names."""
    for number, operation in enumerate(operations):
        op, pointer = operation.get("op"), str(operation.get("path", ""))
        if op not in ("test", "replace", "remove", "add", "copy", "move"):
            raise _PatchMismatch(f"patch[{number}].op: {op!r} is no JSON patch operation", pointer)
        steps = parse_pointer(pointer)
        if op in ("copy", "move"):
            source = str(operation.get("from"))
            moved = copy.deepcopy(_get_value(body, parse_pointer(source), source))
            if op == "move":
                _remove_value(body, parse_pointer(source), source)
            operation = {**operation, "value": moved}
        value = operation.get("value")
        if not steps:
            raise _PatchMismatch(f"patch[{number}].path: the whole object can't be the target", "")
        parent, last = _get_value(body, steps[:-1], pointer), steps[-1]
        if op in ("add", "copy", "move"):
            _add_value(parent, last, value, pointer)
            continue
        there = _get_child(parent, last, pointer)
        if op == "test" and there != value:
            raise _PatchMismatch(
                f"{pointer} is {_shorten_value(there)}, not {_shorten_value(value)}", pointer
            )
        if op == "replace":
            _add_value(parent, last, value, pointer, over=True)
        elif op == "remove":
            _remove_value(body, steps, pointer)
    return body


def _remove_value(body: Any, steps: Sequence[str], pointer: str) -> None:
    parent = _get_value(body, steps[:-1], pointer)
    del parent[int(steps[-1]) if isinstance(parent, list) else steps[-1]]


def _get_value(body: Any, steps: Sequence[str], pointer: str = "") -> Any:
    node = body
    for step in steps:
        node = _get_child(node, step, pointer)
    return node


def _get_child(node: Any, step: str, pointer: str) -> Any:
    try:
        return node[int(step)] if isinstance(node, list) else node[step]
    except (LookupError, TypeError, ValueError) as error:
        raise _PatchMismatch(f"there is nothing at {pointer} (no {step})", pointer) from error


def _add_value(parent: Any, last: str, value: Any, pointer: str, *, over: bool = False) -> None:
    if isinstance(parent, list):
        if last == "-":
            parent.append(value)
            return
        try:
            index = int(last)
        except ValueError as error:
            raise _PatchMismatch(f"{pointer}: {last} is no index", pointer) from error
        if index > len(parent):
            raise _PatchMismatch(
                f"there is nothing at {pointer} (the list has {len(parent)} items)", pointer
            )
        if over:
            parent[index] = value
        else:
            parent.insert(index, value)
    elif isinstance(parent, dict):
        if not over and isinstance(parent.get(last), dict | list) and parent[last]:
            raise _PatchMismatch(
                f"{pointer} is there already, and would be replaced as a whole", pointer
            )
        parent[last] = value
    else:
        raise _PatchMismatch(f"there is nothing at {pointer}", pointer)


def _check_merge(body: Any, change: Any, key: ObjectKey, path: tuple[str, ...]) -> None:
    if not isinstance(change, dict):
        return
    for name, value in change.items():
        there = body.get(name) if isinstance(body, dict) else None
        here = (*path, str(name))
        if isinstance(value, dict):
            _check_merge(there or {}, value, key, here)
        elif isinstance(value, list) and isinstance(there, list) and there:
            if key.kind in WORKLOADS and name in CONTAINERS:
                _check_containers(there, value, here, key)
            elif "." in key.group and not key.group.endswith(".k8s.io") and _has_maps(there):
                raise _PatchMismatch(
                    f"{'.'.join(here)}: a strategic merge replaces the whole list in a custom"
                    " resource; write a JSON patch",
                    ".".join(here),
                )


def _check_containers(
    there: list[Any], value: list[Any], path: tuple[str, ...], key: ObjectKey
) -> None:
    names = {container.get("name") for container in there}
    for container in value:
        name = container.get("name") if isinstance(container, dict) else None
        known = name in names
        if isinstance(container, dict) and container.get("$patch") != "delete":
            if not known and "image" not in container:
                raise _PatchMismatch(
                    f"{'.'.join(path)}: there is no container {name}; it would be added",
                    ".".join(path),
                )
            if known:
                base = next(c for c in there if c.get("name") == name)
                _check_merge(base, container, key, (*path, str(name)))


def _has_maps(items: list[Any]) -> bool:
    return any(isinstance(item, dict) for item in items)


def _shorten_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 120 else f"{text[:110]}..."
