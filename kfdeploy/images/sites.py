"""The search of an object for images: the one traversal that scan lists and patch rewrites.

It searches pod specs in any kind, custom resources, env values, flags, ConfigMap values, texts in
strings (YAML, JSON, INI, scripts), and references that are joined from two fields at run time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.mentions import Mention, find_mentions, is_plausible, is_strong
from kfdeploy.kubernetes.objects import ObjectKey, Path
from kfdeploy.kubernetes.workload import CONTAINERS, WORKLOADS
from kfdeploy.oci.reference import WrittenRef

_IMAGE_KEY = re.compile(r"image(?:name|uri|ref|url|s)?$|^image|[a-z]Image|_IMAGE|-image", re.ASCII)
_NOT_IMAGE = re.compile(
    r"pull|secret|polic|version|tag|type|size|id$|group|count|hash|digest|hide|allow|readonly|prefix"
)
_FLAG = re.compile(r"(--?[A-Za-z][\w.-]*)=(.+)", re.DOTALL)
_ITEM = re.compile(r"[^\s,;]+")
_DOCUMENTATION = frozenset(("_example",))
"""ConfigMap keys that nothing reads; Knative even keeps a checksum over them."""
_SKIPPED_METADATA = frozenset(("labels", "managedFields", "ownerReferences", "selector"))


@dataclass(frozen=True, slots=True)
class Site:
    """One string field that names images."""

    key: ObjectKey
    path: Path
    value: str
    how: str
    mentions: tuple[Mention, ...]


def find_sites(key: ObjectKey, body: dict[str, Any]) -> Iterator[Site]:
    """Yield the object's sites, in document order.

    CustomResourceDefinitions have none: their schemas have properties called ``image``.
    """
    if key.kind == "CustomResourceDefinition":
        return
    yield from _walk_node(_SearchedObject(key, body), body, (), "")


def names_image(key: str) -> bool:
    """Return whether a key, variable or flag of this name holds an image."""
    _, image, after = key.lower().partition("image")
    if not image or _NOT_IMAGE.search(after):
        return False
    return bool(_IMAGE_KEY.search(key) or key.lower().endswith(("image", "images")))


@dataclass(frozen=True, slots=True)
class _SearchedObject:
    key: ObjectKey
    body: dict[str, Any]

    @property
    def is_config(self) -> bool:
        return self.key.kind in ("ConfigMap", "Secret")

    def make_site(self, path: Path, value: str, how: str, *mentions: Mention) -> Site:
        return Site(self.key, path, value, how, mentions)


def _walk_node(obj: _SearchedObject, node: Any, path: Path, context: str) -> Iterator[Site]:
    if isinstance(node, dict):
        for name, value in node.items():
            if isinstance(name, str) and not _is_skipped(obj, path, name):
                yield from _walk_field(obj, path, name, value)
    elif isinstance(node, list):
        yield from _walk_items(obj, node, path, context)


def _is_skipped(obj: _SearchedObject, path: Path, name: str) -> bool:
    if path and path[-1] == "metadata" and name in _SKIPPED_METADATA:
        return True
    if name in ("matchLabels", "matchExpressions", "apiVersion", "kind"):
        return True
    return (
        obj.is_config
        and path in (("data",), ("binaryData",))
        and (name in _DOCUMENTATION or path == ("binaryData",))
    )


def _walk_field(obj: _SearchedObject, path: Path, name: str, value: Any) -> Iterator[Site]:
    here = (*path, name)
    if name in CONTAINERS and isinstance(value, list):
        yield from _walk_containers(obj, value, here)
    elif name == "env" and isinstance(value, list):
        yield from _walk_env(obj, value, here)
    elif name in ("args", "command") and isinstance(value, list):
        yield from _walk_arguments(obj, value, here)
    elif isinstance(value, str):
        yield from _search_string(obj, here, value, name)
    else:
        yield from _walk_node(obj, value, here, name)


def _walk_items(obj: _SearchedObject, node: list[Any], path: Path, context: str) -> Iterator[Site]:
    for index, value in enumerate(node):
        if isinstance(value, str):
            yield from _search_string(obj, (*path, index), value, context)
        else:
            yield from _walk_node(obj, value, (*path, index), context)


def _walk_containers(obj: _SearchedObject, containers: list[Any], path: Path) -> Iterator[Site]:
    how = "pod-spec" if obj.key.kind in WORKLOADS else "custom-resource"
    for index, container in enumerate(containers):
        if not isinstance(container, dict):
            continue
        for name, value in container.items():
            here = (*path, index, name)
            if name == "image" and isinstance(value, str):
                if ref := WrittenRef.try_parse(value):
                    yield obj.make_site(here, value, how, Mention.from_value(ref))
            else:
                yield from _walk_field(obj, (*path, index), str(name), value)


def _walk_env(obj: _SearchedObject, variables: list[Any], path: Path) -> Iterator[Site]:
    for index, variable in enumerate(variables):
        value = variable.get("value") if isinstance(variable, dict) else None
        if not isinstance(value, str):
            continue
        here = (*path, index, "value")
        name = str(variable.get("name", ""))
        if ref := _parse_image_value(name, value):
            yield obj.make_site(here, value, "env", Mention.from_value(ref))
        else:
            yield from _search_text(obj, here, value, "env", name)


def _walk_arguments(obj: _SearchedObject, arguments: list[Any], path: Path) -> Iterator[Site]:
    previous = ""
    for index, argument in enumerate(arguments):
        if not isinstance(argument, str):
            previous = ""
            continue
        here = (*path, index)
        flag = _FLAG.fullmatch(argument)
        name, value = (flag[1], flag[2]) if flag else (previous, argument)
        if _parse_image_value(name, value):
            start = len(argument) - len(value)
            yield obj.make_site(
                here, argument, "argument", Mention.from_span(argument, start, len(argument))
            )
        else:
            yield from _search_text(obj, here, argument, "argument", name)
        previous = argument if argument.startswith("-") and not flag else ""


def _search_string(obj: _SearchedObject, path: Path, value: str, name: str) -> Iterator[Site]:
    how = "config" if obj.is_config else "custom-resource"
    if obj.key.kind in WORKLOADS:
        how = "pod-spec"
    if path[0] == "metadata" or path[-2:-1] == ("annotations",):
        # Free text for people and other tools; an image only under a name that says so.
        if names_image(name.rpartition("/")[2]) and is_plausible(value):
            yield obj.make_site(path, value, how, Mention.from_value(WrittenRef.parse(value)))
    elif path[-2:] == ("image", "reference"):
        if ref := WrittenRef.try_parse(value):
            yield obj.make_site(path, value, how, Mention.from_value(ref))
    elif ref := _parse_image_value(name, value):
        yield obj.make_site(path, value, how, Mention.from_value(ref))
    else:
        yield from _search_text(obj, path, value, how, name)


def _parse_image_value(name: str, value: str) -> WrittenRef | None:
    """Return the image that a whole value is, by its form alone or by its form and its name."""
    if is_strong(value) or (names_image(name) and is_plausible(value)):
        return WrittenRef.parse(value)
    return None


def _search_text(
    obj: _SearchedObject, path: Path, value: str, how: str, name: str
) -> Iterator[Site]:
    mentions = (names_image(name) and _split_image_list(value)) or find_mentions(value)
    if not mentions:
        return
    if how == "config" and _is_script(str(path[-1]), value):
        how = "script"
    plain = tuple(m for m in mentions if not m.is_assembled)
    scripted = tuple(m for m in mentions if m.variables)
    joined = tuple(m for m in mentions if m.is_assembled and not m.variables)
    if plain:
        yield obj.make_site(path, value, how, *plain)
    if scripted:
        yield obj.make_site(path, value, "script", *scripted)
    if joined:
        yield obj.make_site(path, value, "assembled", *joined)


def _split_image_list(value: str) -> tuple[Mention, ...]:
    """Return the images of a list in one string, such as ``a/b:1,c/d:2``."""
    items = list(_ITEM.finditer(value))
    if not all(is_plausible(item[0]) for item in items):
        return ()
    return tuple(Mention.from_span(value, item.start(), item.end()) for item in items)


def _is_script(name: str, value: str) -> bool:
    return name.endswith((".py", ".sh", ".js")) or value.startswith("#!")
