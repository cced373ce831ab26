"""What a manifest does not say yet and a patch must add, so that an operator's own images are ours.

A variable, a flag, a key of a ConfigMap, a field, or a file over the image's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.inventory import Found
from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, lookup
from kfdeploy.patch import pod_files
from kfdeploy.patch.patch_file import operation, scalar, target_yaml
from kfdeploy.patch.pod_files import PodFile
from kfdeploy.patch.writer import append, look_up, shown

_PARTS = {"{ref}": "ref", "{repository}": "repository", "{tag}": "tag"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One thing to add. ``container`` is empty where each container takes it."""

    way: str
    name: str
    value: str
    container: str = ""


def additions(
    objects: Sequence[Object], places: Mapping[ObjectKey, Sequence[tuple[str, Found]]]
) -> Iterator[tuple[ObjectKey, str, str]]:
    """Object, purpose and body of each patch that adds something.

    Args:
        places: what was found, by object; those with `Found.adds`, and scripts' variables.
    """
    wanted: dict[ObjectKey, list[_Wanted]] = {}
    for key, found in places.items():
        for ref, place in found:
            if place.adds is not None:
                wanted.setdefault(key, []).append(_of(place.adds, ref, place))
            elif place.variables:
                image, tag = place.variables
                rows = [
                    _Wanted("env", image, _look_up(ref, "repository")),
                    _Wanted("env", tag, _look_up(ref, "tag")),
                ]
                for reader in objects:
                    if reader.key.namespace == key.namespace and workload.mounts(reader.body, key):
                        wanted.setdefault(reader.key, []).extend(rows)
    for item in objects:
        rows = list(dict.fromkeys(wanted.get(item.key, ())))
        for purpose, ways in _PURPOSES.items():
            some = [row for row in rows if row.way in ways]
            if some:
                names = ", ".join(sorted({row.name for row in some}))
                head = f"# {shown(item.key)}: sets {names}\n{target_yaml(item.key)}patch:\n"
                yield item.key, purpose, head + "".join(_operations(item, some))


_PURPOSES = {"env": ("env", "flag"), "config": ("key", "field"), "file": ("file",)}


def _of(redirect: Redirect, ref: str, place: Found) -> _Wanted:
    part = "byTag" if place.pin and redirect.value == "{ref}" else _PARTS[redirect.value]
    value = _look_up(ref, part)
    if redirect.file:
        return _Wanted("file", redirect.file, json.dumps(redirect.content), redirect.container)
    way = next(way for way in ("flag", "env", "key", "field") if getattr(redirect, way))
    return _Wanted(way, getattr(redirect, way), value, redirect.container)


def _look_up(ref: str, part: str) -> str:
    return f'"{look_up(ref, part)}"'


def _operations(item: Object, rows: Sequence[_Wanted]) -> Iterator[str]:
    for row in rows:
        if row.way == "key":
            yield from _field(item.body, ("data", row.name), row.value)
        elif row.way == "field":
            yield from _field(item.body, tuple(row.name.split(".")), row.value)
    files = [_file(row) for row in rows if row.way == "file"]
    if files:
        yield from pod_files.operations(item.body, files)
    for path, container in workload.containers(item.body):
        if "initContainers" not in path:
            mine = [row for row in rows if row.container in ("", container.get("name"))]
            yield from _in_container(path, container, mine)


def _file(row: _Wanted) -> PodFile:
    name = row.name.rpartition("/")[2]
    return PodFile(name, row.value, row.name, (row.container,))


def _field(body: dict[str, Any], path: Path, value: str) -> Iterator[str]:
    """The field, below parents that are made where they are missing."""
    for depth in range(1, len(path)):
        try:
            lookup(body, path[:depth])
        except KeyError:
            yield operation("add", path[:depth], "{}")
    yield operation("add", path, value)


def _in_container(
    path: Path, container: Mapping[str, Any], rows: Sequence[_Wanted]
) -> Iterator[str]:
    flags = [row for row in rows if row.way == "flag"]
    variables = [row for row in rows if row.way == "env"]
    if not flags and not variables:
        return
    yield operation("test", (*path, "name"), scalar(str(container.get("name"))))
    arguments = [f'"{row.name}={row.value[1:-1]}"' for row in flags]
    yield append(container, path, "args", arguments)
    there = {v.get("name"): i for i, v in enumerate(container.get("env") or ())}
    for row in variables:
        if row.name in there:
            value: Path = (*path, "env", there[row.name])
            yield operation("test", (*value, "name"), scalar(row.name))
            yield operation("replace", (*value, "value"), row.value)
    fresh = [row for row in variables if row.name not in there]
    yield append(
        container, path, "env", [f"{{name: {row.name}, value: {row.value}}}" for row in fresh]
    )
