"""What a manifest does not say yet and a patch must add, so that an operator's own images are ours.

A variable, a flag, a key of a ConfigMap, a field, or a file over the image's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.inventory import ImageUse
from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, get_field
from kfdeploy.patch.lookups import format_lookup
from kfdeploy.patchfile import pod_files
from kfdeploy.patchfile.patch_file import format_operation, target_yaml
from kfdeploy.patchfile.pod_files import PodFile
from kfdeploy.patchfile.writer import append_items, describe_object
from kfdeploy.yamltext.emit import quote_scalar

_PARTS = {"{ref}": "ref", "{repository}": "repository", "{tag}": "tag"}


@dataclass(frozen=True, slots=True)
class _AddedSetting:
    """One thing to add. ``container`` is empty where each container takes it."""

    way: str
    name: str
    value: str
    container: str = ""


def build_additions(
    objects: Sequence[Object], places: Mapping[ObjectKey, Sequence[tuple[str, ImageUse]]]
) -> Iterator[tuple[ObjectKey, str, str]]:
    """Object, purpose and body of each patch that adds something.

    Args:
        places: what was found, by object; those with `Found.adds`, and scripts' variables.
    """
    wanted: dict[ObjectKey, list[_AddedSetting]] = {}
    for key, found in places.items():
        for ref, place in found:
            if place.adds is not None:
                wanted.setdefault(key, []).append(_make_setting(place.adds, ref, place))
            elif place.variables:
                image, tag = place.variables
                rows = [
                    _AddedSetting("env", image, _quote_lookup(ref, "repository")),
                    _AddedSetting("env", tag, _quote_lookup(ref, "tag")),
                ]
                for reader in objects:
                    if reader.key.namespace == key.namespace and workload.mounts_config(
                        reader.body, key
                    ):
                        wanted.setdefault(reader.key, []).extend(rows)
    for item in objects:
        rows = list(dict.fromkeys(wanted.get(item.key, ())))
        for purpose, ways in _PURPOSES.items():
            some = [row for row in rows if row.way in ways]
            if some:
                names = ", ".join(sorted({row.name for row in some}))
                head = (
                    f"# {describe_object(item.key)}: sets {names}\n{target_yaml(item.key)}patch:\n"
                )
                yield item.key, purpose, head + "".join(_build_operations(item, some))


_PURPOSES = {"env": ("env", "flag"), "config": ("key", "field"), "file": ("file",)}


def _make_setting(redirect: Redirect, ref: str, place: ImageUse) -> _AddedSetting:
    part = "byTag" if place.pin and redirect.value == "{ref}" else _PARTS[redirect.value]
    value = _quote_lookup(ref, part)
    if redirect.file:
        return _AddedSetting(
            "file", redirect.file, json.dumps(redirect.content), redirect.container
        )
    way = next(way for way in ("flag", "env", "key", "field") if getattr(redirect, way))
    return _AddedSetting(way, getattr(redirect, way), value, redirect.container)


def _quote_lookup(ref: str, part: str) -> str:
    return f'"{format_lookup(ref, part)}"'


def _build_operations(item: Object, rows: Sequence[_AddedSetting]) -> Iterator[str]:
    for row in rows:
        if row.way == "key":
            yield from _set_field(item.body, ("data", row.name), row.value)
        elif row.way == "field":
            yield from _set_field(item.body, tuple(row.name.split(".")), row.value)
    files = [_make_pod_file(row) for row in rows if row.way == "file"]
    if files:
        yield from pod_files.build_file_operations(item.body, files)
    for path, container in workload.list_containers(item.body):
        if "initContainers" not in path:
            mine = [row for row in rows if row.container in ("", container.get("name"))]
            yield from _patch_container(path, container, mine)


def _make_pod_file(row: _AddedSetting) -> PodFile:
    name = row.name.rpartition("/")[2]
    return PodFile(name, row.value, row.name, (row.container,))


def _set_field(body: dict[str, Any], path: Path, value: str) -> Iterator[str]:
    """The field, below parents that are made where they are missing."""
    for depth in range(1, len(path)):
        try:
            get_field(body, path[:depth])
        except KeyError:
            yield format_operation("add", path[:depth], "{}")
    yield format_operation("add", path, value)


def _patch_container(
    path: Path, container: Mapping[str, Any], rows: Sequence[_AddedSetting]
) -> Iterator[str]:
    flags = [row for row in rows if row.way == "flag"]
    variables = [row for row in rows if row.way == "env"]
    if not flags and not variables:
        return
    yield format_operation("test", (*path, "name"), quote_scalar(str(container.get("name"))))
    arguments = [f'"{row.name}={row.value[1:-1]}"' for row in flags]
    yield append_items(container, path, "args", arguments)
    there = {v.get("name"): i for i, v in enumerate(container.get("env") or ())}
    for row in variables:
        if row.name in there:
            value: Path = (*path, "env", there[row.name])
            yield format_operation("test", (*value, "name"), quote_scalar(row.name))
            yield format_operation("replace", (*value, "value"), row.value)
    fresh = [row for row in variables if row.name not in there]
    yield append_items(
        container, path, "env", [f"{{name: {row.name}, value: {row.value}}}" for row in fresh]
    )
