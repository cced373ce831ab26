"""Write the patches that set what a manifest does not set yet, for images of an operator's own.

A variable, a flag, a key of a ConfigMap, a field, or a file over the one in the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy.images.inventory import ImageUse
from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, get_field
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.patch.lookups import format_lookup
from kfdeploy.patchfile.pod_files import PodFile, build_file_operations
from kfdeploy.patchfile.quoting import quote_literal
from kfdeploy.patchfile.writer import JsonPatchText, ObjectPatch

_SettingKind = Literal["env", "flag", "key", "field", "file"]
_PURPOSES: Final[dict[str, tuple[_SettingKind, ...]]] = {
    "env": ("env", "flag"),
    "config": ("key", "field"),
    "file": ("file",),
}
_VALUES: Final = {"{ref}": "ref", "{repository}": "repository", "{tag}": "tag"}
"""A redirect's placeholder to the key of `.Values.images`."""


@dataclass(frozen=True, slots=True)
class _AddedSetting:
    """One thing to set. ``container`` is empty where each container gets it."""

    kind: _SettingKind
    name: str
    value: str
    container: str = ""


def build_additions(
    objects: Sequence[Object], uses: Mapping[ObjectKey, Sequence[ImageUse]]
) -> Iterator[ObjectPatch]:
    """Yield each patch that adds something to an object.

    Args:
        uses: what names images, by object; `ImageUse.adds` and `ImageUse.variables` count.
    """
    wanted = _collect_settings(objects, uses)
    for item in objects:
        settings = list(dict.fromkeys(wanted.get(item.key, ())))
        for purpose, kinds in _PURPOSES.items():
            chosen = [setting for setting in settings if setting.kind in kinds]
            if chosen:
                names = ", ".join(sorted({setting.name for setting in chosen}))
                text = JsonPatchText(item.key, f"sets {names}")
                _write_settings(text, item, chosen)
                yield ObjectPatch(item.key, purpose, str(text))


def _collect_settings(
    objects: Sequence[Object], uses: Mapping[ObjectKey, Sequence[ImageUse]]
) -> dict[ObjectKey, list[_AddedSetting]]:
    """Return what to set in each object."""
    wanted: dict[ObjectKey, list[_AddedSetting]] = {}
    for key, found in uses.items():
        for use in found:
            if use.adds is not None:
                wanted.setdefault(key, []).append(_make_setting(use.adds, use))
            elif use.variables:
                # A script in a ConfigMap reads the image from variables of the pod that mounts it.
                image, tag = use.variables
                settings = [
                    _AddedSetting("env", image, _quote_lookup(use.ref, "repository")),
                    _AddedSetting("env", tag, _quote_lookup(use.ref, "tag")),
                ]
                for reader in objects:
                    if reader.key.namespace == key.namespace and workload.mounts_config(
                        reader.body, key
                    ):
                        wanted.setdefault(reader.key, []).extend(settings)
    return wanted


def _make_setting(redirect: Redirect, use: ImageUse) -> _AddedSetting:
    if redirect.file:
        content = json.dumps(redirect.content)
        return _AddedSetting("file", redirect.file, content, redirect.container)
    key = "byTag" if use.pin and redirect.value == "{ref}" else _VALUES[redirect.value]
    kinds: tuple[_SettingKind, ...] = ("flag", "env", "key", "field")
    kind = next(kind for kind in kinds if getattr(redirect, kind))
    return _AddedSetting(
        kind, getattr(redirect, kind), _quote_lookup(use.ref, key), redirect.container
    )


def _quote_lookup(ref: WrittenRef, key: str) -> str:
    return f'"{format_lookup(ref, key)}"'


def _write_settings(text: JsonPatchText, item: Object, settings: Sequence[_AddedSetting]) -> None:
    for setting in settings:
        if setting.kind == "key":
            _set_field(text, item.body, ("data", setting.name), setting.value)
        elif setting.kind == "field":
            _set_field(text, item.body, tuple(setting.name.split(".")), setting.value)
    files = [_make_pod_file(setting) for setting in settings if setting.kind == "file"]
    if files:
        text.extend(build_file_operations(item.body, files))
    for path, container in workload.list_containers(item.body):
        if "initContainers" not in path:
            name = container.get("name")
            own = [setting for setting in settings if setting.container in ("", name)]
            _set_in_container(text, path, container, own)


def _make_pod_file(setting: _AddedSetting) -> PodFile:
    name = setting.name.rpartition("/")[2]
    return PodFile(name, setting.value, setting.name, (setting.container,))


def _set_field(text: JsonPatchText, body: dict[str, Any], path: Path, value: str) -> None:
    """Set a field, and make the parents that are missing."""
    for depth in range(1, len(path)):
        try:
            get_field(body, path[:depth])
        except KeyError:
            text.add(path[:depth], "{}")
    text.add(path, value)


def _set_in_container(
    text: JsonPatchText,
    path: Path,
    container: Mapping[str, Any],
    settings: Sequence[_AddedSetting],
) -> None:
    flags = [setting for setting in settings if setting.kind == "flag"]
    variables = [setting for setting in settings if setting.kind == "env"]
    if not flags and not variables:
        return
    text.test_text((*path, "name"), str(container.get("name")))
    arguments = [f'"{flag.name}={flag.value[1:-1]}"' for flag in flags]
    text.append_items(container, path, "args", arguments)
    index_of = {entry.get("name"): i for i, entry in enumerate(container.get("env") or ())}
    for variable in variables:
        if variable.name in index_of:
            entry: Path = (*path, "env", index_of[variable.name])
            text.test_text((*entry, "name"), variable.name)
            text.replace((*entry, "value"), variable.value)
    new = [
        f"{{name: {quote_literal(variable.name)}, value: {variable.value}}}"
        for variable in variables
        if variable.name not in index_of
    ]
    text.append_items(container, path, "env", new)
