"""Plain values as YAML text that YAML 1.1 and 1.2 read alike; keys stay in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfdeploy.patch.patch_file import scalar


def document(value: Mapping[str, Any]) -> str:
    """One document, with a line break at its end."""
    return "".join(f"{line}\n" for line in _mapping(value))


def stream(values: Sequence[Mapping[str, Any]]) -> str:
    """Several documents."""
    return "---\n".join(document(value) for value in values)


def _mapping(value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        name = scalar(key)
        if isinstance(item, Mapping) and item:
            yield f"{name}:"
            yield from (f"  {line}" for line in _mapping(item))
        elif isinstance(item, list | tuple) and item:
            yield f"{name}:"
            yield from _list(item)
        elif isinstance(item, str) and "\n" in item:
            yield f"{name}: |"
            yield from (f"  {line}" if line else "" for line in item.removesuffix("\n").split("\n"))
        else:
            yield f"{name}: {_flat(item)}"


def _list(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            first, *rest = _mapping(item)
            yield f"- {first}"
            yield from (f"  {line}" if line else "" for line in rest)
        else:
            yield f"- {_flat(item)}"


def _flat(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return scalar(str(value))
