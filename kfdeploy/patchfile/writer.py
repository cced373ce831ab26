"""The pieces that generated patches are written from: names, guards, look-ups."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kfdeploy.kubernetes.accessors import get_annotations
from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, get_field
from kfdeploy.patchfile.patch_file import format_operation
from kfdeploy.yamltext.emit import quote_scalar

HOOK = "helm.sh/hook"


def describe_object(key: ObjectKey) -> str:
    """An object for people, without the hash of a content that moves with every release."""
    return str(replace(key, name=strip_name_hash(key)))


def name_files(keys: Sequence[ObjectKey]) -> dict[ObjectKey, str]:
    """A file name for each object: KIND-NAME, with the namespace or group where needed."""

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
    return tuple((0, s, "") if isinstance(s, int) else (1, 0, s) for s in path)


def find_hooks(item: Object) -> list[str]:
    return sorted(name for name in get_annotations(item.body) if name.startswith(HOOK))


def find_item_names(body: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Names of the list items on the way: an index that moved is found by them."""
    for depth in range(1, len(path)):
        if isinstance(path[depth - 1], int):
            item = get_field(body, path[:depth])
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str):
                yield (*path[:depth], "name"), name


def format_annotation_patch(key: ObjectKey, path: Path, annotations: Mapping[str, str]) -> str:
    """A strategic merge patch that sets annotations at ``path``."""
    lines = [f"apiVersion: {key.api_version}", f"kind: {key.kind}", "metadata:"]
    lines.append(f"  name: {quote_scalar(key.name)}")
    if key.namespace:
        lines.append(f"  namespace: {quote_scalar(key.namespace)}")
    indent = "  "
    for depth, step in enumerate(path):
        lines.append(f"{'  ' * depth}{step}:")
        indent = "  " * (depth + 2)
    if path:
        lines.append(f"{'  ' * len(path)}metadata:")
    lines.append(f"{indent}annotations:")
    lines += [f"{indent}  {name}: {value}" for name, value in annotations.items()]
    return "\n".join(lines) + "\n"


def append_items(container: Mapping[str, Any], path: Path, name: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    if container.get(name):
        return "".join(format_operation("add", (*path, name, "-"), item) for item in items)
    return format_operation("add", (*path, name), "[" + ", ".join(items) + "]")


def quote_literal(value: str) -> str:
    """A string in a template: upstream's own braces stay what they are."""
    return f"{{{{ {quote_go_string(value)} | toJson }}}}" if "{{" in value else quote_scalar(value)


def quote_go_string(text: str) -> str:
    """A Go string literal: raw where the text has quotes."""
    if '"' in text and "`" not in text and "\r" not in text:
        return f"`{text}`"
    return json.dumps(text, ensure_ascii=False)
